"""Fourier transforms, products and selections where the rows of tests/cases_signals.py do not reach."""

import re
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnx.helper import make_node as make

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.mixing import biases
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.roles import Axes, parse_layout, propagate
from srd_onnx.graph.walk import walk
from tests.case_types import TOKENS, Case, Const, Operand, Rand, Var, ints
from tests.harness import bench, emitted_bias, emitted_vjp, info, reference
from tests.nets import model_of

Array = NDArray[Any]
SIGNAL = Var("NTC", (2, 11, 1))
STEP, FOUR = Const(2, "int64"), Const(4, "int64")

REFUSED: dict[str, tuple[tuple[str, int, tuple[Operand, ...], str, dict[str, Any]], str]] = {
    "dft_parts_are_positions": (
        ("DFT", 17, (Var("NCT", (2, 3, 2)),), "NCT", {}),
        "real and imaginary part, must be a channel axis, but the signal has axes NCP",
    ),
    "dft_batch": (("DFT", 17, (SIGNAL,), "NTC", {"axis": 0}), "it transforms the batch axis"),
    "dft_cut_half": (
        ("DFT", 17, (Var("NTC", (2, 4, 2)), Const(5, "int64")), "NTC", {"inverse": 1, "onesided": 1}),
        "half a spectrum of 4 frequencies for 5 samples: runtimes disagree",
    ),
    "stft_left_out": (
        ("STFT", 17, (SIGNAL, STEP, Rand((4,))), "NTCC", {}),
        "onnx infers 4 frequencies, as if onesided were 0",
    ),
    "stft_window_alone": (
        ("STFT", 17, (Rand((2, 11, 1)), STEP, Var("T", (4,))), "NTCC", {"onesided": 1}),
        "the rule needs 'x0' to depend on the model's input",
    ),
    "cum_prod_batch": (("CumProd", 26, (TOKENS, Const(0, "int64")), "NTC", {}), "along the batch axis 0"),
    "det_batch": (("Det", 22, (Var("CNT", (2, 3, 3)),), "C", {}), "its matrix runs over the batch axis"),
    "det_large": (("Det", 22, (Var("NCC", (1, 17, 17)),), "N", {}), "a determinant of 17 rows"),
    "compress_batch": (
        ("Compress", 11, (TOKENS, Const([False, True], "bool")), "NTC", {"axis": 0}),
        "it moves elements between batch items",
    ),
    "compress_flat_batch": (
        ("Compress", 11, (TOKENS, Const([False, True], "bool")), "C", {}),
        "it flattens the batch axis",
    ),
    "one_hot_of_batch": (
        ("OneHot", 11, (ints(0, 1), FOUR, Var("N", (2,))), "NN", {}),
        "its two values must be",
    ),
    "tensor_scatter_axes": (
        ("TensorScatter", 24, (TOKENS, Var("NCT", (2, 2, 3))), "NTC", {}),
        "its cache and its update have different axes: NPC, NCP",
    ),
    "tensor_scatter_constants": (
        ("TensorScatter", 24, (Rand((1, 4, 3)), Rand((1, 2, 3)), Var("N", (1,), dtype="int64")), "NTC", {}),
        "neither its cache nor its update is of real numbers that vary",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_use_without_a_rule_is_refused_in_words(name: str) -> None:
    (op, since, inputs, out, attrs), message = REFUSED[name]
    with pytest.raises(UnsupportedCaseError, match=f"node 'node': .*{re.escape(message)}"):
        tangent_of(Case(name, op, since, inputs, (out,), attrs), {})


def tangent_of(
    case: Case, values: dict[str, Array], *, tangent: bool = True
) -> tuple[list[Array], Array, Array]:
    """The VJP of a case at given values of its operands, the cotangent, and the output."""
    b = bench(case, RULES)
    feeds = b.feeds | values
    (u,) = b.cotangents()
    assert u is not None
    flows = emitted_vjp(b, [u], tangent=tangent)(feeds | {"u0": u})
    (y,) = reference(b.forward, feeds, ["y0"])
    return [flow for flow in flows if flow is not None], u, y


def check_slopes(case: Case, values: dict[str, Array]) -> None:
    """The tangent against central differences, every element of the operands on its own."""
    b = bench(case, RULES)
    flows, u, _ = tangent_of(case, values)
    for (name, x), flow in zip(values.items(), flows, strict=True):
        slopes = np.zeros(x.shape)
        for at in np.ndindex(x.shape):
            sides = []
            for step in (1e-5, -1e-5):
                moved = x.copy()
                moved[at] += step
                sides.append(reference(b.forward, b.feeds | values | {name: moved}, ["y0"])[0])
            slopes[at] = float(((sides[0] - sides[1]) / 2e-5 * u).sum())
        np.testing.assert_allclose(flow, slopes, rtol=0, atol=1e-8 * max(1, np.abs(slopes).max()))


def check_conserved(case: Case, values: dict[str, Array]) -> None:
    """<y, u> = Σ <x, VJP u> + <b, u> under a fixed pattern."""
    b = bench(case, RULES)
    flows, u, y = tangent_of(case, values, tangent=False)
    (rest,) = emitted_bias(b)(b.feeds | values)
    whole = sum(float((x * flow).sum()) for x, flow in zip(values.values(), flows, strict=True))
    whole += 0.0 if rest is None else float((rest * u).sum())
    np.testing.assert_allclose(whole, (y * u).sum(), rtol=1e-12, atol=1e-12)


ONE_ZERO = np.array([[2.0, 0.0, -1.5], [0.5, 3.0, 0.0], [-1.0, 0.0, 2.0], [4.0, 0.5, 0.25]])


@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
def test_running_products_with_zeros_have_their_slopes(exclusive: int, reverse: int) -> None:
    attrs = {"exclusive": exclusive, "reverse": reverse}
    case = Case("zeros", "CumProd", 26, (Var("TC", (4, 3)), Const(0, "int64")), ("TC",), attrs)
    check_slopes(case, {"x0": ONE_ZERO})
    check_conserved(case, {"x0": ONE_ZERO})


def test_a_singular_matrix_has_its_cofactors() -> None:
    case = Case("singular", "Det", 22, (Var("CC", (3, 3)),), ("",), {})
    matrix = np.array([[1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [0.5, -1.0, 2.0]])
    check_slopes(case, {"x0": matrix})
    check_slopes(case, {"x0": np.zeros((3, 3))})


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_scattered_products_with_zeros_have_their_slopes(op: str) -> None:
    places = np.array([0, 0, 2, 2, 3])
    case = Case(
        "zeros", op, 18,
        (Var("T", (5,)), Const(places if op == "ScatterElements" else places[:, None], "int64"), Var("T", (5,))),
        ("T",), {"reduction": "mul"},
    )  # fmt: skip
    values = {"x0": np.array([0.0, 2.0, 3.0, 0.0, 0.5]), "x2": np.array([1.5, -2.0, 0.0, 0.0, 0.0])}
    check_slopes(case, values)
    check_conserved(case, values)


@pytest.mark.parametrize("reduction", ["max", "min"])
def test_all_winners_of_a_tie_have_an_equal_part(reduction: str) -> None:
    inputs = (Var("T", (2,)), Const([0, 0, 0, 1], "int64"), Var("T", (4,)))
    case = Case("tie", "ScatterElements", 18, inputs, ("T",), {"reduction": reduction})
    values = {"x0": np.array([3.0, 1.0]), "x2": np.array([3.0, 3.0, 3.0, 1.0])}
    (data, updates), u, _ = tangent_of(case, values)
    np.testing.assert_allclose(data, u / [4, 2])
    np.testing.assert_allclose(updates, [*[u[0] / 4] * 3, u[1] / 2])
    check_conserved(case, values)


def test_indices_of_a_cache_may_be_computed() -> None:
    starts = np.array([3, 1])
    node = make("TensorScatter", ["cache", "update", "starts"], ["y"], mode="circular")
    inputs = [
        info("cache", np.float64, (2, 4, 3)),
        info("update", np.float64, (2, 2, 3)),
        info("starts", np.int64, (2,)),
    ]
    graph = helper.make_graph([node], "cache", inputs, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    found = walk(model)
    axes = {name: parse_layout("NTC", name, (2, 4, 3)) for name in ("cache", "update")}
    axes["starts"] = Axes(parse_layout("N", "starts", (2,)).roles, inert=True)
    emit = Emitter(found, propagate(found, axes, RULES))
    (only,) = found.nodes
    flows = RULES[only.key].vjp(emit, only, ["u"])
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.input.append(info("u", np.float64, (2, 4, 3)))
    rng = np.random.default_rng(0)
    u, cache, update = (rng.standard_normal(s) for s in ((2, 4, 3), (2, 4, 3), (2, 2, 3)))
    names = [flow for flow in flows[:2] if flow is not None]
    got = reference(model, {"cache": cache, "update": update, "starts": starts, "u": u}, names)
    kept, taken = u.copy(), np.zeros((2, 2, 3))
    for n, i in np.ndindex(2, 2):
        place = (starts[n] + i) % 4
        kept[n, place], taken[n, i] = 0.0, u[n, place]
    np.testing.assert_array_equal(got[0], kept)
    np.testing.assert_array_equal(got[1], taken)
    assert flows[2] is None


# Through the whole engine


def explained(nodes: list[onnx.NodeProto], x: Array, layout: str, **weights: Array) -> Array:
    """Relevance, N = 1, of output 1 of nodes from `input` to `e` [1, T, 6], a mean and a classifier."""
    rng = np.random.default_rng(7)
    own = {"w": rng.standard_normal((6, 4)).astype(np.float32), "axes": np.array([1])}
    tail = [
        make("Relu", ["e"], ["h"]),
        make("ReduceSum", ["h", "axes"], ["m"], keepdims=0),
        make("MatMul", ["m", "w"], ["output"]),
    ]
    model = model_of([*nodes, *tail], own | weights, (list(x.shape), [1, 4]))
    model.opset_import[0].version = 18
    if x.dtype == np.int64:
        model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64
    (found,) = Explainer(model, preset="paper", layout=layout).explain(x, 1)
    whole = float(found.relevance.sum()) + sum(found.ledger.values()) + found.residual
    np.testing.assert_allclose(whole, found.score, rtol=1e-4, atol=1e-5)
    return found.relevance


def drawn(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def test_one_hot_token_ids_are_an_embedding() -> None:
    ids, table = np.array([[3, 1, 1, 6, 0]]), drawn(7, 6)
    looked_up = explained([make("Gather", ["table", "input"], ["e"])], ids, "NT", table=table)
    nodes = [make("OneHot", ["input", "depth", "pair"], ["o"]), make("MatMul", ["o", "table"], ["e"])]
    pair = np.array([0, 1], np.float32)
    multiplied = explained(nodes, ids, "NT", table=table, depth=np.array(7), pair=pair)
    np.testing.assert_allclose(multiplied, looked_up, rtol=1e-5, atol=1e-5)


def test_a_constant_condition_leaves_a_known_shape() -> None:
    nodes = [make("Compress", ["input", "kept"], ["c"], axis=1), make("MatMul", ["c", "v"], ["e"])]
    relevance = explained(
        nodes, drawn(1, 4, 3), "NTC", kept=np.array([True, False, True, False]), v=drawn(3, 6)
    )
    assert (relevance[[1, 3]] == 0).all()
    assert (relevance[[0, 2]] != 0).all()


@pytest.mark.parametrize("attrs", [{}, {"onesided": 1}], ids=["left_out", "said"])
def test_a_spectrogram_is_explained_in_samples(attrs: dict[str, Any]) -> None:
    nodes = [
        make("STFT", ["input", "step", "window"], ["s"], **attrs),
        make("ReduceSumSquare", ["s", "last"], ["p"], keepdims=0),
        make("MatMul", ["p", "v"], ["e"]),
    ]
    window = np.hanning(9)[:8].astype(np.float32)
    relevance = explained(
        nodes, drawn(1, 21, 1), "NTC", step=np.array(4), window=window, last=np.array([3]), v=drawn(5, 6)
    )
    assert relevance.shape == (21,)
    assert relevance[0] == 0  # the window is zero there
    assert (relevance[20:] == 0).all()  # no frame reaches that far
    assert np.count_nonzero(relevance) > 12


def test_the_scale_of_dynamic_quantisation_is_a_statistic_that_has_slopes() -> None:
    """(max(0, max) - min(0, min)) / 255: the tangent reaches its ends; under a fixed pattern all of it is a bias."""
    case = Case("scale", "DynamicQuantizeLinear", 11, (Var("TC", (2, 3)),), ("TC",), masks=2, dtype="float32")
    b, u = bench(case, RULES), np.array(2.0, np.float32)
    for values, ends in (
        ([[1, 4, 2], [-3, 0, 1]], [[0, 1, 0], [-1, 0, 0]]),
        ([[1, 4, 2], [3, 4, 1]], [[0, 0.5, 0], [0, 0.5, 0]]),
        ([[-1, -4, -2], [-3, -2, -1]], [[0, -1, 0], [0, 0, 0]]),
    ):
        emit = b.emitter(tangent=True)
        (flow,) = b.rule.vjp(emit, b.node, [None, "u", None])
        model = onnx.ModelProto.FromString(b.forward.SerializeToString())
        model.graph.node.extend(emit.nodes)
        model.graph.initializer.extend(emit.initializers)
        model.graph.input.append(info("u", np.float32, ()))
        assert flow is not None
        (got,) = reference(model, {"x0": np.array(values, np.float32), "u": u}, [flow])
        np.testing.assert_allclose(got, np.array(ends) * u / 255, rtol=1e-6)
    frozen = b.emitter()
    assert b.rule.vjp(frozen, b.node, [None, "u", None]) == [None]
    assert biases(frozen, b.rule, b.node)[1] == "y1"
