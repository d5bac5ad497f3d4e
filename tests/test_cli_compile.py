"""`srd-onnx compile`: an ordinary ONNX file that gives the same map without srd-onnx."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from srd_onnx import Explainer
from srd_onnx.inputs.preprocess import read_image
from srd_onnx.zoo import sample_photo, zoo
from tests.cli_tools import HOSTILE, document, process, run, saved, small
from tests.nets import small_cnn


@pytest.mark.parametrize("name", list(zoo()))
def test_bare_onnxruntime_gives_the_map_of_explain(tmp_path: Path, name: str) -> None:
    result = run("compile", name, "-o", tmp_path / "new" / "out.onnx")
    assert (result.exit_code, result.stderr) == (0, "")
    model = onnx.load(tmp_path / "new" / "out.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {node.domain for node in model.graph.node} == {""}
    found = document(run("explain", name, sample_photo(), "-t", "top2", "-o", tmp_path, "--json"))
    x = zoo()[name].preprocess(read_image(sample_photo())).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(tmp_path / "new" / "out.onnx", providers=["CPUExecutionProvider"])
    for one in found["explanations"]:
        target = np.array([one["target"]], np.int64)
        logits, relevance = session.run(["logits", "relevance"], {"input": x, "target": target})
        with np.load(tmp_path / one["files"]["npz"]) as archive:
            np.testing.assert_allclose(logits[0], archive["logits"], rtol=1e-4, atol=1e-4)
            scale = np.abs(archive["relevance"]).max()
            np.testing.assert_allclose(relevance[0], archive["relevance"], rtol=0, atol=1e-5 * scale)
    (top,) = session.run(["relevance"], {"input": x})
    with np.load(tmp_path / found["explanations"][0]["files"]["npz"]) as archive:
        np.testing.assert_allclose(top[0], archive["relevance"], rtol=0, atol=1e-5 * scale)


def test_the_snippet_that_is_printed_runs(tmp_path: Path) -> None:
    model = small_cnn()
    model.graph.input[0].name = HOSTILE
    model.graph.node[0].input[0] = HOSTILE
    path = tmp_path / "out 'x'.onnx"
    result = run("compile", saved(model, tmp_path / "m.onnx"), "-o", path, "--batch", 3)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "target int64[3] (optional; -1, the default, is the top class)" in result.stdout
    assert "relevance float[3, 32, 32]" in result.stdout
    snippet = result.stdout.split("plain onnxruntime:\n\n")[1]
    assert len(snippet.strip().split("\n")) == 4
    script = f"{snippet}\nprint(scores.shape, relevance.shape)"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "(3, 10) (3, 32, 32)\n"


def test_options_are_compiled_in(tmp_path: Path) -> None:
    run("compile", small(tmp_path), "-o", tmp_path / "c.onnx", "--boundary", "pool1", "--sign", "positive")
    x = np.random.default_rng(3).standard_normal((1, 3, 32, 32), np.float32)
    wanted = Explainer(str(small(tmp_path)), boundary="pool1", sign="positive").explain(x)[0].relevance
    session = onnxruntime.InferenceSession(tmp_path / "c.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(["relevance"], {"input": x})[0][0], wanted, rtol=1e-4, atol=1e-6)


def test_the_model_itself_is_not_overwritten(tmp_path: Path) -> None:
    path = small(tmp_path)
    before = path.read_bytes()
    result = run("compile", path, "-o", tmp_path / ".." / tmp_path.name / "small.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is the model itself. Choose another name with -o." in result.stderr
    assert path.read_bytes() == before


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("compile", small(tmp_path), "-o", tmp_path / "file" / "c.onnx")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: cannot write to {tmp_path}/file: ")


def test_a_batch_of_none_is_refused(tmp_path: Path) -> None:
    assert run("compile", small(tmp_path), "-o", tmp_path / "c.onnx", "--batch", 0).exit_code == 2
    assert not (tmp_path / "c.onnx").exists()


def test_help_and_version_load_nothing_heavy() -> None:
    script = (
        "import sys\nfrom srd_onnx.cli.app import app\n"
        "print(sorted({'onnx', 'onnxruntime', 'numpy', 'cv2', 'matplotlib', 'networkx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert process("--help").returncode == 0
