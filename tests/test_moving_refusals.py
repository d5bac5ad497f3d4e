"""What the rules of moving and resampling operators refuse, and in which words."""

import re
from typing import Any

import numpy as np
import pytest

from graph_rules import RULES
from srd_onnx.errors import UnsupportedCaseError
from tests.case_types import TOKENS, Case, Const, Operand, Rand, Var, ints
from tests.harness import bench, emitted_vjp

FLOATS = Const((1.0, 1.0, 1.5, 1.5), "float32")
ROWS = Const([[[1, 0, 0]], [[2, 2, 2]]], "int64")
NEW = Var("NTC", (2, 1, 3))
LENGTHS = Const((1, 3, 2), "int64")

REFUSED: dict[str, tuple[tuple[str, int, tuple[Operand, ...], str, dict[str, Any]], str]] = {
    "gather_batch": (
        ("Gather", 13, (TOKENS, ints(1, 0)), "NTC", {}),
        "it selects along the batch axis; images must stay independent",
    ),
    "gather_one_image": (
        ("Gather", 13, (TOKENS, Const(0, "int64")), "TC", {}),
        "it selects along the batch axis",
    ),
    "gather_elements_batch": (
        ("GatherElements", 13, (TOKENS, Const(np.ones((2, 4, 3)), "int64")), "NTC", {"axis": 0}),
        "it moves elements between batch items",
    ),
    "gather_nd_mixed": (
        ("GatherND", 13, (TOKENS, Const([[[0, 1]], [[2, 0]]], "int64")), "NC", {"batch_dims": 1}),
        "it indexes axes of different meaning (NPC) together",
    ),
    "gather_nd_batch": (
        ("GatherND", 13, (TOKENS, Const([[1, 0], [1, 1]], "int64")), "NC", {}),
        "it moves elements between batch items",
    ),
    "scatter_twice": (
        ("ScatterND", 18, (TOKENS, Const([[0, 1], [0, 1]], "int64"), Rand((2, 3))), "NTC", {}),
        "several updates go to one place, and which of them wins is not defined",
    ),
    "scatter_list_into_constant": (
        ("ScatterND", 18, (Rand((2, 4, 3)), Const([[0, 1], [1, 0]], "int64"), Var("NC", (2, 3))), "NTC", {}),
        "it scatters a list of slices into a constant",
    ),
    "tile_batch": (("Tile", 13, (TOKENS, ints(2, 1, 1)), "NTC", {}), "along the batch axis 0"),
    "expand_lead": (
        ("Expand", 13, (TOKENS, ints(5, 1, 1, 1)), "CNTC", {}),
        "it adds axes of unknown meaning in front: [2, 4, 3] to [5, 2, 4, 3]",
    ),
    "pad_negative_reflect": (
        ("Pad", 18, (TOKENS, ints(0, -1, 0, 0, 1, 0)), "NTC", {"mode": "reflect"}),
        "mode 'reflect' with a negative pad",
    ),
    "pad_too_far": (
        ("Pad", 18, (TOKENS, ints(0, 4, 0, 0, 0, 0)), "NTC", {"mode": "reflect"}),
        "mode 'reflect' with a pad of 4 on an axis of 4",
    ),
    "pad_batch": (("Pad", 18, (TOKENS, ints(1, 0, 0, 0, 0, 0)), "NTC", {}), "along the batch axis 0"),
    "resize_batch": (
        ("Resize", 18, (TOKENS, None, Const((2.0, 1.0, 1.0), "float32")), "NTC", {}),
        "along the batch axis 0",
    ),
    "resize_fraction": (
        (
            "Resize",
            18,
            (Var("NCHW", (1, 2, 3, 3)), None, FLOATS),
            "NCHW",
            {"coordinate_transformation_mode": "align_corners", "mode": "linear"},
        ),
        "align_corners with a scale of 1.5 on an axis of 3",
    ),
    "reverse_positions_by_channel": (
        ("ReverseSequence", 10, (Var("TCN", (4, 3, 2)), LENGTHS), "TCN", {}),
        "each channel reverses positions of its own",
    ),
    "cum_sum_batch": (("CumSum", 14, (TOKENS, Const(0, "int64")), "NTC", {}), "along the batch axis 0"),
    "top_k_batch": (("TopK", 11, (TOKENS, ints(1)), "NTC", {"axis": 0}), "it compares batch items"),
}


def use(case: Case) -> None:
    made = bench(case, RULES)
    emitted_vjp(made, made.cotangents())


@pytest.mark.parametrize("name", REFUSED)
def test_a_use_without_a_rule_is_refused_in_words(name: str) -> None:
    (op, since, inputs, out, attrs), message = REFUSED[name]
    case = Case(name, op, since, inputs, (out,), attrs, masks=int(op == "TopK"))
    with pytest.raises(UnsupportedCaseError, match=f"node 'node': .*{re.escape(message)}"):
        use(case)
