"""Sharing ratios as data, row by row of the case table, against the definition; wrong ones it must notice."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from graph_rules import RULES
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import Bias
from srd_onnx.engine.rule import Flows, Parts, Rule, Taps
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Node, OpKey
from tests.cases import CASES, Case
from tests.harness import bench
from tests.ratio_checks import check_ratios
from tests.test_rule_checks import MIXING, first_of_each

PATTERN = [case for case in CASES if case.no_pattern is None]
TAPPED = first_of_each([c for c in MIXING if bench(c, RULES).rule.taps is not None])


@pytest.mark.parametrize("case", PATTERN, ids=str)
def test_ratios_are_the_definition(case: Case) -> None:
    check_ratios(case, RULES)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("case", MIXING, ids=str)
def test_ratios_of_zeros_and_what_is_booked_are_the_definition(case: Case, bias: Bias) -> None:
    check_ratios(case, RULES, bias)
    if case.op != "QuantizeLinear":
        check_ratios(case, RULES, bias, zero=True)


def wrong_by(case: Case, **changes: Any) -> dict[OpKey, Rule]:
    key = bench(case, RULES).node.key
    return {**RULES, key: replace(RULES[key], **changes)}


notices = pytest.raises(AssertionError, match="Not equal to tolerance")


@pytest.mark.parametrize("factor", [1.001, -1.0, 0.0])
@pytest.mark.parametrize("case", MIXING, ids=str)
def test_the_check_notices_wrong_ratios(case: Case, factor: float) -> None:
    rule = bench(case, RULES).rule

    def scaled(emit: Emitter, tensor: str) -> str:
        return emit("Mul", tensor, emit("CastLike", emit.const(factor), tensor))

    def vjp(emit: Emitter, node: Node, flows: Flows) -> Flows:
        return [None if flow is None else scaled(emit, flow) for flow in rule.vjp(emit, node, flows)]

    def taps(emit: Emitter, node: Node) -> Taps | None:
        right = rule.taps(emit, node) if rule.taps else None
        return replace(right, products=scaled(emit, right.products)) if right else None

    def parts(emit: Emitter, node: Node) -> Parts | None:
        right = rule.parts(emit, node) if rule.parts else None
        if right is None:
            return None
        products = [None if one is None else scaled(emit, one) for one in right.products]
        # Without a norm of its own, so that it does not become wrong with them.
        return replace(right, products=products, norm=None)

    wrong = {"vjp": vjp, "taps": taps if rule.taps else None, "parts": parts if rule.parts else None}
    with notices:
        check_ratios(case, wrong_by(case, **wrong))


@pytest.mark.parametrize("case", TAPPED, ids=str)
def test_the_check_notices_taps_in_the_wrong_place(case: Case) -> None:
    right: Callable[[Emitter, Node], Taps | None] | None = bench(case, RULES).rule.taps
    assert right is not None

    def moved(emit: Emitter, node: Node) -> Taps | None:
        taps = right(emit, node)
        assert taps is not None
        return replace(taps, index=np.roll(taps.index, 1, axis=-1))

    with notices:
        check_ratios(case, wrong_by(case, taps=moved))


@pytest.mark.parametrize("case", TAPPED, ids=str)
def test_taps_have_the_structure_that_probes_find(case: Case) -> None:
    """Without its taps the rule's VJP is probed, comb by comb, and says the same."""
    check_ratios(case, wrong_by(case, taps=None))


@pytest.mark.parametrize("name", ["DeformConv-19-pads", "ConvTranspose-11-notset"])
def test_ratios_that_no_memory_holds_are_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srd_onnx.sharing.feeds._MOST", 10)
    (case,) = (c for c in CASES if c.name == name)
    with pytest.raises(UnsupportedCaseError, match=r"its ratios would take \d+ passes over \d+ positions"):
        check_ratios(case, RULES)
