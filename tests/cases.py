"""Every rule's test cases. A family with many rows has a file of its own, `cases_FAMILY.py`, joined here."""

from collections.abc import Iterator, Sequence
from typing import Any

from srd_onnx.graph.roles import Gate
from tests import (
    cases_attention,
    cases_contractions,
    cases_elementwise,
    cases_moving,
    cases_normalised,
    cases_recurrent,
    cases_resize,
    cases_sampling,
    cases_signals,
    cases_stamps,
)
from tests.case_types import (
    GATE,
    IMAGE,
    INT64_MAX,
    INT64_MIN,
    MASKED,
    SHAPES,
    TOKENS,
    Case,
    Const,
    Operand,
    Rand,
    Same,
    Var,
    ints,
    rows,
)

__all__ = ["CASES", "Case", "Const", "Operand", "Rand", "Same", "Var", "ints", "rows"]


def _activations() -> Iterator[Case]:
    yield from rows("Relu", (14,), "image", IMAGE)
    yield from rows("Relu", (14,), "tokens", TOKENS)
    yield from rows("LeakyRelu", (16,), "default", IMAGE)
    yield from rows("LeakyRelu", (16,), "alpha", IMAGE, alpha=0.3)
    yield from rows("PRelu", (16,), "per_channel", IMAGE, Rand((3, 1, 1)))
    yield from rows("PRelu", (16,), "scalar", IMAGE, Rand((1,)))
    yield from rows("Clip", (13,), "relu6", IMAGE, Const(0.0), Const(6.0))
    yield from rows("Clip", (13,), "narrow", IMAGE, Const(-0.25), Const(0.75))
    yield from rows("Clip", (13,), "no_lower", IMAGE, None, Const(0.5))
    yield from rows("Clip", (13,), "no_upper", IMAGE, Const(-0.5))
    yield from rows("Clip", (13,), "no_bounds", IMAGE)
    yield from rows("Sigmoid", (13,), "image", IMAGE)
    yield from rows("Sigmoid", (13,), "masked", MASKED)
    yield from rows("Tanh", (13,), "image", IMAGE)
    yield from rows("Elu", (6, 22), "default", IMAGE)
    yield from rows("Elu", (6, 22), "alpha", IMAGE, alpha=0.4)
    yield from rows("Softplus", (1, 22), "image", IMAGE)
    yield from rows("Softplus", (1, 22), "masked", MASKED)
    yield from rows("HardSigmoid", (6, 22), "default", IMAGE)
    yield from rows("HardSigmoid", (6, 22), "steep", IMAGE, alpha=0.7, beta=0.4)
    yield from rows("HardSwish", (14, 22), "image", IMAGE)
    yield from rows("LogSoftmax", (13,), "default_axis", Var("NC", (3, 5)))
    yield from rows("LogSoftmax", (13,), "channels", IMAGE, axis=1)
    yield from rows("Softmax", (13,), "default_axis", Var("NC", (3, 5)))
    yield from rows("Softmax", (13,), "channels", IMAGE, axis=1)
    yield from rows("Softmax", (13,), "positions", TOKENS, axis=-2)
    yield from rows("Softmax", (13,), "far_below_zero", Var("NC", (3, 5), within=(-30.0, -9.0)))
    yield from rows("Softmax", (13,), "masked", MASKED)
    yield from rows("Softmax", (13,), "one", Var("NCT", (2, 1, 3)), axis=1)


