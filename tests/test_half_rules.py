"""What is emitted for one node of half precision: sound types, and numbers near the definition's."""

import numpy as np
import onnx
import pytest

from graph_rules import RULES
from srd_onnx.sharing.ratios import ratio_model
from tests.cases import CASES, Case
from tests.checks import biggest, given, merged, real_operands
from tests.definition import Layouts, share_positions
from tests.harness import bench, emitted_position
from tests.oracles import ORACLES
from tests.ratio_checks import plan_of
from tests.test_rule_checks import first_of_each

# One case of each operator (numpy has no determinant of float16), and those with an operand that is the same for all
# items of a batch.
DOUBLE = [case for case in CASES if case.no_pattern is None and case.dtype == "float64" and case.op != "Det"]
ONE_BY_ONE = [*first_of_each(DOUBLE), *(c for c in DOUBLE if c.name.endswith(("-vector", "-lower_rank")))]


@pytest.mark.parametrize("case", list(dict.fromkeys(ONE_BY_ONE)), ids=str)
def test_it_is_sound_and_near_the_definition(case: Case) -> None:
    check(case)


def test_the_check_notices_sums_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("srd_onnx.engine.mixing.in_single", lambda emit, node: (emit, node))
    with pytest.raises(onnx.shape_inference.InferenceError, match="inconsistent type"):
        check(next(case for case in DOUBLE if case.op == "Conv"))


def check(case: Case) -> None:
    """Relevance and ratios are float32, and what goes through VJPs is float16."""
    b = bench(case, RULES, precision="float16")
    shares = b.shares()
    assert {share.dtype for share in shares if share is not None} == {np.dtype(np.float32)}
    operands = [x if x is None or x.dtype != np.float16 else x.astype(np.float64) for x in real_operands(b)]
    layouts = Layouts([case.layout(i) for i in range(len(case.inputs))], case.out)
    routed = b.rule.routes(b.node, b.roles)
    wanted = share_positions(
        ORACLES[case.op], case.attrs, operands, layouts, shares, "distribute", routed=routed
    )
    for plain in (True, False):
        emitted = emitted_position(b, shares, "distribute", plain=plain)
        onnx.checker.check_model(emitted.model, full_check=True)
        with np.errstate(over="ignore"):
            found = emitted(b.feeds | given(shares))[: len(case.inputs)]
        for got, flow in zip(found, merged(case, wanted.flows), strict=True):
            if flow is not None and got is not None:
                np.testing.assert_allclose(got, flow, atol=0.02 * biggest(shares))
    onnx.checker.check_model(
        onnx.shape_inference.infer_shapes(ratio_model(plan_of(b, "distribute"), b.forward).model),
        full_check=True,
    )
