"""What is emitted for CUDA, against the table of the operators that ONNX Runtime's CUDA provider has.

Nothing runs on a GPU here. `python -m benchmarks.gpu` says on one where the nodes really run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from onnx import ModelProto, TensorProto, helper

from benchmarks.placement import Part, parts_of
from benchmarks.speed import model_bytes
from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.focus import finish_model
from srd_onnx.engine.options import PRESETS
from srd_onnx.engine.rule import RuleTable
from srd_onnx.errors import SrdOnnxError
from srd_onnx.graph.ir import Node
from srd_onnx.sharing.ratios import ratio_model
from srd_onnx.zoo import zoo
from tests.cases import CASES, Case
from tests.cuda_kernels import kernels, ours, without_kernel
from tests.fuzz_graphs import Grown, grown
from tests.harness import NEWEST_ON_RUNTIME, Bench, bench, emitted_bias, emitted_position, emitted_vjp
from tests.ratio_checks import plan_of
from tests.test_real_graphs import loaded

# What is emitted for an operator of the model without a kernel there: that node is on the CPU, and so is its neighbour.
# The kernel of MaxPool is that of version 12, and ONNX Runtime takes it for no later one.
NONE_OF_ITS_OWN = {
    "Cosh": {"Sinh"},
    "CumProd": {"CumProd"},
    "DFT": {"DFT"},
    "Det": {"Det"},
    "MaxPool": {"MaxPool"},
    "Sinh": {"Cosh"},
}
CUDA_CASES = [case for case in CASES if case.since <= NEWEST_ON_RUNTIME and case.no_pattern is None]


class ForCuda(Bench):
    """What is emitted is what a CUDA session runs."""

    def emitter(self, *, tangent: bool = False, plain: bool = False) -> Emitter:
        made = super().emitter(tangent=tangent, plain=False)
        made.blocks = False
        return made


def lacking(case: Case, rules: RuleTable, precision: str) -> set[str]:
    """The operators without a kernel among all that the rule of a case emits."""
    b = ForCuda(**vars(bench(case, rules, precision=precision if case.dtype == "float64" else None)))
    whole = [
        emitted_vjp(b, b.cotangents()),
        emitted_vjp(b, b.cotangents(), tangent=True),
        emitted_bias(b),
        *(emitted_position(b, b.shares(), bias) for bias in ("distribute", "ledger")),
    ]
    found = [missing for one in whole for missing in without_kernel(one.model, one.emit.nodes)]
    if precision == "float32":
        ratios = ratio_model(replace(plan_of(b, "distribute"), blocks=False), b.forward).model
        found += without_kernel(ratios, ours(ratios))
    return {operator.split()[0] for operator, _ in found}


def has_own(case: Case) -> bool:
    """Whether the provider has the operator that is explained."""
    forward = bench(case, RULES, precision="float32" if case.dtype == "float64" else None).forward
    return not list(without_kernel(forward, forward.graph.node))


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("case", CUDA_CASES, ids=str)
def test_what_a_rule_emits_runs_on_cuda(case: Case, precision: str) -> None:
    found = lacking(case, RULES, precision)
    assert found <= (set() if has_own(case) else NONE_OF_ITS_OWN.get(case.op, set()))


@pytest.mark.parametrize("op", NONE_OF_ITS_OWN)
def test_no_exception_is_there_for_nothing(op: str) -> None:
    assert any(lacking(case, RULES, "float32") for case in CUDA_CASES if case.op == op)


def test_a_rule_that_emits_what_cuda_lacks_is_noticed() -> None:
    case = next(case for case in CUDA_CASES if case.op == "Relu")

    def spoiled(emit: Emitter, node: Node, cotangents: Sequence[str | None]) -> list[str | None]:
        (g,) = cotangents
        assert g is not None
        _, places = emit.many("MaxPool", g, outputs=2, kernel_shape=[1, 1])
        return [emit("MaxUnpool", g, places, kernel_shape=[1, 1])]

    rules = {
        key: replace(rule, vjp=spoiled) if key.op_type == "Relu" else rule for key, rule in RULES.items()
    }
    assert lacking(case, rules, "float32") == {"MaxUnpool"}


# Whole models


def emitted(explainer: Explainer, *, batch: int = 1) -> Iterator[Part]:
    """All that sessions on CUDA would run of an explainer's model: one target, and many by ratios."""
    shapes = explainer.shown_shapes()
    wide = {p.name: (batch, *shapes[p.name][1:]) if p.has_batch else shapes[p.name] for p in explainer.ports}
    yield from parts_of(explainer, replace(explainer.case(wide), blocks=False))


