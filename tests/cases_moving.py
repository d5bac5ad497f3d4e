"""Cases of operators that move, repeat or place elements."""

from collections.abc import Iterator

from srd_onnx.graph.roles import Gate
from tests.case_types import GATE, IMAGE, TOKENS, Case, Const, Rand, Same, Var, ints, rows


def _gathers() -> Iterator[Case]:
    yield from rows("Gather", (13,), "class_token", TOKENS, Const(0, "int64"), out="NC", axis=1)
    yield from rows("Gather", (13,), "last_token", TOKENS, Const(-1, "int32"), out="NC", axis=-2)
    yield from rows("Gather", (13,), "one_channel", IMAGE, Const(2, "int64"), out="NHW", axis=1)
    yield from rows("Gather", (13,), "repeated", TOKENS, ints(1, 3, 1, 1), axis=1)
    yield from rows("Gather", (13,), "each_twice", TOKENS, ints(0, 0, 1, 1, 2, 2, 3, 3), axis=1)
    yield from rows("Gather", (13,), "permuted", TOKENS, ints(2, 0, 3, 1), axis=1)
    yield from rows("Gather", (13,), "some", TOKENS, ints(3, 0), axis=1)
    yield from rows(
        "Gather", (13,), "matrix", IMAGE, Const([[0, 2], [3, -1], [1, 1]], "int64"), out="NCHHW", axis=2
    )
    yield from rows("Gather", (13,), "channels", IMAGE, ints(2, 0, 2), axis=1)
    yield from rows("Gather", (13,), "gate", GATE, ints(1, 0), axis=3)
    yield from rows("Gather", (13,), "default_axis_whole_batch", TOKENS, ints(0, 1))
    tokens = Const([[[1], [0]], [[3], [3]]], "int64")
    each = Const([[[0, 2, 1], [1, 1, 3]], [[3, 0, 0], [2, 2, -1]]], "int64")
    yield from rows("GatherElements", (13,), "tokens", TOKENS, each, axis=1)
    yield from rows("GatherElements", (13,), "one_channel", TOKENS, tokens, axis=1)
    yield from rows("GatherElements", (13,), "channels", TOKENS, Const([[[2]] * 4] * 2, "int64"), axis=-1)
    yield from rows("GatherND", (13,), "eos", TOKENS, Const([[0, 3], [1, 1]], "int64"), out="NC")
    yield from rows(
        "GatherND", (13,), "eos_batch_dims", TOKENS, Const([[3], [-1]], "int64"), out="NC", batch_dims=1
    )
    yield from rows("GatherND", (13,), "several", TOKENS, Const([[[3], [1], [1]], [[0], [2], [1]]], "int64"),
                    batch_dims=1)  # fmt: skip
    grid = [[[[n, c, h] for h in (0, 3)] for c in range(3)] for n in range(2)]
    yield from rows("GatherND", (13,), "grid", IMAGE, Const(grid, "int64"))


def _scatters() -> Iterator[Case]:
    places = Const([[[1, 0, 2], [3, 1, 0]], [[0, 2, 2], [1, 3, 3]]], "int64")
    updates = Var("NTC", (2, 2, 3))
    for how, data, new in (
        ("both", TOKENS, updates),
        ("data", TOKENS, Rand((2, 2, 3))),
        ("updates", Rand((2, 4, 3)), updates),
    ):
        for reduction in ("none", "add"):
            yield from rows("ScatterElements", (18,), f"{how}_{reduction}", data, places, new, out="NTC", axis=1,
                            reduction=reduction)  # fmt: skip
            nd = Const([[[n, t] for t in (2, -4)] for n in (0, 1)], "int64")
            yield from rows("ScatterND", (18,), f"{how}_{reduction}", data, nd, new, out="NTC",
                            reduction=reduction)  # fmt: skip
        for reduction in ("mul", "max", "min"):
            again = Const([[[1, 0, 2], [1, 1, 0]], [[0, 2, 2], [0, 2, 3]]], "int64")
            yield from rows("ScatterElements", (18,), f"{how}_{reduction}", data, again, new, out="NTC", axis=1,
                            reduction=reduction)  # fmt: skip
            nd = Const([[[0, 2], [0, -2]], [[1, 1], [1, 3]]], "int64")
            yield from rows("ScatterND", (18,), f"{how}_{reduction}", data, nd, new, out="NTC",
                            reduction=reduction)  # fmt: skip
    twice = Const([[[0, 0, 0], [0, 1, 0]], [[2, 2, 1], [1, 2, 2]]], "int64")
    yield from rows("ScatterElements", (18,), "repeated", TOKENS, twice, updates, axis=-2, reduction="add")
    yield from rows("ScatterElements", (18,), "channels", TOKENS, Const([[[2]] * 4] * 2, "int64"),
                    Var("NTC", (2, 4, 1)), axis=2)  # fmt: skip
    yield from rows("ScatterElements", (18,), "into_itself", TOKENS, Const([[[1, 0, 2]] * 4] * 2, "int64"), Same(0),
                    axis=1, reduction="add")  # fmt: skip
    yield from rows("ScatterElements", (18,), "by_itself", TOKENS, Const([[[1, 0, 2]] * 4] * 2, "int64"), Same(0),
                    axis=1, reduction="mul")  # fmt: skip
    yield from rows("ScatterND", (18,), "elements_mul", TOKENS, Const([[0, 0, 2], [0, 3, 1], [0, 3, 1]], "int64"),
                    Rand((3,)), reduction="mul")  # fmt: skip
    yield from rows("ScatterND", (18,), "elements", TOKENS, Const([[0, 0, 2], [0, 3, 1], [1, 1, 1]], "int64"),
                    Rand((3,)), reduction="add")  # fmt: skip