def _arithmetic() -> Iterator[Case]:
    for op, since in (("Add", 14), ("Sub", 14), ("Sum", 13)):
        yield from rows(op, (since,), "residual", IMAGE, IMAGE)
        yield from rows(op, (since,), "bias", IMAGE, Rand((3, 1, 1)))
        yield from rows(op, (since,), "scalar", IMAGE, Rand())
        yield from rows(op, (since,), "bias_first", Rand((1, 3, 1, 1)), IMAGE, out="NCHW")
        held = [1] if op == "Sub" else []
        yield from rows(op, (since,), "per_image", IMAGE, Var("NCHW", (2, 3, 1, 1)), held=held)
        yield from rows(op, (since,), "broadcast_constant", Var("NCHW", (2, 3, 1, 1)), Rand((2, 3, 4, 3)))
        yield from rows(op, (since,), "lower_rank", TOKENS, Var("TC", (4, 3)))
    yield from rows("Add", (14,), "with_itself", IMAGE, Same(0))
    yield from rows("Sum", (13,), "one", IMAGE)
    yield from rows("Sum", (13,), "three", IMAGE, Rand((3, 1, 1)), IMAGE)
    yield from rows("Sum", (13,), "with_itself", IMAGE, Var("NCHW", (2, 3, 4, 1)), Same(0))
    yield from rows("Mul", (14,), "scale", IMAGE, Rand((3, 1, 1)))
    yield from rows("Mul", (14,), "scale_first", Rand((1, 3, 1, 1)), IMAGE, out="NCHW")
    yield from rows("Mul", (14,), "sigmoid_gate", IMAGE, GATE, held=[1])
    yield from rows("Mul", (14,), "gate_first", GATE, IMAGE, held=[0])
    yield from rows("Mul", (14,), "squeeze_and_excite", IMAGE, Var("NCHW", (2, 3, 1, 1)), held=[1])
    yield from rows(
        "Mul", (14,), "spatial_gate", IMAGE, Var("NCHW", (2, 1, 4, 3), gate=Gate.SATURATING), held=[1]
    )
    yield from rows("Mul", (14,), "equals", IMAGE, IMAGE)
    yield from rows("Mul", (14,), "square", IMAGE, Same(0))
    yield from rows("Div", (14,), "by_constant", IMAGE, Rand((3, 1, 1), positive=True))
    yield from rows("Div", (14,), "by_statistic", IMAGE, Var("NCHW", (2, 1, 4, 3), positive=True), held=[1])


def _convolutions() -> Iterator[Case]:
    def conv(
        how: str, x: Var, weights: tuple[int, ...], *, bias: bool = True, **attrs: Any
    ) -> Iterator[Case]:
        added = (Rand(weights[:1]),) if bias else ()
        yield from rows("Conv", (11, 22), how, x, Rand(weights), *added, **attrs)

    image = Var("NCHW", (2, 4, 5, 4))
    yield from conv("1d", Var("NCT", (2, 3, 6)), (4, 3, 3), pads=[1, 1])
    yield from conv("1d_strided", Var("NCT", (2, 3, 7)), (4, 3, 3), pads=[2, 0], strides=[2])
    yield from conv("3d", Var("NCDHW", (1, 2, 3, 3, 2)), (2, 2, 2, 2, 2), pads=[1, 0, 0, 0, 1, 1])
    yield from conv(
        "3d_strided", Var("NCDHW", (1, 2, 3, 4, 3)), (2, 1, 2, 3, 2), group=2, strides=[2, 2, 1], bias=False
    )
    yield from conv("2d", image, (3, 4, 3, 3), pads=[1, 1, 1, 1])
    yield from conv("no_bias", image, (3, 4, 3, 3), bias=False)
    yield from conv("pointwise", image, (3, 4, 1, 1))
    yield from conv("pointwise_strided", image, (3, 4, 1, 1), strides=[2, 2])
    yield from conv("pointwise_padded", image, (3, 4, 1, 1), pads=[1, 0, 0, 1])
    yield from conv("groups", image, (6, 2, 3, 2), group=2, pads=[1, 1, 1, 0])
    yield from conv("depthwise", image, (4, 1, 3, 3), group=4, pads=[1, 1, 1, 1], strides=[2, 2])
    yield from conv("depthwise_multiplier", image, (8, 1, 2, 2), group=4)
    yield from conv("strides", image, (3, 4, 3, 3), pads=[1, 1, 1, 1], strides=[2, 2])
    yield from conv("unequal_strides", image, (3, 4, 3, 2), pads=[0, 1, 2, 0], strides=[3, 2])
    yield from conv("stride_past_kernel", Var("NCHW", (2, 2, 7, 6)), (3, 2, 2, 2), strides=[3, 3])
    yield from conv("dilations", image, (3, 4, 2, 2), dilations=[2, 3])
    grey = Var("NCHW", (2, 1, 7, 6))
    yield from conv("narrow", grey, (4, 1, 3, 3), pads=[1, 1, 1, 1])
    yield from conv("narrow_strided", grey, (5, 1, 3, 2), pads=[1, 0, 0, 1], strides=[2, 2])
    yield from conv("narrow_dilated", grey, (4, 1, 2, 2), dilations=[2, 1], bias=False)
    yield from conv("narrow_far_pads", grey, (4, 1, 2, 2), pads=[3, 2, 2, 4], strides=[1, 2])
    tall = Var("NCHW", (2, 3, 9, 4))
    yield from conv("tall", tall, (4, 3, 3, 3), pads=[1, 1, 1, 1])
    yield from conv("tall_unpadded", tall, (2, 3, 3, 2), bias=False)
    yield from conv("tall_wide_pads", tall, (2, 3, 3, 3), pads=[2, 3, 1, 0])
    yield from conv("tall_one_column", tall, (2, 3, 3, 1), pads=[0, 0, 2, 0])
    yield from conv("strided_dilations", image, (4, 2, 2, 2), dilations=[2, 1], strides=[2, 2], group=2)
    yield from conv("asymmetric_pads", image, (3, 4, 3, 3), pads=[2, 0, 0, 1])
    yield from conv("far_pads", Var("NCHW", (2, 2, 3, 3)), (3, 2, 2, 2), pads=[3, 2, 2, 4])
    yield from conv(
        "far_pads_strided", Var("NCHW", (2, 2, 3, 3)), (3, 2, 2, 2), pads=[3, 2, 2, 4], strides=[2, 3]
    )
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"):
        yield from conv(mode.lower(), image, (3, 4, 3, 2), auto_pad=mode, strides=[2, 1])
    yield from conv("same_lower_even", image, (3, 4, 2, 4), auto_pad="SAME_LOWER", strides=[2, 2])


