"""A deep chain, what explains it in bounded memory, and when that is the same as at once."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer, Explanation
from srd_onnx.bounded.cuts import peak_of
from srd_onnx.bounded.pieces import Piece, cut
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.sizes import given_of
from srd_onnx.bounded.tape import Tape, tape_of
from srd_onnx.engine.compiling import Compiled, compile_model, explanation_session
from srd_onnx.engine.reading import Result, run_reading
from srd_onnx.ort.runtime import CPU
from tests.nets import model_of


def chain(batch: int | str = "N", blocks: int = 6, channels: int = 8, side: int = 32) -> onnx.ModelProto:
    """Residual blocks of two 3x3 convolutions, all on as many positions; five scores."""
    rng = np.random.default_rng(0)
    nodes, weights = list[onnx.NodeProto](), dict[str, NDArray[np.generic]]()

    def op(kind: str, name: str, *inputs: str, **attrs: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attrs))
        return name

    def conv(name: str, x: str, into: int) -> str:
        weights[f"{name}.w"] = (rng.standard_normal((channels, into, 3, 3)) * (9 * into) ** -0.5).astype("f4")
        weights[f"{name}.b"] = (rng.standard_normal(channels) * 0.1).astype("f4")
        return op("Conv", name, x, f"{name}.w", f"{name}.b", pads=[1] * 4)

    x = op("Relu", "stem_relu", conv("stem", "input", 3))
    for i in range(blocks):
        a = op("Relu", f"b{i}_relu", conv(f"b{i}_a", x, channels))
        x = op("Relu", f"b{i}_out", op("Add", f"b{i}_add", conv(f"b{i}_b", a, channels), x))
    weights["fc.w"] = rng.standard_normal((channels, 5)).astype("f4")
    op("MatMul", "output", op("Flatten", "flat", op("GlobalAveragePool", "pool", x)), "fc.w")
    return model_of(nodes, weights, ([batch, 3, side, side], [batch, 5]))


CHAIN = chain()
X = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)


def explainer(model: Any, part: float | None = None, **options: Any) -> Explainer:
    """Of what the whole takes at a batch of `X`, so much is given."""
    options = {"providers": "cpu", "layout": "NCHW"} | options
    most = None
    if part is not None:
        whole = Explainer(model, **options)
        compiled = compile_model(
            whole.model.proto, whole.case({"input": (1, *X.shape[1:])}), RULES, EXPANSIONS
        )
        most = int(part * at_once(compiled))
    return Explainer(model, max_memory=most, **options)


def at_once(compiled: Compiled) -> float:
    return given_of(compiled.plan) + peak_of(cut(tape_of(compiled), [0]))


def same(whole: Sequence[Explanation], parts: Sequence[Explanation]) -> None:
    for one, other in zip(whole, parts, strict=True):
        for name, found in one.relevances.items():
            scale = float(np.abs(found).max())
            np.testing.assert_allclose(other.relevances[name], found, atol=1e-5 * scale, rtol=1e-5)
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-5, atol=1e-6)
        assert (other.target, other.name, other.label) == (one.target, one.name, one.label)
        assert list(other.ledger) == list(one.ledger)
        seed = max(1.0, abs(float(one.meta["seed_value"])))
        for name, amount in one.ledger.items():
            assert other.ledger[name] == pytest.approx(amount, rel=1e-4, abs=1e-5 * seed)
        assert abs(other.residual) < 1e-4 * seed
        assert (one.meta["rival"] is None) == (other.meta["rival"] is None)


def recomputed(found: Explainer) -> Recomputed:
    (ready,) = found._sessions.values()
    assert isinstance(ready, Recomputed)
    return ready


def cut_at(tape: Tape, how: str) -> list[Piece]:
    count = len(tape.forward)
    return cut(
        tape, {"halves": [0, count // 2], "thirds": [0, count // 3, 2 * count // 3]}.get(how, range(count))
    )


def tape_for(
    model: Any, layout: str = "NCHW", **options: Any
) -> tuple[Tape, Callable[[Sequence[Piece]], Result], Result]:
    """A tape, what runs its pieces, and what the whole says, of random inputs and the top class."""
    subject = Explainer(model, providers="cpu", layout=layout, **options)
    compiled = compile_model(subject.model.proto, subject.case(subject.shown_shapes()), RULES, EXPANSIONS)
    batch = compiled.plan.batch
    shapes = {port.name: subject.shown_shapes()[port.name] for port in subject.ports}
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    seed = np.full(batch, -1, np.int64)
    whole = run_reading(explanation_session(compiled, [CPU], None), compiled.reading, feeds, seed)

    def run(pieces: Sequence[Piece]) -> Result:
        return Recomputed(compiled.plan, compiled.reading, tuple(pieces), 0.0, [CPU], None)(feeds, seed)

    return tape_of(compiled), run, whole


def same_results(whole: Result, parts: Result) -> None:
    for name, found in whole.relevance.items():
        scale = float(np.abs(found).max())
        np.testing.assert_allclose(parts.relevance[name], found, atol=1e-5 * scale, rtol=1e-5)
    scale = float(np.abs(whole.seed).max())
    assert parts.booked == whole.booked
    np.testing.assert_allclose(parts.ledger, whole.ledger, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(parts.seed, whole.seed, rtol=1e-5)
    np.testing.assert_allclose(parts.totals + parts.ledger.sum(axis=1), parts.seed, atol=1e-4 * max(1, scale))
