"""`srd-onnx explain`: what it writes and says."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from srd_onnx import Explainer
from srd_onnx.cli.options import size_of, targets_of
from srd_onnx.targets import Contrast
from srd_onnx.zoo import sample_photo, zoo
from tests.cli_tools import HOSTILE, document, photo, run, saved, small

RUN = {
    "command", "created", "folder", "notes", "complete", "explanations", "errors", "model", "layout", "layout_guessed",
    "precision", "fixed", "preprocess", "preprocess_assumed", "method", "preset", "options", "provider", "versions",
}  # fmt: skip
ONE = {
    "image", "name", "target", "label", "logit", "files", "residual", "ledger", "top5", "seed_value", "sum_relevance",
    "sum_ledger", "boundary", "target_tensor", "approximate", "seconds", "input", "rival", "warnings", "bounded",
}  # fmt: skip


def test_the_demo_writes_a_picture_its_numbers_and_the_list(tmp_path: Path) -> None:
    result = run("explain", "squeezenet11", sample_photo(), "--out", tmp_path / "new" / "out")
    assert result.exit_code == 0
    assert result.stderr == ""
    for said in (
        "Egyptian cat (285)",
        "Σ relevance",
        "residual",
        "top 5: ",
        "2 files and explanations.json are in",
    ):
        assert said in result.stdout
    written = sorted(path.name for path in (tmp_path / "new" / "out").iterdir())
    assert written == ["chelsea.285.npz", "chelsea.285.png", "explanations.json"]
    with Image.open(tmp_path / "new" / "out" / "chelsea.285.png") as picture:
        assert picture.width > 1000


def test_the_json_has_every_field_and_the_numbers_of_the_python_api(tmp_path: Path) -> None:
    result = run("explain", "squeezenet11", sample_photo(), "--out", tmp_path, "--json", "--target", "top2")
    found = document(result)
    assert set(found) == RUN
    assert json.loads((tmp_path / "explanations.json").read_text()) == found
    assert found["model"]["sha256"] == zoo()["squeezenet11"].sha256
    assert set(found["model"]) == {"path", "sha256", "opset", "producer", "parameters"}
    wanted = Explainer("squeezenet11").explain(sample_photo(), "top2")
    assert [one["target"] for one in found["explanations"]] == [285, 282]
    for one, right in zip(found["explanations"], wanted, strict=True):
        assert set(one) == ONE
        assert set(one["seconds"]) == {"compile", "run"}
        assert one["logit"] == pytest.approx(right.score, rel=1e-6)
        assert one["sum_relevance"] == pytest.approx(right.meta["sum_relevance"], rel=1e-6)
        assert one["residual"] == pytest.approx(right.residual, abs=1e-4)
        assert one["ledger"] == right.ledger
        assert [top["index"] for top in one["top5"]] == [top["index"] for top in right.meta["top5"]]
        assert one["boundary"] == right.meta["boundary"]
        with np.load(tmp_path / one["files"]["npz"]) as archive:
            np.testing.assert_allclose(archive["relevance"], right.relevance, rtol=1e-5, atol=1e-7)


def test_options_reach_the_engine(tmp_path: Path) -> None:
    given = {"boundary": "pool1", "seed": "contrast", "sign": "positive", "bias": "ledger"}
    options = [part for name, value in given.items() for part in (f"--{name}", value)]
    found = document(
        run("explain", small(tmp_path), photo(tmp_path / "a.png"), "-o", tmp_path / "o", *options, "--json")
    )
    assert found["options"] == given | {"focus": "none", "smooth": 2.0}  # what the default preset says else
    assert found["explanations"][0]["boundary"] == ["pool1"]
    assert (
        "seed" in run("explain", small(tmp_path), tmp_path / "a.png", "-o", tmp_path / "o", *options).stdout
    )


def test_images_with_the_same_stem_get_names_of_their_own(tmp_path: Path) -> None:
    photos = []
    for number, name in enumerate(("a/cat.png", "b/cat.png", "cat-2.png", "c/CAT.png")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        photos.append(photo(path, number))
    found = document(run("explain", small(tmp_path), *photos, "-t", 3, "-o", tmp_path / "o", "--json"))
    assert [one["name"] for one in found["explanations"]] == ["cat", "cat-2", "cat-2-2", "CAT-3"]
    assert [one["image"] for one in found["explanations"]] == [str(path) for path in photos]
    assert len(list((tmp_path / "o").iterdir())) == 9


def test_no_image_of_the_user_is_overwritten(tmp_path: Path) -> None:
    photos = [photo(tmp_path / "cat.png", 1), photo(tmp_path / "cat.3.png", 2)]
    before = [path.read_bytes() for path in photos]
    found = document(run("explain", small(tmp_path), *photos, "-t", 3, "-o", tmp_path, "--json"))
    assert [one["name"] for one in found["explanations"]] == ["cat-2", "cat.3"]
    assert [path.read_bytes() for path in photos] == before


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps([HOSTILE] * 10))
    image = photo(tmp_path / f"{HOSTILE.replace('/', ':')}.png")
    arguments = ("explain", small(tmp_path), image, "-o", tmp_path / "o", "--labels", labels)
    result = run(*arguments)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout + result.stderr
    assert "[red]x[/red] <script> [31m猫 (" in result.stdout
    found = document(run(*arguments, "--json"))
    assert found["explanations"][0]["label"] == HOSTILE
    assert found["explanations"][0]["image"] == str(image)
    assert {path.parent for path in (tmp_path / "o").iterdir()} == {tmp_path / "o"}


def test_assumed_preprocessing_is_said_loudly_with_the_options_that_settle_it(tmp_path: Path) -> None:
    model, image = small(tmp_path), photo(tmp_path / "a.png")
    result = run("explain", model, image, "-o", tmp_path / "o")
    assert "warning: preprocessing ASSUMED (scale, mean, std, resize, crop, channel-order)" in result.stderr
    said = result.stderr.split("This run uses\n")[1].split("\n")[0].split()
    assert said[:4] == ["--resize", "37", "--crop", "32x32"]
    assert "layout NCHW guessed from the input of 1x3x32x32; --layout says another" in result.stderr
    again = run("explain", model, image, "-o", tmp_path / "again", *said, "--layout", "nchw")
    first, second = (
        json.loads((tmp_path / name / "explanations.json").read_text()) for name in ("o", "again")
    )
    assert first["preprocess_assumed"] is True
    assert first["notes"][0].startswith("preprocessing ASSUMED")
    assert second["preprocess_assumed"] is False
    (one,) = second["explanations"]  # nothing is left to say but what the result itself shows
    assert second["notes"] == [f"a, class {one['target']}: {text}" for text in one["warnings"]]
    assert again.stderr.splitlines() == second["notes"]
    assert first["explanations"][0]["logit"] == second["explanations"][0]["logit"]


def test_a_wrong_number_of_labels_is_noted(tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\n")
    result = run(
        "explain",
        small(tmp_path),
        photo(tmp_path / "a.png"),
        "-o",
        tmp_path / "o",
        "--labels",
        labels,
        "-t",
        7,
    )
    assert result.exit_code == 0
    assert "the labels do not fit: 2 labels for 10 scores" in result.stderr
    assert "class 7" in result.stdout


def test_a_grey_model_gets_a_grey_photo(tmp_path: Path) -> None:
    from tests.nets import two_nodes

    model = two_nodes()
    result = run(
        "explain", saved(model, tmp_path / "m.onnx"), photo(tmp_path / "a.png"), "-o", tmp_path / "o"
    )
    assert "--channel-order GRAY" in result.stderr


def test_one_bad_image_among_several_is_reported_and_the_others_are_done(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no picture")
    photos = [photo(tmp_path / "a.png", 1), bad, photo(tmp_path / "b.png", 2)]
    result = run("explain", small(tmp_path), *photos, "-o", tmp_path / "o", "--json", "--target", "1,2")
    assert result.exit_code == 2
    found = document(result)
    assert [one["name"] for one in found["explanations"]] == ["a", "a", "b", "b"]
    (error,) = found["errors"]
    assert (error["image"], error["error"]) == (str(bad), "ImageError")
    assert found["complete"] is True
    assert f"error: {bad}: not an image" in result.stderr
    assert "1 of 3 images could not be explained" in result.stderr
    assert len(list((tmp_path / "o").iterdir())) == 9


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        (None, None),
        ([], None),
        (["281"], ["281"]),
        (["281, 285,top3"], ["281", "285", "top3"]),
        (["tabby, tabby cat", "3"], ["tabby, tabby cat", "3"]),
        (["1, 2-dichloroethane"], ["1, 2-dichloroethane"]),
    ],
)
def test_a_comma_parts_indices_but_not_labels(given: list[str] | None, targets: list[str] | None) -> None:
    assert targets_of(given) == targets


def test_a_label_with_a_comma_is_one_target(tmp_path: Path) -> None:
    arguments = ("explain", "squeezenet11", sample_photo(), "-o", tmp_path, "--json")
    found = document(run(*arguments, "-t", "tabby, tabby cat", "-t", "282,285"))
    assert [one["target"] for one in found["explanations"]] == [281, 282, 285]


def test_contrasts_are_explained_beside_targets_or_alone(tmp_path: Path) -> None:
    arguments = ("explain", "squeezenet11", sample_photo(), "-o", tmp_path, "--json")
    alone = document(run(*arguments, "--contrast", "285", "tabby, tabby cat"))
    assert [one["target"] for one in alone["explanations"]] == ["285-over-281"]
    (right,) = Explainer("squeezenet11").explain(sample_photo(), Contrast(285, 281))
    assert alone["explanations"][0]["label"] == right.label
    with np.load(tmp_path / "chelsea.285-over-281.npz") as archive:
        np.testing.assert_allclose(archive["relevance"], right.relevance, rtol=1e-5, atol=1e-7)
    pairs = ("--contrast", 285, 281, "--contrast", 281, 285)
    both = document(run(*arguments, *pairs, "-t", 285))
    assert [one["target"] for one in both["explanations"]] == [285, "285-over-281", "281-over-285"]
    assert "Egyptian cat (285) rather than tabby, tabby cat (281)" in run(*arguments[:-1], *pairs).stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--contrast", "285", "--json"],
            "--contrast takes two classes: what speaks for A rather than B; got '285'",
        ),
        (["--contrast=285"], "--contrast takes two classes"),
        (["--contrast", "3", "3"], "a contrast is between two classes, but both are class 3"),
        (["--contrast", "3", "-1"], "target -1 does not exist"),
        (["--contrast", "3", "top2"], "a contrast is between two classes: '3' and 'top2' are more"),
        (["--contrast"], "requires an argument"),
    ],
)
def test_what_is_no_contrast_is_said(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = run("explain", small(tmp_path), photo(tmp_path / "a.png"), "-o", tmp_path / "o", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "o").exists()


def test_in_little_memory_the_map_is_the_same(tmp_path: Path) -> None:
    found = {}
    for size in ("", "20MB"):
        given = ("--max-memory", size) if size else ()
        result = run("explain", "squeezenet11", sample_photo(), "--out", tmp_path / f"at {size}", *given)
        assert result.exit_code == 0
        with np.load(tmp_path / f"at {size}" / "chelsea.285.npz") as archive:
            found[size] = archive["relevance"]
    np.testing.assert_allclose(found["20MB"], found[""], atol=1e-5 * np.abs(found[""]).max())


def test_in_too_little_memory_it_says_how_much_it_takes(tmp_path: Path) -> None:
    result = run("explain", "squeezenet11", sample_photo(), "--out", tmp_path, "--max-memory", "1.5kB")
    assert result.exit_code == 2
    assert "max_memory=1500: at once the explanation takes about " in result.stderr
    assert " at the least" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("500MB", 500_000_000),
        ("2GB", 2_000_000_000),
        ("1.5GiB", 3 << 29),
        (" 64 kib ", 65536),
        (".5mb", 500_000),
        ("12345", 12345),
        ("7B", 7),
        ("1tb", 10**12),
        (None, None),
    ],
)
def test_sizes(text: str | None, size: int | None) -> None:
    assert size_of(text) == size


@pytest.mark.parametrize(
    "text", ["", "MB", "-1GB", "1e9", "1,5GB", "2 GB more", "2XB", "1iB", "GB2", "nan", "٣GB", "2G"]
)
def test_what_is_no_size_is_refused(text: str, tmp_path: Path) -> None:
    result = run("explain", "squeezenet11", sample_photo(), "--out", tmp_path, f"--max-memory={text}")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: '{text}' is no size: give a number of bytes, or one such as 500MB, 2GB or 1.5GiB\n"
    )
