"""Rows of activations, elementary functions and arithmetic."""

from collections.abc import Iterator, Sequence

import numpy as np

from srd_onnx.graph.roles import Gate
from tests.case_types import GATE, IMAGE, MASKED, TOKENS, Case, Const, Operand, Rand, Same, Var, rows

SCALAR_PER_IMAGE = Var("NC", (3, 1))
MASK = np.random.default_rng(0).random((2, 3, 4, 3)) < 0.5


def cases() -> Iterator[Case]:
    yield from _activations()
    yield from _elementary()
    yield from _powers()
    yield from _selections()
    yield from _arithmetic()


def within(low: float, high: float) -> Var:
    return Var("NCHW", (2, 3, 4, 3), within=(low, high))


def _activations() -> Iterator[Case]:
    yield from rows("Gelu", (20,), "default", IMAGE)
    yield from rows("Gelu", (20,), "none", TOKENS, approximate="none")
    yield from rows("Gelu", (20,), "tanh", IMAGE, approximate="tanh")
    yield from rows("Mish", (18, 22), "image", IMAGE)
    yield from rows("Swish", (24,), "default", IMAGE)
    yield from rows("Swish", (24,), "alpha", TOKENS, alpha=1.702)
    yield from rows("Swish", (24,), "negative_alpha", IMAGE, alpha=-0.5)
    yield from rows("Selu", (6, 22), "default", IMAGE)
    yield from rows("Selu", (6, 22), "attributes", IMAGE, alpha=0.7, gamma=1.9)
    yield from rows("Celu", (12,), "default", IMAGE, dtype="float32")
    yield from rows("Celu", (12,), "alpha", within(-3.0, -0.3), alpha=0.7, dtype="float32")
    yield from rows("Celu", (28,), "default", IMAGE)
    yield from rows("Celu", (28,), "alpha", IMAGE, alpha=2.5)
    yield from rows("Softsign", (1, 22), "image", IMAGE)
    yield from rows("ThresholdedRelu", (10, 22), "default", IMAGE)
    yield from rows("ThresholdedRelu", (10, 22), "alpha", IMAGE, alpha=0.2)
    yield from rows("ThresholdedRelu", (10, 22), "negative_alpha", IMAGE, alpha=-0.3)
    yield from rows("Shrink", (9,), "default", IMAGE)
    yield from rows("Shrink", (9,), "soft", IMAGE, lambd=0.3, bias=0.3)
    yield from rows("Shrink", (9,), "overlap", IMAGE, lambd=-0.2, bias=0.5)
    for how, shape in (
        ("full", (2, 3, 4, 3)), ("rank4", (1, 3, 1, 1)), ("spatial", (4, 1)), ("last_axis", (3,)), ("rank0", ()),
    ):  # fmt: skip
        yield from rows("PRelu", (16,), how, IMAGE, Rand(shape))
    yield from rows("PRelu", (16,), "computed_slope", IMAGE, Var("NCHW", (2, 3, 1, 1)), held=[1])
    yield from rows("PRelu", (16,), "itself", IMAGE, Same(0), held=[1])
    yield from rows("PRelu", (16,), "constant_base", Rand((2, 3)), Var("NC", (2, 3)), out="NC")
    yield from rows("Hardmax", (13,), "default", Var("NC", (3, 5)), no_pattern="it is constant")
    yield from rows("Hardmax", (13,), "channels", IMAGE, axis=1, no_pattern="it is constant")


def _elementary() -> Iterator[Case]:
    for op, versions in (
        ("Neg", (13,)), ("Abs", (13,)), ("Exp", (13,)), ("Erf", (13,)), ("Sin", (7, 22)), ("Cos", (7, 22)),
        ("Atan", (7, 22)), ("Sinh", (9, 22)), ("Cosh", (9, 22)), ("Asinh", (9, 22)), ("Round", (11, 22)),
        ("Floor", (13,)), ("Ceil", (13,)),
    ):  # fmt: skip
        yield from rows(op, versions, "image", IMAGE)
        yield from rows(op, versions, "one_number", SCALAR_PER_IMAGE)
    yield from rows("Exp", (13,), "masked", MASKED)
    yield from rows("Sign", (13,), "image", IMAGE, no_pattern="it is constant")
    for op, versions, low, high in (
        ("Tan", (7, 22), -1.4, 1.4), ("Asin", (7, 22), -0.95, 0.95), ("Acos", (7, 22), -0.95, 0.95),
        ("Atanh", (9, 22), -0.95, 0.95), ("Acosh", (9, 22), 1.1, 6.0), ("Log", (13,), 0.05, 4.0),
    ):  # fmt: skip
        yield from rows(op, versions, "image", within(low, high))
        yield from rows(op, versions, "narrow", within(low + 0.4 * (high - low), high))


