"""A third of ONNX's conformance cases, chosen by name; benchmarks/conformance.py runs them all."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from graph_rules import RULES
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Rule
from srd_onnx.graph.ir import Node
from tests.conformance import EXPECTED, Outcome, cases, expected_lines, judge
from tests.conformance_models import seed

LARGE = ("3d_default", "3d_dilations")  # pictures of 32×32×32 and the like: in the whole run only


def chosen(name: str) -> bool:
    return seed(name) % 3 == 0 and not any(word in name for word in LARGE)


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    return [judge(case, RULES) for case in cases() if chosen(case.name)]


def test_what_is_not_passed_is_exactly_what_is_listed(outcomes: list[Outcome]) -> None:
    listed = [
        line for line in EXPECTED.read_text(encoding="utf-8").splitlines() if chosen(line.split(": ")[1])
    ]
    assert expected_lines(outcomes) == listed, "run: python -m benchmarks.conformance"


def test_there_are_many(outcomes: list[Outcome]) -> None:
    assert len(outcomes) > 550
    assert sum(o.status == "passed" for o in outcomes) > 250


def spoiled(factor: float) -> Callable[[Rule], Rule]:
    def spoil(rule: Rule) -> Rule:
        def vjp(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
            like = node.output()
            wrong = [None if g is None else emit("Mul", g, emit.like(like, factor)) for g in cotangents]
            return rule.vjp(emit, node, wrong)

        return replace(rule, vjp=vjp)

    return spoil


@pytest.mark.parametrize("factor", [1.001, -1.0])
@pytest.mark.parametrize("name", ["test_relu", "test_matmul_3d", "test_softmax_axis_1", "test_gelu_tanh_1"])
def test_a_spoiled_rule_fails(name: str, factor: float) -> None:
    (case,) = (c for c in cases() if c.name == name)
    spoil = spoiled(factor)
    assert judge(case, RULES).status == "passed"
    assert judge(case, {key: spoil(rule) for key, rule in RULES.items()}).status == "failed"