def _repeats() -> Iterator[Case]:
    pooled = Var("NCHW", (2, 3, 1, 1))
    yield from rows("Expand", (13,), "picture", pooled, ints(2, 3, 4, 3))
    yield from rows("Expand", (13,), "one_axis", Var("NCHW", (2, 3, 4, 1)), ints(3))
    yield from rows("Expand", (13,), "channels", Var("NCHW", (2, 1, 4, 3)), ints(1, 3, 1, 1))
    yield from rows("Expand", (13,), "nothing", IMAGE, ints(1))
    yield from rows("Expand", (13,), "lead", Var("NC", (1, 3)), ints(1, 1, 3), out="CNC")
    yield from rows("Tile", (13,), "rows", IMAGE, ints(1, 1, 2, 3))
    yield from rows("Tile", (13,), "channels", IMAGE, ints(1, 2, 1, 1))
    yield from rows("Tile", (13,), "gate", Var("NCHW", (2, 3, 1, 2), gate=Gate.BOUNDED), ints(1, 1, 4, 2))
    yield from rows("Tile", (13,), "nothing", TOKENS, ints(1, 1, 1))


def _pads() -> Iterator[Case]:
    versions = (18, 19, 21, 23, 24, 25)
    yield from rows("Pad", versions, "zeros", IMAGE, ints(0, 0, 1, 2, 0, 0, 0, 1))
    yield from rows("Pad", versions, "value", IMAGE, ints(0, 0, 1, 0, 0, 0, 0, 2), Const(0.75))
    yield from rows("Pad", versions, "reflect", IMAGE, ints(0, 0, 1, 2, 0, 0, 3, 0), mode="reflect")
    yield from rows("Pad", versions, "edge", IMAGE, ints(0, 0, 2, 0, 0, 0, 0, 5), mode="edge")
    yield from rows("Pad", versions[1:], "wrap", IMAGE, ints(0, 0, 1, 3, 0, 0, 2, 1), mode="wrap")
    yield from rows("Pad", (18,), "reflect_channels", IMAGE, ints(2, 1), None, ints(1), mode="reflect")
    yield from rows("Pad", (18,), "axes", IMAGE, ints(1, 2, 0, 1), None, ints(-1, 2))
    yield from rows("Pad", (18,), "channels", IMAGE, ints(0, 1, 0, 0, 0, 2, 0, 0), Const(-0.5))
    yield from rows("Pad", (18,), "negative", IMAGE, ints(0, 0, -1, 1, 0, 0, 0, -1), Const(0.5))
    yield from rows("Pad", (18,), "nothing", IMAGE, ints(*[0] * 8))
    yield from rows("CenterCropPad", (18,), "crop", IMAGE, ints(1, 2), axes=[2, 3])
    yield from rows("CenterCropPad", (18,), "pad", IMAGE, ints(2, 3, 7, 4))
    yield from rows("CenterCropPad", (18,), "both", IMAGE, ints(6, 1), axes=[-1, -2])


def _rearrangements() -> Iterator[Case]:
    deep = Var("NCHW", (2, 8, 2, 3))
    yield from rows("DepthToSpace", (13, 28), "default", deep, blocksize=2)
    yield from rows("DepthToSpace", (13, 28), "crd", deep, blocksize=2, mode="CRD")
    yield from rows("DepthToSpace", (13, 28), "three", Var("NCHW", (1, 9, 2, 1)), blocksize=3, mode="DCR")
    yield from rows("SpaceToDepth", (13, 28), "two", Var("NCHW", (2, 3, 4, 2)), blocksize=2)
    yield from rows("SpaceToDepth", (13, 28), "three", Var("NCHW", (1, 2, 3, 6)), blocksize=3)
    yield from rows("SpaceToDepth", (13, 28), "one", IMAGE, blocksize=1)
    for mode in ("DCR", "CRD"):
        yield from rows(
            "SpaceToDepth", (28,), mode.lower(), Var("NCHW", (2, 3, 4, 2)), blocksize=2, mode=mode
        )
    yield from rows("ReverseSequence", (10, 28), "batch_first", TOKENS, ints(3, 4), batch_axis=0, time_axis=1)
    yield from rows("ReverseSequence", (10, 28), "default", Var("TNC", (4, 2, 3)), ints(1, 4))
    yield from rows("ReverseSequence", (10, 28), "channels", Var("CNT", (3, 2, 4)), ints(3, 2))
    for axis, how in ((1, "tokens"), (-1, "channels")):
        yield from rows("CumSum", (14,), how, TOKENS, Const(axis, "int64"))
        yield from rows("CumSum", (14,), f"{how}_exclusive", TOKENS, Const(axis, "int32"), exclusive=1)
        yield from rows("CumSum", (14,), f"{how}_reverse", TOKENS, Const(axis, "int64"), reverse=1)
        yield from rows("CumSum", (14,), f"{how}_both", TOKENS, Const(axis, "int64"), reverse=1, exclusive=1)
    yield from rows("Trilu", (14,), "upper", IMAGE)
    yield from rows("Trilu", (14,), "lower", IMAGE, Const(-1, "int64"), upper=0)
    yield from rows("Trilu", (14,), "tokens_and_channels", TOKENS, Const(1, "int64"))
    yield from rows("Trilu", (14,), "all", TOKENS, Const(-5, "int64"), upper=1)


def cases() -> Iterator[Case]:
    """Every row of this family."""
    for family in (_gathers, _scatters, _repeats, _pads, _rearrangements):
        yield from family()