def _powers() -> Iterator[Case]:
    yield from rows("Sqrt", (13,), "image", within(0.0, 4.0))
    yield from rows("Sqrt", (13,), "far", within(1.0, 90.0))
    yield from rows("Reciprocal", (13,), "positive", within(0.25, 3.0))
    yield from rows("Reciprocal", (13,), "negative", within(-3.0, -0.25))
    for how, exponent in (("square", 2.0), ("cube", 3.0), ("fourth", 4.0), ("one", 1.0), ("zero", 0.0)):
        yield from rows("Pow", (15,), how, IMAGE, Const(exponent))
    yield from rows("Pow", (15,), "integer", IMAGE, Const(2, "int64"))
    yield from rows("Pow", (15,), "other_precision", IMAGE, Const(3.0, "float32"))
    yield from rows("Pow", (15,), "root", within(0.0, 4.0), Const([0.5]))
    yield from rows("Pow", (15,), "fraction", within(0.0, 4.0), Const(1.7))
    yield from rows("Pow", (15,), "inverse_root", within(0.1, 4.0), Const(-0.5))
    yield from rows("Pow", (15,), "inverse", within(-4.0, -0.3), Const(-1.0))
    yield from rows("Pow", (15,), "per_channel", within(0.0, 3.0), Const([[[0.5]], [[0.0]], [[2.0]]]))
    yield from rows(
        "Pow",
        (15,),
        "wider_exponent",
        Var("NCHW", (2, 3, 1, 1), within=(0.0, 3.0)),
        Rand((4, 3), positive=True),
    )
    yield from rows("Pow", (15,), "constant_base", Const(2.5), IMAGE, out="NCHW")
    yield from rows("Pow", (15,), "constant_bases", Const([0.3, 1.0, 7.0]), TOKENS, out="NTC")
    yield from rows("Pow", (15,), "both", within(0.2, 3.0), Var("NCHW", (2, 3, 1, 1)), held=[1])
    yield from rows(
        "Pow", (15,), "both_wider", Var("NC", (2, 1), within=(0.2, 3.0)), Var("NC", (2, 3)), held=[1]
    )
    yield from rows("Pow", (15,), "itself", within(0.2, 3.0), Same(0), held=[1])


def _selections() -> Iterator[Case]:
    for op in ("Max", "Min"):
        yield from rows(op, (13,), "one", IMAGE)
        yield from rows(op, (13,), "two", IMAGE, IMAGE)
        yield from rows(op, (13,), "three", IMAGE, Rand((3, 1, 1)), Var("NCHW", (2, 3, 1, 3)))
        yield from rows(op, (13,), "constant", IMAGE, Const(0.1))
        yield from rows(op, (13,), "constant_first", Rand((3, 1, 1)), IMAGE, out="NCHW")
        yield from rows(op, (13,), "constants", Const(-0.3), IMAGE, Const(0.2), out="NCHW")
        yield from rows(op, (13,), "lower_rank", TOKENS, Var("TC", (4, 3)))
        yield from rows(op, (13,), "wider_constant", Var("NCHW", (2, 3, 1, 1)), Rand((2, 3, 4, 3)))
        yield from rows(op, (13,), "itself", IMAGE, Same(0))
    mask = Const(MASK, "bool")
    yield from rows("Where", (16,), "both", mask, IMAGE, IMAGE, out="NCHW")
    yield from rows("Where", (16,), "first", mask, IMAGE, Const(-7.0), out="NCHW")
    yield from rows("Where", (16,), "second", mask, Rand((3, 1, 1)), IMAGE, out="NCHW")
    yield from rows(
        "Where", (16,), "spatial", Const(MASK[0, 0], "bool"), IMAGE, Var("NCHW", (2, 3, 1, 1)), out="NCHW"
    )
    yield from rows("Where", (16,), "always", Const(data=True, dtype="bool"), IMAGE, IMAGE, out="NCHW")
    yield from rows("Where", (16,), "wider_mask", mask, Var("NCHW", (2, 3, 1, 1)), Rand(), out="NCHW")
    yield from rows(
        "Where", (16,), "lower_rank", Const(MASK[0, 0, :, :1], "bool"), Var("TC", (4, 3)), TOKENS, out="NTC"
    )
    yield from rows("Where", (16,), "itself", mask, IMAGE, Same(1), out="NCHW")