def missing(parts: Iterator[Part]) -> set[tuple[str, str]]:
    return {one for part in parts for one in without_kernel(part.model, ours(part.model))}


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", [*sorted(zoo()), "resnet50", "vit_s16"])
def test_what_is_emitted_for_a_model_runs_on_cuda(model: str, preset: str) -> None:
    data = model_bytes(model)
    assert not missing(emitted(Explainer(data, preset=preset, providers="cpu"), batch=2))


@pytest.mark.parametrize("name", ["densenet121", "inception_v2", "shufflenet"])
def test_what_is_emitted_for_the_graphs_of_others_runs_on_cuda(name: str) -> None:
    assert not missing(emitted(Explainer(loaded(f"light_{name}"), providers="cpu")))


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(grown())
def test_what_is_emitted_for_random_graphs_runs_on_cuda(graph: Grown) -> None:
    try:
        found = missing(emitted(Explainer(graph.model, providers="cpu")))
    except SrdOnnxError:  # some cannot be explained, which other tests look at
        return
    assert not found


@pytest.mark.parametrize("smooth", [0.0, 2.0])
@pytest.mark.parametrize("finer", [1, 2, 3])
def test_what_joins_the_maps_runs_on_cuda(finer: int, smooth: float) -> None:
    explainer = Explainer("squeezenet11", smooth=smooth, providers="cpu")
    value = replace(explainer.plan.sources[0], shape=(1, 32, 32))
    model = finish_model(explainer.options, value, 18, finer)
    assert not list(without_kernel(model, model.graph.node))


def test_nothing_that_is_emitted_is_overlooked() -> None:
    """Whatever the engine adds to the forward model says so, but for the ends."""
    explainer = Explainer("squeezenet11", providers="cpu")
    part = next(emitted(explainer))
    known = part.of_model | {node.name for node in ours(part.model)}
    rest = [node for node in part.model.graph.node if node.name not in known]
    assert rest
    assert {node.op_type for node in rest} == {"Identity"}
    assert all(node.name.startswith("srd/output/") for node in rest)


# The table itself


def one_node(op: str, opset: int, *types: int, outputs: int = 1, **attrs: Any) -> ModelProto:
    names = [f"x{i}" for i in range(len(types))]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], name="node", **attrs)
    inputs = [helper.make_tensor_value_info(n, t, [1, 1, 4, 4]) for n, t in zip(names, types, strict=True)]
    ends = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "one", inputs, ends)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


FLOAT, BOOL, INT64, HALF = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT16


@pytest.mark.parametrize(
    ("model", "fits"),
    [
        (one_node("Conv", 18, FLOAT, FLOAT), True),
        (one_node("Conv", 22, HALF, HALF), True),
        (one_node("Relu", 18, INT64), False),
        (one_node("MaxPool", 21, FLOAT, kernel_shape=[2, 2]), True),
        (one_node("MaxPool", 22, FLOAT, kernel_shape=[2, 2]), False),  # only a kernel of 12
        (one_node("MaxUnpool", 18, FLOAT, INT64, kernel_shape=[2, 2]), False),
        (one_node("Where", 18, BOOL, FLOAT, FLOAT), True),
        (one_node("Where", 18, BOOL, BOOL, BOOL), False),
        (one_node("Cast", 18, FLOAT, to=BOOL), True),
        (one_node("Cast", 18, FLOAT, to=TensorProto.STRING), False),
        (one_node("ReduceSum", 18, BOOL), False),
    ],
    ids=str,
)
def test_a_kernel_fits_by_its_versions_and_types(model: ModelProto, fits: bool) -> None:
    assert (not list(without_kernel(model, model.graph.node))) == fits


def test_what_lacks_a_kernel_is_named_with_its_types() -> None:
    model = one_node("MaxUnpool", 18, FLOAT, INT64, kernel_shape=[2, 2])
    ((operator, types),) = without_kernel(model, model.graph.node)
    assert operator == "MaxUnpool 11"
    assert "T1 float" in types


def test_the_bodies_of_nodes_are_looked_at() -> None:
    body = helper.make_graph(
        [helper.make_node("Det", ["a"], ["b"], name="inner")],
        "body",
        [helper.make_tensor_value_info("a", FLOAT, [4, 4])],
        [helper.make_tensor_value_info("b", FLOAT, [])],
    )
    model = one_node("Scan", 18, FLOAT, body=body, num_scan_inputs=1)
    assert [operator for operator, _ in without_kernel(model, model.graph.node)] == ["Det 11"]


def test_the_table_is_whole() -> None:
    """As many operators as there were when it was written, each with versions in order."""
    assert len(kernels()) == 143
    for op, found in kernels().items():
        assert all(k.last is None or k.first <= k.last for k in found), op
