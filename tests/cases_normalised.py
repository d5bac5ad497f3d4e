"""Normalisations and reductions that are not linear."""

from collections.abc import Iterator
from typing import Any

from tests.case_types import IMAGE, MASKED, TOKENS, Case, Operand, Rand, Var, ints, rows


def _layer_norms() -> Iterator[Case]:
    def layer(how: str, *inputs: Operand, **rest: Any) -> Iterator[Case]:
        yield from rows("LayerNormalization", (17,), how, *inputs)

    yield from layer("tokens", TOKENS, Rand((3,)), Rand((3,)))
    yield from layer("no_shift", TOKENS, Rand((3,)), epsilon=0.01)
    yield from layer("channels_last", Var("NHWC", (2, 3, 2, 4)), Rand((4,)), Rand((4,)), axis=-1)
    yield from layer("first_axis", Var("NC", (2, 4)), Rand((4,)), Rand((4,)), axis=1)
    yield from layer("heads_and_channels", Var("NTCC", (2, 3, 2, 3)), Rand((2, 3)), Rand((3,)), axis=2)
    yield from layer("over_tokens", Var("NCT", (2, 3, 4)), Rand((4,)), Rand((4,)))
    yield from layer("over_everything", IMAGE, Rand((3, 4, 3)), Rand((3, 1, 1)), axis=1)
    yield from layer("no_shift_over_everything", IMAGE, Rand((3, 4, 3)), axis=-3)
    yield from layer("single_channel", Var("NTC", (2, 3, 1)), Rand((1,)), Rand((1,)))
    yield from layer("statistics", TOKENS, Rand((3,)), Rand((3,)), masks=2)
    yield from rows("RMSNormalization", (23,), "tokens", TOKENS, Rand((3,)))
    yield from rows("RMSNormalization", (23,), "epsilon", TOKENS, Rand((1,)), epsilon=0.1)
    yield from rows("RMSNormalization", (23,), "over_everything", IMAGE, Rand((3, 4, 3)), axis=1)


def _group_norms() -> Iterator[Case]:
    image = Var("NCHW", (2, 4, 3, 2))
    affine = (Rand((4,)), Rand((4,)))
    group, instance = (21,), (6, 22)
    yield from rows("GroupNormalization", group, "two_groups", image, *affine, num_groups=2)
    yield from rows("GroupNormalization", group, "one_group", image, *affine, num_groups=1, epsilon=0.01)
    yield from rows("GroupNormalization", group, "each_channel", image, *affine, num_groups=4)
    yield from rows("GroupNormalization", group, "sequence", Var("NCT", (2, 4, 5)), *affine, num_groups=2)
    yield from rows("GroupNormalization", group, "of_vectors", Var("NC", (3, 4)), *affine, num_groups=2)
    yield from rows("InstanceNormalization", instance, "image", image, *affine)
    yield from rows("InstanceNormalization", instance, "epsilon", Var("NCT", (2, 4, 5)), *affine, epsilon=0.1)
    yield from rows(
        "InstanceNormalization", instance, "tokens_by_their_channels", Var("NTC", (2, 4, 3)), *affine
    )
    # Single precision, and axes always given: onnx infers nothing else. Without them they are 0, 2 and 3.
    # In single precision and with axes given: onnx infers nothing else. Without them they are 0, 2 and 3.

    def wide(layout: str, *shape: int) -> Var:
        return Var(layout, shape, within=(-20.0, 20.0))

    def mean_variance(how: str, x: Var, axes: list[int]) -> Iterator[Case]:
        yield from rows("MeanVarianceNormalization", (13,), how, x, axes=axes, dtype="float32")

    yield from mean_variance("as_default", wide("NCHW", 1, 3, 4, 3), axes=[0, 2, 3])
    yield from mean_variance("positions", wide("NCHW", 2, 3, 4, 3), axes=[2, 3])
    yield from mean_variance("channels", wide("NCHW", 2, 3, 4, 3), axes=[1])
    yield from mean_variance("negative_axis", wide("NTC", 2, 4, 3), axes=[-1])


def _norms() -> Iterator[Case]:
    for p in (1, 2):
        yield from rows("LpNormalization", (1, 22), f"p{p}", IMAGE, p=p)
        yield from rows("LpNormalization", (1, 22), f"p{p}_channels", IMAGE, p=p, axis=1)
        yield from rows("LpNormalization", (1, 22), f"p{p}_tokens", TOKENS, p=p, axis=-2)
    yield from rows("LpNormalization", (1, 22), "default", Var("NC", (3, 4)))
    wide = Var("NCHW", (2, 6, 2, 3))
    yield from rows("LRN", (13,), "default", wide, size=5)
    yield from rows("LRN", (13,), "strong", wide, size=3, alpha=2.0, beta=0.5, bias=1.5)
    yield from rows("LRN", (13,), "alone", wide, size=1, alpha=3.0)
    yield from rows("LRN", (13,), "wider_than_the_channels", IMAGE, size=9, alpha=1.0)


def _reductions() -> Iterator[Case]:
    versions = {
        "ReduceMax": (18, 20),
        "ReduceMin": (18, 20),
        "ReduceLogSum": (18, 28),
        "ReduceLogSumExp": (18, 28),
    }
    names = ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum",
             "ReduceLogSumExp")  # fmt: skip
    for op in names:
        since = versions.get(op, (18,))

        def var(layout: str, *shape: int, log: bool = op == "ReduceLogSum") -> Var:
            return Var(layout, shape, within=(0.5, 4.0)) if log else Var(layout, shape)

        image, tokens = var("NCHW", 2, 3, 4, 3), var("NTC", 2, 4, 3)
        yield from rows(op, since, "positions", image, ints(2, 3))
        yield from rows(op, since, "positions_dropped", image, ints(-1, -2), out="NC", keepdims=0)
        yield from rows(op, since[:1], "one_axis", image, ints(2), out="NCW", keepdims=0)
        yield from rows(op, since[:1], "channels", image, ints(1))
        yield from rows(op, since[:1], "channels_dropped", tokens, ints(2), out="NT", keepdims=0)
        yield from rows(op, since[:1], "size_one", var("NTC", 2, 1, 3), ints(1))
        yield from rows(op, since[:1], "everything", var("NCHW", 1, 3, 2, 2))
        yield from rows(op, since[:1], "untouched", image, noop_with_empty_axes=1)
        yield from rows(op, since[:1], "untouched_by_name", image, ints(), keepdims=0, noop_with_empty_axes=1)
    for op in ("ReduceMax", "ReduceLogSumExp"):
        yield from rows(op, versions[op], "masked", MASKED, ints(2), out="NTC")
        yield from rows(op, versions[op], "masked_positions", MASKED, ints(1), keepdims=0, out="NC")
    for op, since in (("ReduceSum", (13,)), ("ReduceMean", (18,))):
        yield from rows(op, since, "empty_axes", Var("NCH", (1, 3, 2)), ints())
        yield from rows(op, since, "channels_and_tokens", TOKENS, ints(-1, 1))
        yield from rows(op, since, "noop_empty", IMAGE, ints(), keepdims=0, noop_with_empty_axes=1)


def cases() -> Iterator[Case]:
    yield from _layer_norms()
    yield from _group_norms()
    yield from _norms()
    yield from _reductions()
