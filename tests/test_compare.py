"""`compare`: predictions, maps and layers of two versions of a model; thresholds for CI; killed and gone on with."""

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from srd_onnx.audit.compare import Wanted, run_comparison
from srd_onnx.audit.comparing import A, B
from srd_onnx.audit.output import CSV, HTML, JSON, MAPS, STATE
from srd_onnx.audit.pairing import layer_pairs
from srd_onnx.audit.state import State, open_state
from srd_onnx.audit.verify import verify
from srd_onnx.errors import AuditError, OptionError
from srd_onnx.explainer import Explainer
from srd_onnx.inputs.preprocess import Preprocess
from tests.audit_tools import folder
from tests.cli_tools import run
from tests.evaluation_nets import COLOURS, colour_net
from tests.nets import small_cnn

QUICK = Wanted(pdf=False)


def model(path: Path, net: onnx.ModelProto) -> Explainer:
    onnx.save(net, path)
    size = net.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    seen = Preprocess(resize=(size, size), scale=1 / 255)
    return Explainer(path, preprocess=seen, layout="NCHW", providers="cpu", threads=1)


def other_net(order: list[int]) -> onnx.ModelProto:
    """The colour net with its classes in another order."""
    net = colour_net()
    (weights,) = net.graph.initializer
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights)[order], weights.name))
    return net


def values(out: Path) -> dict[tuple[str, str], float]:
    with (out / CSV).open(newline="") as file:
        return {
            (row["image"], row["number"]): float(row["value"]) for row in csv.DictReader(file) if row["value"]
        }


def test_a_model_against_itself(tmp_path: Path) -> None:
    images = folder(tmp_path / "images")
    one = model(tmp_path / "a.onnx", colour_net())
    outcome = run_comparison(
        one, one, images, tmp_path / "out", dataclasses.replace(QUICK, max_drift=0, max_flips=0)
    )
    assert (outcome.flips, outcome.mean_drift, outcome.passed) == (0, 0, True)
    assert not [finding for finding in outcome.findings if finding.level != "warning"]
    found = values(tmp_path / "out")
    for name, value in {
        "map correlation": 1,
        "map distance": 0,
        "score change": 0,
        "layer: conv": 0,
        "relevance: conv": 1,
    }.items():
        assert found["0_red.png", name] == pytest.approx(value)
    checked = verify(tmp_path / "out")
    assert checked.problems == ()
    assert checked.maps == 5


def test_numbers_by_hand(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 3)
    net = small_cnn(0)
    for tensor in net.graph.initializer:
        if tensor.name == "conv2.w":
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(1.1), tensor.name)
            )
    one, third = model(tmp_path / "a.onnx", small_cnn(0)), model(tmp_path / "c.onnx", net)
    run_comparison(one, third, images, tmp_path / "out", QUICK)
    found = values(tmp_path / "out")
    for name in ("0_red.png", "1_green.png", "2_blue.png"):
        (a,) = one.explain(images / name)
        (b,) = third.explain(images / name, a.target)
        x, y = a.relevance.astype(np.float64), b.relevance.astype(np.float64)
        assert found[name, "map correlation"] == pytest.approx(
            np.corrcoef(x.ravel(), y.ravel())[0, 1], abs=1e-12
        )
        assert found[name, "map distance"] == pytest.approx(np.sqrt(((x - y) ** 2).sum() / (x**2).sum()))
        assert found[name, "score change"] == pytest.approx(b.score - a.score)
        assert found[name, "flipped"] == float(b.logits.argmax() != a.target)
        for layer in ("conv1", "conv2"):
            (pair,) = (pair for pair in layer_pairs(one, third) if pair.name == layer)
            u = one.preactivations(images / name, pair.first)[pair.first].astype(np.float64)
            v = third.preactivations(images / name, pair.second)[pair.second].astype(np.float64)
            expected = np.linalg.norm(u - v) / np.linalg.norm(u)
            assert found[name, f"layer: {layer}"] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert found["0_red.png", "layer: conv1"] == 0
    assert found["0_red.png", "layer: conv2"] > 0.01


def test_flips_and_thresholds(tmp_path: Path) -> None:
    images = folder(tmp_path / "images")
    one = model(tmp_path / "a.onnx", colour_net())
    one.labels = tuple(COLOURS)
    other = model(tmp_path / "b.onnx", other_net([1, 0, 2, 3]))  # red and green are mistaken for each other
    outcome = run_comparison(one, other, images, tmp_path / "out", dataclasses.replace(QUICK, max_flips=1))
    assert outcome.flips == 2
    assert not outcome.passed
    said = {(finding.rule, finding.image) for finding in outcome.findings}
    assert {("changed-prediction", name) for name in (None, "0_red.png", "1_green.png")} <= said
    assert "different classes in 2 of 4 images" in outcome.answer[0]
    seen = (
        "--scale",
        "1/255",
        "--resize",
        "none",
        "--crop",
        "none",
        "--channel-order",
        "RGB",
        "--layout",
        "NCHW",
    )
    arguments = ("compare", tmp_path / "a.onnx", tmp_path / "b.onnx", images, "--no-pdf", *seen)
    done = run(*arguments, "-o", tmp_path / "o", "--max-flips", 1, "--junit", tmp_path / "j.xml")
    assert done.exit_code == 3
    assert "2 predictions changed, more than 1" in done.stderr
    assert 'failures="2"' in (tmp_path / "j.xml").read_text()
    assert run(*arguments, "-o", tmp_path / "o", "--max-flips", 2).exit_code == 0
    assert run(*arguments, "-o", tmp_path / "o", "--max-drift", 0).exit_code == 3
    assert run("compare", "nowhere.onnx", tmp_path / "b.onnx", images).exit_code == 2
    (images / "bad.png").write_text("bad")
    assert run(*arguments, "-o", tmp_path / "o2").exit_code == 1


