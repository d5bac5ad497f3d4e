"""`srd-onnx check` and `srd-onnx models`, and the option --version."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.check import check_model
from srd_onnx.zoo import zoo
from tests.cli_tools import HOSTILE, document, head, run, saved, small
from tests.nets import model_of, small_cnn
from tests.test_cli_errors import not_onnx, overflowing, unreachable, without_rule


def test_a_model_that_can_be_explained(tmp_path: Path) -> None:
    result = run("check", small(tmp_path))
    assert result.exit_code == 0
    assert "layout NCHW is guessed" in result.stderr
    said = " ".join(result.stdout.split())
    for part in (
        "producer tests 1, opset 17,",
        "inputs input float[N, 3, 32, 32]",
        "outputs output float[N, 10]",
        "layout NCHW (guessed), checked for 1x3x32x32",
        "target output",
        "boundary relu5",
        "conv1 + bn1 Conv v11 conv position exact",
        "output Gemm v13 gemm cotangent exact",
        "0 approximate, 0 without a rule It can be explained.",
    ):
        assert part in said


def test_the_json_is_the_report_and_nothing_else(tmp_path: Path) -> None:
    path = small(tmp_path)
    found = document(run("check", path, "--json"))
    report = check_model(Explainer(str(path)))
    assert found == json.loads(json.dumps(report.to_dict()))
    assert set(found) == {
        "explainable", "counts", "path", "sha256", "opset", "producer", "parameters", "inputs", "outputs", "layout",
        "layout_guessed", "input_shape", "preset", "options", "target_tensor", "boundary", "focus", "nodes",
        "precision", "problem", "cost",
    }  # fmt: skip
    assert (found["explainable"], found["problem"]) == (True, None)
    assert found["inputs"] == [{"name": "input", "dtype": "float", "shape": ["N", 3, 32, 32]}]
    assert found["counts"] == {"exact": len(found["nodes"]), "approximate": 0, "no rule": 0}
    assert found["nodes"][0] == {
        "names": ["output"],
        "operator": "ai.onnx::Gemm v13",
        "rule": "gemm",
        "form": "cotangent",
        "status": "exact",
        "why": None,
        "cost": None,
    }
    crossed = {name for node in found["nodes"] for name in node["names"]}
    assert crossed == {node.name for node in small_cnn().graph.node}
    assert {node["form"] for node in found["nodes"]} == {"cotangent", "position", "routes"}


def test_options_move_the_boundary(tmp_path: Path) -> None:
    found = document(run("check", small(tmp_path), "--boundary", "pool1", "--json"))
    assert (found["boundary"], found["focus"]) == (["pool1"], [])
    assert document(run("check", small(tmp_path), "--focus", "pool1", "--json"))["focus"] == ["pool1"]


def test_gaps_give_code_1_and_the_whole_table(tmp_path: Path) -> None:
    path = without_rule(tmp_path)
    result = run("check", path)
    assert result.exit_code == 1
    assert "It cannot be explained: 2 of 4 nodes have no relevance rule:" in result.stdout
    assert "4 nodes: 2 exact, 0 approximate, 2 without a rule" in result.stdout
    found = document(run("check", path, "--json"))
    assert [(node["names"], node["status"], node["why"]) for node in found["nodes"]] == [
        (["flatten"], "exact", None),
        (["pool"], "exact", None),
        (["the outer box"], "no rule", "no version is covered"),
        (["the inner box"], "no rule", "no version is covered"),
    ]
    assert found["explainable"] is False


def test_a_use_that_a_rule_does_not_cover_is_seen_without_running_the_model(tmp_path: Path) -> None:
    path = saved(uncovered(), tmp_path / "m.onnx")
    result = run("check", path)
    assert result.exit_code == 1, result.stdout + result.stderr
    found = document(run("check", path, "--json"))
    (bad,) = [node for node in found["nodes"] if node["status"] == "no rule"]
    assert bad["names"] == ["odd"]
    assert bad["why"] == found["problem"]
    assert "'odd'" in found["problem"]


def test_approximate_nodes_say_why(tmp_path: Path) -> None:
    weights: dict[str, np.ndarray[Any, Any]] = {"s": np.array(0.1, np.float32), "z": np.array(128, np.uint8)}
    nodes = (
        helper.make_node("QuantizeLinear", ["input", "s", "z"], ["q"], name="quantize"),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["m"], name="back"),
    )
    path = saved(head(*nodes, weights=weights), tmp_path / "m.onnx")
    result = run("check", path)
    assert result.exit_code == 0
    assert "approximate (1)" in result.stdout
    assert "\n(1) " in result.stdout
    found = document(run("check", path, "--json"))
    assert {node["names"][0]: bool(node["why"]) for node in found["nodes"]}["quantize"] is True
    assert found["counts"]["approximate"] == 1


def test_hostile_names_do_no_harm(tmp_path: Path) -> None:
    model = small_cnn()
    for number, node in enumerate(model.graph.node):
        node.name = f"{HOSTILE}{number}"
    model.producer_name = HOSTILE
    path = saved(model, tmp_path / "m.onnx")
    result = run("check", path)
    assert result.exit_code == 0
    assert "\x1b" not in result.stdout
    assert "[red]x[/red] <script> [31m猫0 + [red]x[/red] <script> [31m猫1" in result.stdout
    found = document(run("check", path, "--json"))
    assert found["nodes"][-1]["names"] == [f"{HOSTILE}0", f"{HOSTILE}1"]


@pytest.mark.parametrize(
    ("make", "message"),
    [(not_onnx, "is not an ONNX model"), (unreachable, "does not depend on the input")],
)
def test_a_model_that_cannot_be_used_is_code_2(tmp_path: Path, make: Any, message: str) -> None:
    result = run("check", make(tmp_path), "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_check_runs_nothing(tmp_path: Path) -> None:
    assert run("check", overflowing(tmp_path)).exit_code == 0


@pytest.mark.parametrize("name", list(zoo()))
def test_the_zoo_can_be_explained(name: str) -> None:
    found = document(run("check", name, "--json"))
    assert (found["explainable"], found["layout_guessed"]) == (True, False)
    assert found["sha256"] == zoo()[name].sha256


def test_the_zoo_is_listed() -> None:
    said = run("models").stdout
    found = json.loads(run("models", "--json").stdout)["models"]
    assert [row["name"] for row in found] == list(zoo())
    for row, model in zip(found, zoo().values(), strict=True):
        assert set(row) == {
            "name", "path", "note", "source", "licence", "sha256", "layout", "preprocess", "labels",
        }  # fmt: skip
        assert (row["sha256"], row["path"]) == (model.sha256, str(model.path))
        for text in (model.name, model.licence, str(model.path)):
            assert text in said


def test_the_version_is_that_of_the_package() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"srd-onnx {version('srd-onnx')}\n")


def uncovered() -> onnx.ModelProto:
    """An operator with a rule, in a use that the rule refuses when the backward pass is written."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["p"], name="pool"),
        helper.make_node("Div", ["p", "zero"], ["d"], name="odd"),
        helper.make_node("Flatten", ["d"], ["output"], name="flatten"),
    ]
    return model_of(nodes, {"zero": np.zeros(1, np.float32)}, (["N", 3, 8, 8], ["N", 3]))