def _pools() -> Iterator[Case]:
    image = Var("NCHW", (2, 2, 5, 4))

    def pool(op: str, versions: Sequence[int], how: str, x: Var, **attrs: Any) -> Iterator[Case]:
        yield from rows(op, versions, how, x, **attrs)

    for op, versions, dilated in (("AveragePool", (11, 19, 22), (19, 22)), ("MaxPool", (12, 22), (12, 22))):
        yield from pool(op, versions, "2x2", image, kernel_shape=[2, 2], strides=[2, 2])
        yield from pool(op, versions, "1d", Var("NCT", (2, 3, 7)), kernel_shape=[3], strides=[2], pads=[1, 0])
        yield from pool(
            op, versions, "3d", Var("NCDHW", (1, 2, 3, 4, 3)), kernel_shape=[2, 2, 2], strides=[1, 2, 2]
        )
        yield from pool(
            op, versions, "overlap", image, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
        )
        yield from pool(op, versions, "asymmetric", image, kernel_shape=[3, 2], pads=[2, 0, 0, 1])
        yield from pool(op, versions, "ceil", image, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
        yield from pool(
            op, versions, "same_upper", image, kernel_shape=[3, 2], strides=[2, 1], auto_pad="SAME_UPPER"
        )
        yield from pool(
            op, versions, "same_lower", image, kernel_shape=[2, 2], strides=[2, 1], auto_pad="SAME_LOWER"
        )
        yield from pool(op, versions, "1x1", image, kernel_shape=[1, 1], strides=[2, 2])
        yield from pool(op, dilated, "dilations", image, kernel_shape=[2, 2], dilations=[2, 3])
    yield from rows("MaxPool", (12, 22), "dilated_strided", image, kernel_shape=[2, 2], dilations=[2, 2],
                    strides=[2, 1], pads=[1, 1, 1, 1])  # fmt: skip
    yield from rows("AveragePool", (11, 19, 22), "counted_pads", image, kernel_shape=[3, 3], strides=[2, 2],
                    pads=[1, 1, 1, 1], count_include_pad=1)  # fmt: skip
    for op in ("GlobalAveragePool", "GlobalMaxPool"):
        yield from rows(op, (1, 22), "2d", IMAGE)
        yield from rows(op, (1, 22), "1d", Var("NCT", (2, 3, 5)))
        yield from rows(op, (1, 22), "3d", Var("NCDHW", (2, 3, 2, 2, 3)))


def _linear() -> Iterator[Case]:
    flat = Var("NC", (3, 4))
    yield from rows("Gemm", (13,), "plain", flat, Rand((4, 5)))
    yield from rows("Gemm", (13,), "bias", flat, Rand((4, 5)), Rand((5,)))
    yield from rows("Gemm", (13,), "trans_b", flat, Rand((5, 4)), Rand((1, 5)), transB=1, alpha=0.5, beta=2.0)
    yield from rows(
        "Gemm", (13,), "trans_a", Var("CN", (4, 3)), Rand((4, 5)), Rand((3, 5)), out="NC", transA=1
    )
    yield from rows(
        "Gemm", (13,), "trans_both", Var("CN", (4, 3)), Rand((5, 4)), Rand(), out="NC", transA=1, transB=1
    )
    yield from rows(
        "Gemm", (13,), "second", Rand((5, 4)), Var("CN", (4, 3)), Rand((5, 1)), out="CN", alpha=-1.5
    )
    yield from rows("Gemm", (13,), "second_trans_a", Rand((4, 5)), Var("CN", (4, 3)), out="CN", transA=1)
    yield from rows("Gemm", (13,), "second_trans_b", Rand((5, 4)), flat, out="CN", transB=1, alpha=2.0)
    yield from rows("Gemm", (13,), "second_trans_both", Rand((4, 5)), flat, out="CN", transA=1, transB=1)
    yield from rows("MatMul", (13,), "rank2", flat, Rand((4, 5)))
    yield from rows("MatMul", (13,), "tokens", TOKENS, Rand((3, 5)))
    yield from rows("MatMul", (13,), "rank4", Var("NHWC", (2, 3, 2, 4)), Rand((4, 3)))
    yield from rows("MatMul", (13,), "single_batch_of_matrices", TOKENS, Rand((1, 3, 5)))
    yield from rows("MatMul", (13,), "vector", TOKENS, Rand((3,)), out="NT")
    yield from rows("MatMul", (13,), "vector_of_flat", flat, Rand((4,)), out="N")
    yield from rows("MatMul", (13,), "left_mixes_tokens", Rand((5, 4)), TOKENS, out="NTC")
    yield from rows("MatMul", (13,), "left_channels", Rand((5, 3)), Var("NCT", (2, 3, 4)), out="NCT")
    yield from rows("MatMul", (13,), "left_vector", Rand((3,)), Var("NCT", (2, 3, 4)), out="NT")
    yield from rows("MatMul", (13,), "left_vector_over_tokens", Rand((4,)), TOKENS, out="NC")
    yield from rows("MatMul", (13,), "right_mixes_tokens", Var("NCT", (2, 3, 4)), Rand((4, 5)))
    constants = (Rand((3,)), Rand((3,)), Rand((3,)), Rand((3,), positive=True))
    yield from rows("BatchNormalization", (15,), "default", IMAGE, *constants)
    yield from rows(
        "BatchNormalization", (15,), "epsilon_1d", Var("NCT", (2, 3, 4)), *constants, epsilon=0.01
    )


def _layout() -> Iterator[Case]:
    yield from rows("Identity", (16, 19, 21, 23, 24, 25), "image", IMAGE)
    yield from rows("Dropout", (13, 22), "plain", IMAGE)
    yield from rows(
        "Dropout", (13, 22), "ratio", IMAGE, Const(0.3, "float32"), Const(data=False, dtype="bool"), masks=1
    )
    casts = (13, 19, 21, 23, 24, 25, 28)
    yield from rows("Cast", casts, "same", IMAGE, to="own")
    yield from rows(
        "Cast", casts, "widen", Var("NCHW", (2, 3, 4, 3), dtype="float32"), to="float64", dtype="float32"
    )
    yield from rows(
        "Cast", casts, "narrow", Var("NCHW", (2, 3, 4, 3), dtype="float64"), to="float32", dtype="float32"
    )
    likes = (15, 19, 21, 23, 24, 25)
    yield from rows("CastLike", likes, "same", IMAGE, Rand((2,)))
    yield from rows("CastLike", likes, "widen", Var("NCHW", (2, 3, 4, 3), dtype="float32"),
                    Const([1.0], "float64"), dtype="float32")  # fmt: skip
    yield from rows("CastLike", likes, "narrow", Var("NCHW", (2, 3, 4, 3), dtype="float64"),
                    Const(1.0, "float32"), dtype="float32")  # fmt: skip
    reshapes = (14, 19, 21, 23, 24, 25)
    yield from rows("Reshape", reshapes, "flatten", IMAGE, ints(2, -1), out="NC")
    yield from rows("Reshape", reshapes, "tokens", IMAGE, ints(0, 0, -1), out="NCT")
    yield from rows("Reshape", (14,), "to_image", Var("NCT", (2, 3, 6)), ints(0, 3, 2, 3), out="NCHW")
    yield from rows(
        "Reshape", (14,), "split_channels", Var("NCHW", (2, 8, 3, 2)), ints(2, 2, 2, 2, 3, 2), out="NCCCHW"
    )
    yield from rows(
        "Reshape", (14,), "pixel_shuffle", Var("NCHCWC", (2, 2, 3, 2, 2, 2)), ints(2, 2, 6, 4), out="NCHW"
    )
    yield from rows(
        "Reshape",
        (14,),
        "pixel_shuffle_to_one",
        Var("NCHCWC", (2, 1, 3, 2, 2, 2)),
        ints(2, 1, 6, 4),
        out="NCHW",
    )
    yield from rows("Reshape", (14,), "last_channels", TOKENS, ints(2, 12), out="NC")
    yield from rows("Reshape", (14,), "size_one", Var("NCHW", (2, 5, 1, 1)), ints(2, 5), out="NC")
    yield from rows("Flatten", SHAPES, "default", IMAGE, out="NC")
    yield from rows("Flatten", SHAPES, "negative_axis", IMAGE, out="NC", axis=-3)
    yield from rows("Flatten", (13,), "one_position", Var("NCHW", (2, 4, 1, 1)), out="NC", axis=1)
    yield from rows("Squeeze", SHAPES, "axes", Var("NCHW", (2, 4, 1, 1)), ints(2, 3), out="NC")
    yield from rows("Squeeze", SHAPES, "all", Var("NCHW", (2, 4, 1, 3)), out="NCW")
    yield from rows("Squeeze", (13,), "one_of_two", Var("CNHC", (1, 1, 3, 2)), ints(0), out="NHC")
    yield from rows("Squeeze", (13,), "negative", Var("NHWC", (2, 1, 3, 4)), ints(-3), out="NWC")
    yield from rows("Unsqueeze", SHAPES, "after", Var("NC", (2, 4)), ints(2, 3), out="NCCC")
    yield from rows("Unsqueeze", (13,), "negative", Var("NCT", (2, 4, 3)), ints(-1), out="NCTC")
    yield from rows("Unsqueeze", (13,), "in_front", Var("NCT", (1, 3, 4)), ints(0), out="CNCT")
    yield from rows("Unsqueeze", (13,), "middle", TOKENS, ints(1), out="NCTC")
    yield from rows("Transpose", SHAPES, "nchw_to_nhwc", IMAGE, out="NHWC", perm=[0, 2, 3, 1])
    yield from rows("Transpose", (13,), "default", Var("CN", (4, 3)), out="NC")
    yield from rows(
        "Transpose", (13,), "cycle", Var("NCDHW", (2, 3, 2, 4, 3)), out="NHWCD", perm=[0, 3, 4, 1, 2]
    )


def _parts() -> Iterator[Case]:
    image = Var("NCHW", (2, 4, 5, 4))
    yield from rows("Slice", (13,), "rows", image, ints(1), ints(4), ints(2))
    yield from rows("Slice", (13,), "channels", image, ints(1), ints(3), ints(1))
    yield from rows("Slice", (13,), "both_ends", image, ints(1, -3), ints(-1, INT64_MAX), ints(2, -1))
    yield from rows("Slice", (13,), "steps", image, ints(0, 1), ints(5, 4), ints(2, 3), ints(2, 3))
    yield from rows("Slice", (13,), "backwards", image, ints(-1), ints(INT64_MIN), ints(3), ints(-1))
    yield from rows(
        "Slice", (13,), "backwards_by_two", image, ints(4, 2), ints(-6, 0), ints(2, 1), ints(-2, -1)
    )
    yield from rows("Slice", (13,), "no_axes", Var("NCHW", (1, 4, 3, 2)), ints(0, 1), ints(1, 3))
    yield from rows("Slice", (13,), "all", image, ints(0), ints(100), ints(2))
    yield from rows("Split", (18,), "channels", image, ints(1, 3), out=("NCHW", "NCHW"), axis=1)
    yield from rows("Split", (18,), "rows", image, out=("NCHW", "NCHW"), axis=2, num_outputs=2)
    yield from rows("Split", (18,), "three", image, ints(1, 2, 1), out=("NCHW",) * 3, axis=-1)
    yield from rows(
        "Split", (18,), "dead_channels", image, ints(1, 3), out=("NCHW", "NCHW"), axis=1, dead=[0]
    )
    yield from rows("Split", (18,), "dead_rows", image, out=("NCHW", "NCHW"), axis=2, num_outputs=2, dead=[1])
    yield from rows("Concat", (13,), "channels", image, Var("NCHW", (2, 3, 5, 4)), axis=1)
    yield from rows("Concat", (13,), "three", IMAGE, IMAGE, Var("NCHW", (2, 2, 4, 3)), axis=-3)
    yield from rows("Concat", (13,), "twice", IMAGE, Same(0), axis=1)
    yield from rows("Concat", (13,), "rows", IMAGE, Var("NCHW", (2, 3, 2, 3)), axis=2)
    flat, flattened = Var("NCHW", (2, 3, 1, 4)), Var("NCCW", (2, 3, 1, 4))
    yield from rows("Concat", (13,), "height_one", flattened, flat, out="NCHW", axis=1)
    yield from rows("Concat", (13,), "rows_of_one", flattened, flat, out="NCHW", axis=2)
    yield from rows("Concat", (13,), "row_of_channels", Var("NCHW", (2, 3, 2, 4)), flattened, axis=2)
    yield from rows("Concat", (13,), "constant_channels", IMAGE, Rand((2, 2, 4, 3)), axis=1)
    yield from rows("Concat", (13,), "constant_among_channels", IMAGE, Rand((2, 1, 4, 3)), IMAGE, axis=1)
    yield from rows("Concat", (13,), "class_token", Rand((2, 1, 3)), TOKENS, out="NTC", axis=1)


def _reductions() -> Iterator[Case]:
    for op, since in (("ReduceSum", 13), ("ReduceMean", 18)):
        yield from rows(op, (since,), "positions", IMAGE, ints(2, 3))
        yield from rows(op, (since,), "positions_dropped", IMAGE, ints(-1, -2), out="NC", keepdims=0)
        yield from rows(op, (since,), "one_axis", IMAGE, ints(2), out="NCW", keepdims=0)
        yield from rows(op, (since,), "channels", IMAGE, ints(1))
        yield from rows(op, (since,), "channels_dropped", TOKENS, ints(2), out="NT", keepdims=0)
        yield from rows(op, (since,), "tokens", TOKENS, ints(1), out="NC", keepdims=0)
        yield from rows(op, (since,), "everything", Var("NCHW", (1, 3, 2, 2)))
        yield from rows(op, (since,), "noop", IMAGE, noop_with_empty_axes=1)


def _quantisation() -> Iterator[Case]:
    versions = (13, 19, 21, 23, 24, 25)
    scalar = (Const(0.0625), Const(3, "int8"))
    each = (Const([0.0625, 0.03125, 0.125]), Const([0, -3, 5], "int8"))
    words = Var("NCHW", (2, 3, 4, 3), dtype="int8")
    yield from rows("QuantizeLinear", versions, "per_tensor", IMAGE, *scalar, dtype="float32")
    yield from rows("QuantizeLinear", versions, "per_channel", IMAGE, *each, dtype="float32", axis=1)
    yield from rows(
        "QuantizeLinear", versions, "saturated", IMAGE, Const(0.0078125), Const(0, "int8"), dtype="float32"
    )
    yield from rows("DynamicQuantizeLinear", (11,), "image", IMAGE, dtype="float32", masks=2)
    yield from rows("DynamicQuantizeLinear", (11,), "tokens", TOKENS, dtype="float32", masks=2)
    yield from rows("DequantizeLinear", versions, "per_tensor", words, *scalar, dtype="float32")
    yield from rows("DequantizeLinear", versions, "per_channel", words, *each, dtype="float32", axis=1)


CASES: tuple[Case, ...] = tuple(
    case
    for family in (
        _activations,
        _arithmetic,
        cases_elementwise.cases,
        _convolutions,
        _pools,
        _linear,
        _layout,
        _parts,
        _reductions,
        _quantisation,
        cases_attention.cases,
        cases_contractions.cases,
        cases_normalised.cases,
        cases_moving.cases,
        cases_recurrent.cases,
        cases_resize.cases,
        cases_sampling.cases,
        cases_signals.cases,
        cases_stamps.cases,
    )
    for case in family()
)
