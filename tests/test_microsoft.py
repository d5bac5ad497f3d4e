"""ONNX Runtime's fused operators, written out: against numpy, its kernels, and the networks they were fused from."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, helper, numpy_helper

from graph_rules import EXPANSIONS, RULES
from graph_rules.fused import DEFAULTS
from srd_onnx import Explainer
from srd_onnx.engine.emit import Emitter
from srd_onnx.errors import InvalidModelError, UnsupportedCaseError, UnsupportedOpError
from srd_onnx.graph.expand import Expansion, Writer
from srd_onnx.graph.ir import Graph, Node
from srd_onnx.graph.load import load_model
from srd_onnx.graph.roles import Axes, Role, propagate
from srd_onnx.graph.simplify import simplify
from srd_onnx.ort.runtime import CPU, make_session
from tests import fused_nets
from tests.case_types import Const, Rand, Var
from tests.cases_microsoft import CASES, Fused
from tests.harness import LETTERS, drawn, info
from tests.oracle_microsoft import DEFINITIONS

Array = NDArray[Any]
SINGLE = 1e-5  # relative to the largest number
AGREE = 1e-4  # of two maps, relative to the largest share

every = pytest.mark.parametrize("case", CASES, ids=str)


def operands(case: Fused) -> list[Array | None]:
    made: list[Array | None] = []
    for i, spec in enumerate(case.inputs):
        match spec:
            case Var(shape=shape) | Rand(shape=shape):
                made.append(drawn(f"{case.name}/x{i}", shape, np.float32))
            case Const(data=data, dtype=dtype):
                made.append(np.asarray(data, dtype))
            case _:
                made.append(None)
    return made


def model_of(case: Fused) -> tuple[ModelProto, dict[str, Array], list[Array]]:
    """A model of one fused node, its inputs (all but random constants), and what ONNX Runtime computes."""
    arrays = operands(case)
    names = ["" if a is None else f"x{i}" for i, a in enumerate(arrays)]
    outputs = [f"y{i}" for i in range(case.outputs)]
    node = helper.make_node(case.op, names, outputs, name="fused", domain=case.domain, **case.attrs)
    feeds, constants = {}, []
    for name, array, spec in zip(names, arrays, case.inputs, strict=True):
        if isinstance(spec, Rand) and array is not None:
            constants.append(numpy_helper.from_array(array, name))
        elif array is not None:
            feeds[name] = array
    inputs = [info(name, a.dtype, a.shape) for name, a in feeds.items()]
    blank = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "fused", inputs, blank, constants)
    opsets = [helper.make_opsetid("", case.opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    results = on_runtime(model, feeds)
    for output, y in zip(model.graph.output, results, strict=True):
        output.CopyFrom(info(output.name, y.dtype, y.shape))
    return model, feeds, results


def on_runtime(model: ModelProto, feeds: dict[str, Array]) -> list[Array]:
    return list(make_session(model.SerializeToString(), [CPU], optimise=False).run(None, feeds))


def written_out(model: ModelProto, feeds: dict[str, Array]) -> tuple[ModelProto, Graph]:
    return simplify(load_model(model).proto, {name: a.shape for name, a in feeds.items()}, EXPANSIONS)


def close(got: Array, want: Array, tolerance: float = SINGLE) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(
        got, want, rtol=0, atol=tolerance * max(1.0, float(np.abs(want).max(initial=0)))
    )


# Integer arithmetic is written out too, see test_integer.py.
FUSED_ONES = [key for key, made in EXPANSIONS.items() if "integer" not in made.__module__]


def test_every_expansion_has_a_case_a_definition_and_defaults() -> None:
    operators = {key.op_type for key in FUSED_ONES}
    assert operators == {case.op for case in CASES} == set(DEFINITIONS) == set(DEFAULTS)
    assert len({case.name for case in CASES}) == len(CASES)
    assert all((key.domain, key.since) == ("com.microsoft", 1) for key in FUSED_ONES)


@pytest.mark.parametrize("op", sorted(DEFAULTS))
def test_defaults_are_those_of_the_schemas_of_onnx_runtime(op: str) -> None:
    schemas = ort.capi.onnxruntime_pybind11_state.get_all_operator_schema()
    domain = "" if op in ("LayerNormalization", "SimplifiedLayerNormalization") else "com.microsoft"
    (schema,) = (s for s in schemas if (s.domain, s.name, s.since_version) == (domain, op, 1))
    for name, value in DEFAULTS[op].items():
        default = AttributeProto.FromString(schema.attributes[name]._default_value)
        if default.type != AttributeProto.UNDEFINED:
            assert value == pytest.approx(helper.get_attribute_value(default), rel=1e-6) or (
                value,
                helper.get_attribute_value(default),
            ) == ("", b"")


@every
def test_definition_is_what_onnx_runtime_computes(case: Fused) -> None:
    _, _, results = model_of(case)
    close(results[0], DEFINITIONS[case.op](*operands(case), **case.attrs))


@every
def test_written_out_it_is_standard_and_computes_the_same(case: Fused) -> None:
    model, feeds, results = model_of(case)
    standard, graph = written_out(model, feeds)
    onnx.checker.check_model(standard, full_check=True)
    assert [entry.domain for entry in standard.opset_import] == [""]
    assert {node.domain for node in standard.graph.node} == {""}
    assert {node.origins for node in graph.nodes} == {("fused",)}
    assert sum(node.name == "fused" for node in graph.nodes) == 1
    for got, want in zip(on_runtime(standard, feeds), results, strict=True):
        close(got, want)


def spoilt(right: Expansion) -> Expansion:
    def wrong(write: Writer, node: Node) -> list[str | None]:
        first, *others = right(write, node) or [None]
        assert first is not None
        return [write("Mul", first, write.like(node.output(), 1.001)), *others]

    return wrong


@every
def test_a_wrong_expansion_is_noticed(case: Fused) -> None:
    model, feeds, results = model_of(case)
    table = {key: spoilt(right) for key, right in EXPANSIONS.items()}
    standard, _ = simplify(load_model(model).proto, {name: a.shape for name, a in feeds.items()}, table)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        close(on_runtime(standard, feeds)[0], results[0])


@every
def test_tangent_through_what_is_written_out_is_the_derivative_of_the_definition(case: Fused) -> None:
    model, feeds, results = model_of(case)
    standard, graph = written_out(model, feeds)
    u = drawn(f"{case.name}/u", results[0].shape, np.float32)
    layouts = {f"x{i}": s.layout for i, s in enumerate(case.inputs) if isinstance(s, Var)}
    start = {
        n: Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in row)) for n, row in layouts.items()
    }
    if not start:  # token ids have no derivative
        return
    flows = gradient(standard, graph, start, feeds, u)
    exact: list[Any] = [
        a.astype(float) if a is not None and a.dtype.kind == "f" else a for a in operands(case)
    ]
    step = 1e-5
    for name, flow in flows.items():
        index = int(name[1:])
        direction = drawn(f"{case.name}/{name}", feeds[name].shape, np.float64)
        ends = []
        for sign in (1, -1):
            moved = list(exact)
            moved[index] = exact[index] + sign * step * direction
            ends.append(float((DEFINITIONS[case.op](*moved, **case.attrs) * u).sum()))
        scale = float(np.abs(flow * direction).sum())
        np.testing.assert_allclose(
            (flow * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=0, atol=1e-5 * scale
        )


def gradient(
    standard: ModelProto, graph: Graph, start: dict[str, Axes], feeds: dict[str, Array], u: Array
) -> dict[str, Array]:
    """The cotangents of the inputs in `start`: the rules of the nodes, one after the other."""
    emit = Emitter(graph, propagate(graph, start, RULES), tangent=True)
    arrived: dict[str, list[str]] = {graph.outputs[0].name: ["u"]}
    for node in reversed(graph.nodes):
        given = [
            emit.sum(arrived[v.name]) if v is not None and v.name in arrived else None for v in node.outputs
        ]
        if any(given) and any(emit.varies(v) for v in node.inputs):
            for value, flow in zip(node.inputs, RULES[node.key].vjp(emit, node, given), strict=True):
                if value is not None and flow is not None and emit.varies(value):
                    arrived.setdefault(value.name, []).append(flow)
    outputs = {name: emit.sum(arrived[name]) for name in start}
    model = ModelProto()
    model.CopyFrom(standard)
    model.graph.node.extend(emit.nodes)
    model.graph.initializer.extend(emit.initializers)
    model.graph.input.append(info("u", u.dtype, u.shape))
    del model.graph.output[:]
    model.graph.output.extend(info(flow, np.float32, feeds[name].shape) for name, flow in outputs.items())
    return dict(zip(outputs, on_runtime(model, feeds | {"u": u}), strict=True))


# Whole networks


def networks(name: str, folder: Path) -> tuple[ModelProto, ModelProto]:
    """A network, and what ONNX Runtime's optimiser makes of it."""
    model = fused_nets.NETS[name]()
    return model, fused_nets.optimised(model, folder)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("name", fused_nets.NETS)
