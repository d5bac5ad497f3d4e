"""Wrong rules on purpose: each check must notice each kind of mistake, for every operator it speaks about."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import onnx
import pytest
from onnx import helper

from graph_rules import RULES
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.mixing import biases
from srd_onnx.engine.rule import Flows, Rule
from srd_onnx.graph.ir import Node, OpKey
from tests import checks
from tests.cases import CASES, Case
from tests.harness import bench

Part = Callable[[Emitter, Node, Flows], Flows]
Spoil = Callable[[Emitter, str, tuple[int, ...]], str]

# What flows back is the same all along their last axes: a shift shows along the first.
EVEN = ("GlobalAveragePool", "ReduceSum", "ReduceMean", "ReduceLogSum")

# Their derivative is zero: there is no flow that could be wrong.
FLAT = ("Round", "Floor", "Ceil", "Sign", "Hardmax")


def first_of_each(cases: list[Case]) -> list[Case]:
    return list({case.op: case for case in reversed(cases)}.values())[::-1]


REPRESENTATIVES = first_of_each([c for c in CASES if c.no_pattern is None])
SMOOTH = first_of_each([c for c in CASES if c.op not in ("QuantizeLinear", "DequantizeLinear", *FLAT)])
MIXING = first_of_each(
    [c for c in REPRESENTATIVES for b in [bench(c, RULES)] if not b.rule.routes(b.node, b.roles)]
)


def scaled(factor: float) -> Spoil:
    return lambda emit, flow, _shape: emit("Mul", flow, emit("CastLike", emit.const(factor), flow))


def shifted(emit: Emitter, flow: str, shape: tuple[int, ...], *, first: bool = False) -> str:
    """Rolled by one along the last (or first) axis that is longer than one."""
    axes = [i for i, size in enumerate(shape) if size > 1]
    axis = axes[0] if first else axes[-1]
    order = [*range(1, shape[axis]), 0]
    return emit("Gather", flow, emit.ints(order), axis=axis)


def shifted_along_the_first(emit: Emitter, flow: str, shape: tuple[int, ...]) -> str:
    return shifted(emit, flow, shape, first=True)


def spoiled(part: Part, spoil: Spoil, *, positions: bool) -> Part:
    def wrong(emit: Emitter, node: Node, flows: Flows) -> Flows:
        made = []
        for value, flow in zip(node.inputs, part(emit, node, flows), strict=True):
            if value is None or flow is None:
                made.append(flow)
            else:
                shape = emit.axes(value).position_shape(value) if positions else value.shape
                made.append(spoil(emit, flow, shape))
        return made

    return wrong


def with_wrong_flows(case: Case, spoil: Spoil) -> Mapping[OpKey, Rule]:
    """The table with this case's rule spoiled: its VJP and its spread."""
    key = OpKey("", case.op, case.since)
    right = RULES[key]
    return RULES | {
        key: replace(
            right,
            vjp=spoiled(right.vjp, spoil, positions=False),
            spread=spoiled(right.spread, spoil, positions=True),
        )
    }


def with_changes(case: Case, **changes: Any) -> Mapping[OpKey, Rule]:
    key = OpKey("", case.op, case.since)
    return RULES | {key: replace(RULES[key], **changes)}


def with_wrong_bias(case: Case) -> Mapping[OpKey, Rule]:
    """The bias off by 0.1 everywhere."""
    right = RULES[OpKey("", case.op, case.since)]

    def wrong(emit: Emitter, node: Node) -> Flows:
        off = bench(case, RULES).real_like(emit, 0.1)
        return [emit("Add", bias, off) if bias else off for bias in biases(emit, right, node)]

    return with_changes(case, bias=wrong)


def shift_of(case: Case) -> Spoil:
    return shifted_along_the_first if case.op in EVEN else shifted


SPOILS: dict[str, Callable[[Case], Spoil]] = {
    "a thousandth too much": lambda _case: scaled(1.001),
    "the wrong sign": lambda _case: scaled(-1.0),
    "nothing": lambda _case: scaled(0.0),
    "shifted by one": shift_of,
}

wrong_flows = pytest.mark.parametrize("kind", SPOILS)
notices = pytest.raises(AssertionError, match="Not equal to tolerance")


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=str)


@wrong_flows
@each(REPRESENTATIVES)
def test_definition_notices_wrong_flows(case: Case, kind: str) -> None:
    with notices:
        checks.check_against_definition(case, with_wrong_flows(case, SPOILS[kind](case)))