def test_maps_of_which_nothing_is_known_pass_no_threshold(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "bad.png").write_text("bad")
    one = model(tmp_path / "a.onnx", colour_net())
    outcome = run_comparison(
        one, one, tmp_path / "images", tmp_path / "out", dataclasses.replace(QUICK, max_drift=0.5)
    )
    assert not outcome.passed


class Killed(BaseException):
    """What no handler catches."""


def test_what_was_killed_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder(tmp_path / "images")
    one, other = model(tmp_path / "a.onnx", colour_net()), model(tmp_path / "b.onnx", other_net([1, 0, 2, 3]))
    run_comparison(one, other, images, tmp_path / "whole", QUICK, command=("same",))
    whole, calls = State.add_work, list[int]()

    def killed(self: State, image: int, *arguments: Any) -> None:
        calls.append(image)
        if len(calls) in (1, 4, 9):  # before the first row, between A and B, later
            raise Killed
        whole(self, image, *arguments)

    monkeypatch.setattr(State, "add_work", killed)
    for _ in range(3):
        with pytest.raises(Killed):
            run_comparison(one, other, images, tmp_path / "out", QUICK, command=("same",))
    run_comparison(one, other, images, tmp_path / "out", QUICK, command=("same",))
    made = [json.loads((tmp_path / name / JSON).read_text())["made"].encode() for name in ("whole", "out")]
    for name in (HTML, CSV, JSON):
        a, b = ((tmp_path / place / name).read_bytes() for place in ("whole", "out"))
        assert a.replace(made[0], b"") == b.replace(made[1], b"")
    for chunk in (tmp_path / "whole" / MAPS).rglob("*.0.0"):
        assert chunk.read_bytes() == (tmp_path / "out" / chunk.relative_to(tmp_path / "whole")).read_bytes()
    with pytest.raises(AuditError, match="the model has another sha256"):
        run_comparison(other, one, images, tmp_path / "out", QUICK)


def test_each_side_keeps_its_rows(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 1)
    one, other = model(tmp_path / "a.onnx", colour_net()), model(tmp_path / "b.onnx", other_net([1, 0, 2, 3]))
    run_comparison(one, other, images, tmp_path / "out", QUICK)
    with open_state(tmp_path / "out" / STATE) as state:
        a, b = state.explanations()
    assert (a.method, b.method) == (A, B)
    assert a.target == b.target == 0
    assert b.score == one.with_model(other.model.proto).explain(images / "0_red.png", 0)[0].score


def test_models_that_do_not_go_together(tmp_path: Path) -> None:
    one, other = model(tmp_path / "a.onnx", colour_net()), model(tmp_path / "b.onnx", small_cnn())
    with pytest.raises(OptionError, match="the models have 4 and 10 scores"):
        run_comparison(one, other, folder(tmp_path / "images"), tmp_path / "out", QUICK)


def test_layers_are_matched_through_what_a_quantiser_does_to_names(tmp_path: Path) -> None:
    one = model(tmp_path / "a.onnx", colour_net())
    net = colour_net()
    scales: dict[str, NDArray[np.generic]] = {"s": np.array(0.05, np.float32), "z": np.array(0, np.uint8)}
    net.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in scales.items())
    conv = next(node for node in net.graph.node if node.op_type == "Conv")
    conv.name, conv.output[0] = "conv_output_0", "relu_output"
    relu = next(node for node in net.graph.node if node.op_type == "Relu")
    place = list(net.graph.node).index(relu)
    quantised = [
        helper.make_node(
            "QuantizeLinear", ["relu_output", "s", "z"], ["q"], name="relu_output_QuantizeLinear"
        ),
        helper.make_node(
            "DequantizeLinear", ["q", "s", "z"], [relu.output[0]], name="relu_output_DequantizeLinear"
        ),
    ]
    rest = [*list(net.graph.node)[:place], *quantised, *list(net.graph.node)[place + 1 :]]
    del net.graph.node[:]
    net.graph.node.extend(rest)
    pairs = {pair.name: pair for pair in layer_pairs(one, model(tmp_path / "b.onnx", net))}
    assert set(pairs) == {"conv", "pool"}
    assert (pairs["conv"].first, pairs["conv"].second) == ("c", "relu_output")
