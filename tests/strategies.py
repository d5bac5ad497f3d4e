"""Hypothesis draws cases: shapes and attributes of the operators whose geometry is easy to get wrong."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.case_types import Case, Operand, Rand, Var, ints
from tests.oracle_windows import slide

LAYOUTS = {1: "NCT", 2: "NCHW", 3: "NCDHW"}
LARGEST = {1: 8, 2: 5, 3: 3}  # size of a position axis by their number
Draw = Any


def case(op: str, since: int, inputs: Sequence[Operand], out: str | tuple[str, ...], **rest: Any) -> Case:
    """A row whose name, and with it the numbers, says all that was drawn."""
    fields = {k: rest.pop(k) for k in ("held",) if k in rest}
    name = f"{op}-{since} {list(inputs)} {rest} {fields}"
    return Case(name, op, since, tuple(inputs), (out,) if isinstance(out, str) else out, rest, **fields)


def each(draw: Draw, rank: int, low: int, high: int) -> list[int]:
    return [draw(st.integers(low, high)) for _ in range(rank)]


def given_or_left_out(draw: Draw, attrs: dict[str, Any], name: str, default: Any) -> None:
    """Leave an attribute out where it has its default, half of the time."""
    if attrs[name] == default and draw(st.booleans()):
        del attrs[name]


def missing(sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> list[int]:
    """How much padding auto_pad=SAME_* needs on each axis; negative where the stride passes the kernel."""
    return [(math.ceil(n / s) - 1) * s + k - n for n, k, s in zip(sizes, kernel, strides, strict=True)]


@st.composite
def convolutions(draw: Draw) -> Case:
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    group, ins, outs = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel, sizes = each(draw, rank, 1, 3), each(draw, rank, 1, LARGEST[rank])
    attrs: dict[str, Any] = {
        "strides": each(draw, rank, 1, 4),
        "dilations": each(draw, rank, 1, 2),
        "group": group,
        "auto_pad": draw(
            st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"])
        ),
    }
    if attrs["auto_pad"] == "NOTSET":
        attrs["pads"] = each(draw, 2 * rank, 0, 4 if rank < 3 else 1)
        given_or_left_out(draw, attrs, "auto_pad", "NOTSET")
        given_or_left_out(draw, attrs, "pads", [0] * 2 * rank)
    elif attrs["auto_pad"] != "VALID":
        attrs["dilations"] = [1] * rank  # ONNX Runtime refuses the two together
        assume(
            all(to_fill >= -1 for to_fill in missing(sizes, kernel, attrs["strides"]))
        )  # else the rule refuses
    for name, default in (("strides", [1] * rank), ("dilations", [1] * rank), ("group", 1)):
        given_or_left_out(draw, attrs, name, default)
    assume(all(n > 0 for n in slide(attrs, tuple(sizes), kernel).result))
    x = Var(LAYOUTS[rank], (draw(st.integers(1, 2)), group * ins, *sizes))
    operands: list[Operand] = [x, Rand((group * outs, ins, *kernel))]
    if draw(st.booleans()):
        operands.append(Rand((group * outs,)))
    return case("Conv", draw(st.sampled_from([11, 22])), operands, LAYOUTS[rank], **attrs)


@st.composite
def pools(draw: Draw, op: str, versions: Sequence[int]) -> Case:
    since, rank = draw(st.sampled_from(versions)), draw(st.sampled_from([1, 2, 2, 3]))
    kernel, sizes = each(draw, rank, 1, 3), each(draw, rank, 1, LARGEST[rank])
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": each(draw, rank, 1, 3)}
    if op == "MaxPool" or since >= 19:
        attrs["dilations"] = each(draw, rank, 1, 2)
        given_or_left_out(draw, attrs, "dilations", [1] * rank)
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if mode == "NOTSET":
        attrs["pads"] = [draw(st.integers(0, k - 1)) for k in kernel * 2]
        attrs["ceil_mode"] = draw(st.integers(0, 1))
        given_or_left_out(draw, attrs, "pads", [0] * 2 * rank)
        given_or_left_out(draw, attrs, "ceil_mode", 0)
    else:
        attrs["auto_pad"] = mode
        if mode != "VALID":
            attrs.pop("dilations", None)  # ONNX Runtime forgets them when it pads
            assume(
                all(to_fill >= 0 for to_fill in missing(sizes, kernel, attrs["strides"]))
            )  # and refuses these
    if op == "AveragePool":
        attrs["count_include_pad"] = draw(st.integers(0, 1))
        given_or_left_out(draw, attrs, "count_include_pad", 0)
    window = slide(attrs, tuple(sizes), kernel)
    assume(all(n > 0 for n in window.result))
    if attrs.get("ceil_mode") and since < 22:  # else onnx infers one position too many, and the rule refuses
        past = [(n + b + e - (k - 1) * d - 1 + s - 1) // s * s >= n + b for n, b, e, k, d, s in zip(
            sizes, window.begins, window.ends, kernel, window.dilations, window.strides, strict=True
        )]  # fmt: skip
        assume(not any(past))
    # ONNX leaves open what a window of padding alone gives.
    assume(all(any(window.inside(at) for _, at in window.taps(out)) for out in window.outputs()))
    x = Var(LAYOUTS[rank], (draw(st.integers(1, 2)), draw(st.integers(1, 2)), *sizes))
    return case(op, since, [x], x.layout, **attrs)


@st.composite
def images(draw: Draw) -> Var:
    return Var("NCHW", (draw(st.integers(1, 2)), *each(draw, 3, 1, 4)))


@st.composite
def slices(draw: Draw) -> Case:
    x = draw(images())
    axes = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True))
    starts, ends, steps = [], [], []
    for axis in axes:
        size = x.shape[axis]
        step = draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        start, end = (draw(st.integers(-size - 2, size + 2)) for _ in range(2))
        starts.append(start)
        ends.append(end)
        steps.append(step)
        low, high = (0, size) if step > 0 else (-1, size - 1)
        first, last = (b + size if b < 0 else b for b in (start, end))
        first = min(max(first, 0), high)
        last = min(max(last, low), size if step > 0 else high)
        assume(len(range(first, last, step)) > 0)
    named = [a - 4 if draw(st.booleans()) else a for a in axes]
    operands: list[Operand] = [x, ints(*starts), ints(*ends), ints(*named)]
    if any(s != 1 for s in steps) or draw(st.booleans()):
        operands.append(ints(*steps))
    return case("Slice", 13, operands, "NCHW")


def factored(draw: Draw, size: int) -> list[int]:
    first = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
    return [first, size // first]


@st.composite
def reshapes(draw: Draw) -> Case:
    """Axes split and merged within their role, or everything flattened."""
    x = Var("NCHW", (2, *(draw(st.sampled_from([2, 3, 4, 6])) for _ in range(3))))
    n, c, h, w = x.shape
    shape, out = [n], "N"
    if draw(st.integers(0, 4)) == 0:
        shape, out = [n, c * h * w], "NC"
    else:
        part = factored(draw, c) if draw(st.booleans()) else [c]
        shape, out = shape + part, out + "C" * len(part)
        kind = draw(st.sampled_from(["same", "merged", "split", "regrouped"]))
        positions = {
            "same": [h, w],
            "merged": [h * w],
            "split": [*factored(draw, h), w],
            "regrouped": factored(draw, h * w),
        }[kind]
        shape, out = shape + positions, out + "H" * len(positions)
        # An axis of one cannot tell its role from its size; such blocks are rows of their own in tests/cases.py.
        assume(all(s > 1 for s in shape))
    if draw(st.booleans()):
        shape[draw(st.integers(0, len(shape) - 1))] = -1
    return case("Reshape", draw(st.sampled_from([14, 19, 21, 23, 24, 25])), [x, ints(*shape)], out)


@st.composite
def paddings(draw: Draw) -> Case:
    x = draw(images())
    axes = draw(st.lists(st.sampled_from([1, 2, 3]), min_size=1, max_size=3, unique=True))
    before, after = (each(draw, len(axes), -2, 2) for _ in range(2))
    for axis, b, a in zip(axes, before, after, strict=True):
        assume(max(-b, 0) + max(-a, 0) < x.shape[axis])
    value: Operand = draw(st.sampled_from([None, Rand()]))
    if draw(st.booleans()):
        operands: list[Operand] = [x, ints(*before, *after), value, ints(*axes)]
    else:
        whole = [dict(zip(axes, side, strict=True)) for side in (before, after)]
        operands = [x, ints(*(side.get(a, 0) for side in whole for a in range(4))), value]
    return case("Pad", draw(st.sampled_from([18, 19, 21, 23, 24, 25])), operands, "NCHW")


@st.composite
def concatenations(draw: Draw) -> Case:
    x, axis = draw(images()), draw(st.sampled_from([1, 2, 3]))
    operands: list[Operand] = [x]
    for _ in range(draw(st.integers(0, 2))):
        shape = tuple(draw(st.integers(1, 3)) if a == axis else n for a, n in enumerate(x.shape))
        operands.insert(
            draw(st.integers(0, len(operands))), draw(st.sampled_from([Rand(shape), Var("NCHW", shape)]))
        )
    return case("Concat", 13, operands, "NCHW", axis=draw(st.sampled_from([axis, axis - 4])))


@st.composite
def splits(draw: Draw) -> Case:
    sizes, axis = each(draw, draw(st.integers(1, 3)), 1, 3), draw(st.sampled_from([1, 2, 3]))
    shape = [draw(st.integers(1, 2)), *each(draw, 3, 1, 3)]
    shape[axis] = sum(sizes)
    x, named = Var("NCHW", tuple(shape)), draw(st.sampled_from([axis, axis - 4]))
    count = len(sizes)
    # By number, the last part may be smaller but not empty.
    by_number = draw(st.booleans()) and math.ceil(shape[axis] / count) * (count - 1) < shape[axis]
    if by_number:
        return case("Split", 18, [x], ("NCHW",) * count, axis=named, num_outputs=count)
    return case("Split", 18, [x, ints(*sizes)], ("NCHW",) * count, axis=named)


@st.composite
def gemms(draw: Draw) -> Case:
    n, k, m = each(draw, 3, 1, 4)
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    attrs: dict[str, Any] = {
        "transA": int(trans_a),
        "transB": int(trans_b),
        "alpha": draw(st.sampled_from([1.0, 0.5, -2.0])),
        "beta": draw(st.sampled_from([1.0, 0.25, -1.0])),
    }
    for name, default in (("transA", 0), ("transB", 0), ("alpha", 1.0), ("beta", 1.0)):
        given_or_left_out(draw, attrs, name, default)
    a, b = (k, n) if trans_a else (n, k), (m, k) if trans_b else (k, m)
    if draw(st.booleans()):
        operands: list[Operand] = [Var("CN" if trans_a else "NC", a), Rand(b)]
        out = "NC"
    else:
        operands, out = [Rand(a), Var("NC" if trans_b else "CN", b)], "CN"
    added: Operand = draw(
        st.sampled_from([None, Rand(), Rand((m,)), Rand((n, 1)), Rand((1, m)), Rand((n, m))])
    )
    return case("Gemm", 13, operands if added is None else [*operands, added], out, **attrs)


@st.composite
def matmuls(draw: Draw) -> Case:
    layout = draw(st.sampled_from(["NC", "NTC", "NCT", "NHWC", "NCHW"]))
    shape = (draw(st.integers(1, 2)), *each(draw, len(layout) - 1, 1, 4))
    x, other = Var(layout, shape), draw(st.integers(1, 4))
    lead = (1,) * draw(st.integers(0, len(layout) - 2))
    if draw(st.booleans()) or layout == "NC":  # from the left it would mix the batch of NC
        return case("MatMul", 13, [x, Rand((*lead, shape[-1], other))], layout)
    return case("MatMul", 13, [Rand((*lead, other, shape[-2])), x], layout)


@st.composite
def broadcasts(draw: Draw, op: str, since: int) -> Case:
    full = (draw(st.integers(1, 2)), *each(draw, 3, 1, 4))

    def narrowed() -> tuple[int, ...]:
        return (full[0], *(n if draw(st.booleans()) else 1 for n in full[1:]))

    x = Var("NCHW", narrowed())
    if draw(st.booleans()):
        constant = narrowed()[draw(st.integers(0, 3)) :]
        operands: list[Operand] = [x, Rand(constant)] if draw(st.booleans()) else [Rand(constant), x]
        return case(op, since, operands, "NCHW")
    pair = (x, Var("NCHW", narrowed()))
    held: frozenset[int] = frozenset()
    if op == "Mul":
        counts = [int(np.prod(v.shape[2:])) for v in pair]
        held = frozenset(i for i in (0, 1) if counts[i] < counts[1 - i])
    elif op == "Sub":
        positions = [v.shape[2:] for v in pair]
        means = positions[1] != positions[0] == np.broadcast_shapes(*positions)
        held = frozenset([1] if means else [])
    return case(op, since, pair, "NCHW", held=held)
