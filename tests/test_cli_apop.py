"""`srd-onnx apop`: what it writes and says; and folders of photos, which `explain` takes too."""

import json
from pathlib import Path

import pytest
from PIL import Image

from srd_onnx.apop.table import INPUTS, PATTERNS
from tests.cli_tools import document, photo, run, small

FIELDS = {
    "command", "created", "model", "preprocess", "preprocess_assumed", "layout", "provider", "versions", "notes",
    "photos", "seed", "inputs", "patterns", "agreement", "errors",
}  # fmt: skip


def folder_of_photos(folder: Path, count: int = 3) -> Path:
    folder.mkdir()
    for number in range(count):
        photo(folder / f"{number}.png", number)
    (folder / "notes.txt").write_text("no photo")
    return folder


def test_a_folder_becomes_a_table_a_picture_and_its_numbers(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos")
    result = run("apop", small(tmp_path), photos, "--crop", "32", "-o", tmp_path / "out")
    assert result.exit_code == 0
    for said in (
        *INPUTS,
        *PATTERNS,
        "6 of 6 layers",
        "100 / 100 %",
        "of 3 photos",
        "apop.png and apop.json are in",
    ):
        assert said in result.stdout
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["apop.json", "apop.png"]
    with Image.open(tmp_path / "out" / "apop.png") as picture:
        assert picture.width > 1000


def test_the_json_has_every_field_and_is_what_the_file_says(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos")
    options = ("--resize", "32x32", "--mean", "0", "--std", "1", "--channel-order", "BGR", "--scale", "1/255")
    found = document(run("apop", small(tmp_path), photos, "-o", tmp_path, "--json", "--seed", "7", *options))
    assert set(found) == FIELDS
    assert json.loads((tmp_path / "apop.json").read_text()) == found
    assert found["photos"] == ["0", "1", "2"]
    assert found["seed"] == 7
    assert found["preprocess"]["channel_order"] == "BGR"
    assert not found["preprocess_assumed"]
    assert found["patterns"]["exact"] == {"layers": 6, "of": 6}
    rows = {(row["input"], row["pattern"]): row for row in found["agreement"]}
    assert set(rows) == {(kind, pattern) for kind in INPUTS for pattern in PATTERNS}
    assert {row["count"] for row in rows.values()} == {3}
    assert rows["itself", "exact"]["top1"] == 3


def test_a_photo_that_cannot_be_read_is_an_error_after_the_others(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos")
    (photos / "broken.jpg").write_bytes(b"\xff\xd8 broken")
    result = run("apop", small(tmp_path), photos, "-o", tmp_path, "--json")
    assert result.exit_code == 2
    found = document(result)
    assert found["photos"] == ["0", "1", "2"]
    assert [Path(one["image"]).name for one in found["errors"]] == ["broken.jpg"]
    assert "broken.jpg" in result.stderr
    assert "1 of 4 images could not be used" in result.stderr


def test_nothing_is_written_where_no_photo_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"broken")
    result = run("apop", small(tmp_path), tmp_path / "broken.png", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_guess_is_said_and_kept(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos", 2)
    result = run("apop", small(tmp_path), photos, "-o", tmp_path, "--json")
    assert "preprocessing ASSUMED" in result.stderr
    assert any("preprocessing ASSUMED" in text for text in document(result)["notes"])


@pytest.mark.parametrize("command", ["apop", "explain"])
def test_a_folder_without_photos_is_an_error(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    result = run(command, small(tmp_path), tmp_path / "empty", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "is a folder without photos (avif, bmp" in result.stderr


def test_explain_takes_folders_too(tmp_path: Path) -> None:
    photos = folder_of_photos(tmp_path / "photos")
    found = document(
        run("explain", small(tmp_path), photos, photos / "1.png", "-o", tmp_path / "out", "--json")
    )
    assert [one["name"] for one in found["explanations"]] == ["0", "1", "2", "1-2"]
