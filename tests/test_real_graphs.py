"""Graphs that others made: the old zoo's architectures and PyTorch's first exports, which onnx itself ships."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from srd_onnx import Explainer, Explanation, SrdOnnxError

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FOLDERS = ("light", "pytorch-converted", "pytorch-operator")
# What is no usual layout, by the names of the inputs.
LAYOUTS = {
    "operator_add_broadcast": {"0": "TC", "1": "C"},
    "operator_add_size1_broadcast": {"0": "TC", "1": "TC"},
    "operator_add_size1_right_broadcast": {"0": "TC", "1": "C"},
    "operator_add_size1_singleton_broadcast": {"0": "TC", "1": "TC"},
    "operator_addmm": {"0": "TC", "1": "CC", "2": "C"},
    "operator_basic": {"0": "T", "1": "T"},
    "operator_chunk": {"0": "T"},
    "operator_mm": {"0": "TC", "1": "CC"},
    "operator_permute2": {"0": "NCTDHW"},
    "operator_symbolic_override_nested": {"0": "T", "1": "T", "2": "T"},
    "operator_view": {"0": "T"},
}
# All weights of the old zoo's graphs are 0.02, so that activations grow: in these so far (1e20, 1e31) that float32
# cannot hold their squares. A smaller number leaves the graph as it is.
WEIGHTS = {"light_vgg19": 0.001, "light_inception_v1": 0.002, "light_resnet50": 0.005}
SLOW = ("light_vgg19",)  # 0.6 GB of weights; tests_models has it
REFUSED = {
    "operator_non_float_params": "the target '3' does not depend on the input '0' along any path that carries "
    r"relevance \(real numbers, not gates\); choose another output",
}


def graphs() -> dict[str, Path]:
    found = {path.stem: path for path in sorted(DATA.glob("light/*.onnx"))}
    for folder in FOLDERS[1:]:
        for path in sorted((DATA / folder).glob("*/model.onnx")):
            found[path.parent.name.removeprefix("test_")] = path
    return found


GRAPHS = graphs()


def loaded(name: str) -> onnx.ModelProto:
    model = onnx.load(GRAPHS[name])
    if name in WEIGHTS:
        for node in model.graph.node:
            if node.op_type == "ConstantOfShape":
                node.attribute[0].t.float_data[:] = [WEIGHTS[name]]
    return model


def drawn(explainer: Explainer) -> dict[str, NDArray[np.generic]]:
    rng = np.random.default_rng(0)
    found: dict[str, NDArray[np.generic]] = {}
    for port in explainer.ports:
        shape = port.shape()
        real = port.dtype.kind == "f"
        data = rng.uniform(0.1, 1.0, shape) if real else rng.integers(0, 3, shape)
        found[port.name] = data.astype(port.dtype)
    return found


def explained(name: str) -> Explanation:
    layout: Mapping[str, str] | None = LAYOUTS.get(name)
    explainer = Explainer(loaded(name), preset="paper", layout=layout, providers="cpu")
    return explainer.explain(drawn(explainer))[0]


def test_all_of_them_are_here() -> None:
    assert len(GRAPHS) > 120
    assert set(GRAPHS) >= {*LAYOUTS, *WEIGHTS, *SLOW, *REFUSED}


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in {*REFUSED, *SLOW}])
def test_the_map_is_finite_and_conserves(name: str) -> None:
    check(explained(name))


def check(explanation: Explanation) -> None:
    maps = list(explanation.relevances.values())
    assert all(np.isfinite(array).all() for array in maps)
    assert relative_residual(explanation) <= 1e-3


def relative_residual(explanation: Explanation) -> float:
    """Of the seed; where that is a small difference of large terms, of a thousandth of those."""
    terms = [float(np.abs(array).sum(dtype=np.float64)) for array in explanation.relevances.values()]
    terms += map(abs, explanation.ledger.values())
    seed = abs(float(explanation.meta["seed_value"]))
    return abs(explanation.residual) / max(seed, 1e-3 * sum(terms), 1e-30)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_is_refused_in_words(name: str) -> None:
    with pytest.raises(SrdOnnxError, match=f"^{REFUSED[name]}$"):
        explained(name)