def test_maps_are_those_of_the_network_before_onnx_runtime_optimised_it(
    name: str, bias: Any, tmp_path: Path
) -> None:
    model, fused = networks(name, tmp_path)
    kinds = {
        node.op_type
        for node in fused.graph.node
        if node.domain == "com.microsoft" or "Simplified" in node.op_type
    }
    assert kinds == fused_nets.FUSED[name]
    photo = fused_nets.inputs(model)
    plain, same = (
        Explainer(m, preset="paper", bias=bias).explain(photo, targets=[1]) for m in (model, fused)
    )
    for one, other in zip(plain, same, strict=True):
        assert abs(other.residual) < 1e-5 * max(1.0, float(np.abs(other.logits).max()))
        for want, got in zip(maps(one), maps(other), strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=AGREE * float(np.abs(want).max()))
    known = {node.name for node in fused.graph.node}
    booked = {name for e in same for name in e.ledger if not name.startswith("negative")}
    assert booked <= known


def maps(explanation: Any) -> list[Array]:
    found = explanation.relevance
    return list(found.values()) if isinstance(found, dict) else [found]


def test_compiled_it_needs_no_operator_of_onnx_runtime(tmp_path: Path) -> None:
    _, fused = networks("cnn", tmp_path)
    compiled = Explainer(fused, preset="paper").compile()
    onnx.checker.check_model(compiled, full_check=True)
    assert {node.domain for node in compiled.graph.node} == {""}


