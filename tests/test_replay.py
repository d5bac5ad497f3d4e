"""The replay of every rule on every one of its cases, and wrong replays on purpose."""

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest

from graph_rules import RULES
from srd_onnx.apop.replay import Replayer
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, RuleTable
from srd_onnx.errors import UnsupportedOpError
from srd_onnx.graph.ir import Node, OpKey
from tests import replay_checks
from tests.cases import CASES, Case
from tests.harness import bench
from tests.test_rule_checks import (
    SPOILS,
    Spoil,
    each,
    first_of_each,
    notices,
    shifted_along_the_first,
    wrong_flows,
)
from tests.test_rules import KERNELS

PATTERN = [case for case in CASES if case.no_pattern is None]
under_pattern = pytest.mark.parametrize("case", PATTERN, ids=str)


@under_pattern
def test_replay_of_the_pattern_itself_is_the_output(case: Case) -> None:
    replay_checks.check_replay_at_the_pattern(case, RULES)


@under_pattern
def test_replay_of_other_operands_is_the_definition(case: Case) -> None:
    replay_checks.check_replay_against_definition(case, RULES)


@under_pattern
def test_replay_is_the_adjoint_of_the_vjp(case: Case) -> None:
    replay_checks.check_replay_is_adjoint(case, RULES)


@under_pattern
def test_replay_graph_is_valid_and_says_its_origin(case: Case) -> None:
    replay_checks.check_replay_graph(case, RULES)


@pytest.mark.parametrize("case", [case for case in KERNELS if case.no_pattern is None], ids=str)
def test_replay_on_runtime_in_single_precision_agrees(case: Case) -> None:
    replay_checks.check_replay_on_runtime(case, RULES)


# Wrong replays on purpose. Where the operand is an integer the engine itself replays it, and no rule can spoil that.
SPOILABLE = first_of_each([case for case in PATTERN if case.op != "DequantizeLinear"])


def with_wrong_replay(case: Case, spoil: Spoil) -> RuleTable:
    """The table with the outputs of this case's replay spoiled."""
    key = OpKey("", case.op, case.since)
    right = RULES[key]

    def wrong(emit: Emitter, node: Node, news: Flows) -> Flows:
        wanted = frozenset(value.name for value in bench(case, RULES).outputs)
        made = Replayer(emit, RULES, wanted, bench(case, RULES).dtype)(right, node, news)
        pairs = list(zip(made, node.outputs, strict=True))
        return [f if f is None or v is None else spoil(emit, f, v.shape) for f, v in pairs]

    return RULES | {key: replace(right, replay=wrong)}


CHECKS: dict[str, Callable[[Case, RuleTable], None]] = {
    "pattern": replay_checks.check_replay_at_the_pattern,
    "definition": replay_checks.check_replay_against_definition,
    "adjoint": replay_checks.check_replay_is_adjoint,
    "runtime": lambda case, wrong: replay_checks.check_replay_on_runtime(case, wrong, RULES),
}


@pytest.mark.parametrize("check", CHECKS)
@wrong_flows
@each(SPOILABLE)
def test_replay_checks_notice_a_wrong_replay(case: Case, kind: str, check: str) -> None:
    # What Expand gives is the same all along its last axes.
    along_first = case.op == "Expand" and kind == "shifted by one"
    wrong = shifted_along_the_first if along_first else SPOILS[kind](case)
    with notices:
        CHECKS[check](case, with_wrong_replay(case, wrong))


@pytest.mark.parametrize("check", ["pattern", "definition"])
@each(SPOILABLE)
def test_replay_checks_notice_a_wrong_bias(case: Case, check: str) -> None:
    def off(emit: Emitter, flow: str, _shape: tuple[int, ...]) -> str:
        return emit("Add", flow, emit("CastLike", emit.const(0.1), flow))

    with notices:
        CHECKS[check](case, with_wrong_replay(case, off))


@each(SPOILABLE)
def test_replay_graph_check_notices_a_wrong_shape(case: Case) -> None:
    wrong = with_wrong_replay(case, lambda emit, flow, _shape: emit("Concat", flow, flow, axis=0))
    with pytest.raises(onnx.shape_inference.InferenceError):
        replay_checks.check_replay_graph(case, wrong)


def test_a_vjp_of_an_operator_without_a_rule_is_refused() -> None:
    case = next(case for case in PATTERN if case.op == "LayerNormalization")
    b = bench(case, RULES)
    table = {key: rule for key, rule in RULES.items() if key.op_type != "Mul"}
    with pytest.raises(
        UnsupportedOpError, match="it is part of a rule, and has none by which to transpose it"
    ):
        replay_checks.emitted_replay(b, table)
