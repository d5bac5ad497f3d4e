"""What rules refuse, and in which words: never a silent guess."""

from typing import Any

import pytest

from graph_rules import RULES
from srd_onnx.errors import LayoutError, SrdOnnxError, UnsupportedCaseError
from tests.case_types import IMAGE, TOKENS, Case, Const, Operand, Rand, Var, ints
from tests.harness import bench, emitted_vjp


def row(op: str, since: int, *inputs: Operand, masks: int = 0, out: str = "NCHW", **attrs: Any) -> Case:
    return Case(f"{op}-{since}-refused", op, since, inputs, (out,), attrs, masks=masks)


STATISTICS = (Rand((3,)), Rand((3,)), Rand((3,)), Rand((3,), positive=True))
LONG = Var("NCT", (2, 3, 9))

REFUSED: list[tuple[str, Case, type[SrdOnnxError], str]] = [
    (
        "conv_computed_weights",
        row("Conv", 11, IMAGE, Var("NCHW", (3, 3, 1, 1))),
        UnsupportedCaseError,
        r"^ai\.onnx::Conv v11, node 'node': input 1 \('x1'\) must be a constant for the rule to apply, "
        r"but it is computed at run time$",
    ),
    (
        "conv_channels_last",
        row("Conv", 11, Var("NHWC", (2, 3, 4, 4)), Rand((2, 3, 1, 1))),
        LayoutError,
        "slides along axes 2 and up, but its input .* has axes NPPC .* is the layout of the input right",
    ),
    (
        "same_pads_and_a_wide_stride",
        row("Conv", 22, LONG, Rand((2, 3, 1)), out="NCT", auto_pad="SAME_UPPER", strides=[5]),
        UnsupportedCaseError,
        "stride that passes the kernel by two or more: runtimes disagree .* export with explicit pads",
    ),
    (
        "ceil_past_the_end",
        row("MaxPool", 12, Var("NCT", (2, 3, 2)), out="NCT", kernel_shape=[1], strides=[2], ceil_mode=1),
        UnsupportedCaseError,
        r"onnx infers \[2\] positions .* export with opset 22",
    ),
    (
        "cubic_samples_of_a_volume",
        row(
            "GridSample", 20, Var("NCDHW", (1, 2, 2, 2, 2)), Rand((1, 1, 1, 1, 3)), out="NCDHW", mode="cubic"
        ),
        UnsupportedCaseError,
        "mode 'cubic' on 3 axes has no rule, as it has no kernel in ONNX Runtime",
    ),
    (
        "regions_of_a_batch",
        row("RoiAlign", 16, IMAGE, Rand((2, 4)), ints(0, 1), out="RCHW"),
        UnsupportedCaseError,
        "its regions choose from the batch, so that images are no longer independent; explain one at a time",
    ),
    (
        "computed_regions_of_many_samples",
        row("RoiAlign", 16, Var("NCHW", (1, 3, 4, 4)), Var("TC", (2, 4)), ints(0, 0), out="RCHW"),
        UnsupportedCaseError,
        "with sampling_ratio 0 the number of samples depends on the regions, which must be constant",
    ),
    (
        "maximum_of_many_samples",
        row("RoiAlign", 22, Var("NCHW", (1, 3, 4, 4)), Rand((2, 4)), ints(0, 0), out="RCHW", mode="max"),
        UnsupportedCaseError,
        "a maximum with sampling_ratio 0 has no rule",
    ),
    (
        "deformable_volume",
        row(
            "DeformConv",
            19,
            Var("NCDHW", (1, 1, 2, 2, 2)),
            Rand((1, 1, 1, 1, 1)),
            Rand((1, 3, 2, 2, 2)),
            out="NCDHW",
        ),
        UnsupportedCaseError,
        "on 3 axes it has no rule, as it has no kernel in ONNX Runtime",
    ),
    (
        "deformable_computed_weights",
        row("DeformConv", 22, IMAGE, Var("NCHW", (3, 3, 1, 1)), Rand((2, 2, 4, 3))),
        UnsupportedCaseError,
        r"input 1 \('x1'\) must be a constant",
    ),
    (
        "dropout_training",
        row("Dropout", 13, IMAGE, Const(0.5), Const(data=True, dtype="bool"), masks=1),
        UnsupportedCaseError,
        "training mode is random; export for inference",
    ),
    (
        "batch_norm_training",
        row("BatchNormalization", 15, IMAGE, *STATISTICS, masks=2, training_mode=1),
        UnsupportedCaseError,
        "training mode has no fixed statistics; export for inference",
    ),
    (
        "batch_norm_computed",
        row("BatchNormalization", 15, IMAGE, Var("C", (3,)), *STATISTICS[1:]),
        UnsupportedCaseError,
        r"input 1 \('x1'\) must be a constant",
    ),
    (
        "reshape_merges_the_batch",
        row("Reshape", 14, IMAGE, ints(6, 12), out="NC"),
        UnsupportedCaseError,
        r"merges the batch axis with others: \[2, 3, 4, 3\] \(NCPP\) to \[6, 12\]",
    ),
    (
        "sum_over_the_batch",
        row("ReduceSum", 13, IMAGE, ints(0)),
        UnsupportedCaseError,
        "sums over the batch axis",
    ),
    (
        "concat_of_different_axes",
        row("Concat", 13, IMAGE, Var("NHWC", (2, 3, 4, 3)), axis=1),
        UnsupportedCaseError,
        "its operands have different axes: NCPP, NPPC",
    ),
    (
        "add_of_different_axes",
        row("Add", 14, IMAGE, Var("NHWC", (2, 3, 4, 3))),
        LayoutError,
        "axis 1 is a .* axis of one operand and not of another",
    ),
    (
        "add_of_a_wider_constant",
        row("Add", 14, Var("NC", (2, 3)), Rand((4, 2, 3))),
        LayoutError,
        "a constant adds an axis whose role is not known",
    ),
    (
        "division_by_zero",
        row("Div", 14, IMAGE, Const([[[1.0]], [[0.0]], [[2.0]]])),
        UnsupportedCaseError,
        "division by a constant zero",
    ),
    (
        "gemm_compares_the_batch",
        row("Gemm", 13, Var("NC", (2, 3)), Var("CN", (3, 2)), out="NN"),
        UnsupportedCaseError,
        "it multiplies each item of the batch with every other",
    ),
    (
        "matmul_sums_over_the_batch",
        row("MatMul", 13, Rand((4, 2)), Var("NC", (2, 3)), out="NC"),
        UnsupportedCaseError,
        "it sums over the batch axis",
    ),
    (
        "matmul_of_different_axes",
        row("MatMul", 13, Var("NCPC", (2, 3, 4, 2)), Var("NPCC", (2, 3, 2, 4)), out="NCPC"),
        LayoutError,
        "axis 1 of the result is a channel axis of one operand and a position axis of another",
    ),
    (
        "einsum_adds_an_axis",
        row("Einsum", 12, Var("NC", (2, 3)), Rand((4,)), out="NCP", equation="nc,p->ncp"),
        LayoutError,
        "a constant adds an axis whose role is not known",
    ),
    (
        "einsum_diagonal_of_different_axes",
        row("Einsum", 12, Var("NCP", (2, 3, 3)), out="NC", equation="ncc->nc"),
        UnsupportedCaseError,
        r"the diagonal of axes of different roles \(NCP\) has no rule",
    ),
    (
        "softmax_over_the_batch",
        row("Softmax", 13, IMAGE, axis=0),
        UnsupportedCaseError,
        "it compares the items of the batch",
    ),
    (
        "statistics_of_the_batch",
        row("MeanVarianceNormalization", 13, IMAGE, axes=[0, 2]),
        UnsupportedCaseError,
        "it takes statistics over the batch axis",
    ),
    (
        "layer_norm_computed_scale",
        row("LayerNormalization", 17, TOKENS, Var("C", (3,)), out="NTC"),
        UnsupportedCaseError,
        r"input 1 \('x1'\) must be a constant",
    ),
    (
        "floored_modulo",
        row("Mod", 13, IMAGE, Const(0.7), fmod=0),
        UnsupportedCaseError,
        "before opset 28 fmod=0 is for integers only",
    ),
    (
        "power_of_a_negative_constant",
        row("Pow", 15, Const(-2.0), IMAGE),
        UnsupportedCaseError,
        "a power of a constant that is not positive",
    ),
    (
        "computed_exponent_of_another_precision",
        row("Pow", 15, Const(2.0), Var("NCHW", (2, 3, 4, 3), dtype="float32")),
        UnsupportedCaseError,
        "base and computed exponent differ in precision",
    ),
    (
        "celu_without_a_scale",
        row("Celu", 28, IMAGE, alpha=-1.0),
        UnsupportedCaseError,
        "alpha -1 is not positive",
    ),
    (
        "sign",
        row("Sign", 13, IMAGE),
        UnsupportedCaseError,
        "a sign is constant under a fixed pattern",
    ),
]


def emit_as_the_engine_does(case: Case) -> None:
    b = bench(case, RULES)
    b.rule.routes(b.node, b.roles)  # the plan asks this before anything is emitted
    emitted_vjp(b, b.cotangents())


@pytest.mark.parametrize(("case", "error", "words"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED])
def test_is_refused(case: Case, error: type[SrdOnnxError], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        emit_as_the_engine_does(case)
    assert str(caught.value).startswith(f"ai.onnx::{case.op} v{case.since}, node 'node': ")