def _arithmetic() -> Iterator[Case]:
    yield from rows("Mean", (13,), "one", IMAGE)
    yield from rows("Mean", (13,), "two", IMAGE, IMAGE)
    yield from rows("Mean", (13,), "three", IMAGE, Rand((3, 1, 1)), Var("NCHW", (2, 3, 1, 3)))
    yield from rows("Mean", (13,), "bias_first", Rand((1, 3, 1, 1)), IMAGE, out="NCHW")
    yield from rows("Mean", (13,), "with_itself", IMAGE, Same(0), TOKENS_AS_IMAGE)
    for how, operands in _remainders():
        yield from rows("Mod", (13, 28), how, *operands, out="NCHW", fmod=1)
        yield from rows("Mod", (28,), f"{how}_floored", *operands, out="NCHW")
    for op, since in (("Add", 14), ("Sub", 14), ("Sum", 13)):
        yield from rows(
            op, (since,), "wider_on_both_sides", Var("NCHW", (2, 3, 4, 1)), Var("NCHW", (2, 1, 1, 3))
        )
        yield from rows(op, (since,), "size_one", SCALAR_PER_IMAGE, Var("NC", (3, 4)))
        yield from rows(op, (since,), "constant_axis", Var("NTC", (2, 1, 3)), Rand((1, 4, 1)))
        yield from rows(op, (since,), "vector", TOKENS, Var("C", (3,)), held=[1] if op == "Sub" else [])
    inverse = Gate.INVERSE
    yield from rows("Mul", (14,), "statistic", TOKENS, Var("NTC", (2, 4, 1), gate=inverse), held=[1])
    yield from rows(
        "Mul", (14,), "statistic_of_a_gate", GATE, Var("NCHW", (2, 3, 4, 3), gate=inverse), held=[1]
    )
    yield from rows(
        "Mul", (14,), "statistic_first", Var("NTC", (2, 4, 3), gate=inverse), Var("NTC", (2, 4, 1)), held=[0]
    )
    yield from rows(
        "Mul", (14,), "wider_on_both_sides", Var("NCHW", (2, 3, 4, 1)), Var("NCHW", (2, 1, 4, 3)), held=[0]
    )
    yield from rows("Mul", (14,), "wider_constant", Var("NCHW", (2, 3, 1, 1)), Rand((4, 3)))
    denominator = within(0.25, 3.0)
    yield from rows("Div", (14,), "constant_numerator", Rand((3, 1, 1)), denominator, out="NCHW")
    yield from rows("Div", (14,), "one_over", Const(1.0), denominator, out="NCHW")
    yield from rows(
        "Div",
        (14,),
        "wider_numerator",
        Rand((4, 3)),
        Var("NCHW", (2, 3, 1, 1), within=(0.3, 2.0)),
        out="NCHW",
    )
    yield from rows("Div", (14,), "wider_denominator", Var("NCHW", (2, 3, 1, 1)), denominator, held=[1])
    yield from rows("Div", (14,), "by_itself", denominator, Same(0), held=[1])


TOKENS_AS_IMAGE = Var("NCHW", (2, 3, 4, 1))


def _remainders() -> Iterator[tuple[str, Sequence[Operand]]]:
    yield "constant", (IMAGE, Const(0.7))
    yield "negative", (IMAGE, Const([[[0.7]], [[-0.3]], [[5.0]]]))
    yield "both", (IMAGE, within(0.3, 2.0))
    yield "wider_divisor", (Var("NCHW", (2, 3, 1, 1)), within(-2.0, -0.3))
    yield "constant_numerator", (Const(5.0), within(0.3, 2.0))