def test_tensor_of_a_fused_node_is_found_by_its_name(tmp_path: Path) -> None:
    _, fused = networks("cnn", tmp_path)
    node = next(n for n in fused.graph.node if n.op_type == "FusedConv")
    found = Explainer(fused, preset="paper").preactivations(fused_nets.inputs(fused), [node.name])
    (array,) = found.values()
    (want,) = on_runtime(exposed(fused, node.output[0]), {"x": fused_nets.inputs(fused)})
    close(array, want)


def exposed(model: ModelProto, name: str) -> ModelProto:
    copy = ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.append(helper.make_empty_tensor_value_info(name))
    return copy


# What is refused


def one(op: str, *inputs: Any, **attrs: Any) -> Fused:
    return Fused(f"refused-{op}", op, inputs, attrs)


X, MASK = Var("NTC", (2, 4, 6)), Const([[1, 1, 1, 0], [1, 0, 1, 1]], "int32")
REFUSED = {
    "causal": (
        one(
            "MultiHeadAttention",
            X,
            Var("NTC", (2, 5, 6)),
            Var("NTC", (2, 5, 6)),
            num_heads=2,
            unidirectional=1,
        ),
        "unidirectional, of 4 queries and 5 keys, is not covered",
    ),
    "activation": (
        one("FusedConv", Var("NCHW", (1, 2, 4, 4)), Rand((2, 2, 1, 1)), activation="HardSwish"),
        "the activation HardSwish is not covered",
    ),
    "axis": (
        Fused("refused-axis", "SimplifiedLayerNormalization", (X, Rand((4, 6))), {"axis": 1}, domain=""),
        "axis 1 is not the last one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_covered_is_refused_by_the_name_of_the_node(name: str) -> None:
    case, message = REFUSED[name]
    model, feeds, _ = model_of(case)
    with pytest.raises(
        UnsupportedCaseError, match=re.escape(f"com.microsoft::{case.op} v1, node 'fused': {message}")
    ):
        written_out(model, feeds)


def test_another_operator_of_onnx_runtime_is_a_gap_in_the_plan() -> None:
    model, feeds, _ = model_of(one("ExpandDims", Var("NC", (2, 3)), Const(1, "int32")))
    del model.graph.input[1]
    model.graph.initializer.append(numpy_helper.from_array(np.array(1, np.int32), "x1"))
    text = "com.microsoft::ExpandDims v1  node 'fused'  (no version is covered)"
    with pytest.raises(UnsupportedOpError, match=re.escape(text)):
        Explainer(model, preset="paper").explain(feeds["x0"])


def test_a_name_that_neither_onnx_nor_onnx_runtime_knows_is_still_refused() -> None:
    model, _, _ = model_of(next(c for c in CASES if c.op == "SimplifiedLayerNormalization"))
    model.graph.node[0].op_type = "ComplicatedLayerNormalization"
    with pytest.raises(InvalidModelError, match="No Op registered for ComplicatedLayerNormalization"):
        load_model(model)
