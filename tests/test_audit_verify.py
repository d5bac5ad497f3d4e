"""`verify` notices whatever is done to a report, its model or its images."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from srd_onnx.audit.config import Config
from srd_onnx.audit.manifest import MANIFEST, OWN, files_in, write_manifest
from srd_onnx.audit.maps import open_maps
from srd_onnx.audit.output import JSON, MAPS, STATE
from srd_onnx.audit.run import run_audit
from srd_onnx.audit.state import open_state
from srd_onnx.audit.verify import verify
from srd_onnx.errors import AuditError
from tests.audit_tools import QUICK, SHOWN, audited, colours, folder
from tests.cli_tools import run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    audited(place)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy, which may be spoilt; model and images lie where they were."""
    shutil.copytree(made / "out", tmp_path / "out")
    return tmp_path / "out"


def test_nothing_is_wrong_with_what_was_written(place: Path) -> None:
    found = verify(place, sample=4)
    assert found.problems == ()
    assert found.maps == 4
    assert found.deviation == 0
    assert found.files == len(files_in(place)) - 2
    done = run("verify", place)
    assert done.exit_code == 0
    assert "are as they were written; 4 maps computed again differ by 0.0e+00" in done.stdout


def test_one_flipped_byte_in_any_file(place: Path) -> None:
    for name, path in files_in(place).items():
        content = path.read_bytes()
        for at in {0, len(content) // 2, len(content) - 1}:
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            if name in (MANIFEST, OWN):
                with pytest.raises(AuditError, match=r"manifest.json was changed|damaged|cannot be read"):
                    verify(place, sample=0)
            else:
                (problem,) = verify(place, sample=0).problems
                assert problem.startswith(f"{name} was changed: its sha256 is")
        path.write_bytes(content)
    assert verify(place, sample=0).problems == ()


def test_files_that_are_missing_added_cut_or_linked(place: Path, tmp_path: Path) -> None:
    (place / "report.csv").unlink()
    (place / "state" / "more.txt").write_text("more")
    (place / JSON).write_bytes((place / JSON).read_bytes()[:-1])
    shutil.move(place / "report.html", tmp_path / "elsewhere.html")
    (place / "report.html").symlink_to(tmp_path / "elsewhere.html")
    done = run("verify", place)
    assert done.exit_code == 1
    for said in (
        "report.csv is missing",
        "report.json was changed: it has",
        "report.html is a link",
        "state/more.txt is not of this report: it was added",
    ):
        assert said in done.stderr
    assert len(done.stderr.strip().split("error: ")) == 5


def test_no_report(tmp_path: Path) -> None:
    done = run("verify", tmp_path)
    assert done.exit_code == 2
    assert "manifest.json.sha256 is not there: this is no report" in done.stderr


def test_a_changed_model(place: Path, made: Path, tmp_path: Path) -> None:
    model = onnx.load(made / "model.onnx")
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 3, 1, 1), np.float32), "w"))
    onnx.save(model, tmp_path / "changed.onnx")
    assert (
        "the model was changed: its sha256 was"
        in verify(place, models=[tmp_path / "changed.onnx"]).problems[0]
    )
    content = bytearray((made / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "flipped.onnx").write_bytes(content)
    (problem,) = verify(place, models=[tmp_path / "flipped.onnx"]).problems
    assert "changed" in problem
    (problem,) = verify(place, models=[tmp_path / "nowhere.onnx"]).problems
    assert "the model is not at" in problem
    assert run("verify", place, "--model", tmp_path / "nowhere.onnx", "--files-only").exit_code == 0


def test_changed_and_missing_images(place: Path, made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "images", tmp_path / "images")
    assert verify(place, images=tmp_path / "images").problems == ()
    (tmp_path / "images" / "0_red.png").unlink()
    shutil.copy(tmp_path / "images" / "2_blue.png", tmp_path / "images" / "1_green.png")
    missing, changed = sorted(
        verify(place, images=tmp_path / "images").problems, key=lambda said: "changed" in said
    )
    assert "image 0_red.png is not in" in missing
    assert "image 1_green.png was changed: its sha256 is" in changed


def _spoil_map(place: Path) -> None:
    """A map that is not of this image, with a row and a manifest that say that it is."""
    with open_state(place / STATE) as state:
        row = state.explanations()[0]
        maps = open_maps(place / MAPS, 4)
        kept = maps.read(row.row, row.shape, row.digest)
        assert kept is not None
        digest = maps.write(row.row, kept * 1.01)
        state._write("UPDATE explanations SET digest = ? WHERE digest = ?", (digest, row.digest))


def _spoil_digest(place: Path) -> None:
    with open_state(place / STATE) as state:
        state._write("UPDATE explanations SET digest = ?", ("0" * 64,))


def _spoil_codec(place: Path) -> None:
    path = place / MAPS / "16x16" / "zarr.json"
    described = json.loads(path.read_text())
    described["codecs"].append({"name": "gzip", "configuration": {"level": 1}})
    path.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_spoil_map, r"is another when it is computed again: it differs by 9.9e-03 of its largest value"),
        (_spoil_digest, "is not what its row in state/rows.sqlite says"),
        (_spoil_codec, "is no array of maps"),
    ],
)
def test_a_forged_report(place: Path, spoil: Callable[[Path], None], said: str) -> None:
    spoil(place)
    about = {
        key: value for key, value in json.loads((place / MANIFEST).read_text()).items() if key != "files"
    }
    write_manifest(place, about)
    problems = verify(place, sample=4).problems
    assert any(said in problem for problem in problems)


def test_a_manifest_that_names_files_elsewhere_opens_none(place: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    found = json.loads((place / MANIFEST).read_text())
    found["files"]["../secret"] = {"bytes": 6, "sha256": "0" * 64}
    data = json.dumps(found).encode()
    (place / MANIFEST).write_bytes(data)
    (place / OWN).write_text(f"{hashlib.sha256(data).hexdigest()}  {MANIFEST}\n")
    assert verify(place, sample=0).problems == ("../secret is missing",)


def test_a_model_with_options_and_one_with_a_function(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 2)
    base = colours(tmp_path / "model.onnx").with_options("paper", bias="ledger", smooth=1.5)
    run_audit(base, images, Config(QUICK, report=SHOWN), tmp_path / "out")
    assert verify(tmp_path / "out").problems == ()
    given = base.preprocess
    base.preprocess = lambda photo: given(photo)
    run_audit(base, images, Config(QUICK, report=SHOWN), tmp_path / "other")
    (problem,) = verify(tmp_path / "other").problems
    assert "the preprocessing was a function of Python" in problem
    assert verify(tmp_path / "other", sample=0).problems == ()
