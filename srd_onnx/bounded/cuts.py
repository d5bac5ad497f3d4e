"""Where to cut a tape, so that what is kept and the greatest piece fit into a given memory."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

from srd_onnx.bounded.pieces import Piece, cut, done_after
from srd_onnx.bounded.tape import Tape

BESIDE = 1.3  # times what a piece holds at once: with what ONNX Runtime has beside it (tensors out of their blocks)
_PAST = 1.5  # times the least: more segments would only keep more
_GROWTH = 1.25  # from one number of segments that is tried to the next


def fitting(tape: Tape, besides: float, most: float) -> tuple[list[Piece] | None, float]:
    """The pieces of the fewest segments that take no more than `most` bytes, and about what they take.

    Args:
        tape: what is cut.
        besides: what there is in any case.
        most: bytes.

    Returns:
        the pieces, None if none fit, and then the least that any take.
    """
    least = float("inf")
    for starts in _tried(tape):
        pieces = cut(tape, starts)
        found = besides + peak_of(pieces)
        if found <= most:
            return pieces, found
        if found > _PAST * least:
            break
        least = min(least, found)
    return None, least


def peak_of(pieces: Sequence[Piece]) -> float:
    """About how many bytes they take at once: what is held, and what the piece that runs computes."""
    size = pieces[0].tape.size
    held, peak = dict[str, float](), 0.0
    for piece, done in zip(pieces, done_after(pieces), strict=True):
        peak = max(peak, sum(held.values()) + BESIDE * piece.peak)
        held |= {name: size(name) for name in piece.gives}
        for name in done:
            held.pop(name, None)
    return peak


def _tried(tape: Tape) -> Iterator[list[int]]:
    """Where segments begin: one, then more and more of them, each of about as many bytes."""
    yield [0]
    outputs = (tape.nodes[index].output for index in tape.forward)
    work = [0.0, *accumulate(sum(tape.known_size(name) for name in names) for names in outputs)]
    crossing = _crossing(tape)
    count, before = 2.0, list[int]()
    while count <= len(tape.forward):
        starts = _starts(work, crossing, work[-1] / count)
        if starts != before:
            yield starts
        before, count = starts, max(count + 1, count * _GROWTH)


def _starts(work: Sequence[float], crossing: Sequence[float], at_most: float) -> list[int]:
    """Segments of between half of so many bytes and all of them, cut where the least has to be kept."""
    starts, end = [0], len(crossing)
    while work[-1] - work[starts[-1]] > at_most:
        here = starts[-1]
        last = max(bisect_right(work, work[here] + at_most) - 1, here + 1)
        first = min(max(bisect_left(work, work[here] + at_most / 2), here + 1), last)
        if last >= end:
            break
        starts.append(min(range(first, last + 1), key=lambda place: (crossing[place], -place)))
    return starts


def _crossing(tape: Tape) -> list[float]:
    """Of each place in the forward pass, the bytes of the tensors that are made before it and read from there on."""
    last = {name: place for place, index in enumerate(tape.forward) for name in tape.reads[index]}
    crossing = [0.0] * len(tape.forward)
    for name, made in tape.place.items():
        for place in range(made + 1, last.get(name, made) + 1):
            crossing[place] += tape.size(name)
    return crossing
