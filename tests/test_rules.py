"""Every rule on every one of its cases (tests/cases.py) against numbers from somewhere else."""

from collections.abc import Callable

import pytest

from graph_rules import RULES
from srd_onnx.engine.options import Bias
from srd_onnx.errors import UnsupportedCaseError
from tests import checks
from tests.cases import CASES, Case
from tests.harness import bench, emitted_vjp

PATTERN = [case for case in CASES if case.no_pattern is None]
NO_PATTERN = [case for case in CASES if case.no_pattern is not None]
# Rounding is a staircase; its rule is the identity, and an integer has no neighbours to step to.
STAIRCASES = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
SMOOTH = [case for case in CASES if case.op not in STAIRCASES]
# ONNX Runtime has no kernel for the remainders of reals and the modes of SpaceToDepth that opset 28 brings, and none
# for RoiAlign of opset 22.
NO_KERNEL: dict[str, Callable[[Case], bool]] = {
    "Mod": lambda case: not case.attrs.get("fmod"),
    "SpaceToDepth": lambda case: "mode" in case.attrs,
    "RoiAlign": lambda case: case.since == 22,
}
KERNELS = [case for case in CASES if case.op not in NO_KERNEL or not NO_KERNEL[case.op](case)]

every = pytest.mark.parametrize("case", CASES, ids=str)
under_pattern = pytest.mark.parametrize("case", PATTERN, ids=str)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@under_pattern
def test_position_form_is_the_definition(case: Case, bias: Bias) -> None:
    checks.check_against_definition(case, RULES, bias)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("case", [c for c in PATTERN if c.op not in STAIRCASES[1:]], ids=str)
def test_position_form_of_zeros_is_the_definition(case: Case, bias: Bias) -> None:
    checks.check_against_definition(case, RULES, bias, zero=True)


@under_pattern
def test_the_frozen_map_and_its_bias_conserve(case: Case) -> None:
    checks.check_conservation(case, RULES)


@under_pattern
def test_vjp_is_the_adjoint_of_the_replay(case: Case) -> None:
    checks.check_adjoint(case, RULES)


@pytest.mark.parametrize("case", SMOOTH, ids=str)
def test_tangent_is_the_derivative(case: Case) -> None:
    checks.check_differences(case, RULES)


@under_pattern
def test_vjp_is_linear(case: Case) -> None:
    checks.check_linearity(case, RULES)


@every
def test_tangent_vjp_is_linear(case: Case) -> None:
    checks.check_linearity(case, RULES, tangent=True)


@pytest.mark.parametrize("case", [c for c in KERNELS if c.no_pattern is None], ids=str)
def test_runtime_in_single_precision_agrees(case: Case) -> None:
    checks.check_runtime(case, RULES)


@pytest.mark.parametrize("case", KERNELS, ids=str)
def test_runtime_in_single_precision_agrees_on_the_tangent(case: Case) -> None:
    checks.check_runtime(case, RULES, tangent=True)


@under_pattern
def test_emitted_graph_is_valid_and_says_its_origin(case: Case) -> None:
    checks.check_emitted_graph(case, RULES)


@every
def test_emitted_tangent_graph_is_valid_and_says_its_origin(case: Case) -> None:
    checks.check_emitted_graph(case, RULES, tangent=True)


@every
def test_roles_of_the_outputs_are_those_of_the_row(case: Case) -> None:
    b = bench(case, RULES)
    letters = ["".join(letter if letter in "NC" else "P" for letter in layout) for layout in case.out]
    assert [str(b.axes(value)) for value in b.outputs] == letters


@every
def test_carriers_are_the_operands_that_are_not_held(case: Case) -> None:
    b = bench(case, RULES)
    expected = tuple(i for i in range(len(case.inputs)) if case.layout(i) is not None)
    if case.no_pattern is None:
        assert b.rule.carriers(b.node, b.roles) == expected


@pytest.mark.parametrize("case", NO_PATTERN, ids=str)
def test_what_has_no_fixed_pattern_is_refused(case: Case) -> None:
    b = bench(case, RULES)
    with pytest.raises(UnsupportedCaseError, match="node 'node'"):
        emitted_vjp(b, b.cotangents())