@each(MIXING)
def test_definition_notices_a_wrong_bias(case: Case) -> None:
    with notices:
        checks.check_against_definition(case, with_wrong_bias(case))


@each(MIXING)
def test_definition_notices_a_bias_that_is_not_booked(case: Case) -> None:
    with notices:
        checks.check_against_definition(case, with_wrong_bias(case), "ledger")


@each(MIXING)
def test_definition_notices_a_rule_that_only_claims_to_route(case: Case) -> None:
    with pytest.raises(AssertionError, match="it claims to route"):
        checks.check_against_definition(case, with_changes(case, routes=lambda _node, _roles: True))


@each([c for c in CASES if c.name in ("Pad-18-zeros", "Concat-13-class_token", "Conv-22-far_pads")])
def test_definition_notices_that_a_loss_is_not_booked(case: Case) -> None:
    with notices:
        checks.check_against_definition(case, with_changes(case, lossy=lambda _node: False))


# The engine itself stops where all flow of a rule that may lose some is lost.
@each([c for c in REPRESENTATIVES for b in [bench(c, RULES)] if not b.rule.lossy(b.node)])
def test_definition_notices_an_operand_left_out(case: Case) -> None:
    nothing = with_changes(
        case, vjp=lambda _emit, node, _flows: [None] * len(node.inputs),
        spread=lambda _emit, node, _flows: [None] * len(node.inputs),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="relevance reaches other operands"):
        checks.check_against_definition(case, nothing)


@wrong_flows
@each(REPRESENTATIVES)
def test_conservation_notices_wrong_flows(case: Case, kind: str) -> None:
    with notices:
        checks.check_conservation(case, with_wrong_flows(case, SPOILS[kind](case)))


@each(REPRESENTATIVES)
def test_conservation_notices_a_wrong_bias(case: Case) -> None:
    with notices:
        checks.check_conservation(case, with_wrong_bias(case))


@wrong_flows
@each(REPRESENTATIVES)
def test_adjoint_notices_wrong_flows(case: Case, kind: str) -> None:
    with notices:
        checks.check_adjoint(case, with_wrong_flows(case, SPOILS[kind](case)))


@wrong_flows
@each(SMOOTH)
def test_differences_notice_wrong_flows(case: Case, kind: str) -> None:
    with notices:
        checks.check_differences(case, with_wrong_flows(case, SPOILS[kind](case)))


@wrong_flows
@each(REPRESENTATIVES)
def test_runtime_notices_wrong_flows(case: Case, kind: str) -> None:
    with notices:
        checks.check_runtime(case, with_wrong_flows(case, SPOILS[kind](case)), RULES)


@each(REPRESENTATIVES)
def test_linearity_notices_a_constant(case: Case) -> None:
    def constant(emit: Emitter, flow: str, _shape: tuple[int, ...]) -> str:
        return emit("Add", flow, emit("CastLike", emit.const(0.1), flow))

    with notices:
        checks.check_linearity(case, with_wrong_flows(case, constant))


@each(REPRESENTATIVES)
def test_linearity_notices_a_modulus(case: Case) -> None:
    with notices:
        checks.check_linearity(case, with_wrong_flows(case, lambda emit, flow, _shape: emit("Abs", flow)))


@each(REPRESENTATIVES)
def test_graph_check_notices_a_wrong_type(case: Case) -> None:
    wrong = with_wrong_flows(case, lambda emit, flow, _shape: emit("And", flow, flow))
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        checks.check_emitted_graph(case, wrong)


@each(REPRESENTATIVES)
def test_graph_check_notices_a_wrong_shape(case: Case) -> None:
    wrong = with_wrong_flows(case, lambda emit, flow, _shape: emit("Concat", flow, flow, axis=0))
    with pytest.raises(onnx.shape_inference.InferenceError):
        checks.check_emitted_graph(case, wrong)


@each(REPRESENTATIVES)
def test_graph_check_notices_a_node_without_origin(case: Case) -> None:
    def smuggled(emit: Emitter, flow: str, _shape: tuple[int, ...]) -> str:
        again = f"again{len(emit.nodes)}"
        emit.nodes.append(helper.make_node("Identity", [flow], [again]))
        return again

    with pytest.raises(AssertionError):
        checks.check_emitted_graph(case, with_wrong_flows(case, smuggled))
