"""Cases of Fourier transforms, running products, determinants, and what selects or writes by an index."""

from collections.abc import Iterator
from typing import Any

from tests.case_types import IMAGE, TOKENS, Case, Const, Operand, Rand, Var, ints, rows


def _transforms() -> Iterator[Case]:
    def dft(
        how: str, x: Var, axis: int | None = None, length: int | None = None, **attrs: Any
    ) -> Iterator[Case]:
        given = Const(length, "int64") if length is not None else None
        first = (x, given) if given is not None else (x,)
        named = attrs if axis is None else attrs | {"axis": axis}
        yield from rows("DFT", (17,), how, *first, **named)
        second = (x, given, Const(axis, "int64")) if axis is not None else first
        yield from rows("DFT", (20,), how, *second, **attrs)

    real, both, picture = Var("NTC", (2, 5, 1)), Var("NTC", (2, 6, 2)), Var("NHWC", (2, 4, 3, 2))
    yield from dft("real", real)
    yield from dft("complex", both)
    yield from dft("rows", picture, 1)
    yield from dft("columns", picture, 2, inverse=1)
    yield from dft("channels", Var("NTCC", (2, 3, 4, 1)), 2)
    yield from dft("channels_inverse", Var("NTCC", (2, 3, 4, 2)), 2, inverse=1)
    yield from dft("inverse", both, inverse=1)
    yield from dft("inverse_of_real", real, inverse=1)
    for size, how in ((5, "odd"), (6, "even")):
        yield from dft(f"half_{how}", Var("NTC", (2, size, 1)), onesided=1)
    half = Var("NTCC", (2, 4, 3, 2))
    yield from dft("from_half", half, 1, inverse=1, onesided=1)
    for length in (6, 7):
        yield from dft(f"from_half_to_{length}", half, 1, length, inverse=1, onesided=1)
    for length, how in ((8, "padded"), (4, "cut")):
        yield from dft(how, both, 1, length)
        yield from dft(f"{how}_half", Var("NTC", (2, 6, 1)), 1, length, onesided=1)


def _short_transforms() -> Iterator[Case]:
    def stft(how: str, x: Var, step: int, *rest: Operand, **more: Any) -> Iterator[Case]:
        attrs = {"onesided": 1} | more  # left out, onnx infers the shape of a whole spectrum
        yield from rows("STFT", (17,), how, x, Const(step, "int64"), *rest, out=f"{x.layout[:2]}CC", **attrs)

    signal, length = Var("NTC", (2, 11, 1)), Const(4, "int64")
    yield from stft("window", signal, 2, Rand((4,)))
    yield from stft("window_and_length", signal, 3, Rand((4,)), length)
    yield from stft("no_window", signal, 3, None, length)
    yield from stft("odd", signal, 1, Rand((5,)))
    yield from stft("gaps", signal, 5, Rand((3,)))
    yield from stft("window_from_zero", signal, 2, Const([0.0, 0.5, 1.0, 0.5]))
    yield from stft("whole_spectrum", signal, 2, Rand((4,)), onesided=0)
    yield from stft("complex", Var("NTC", (2, 9, 2)), 2, Rand((4,)), onesided=0)
    yield from stft("computed_window", signal, 2, Var("T", (4,)), held=[2])
    yield from stft("samples_are_channels", Var("NCC", (2, 9, 1)), 2, Rand((4,)))


def _products() -> Iterator[Case]:
    for axis, how in ((1, "tokens"), (-1, "channels")):
        yield from rows("CumProd", (26,), how, TOKENS, Const(axis, "int64"))
        yield from rows("CumProd", (26,), f"{how}_exclusive", TOKENS, Const(axis, "int32"), exclusive=1)
        yield from rows("CumProd", (26,), f"{how}_reverse", TOKENS, Const(axis, "int64"), reverse=1)
        yield from rows("CumProd", (26,), f"{how}_both", TOKENS, Const(axis, "int64"), reverse=1, exclusive=1)
    yield from rows("Det", (11, 22), "channels", Var("NTCC", (2, 3, 3, 3)), out="NT")
    yield from rows("Det", (11, 22), "positions", Var("NCHW", (2, 3, 2, 2)), out="NC")
    yield from rows("Det", (11, 22), "rows_of_channels", Var("NTC", (2, 4, 4)), out="N")
    yield from rows("Det", (11, 22), "one", Var("NTHC", (2, 3, 1, 1)), out="NT")


def _selections() -> Iterator[Case]:
    versions = (11, 28)
    taken = Const([True, False, True, True], "bool")
    yield from rows("Compress", versions, "tokens", TOKENS, taken, axis=1)
    yield from rows("Compress", versions, "short", IMAGE, Const([False, True], "bool"), axis=-1)
    yield from rows("Compress", versions, "channels", TOKENS, Const([True, False, True], "bool"), axis=2)
    flat = Const([i % 3 > 0 for i in range(11)], "bool")
    yield from rows("Compress", versions, "flat", Var("NTC", (1, 4, 3)), flat, out="C")
    yield from rows("Compress", versions, "flat_tokens", Var("NTC", (1, 4, 1)), taken, out="T")
    yield from rows("Compress", versions, "flat_channels", Var("NTC", (1, 1, 4)), taken, out="C")
    pair, depth = Var("C", (2,)), Const(3, "int64")
    yield from rows("OneHot", versions, "positions", ints(0, 2, -1, 7), depth, Var("T", (2,)), out="TT")
    yield from rows("OneHot", versions, "default", ints(0, 2, -1, 7), depth, pair, out="CC")
    yield from rows("OneHot", versions, "first", ints(0, 2, -3), Const([4], "int64"), pair, out="CC", axis=0)
    matrix = Const([[0, 2], [1, 1]], "int64")
    yield from rows("OneHot", versions, "middle", matrix, depth, pair, out="CCC", axis=-2)


def _caches() -> Iterator[Case]:
    cache, new, data = Var("NTC", (2, 4, 3)), Var("NTC", (2, 2, 3)), Rand((2, 4, 3))
    yield from rows("TensorScatter", (24,), "default", cache, new)
    yield from rows("TensorScatter", (24,), "places", cache, new, ints(1, 2))
    yield from rows("TensorScatter", (24,), "circular", cache, new, ints(1, 3), mode="circular")
    yield from rows("TensorScatter", (24,), "update", data, new, ints(2, 0), out="NTC")
    yield from rows("TensorScatter", (24,), "cache", cache, Rand((2, 2, 3)), ints(2, 0))
    heads = Var("NCTC", (2, 2, 3, 2)), Var("NCTC", (2, 2, 1, 2))
    yield from rows("TensorScatter", (24,), "heads", *heads, ints(1, 2))
    yield from rows("TensorScatter", (24,), "channels", cache, Var("NTC", (2, 4, 2)), ints(1, 0), axis=-1)
    yield from rows("TensorScatter", (24,), "constant_channels", cache, Rand((2, 4, 2)), ints(1, 0), axis=2)


def cases() -> Iterator[Case]:
    """Every row of this family."""
    for family in (_transforms, _short_transforms, _products, _selections, _caches):
        yield from family()
