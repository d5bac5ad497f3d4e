"""Rules on shapes and attributes that nobody thought of: Hypothesis draws them, the checks are those of every row."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from graph_rules import RULES
from tests import checks, strategies
from tests.cases import Case
from tests.harness import bench

STRATEGIES: dict[str, tuple[int, st.SearchStrategy[Case]]] = {
    "Conv": (200, strategies.convolutions()),
    "MaxPool": (80, strategies.pools("MaxPool", (12, 22))),
    "AveragePool": (80, strategies.pools("AveragePool", (11, 19, 22))),
    "Slice": (60, strategies.slices()),
    "Reshape": (40, strategies.reshapes()),
    "Pad": (60, strategies.paddings()),
    "Concat": (40, strategies.concatenations()),
    "Split": (30, strategies.splits()),
    "Gemm": (50, strategies.gemms()),
    "MatMul": (40, strategies.matmuls()),
    "Add": (40, strategies.broadcasts("Add", 14)),
    "Sub": (20, strategies.broadcasts("Sub", 14)),
    "Mul": (40, strategies.broadcasts("Mul", 14)),
    "Max": (30, strategies.broadcasts("Max", 13)),
    "Mean": (20, strategies.broadcasts("Mean", 13)),
}


def check_everything(case: Case) -> None:
    checks.check_against_definition(case, RULES, "distribute")
    checks.check_against_definition(case, RULES, "ledger")
    checks.check_conservation(case, RULES)
    checks.check_adjoint(case, RULES)
    checks.check_differences(case, RULES)
    checks.check_linearity(case, RULES)
    checks.check_runtime(case, RULES)
    checks.check_emitted_graph(case, RULES)


@pytest.mark.parametrize("op", STRATEGIES)
def test_drawn_cases_pass_every_check(op: str) -> None:
    count, cases = STRATEGIES[op]

    @settings(
        max_examples=count,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(case=cases)
    def run(case: Case) -> None:
        check_everything(case)

    run()


def test_drawn_convolutions_reach_what_they_are_meant_to_reach() -> None:
    seen: set[str] = set()

    @settings(max_examples=200, derandomize=True, deadline=None, database=None)
    @given(case=strategies.convolutions())
    def look(case: Case) -> None:
        kernel = bench(case, RULES).node.input(1).shape[2:]
        strides = case.attrs.get("strides", [1])
        pads = case.attrs.get("pads", [])
        seen.add(f"{len(kernel)}-D")
        seen.add(str(case.attrs.get("auto_pad", "left out")))
        seen.update(["unequal strides"] * (len(set(strides)) > 1))
        seen.update(["stride past the kernel"] * any(s > k for s, k in zip(strides, kernel, strict=False)))
        seen.update(["pads past the kernel"] * any(p >= k for p, k in zip(pads, kernel, strict=False)))
        seen.update(["asymmetric pads"] * (pads[: len(kernel)] != pads[len(kernel) :]))
        seen.update(["dilation"] * (max(case.attrs.get("dilations", [1])) > 1))
        group = case.attrs.get("group", 1)
        weights = bench(case, RULES).node.input(1).shape
        seen.update(
            ["depthwise"] * (group > 1 and weights[1] == 1), ["groups"] * (group > 1 and weights[1] > 1)
        )

    look()
    assert seen == {
        "1-D", "2-D", "3-D", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID", "left out", "unequal strides",
        "stride past the kernel", "pads past the kernel", "asymmetric pads", "dilation", "depthwise", "groups",
    }  # fmt: skip
