"""Several inputs at once: on the CPU side by side, each on threads of its own; on a GPU in one run.

On the CPU a batch in one run gains nothing: its threads wait for each other at every operator, and all its activations
are in memory at once. Runs of one input each, on as many sets of threads as there are, wait for nobody.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from srd_onnx.explaining import Explaining
from srd_onnx.explanation import Explanation
from srd_onnx.inputs.sources import Item
from srd_onnx.ort.runtime import CPU
from srd_onnx.targets import Wanted
from srd_onnx.threads import at_rest, usable

AT_ONCE = 4  # where nobody says how many: each is in memory of its own

E = TypeVar("E", bound=Explaining)
E_co = TypeVar("E_co", bound=Explaining, covariant=True)


@dataclass(frozen=True, eq=False)
class Lanes(Generic[E_co]):
    """How several inputs are explained at once.

    Attributes:
        explaining: what explains those of one run.
        size: inputs per run.
        count: runs at a time.
        chunk: inputs at a time that are read, explained and then given, before the next.
    """

    explaining: E_co
    size: int
    count: int
    chunk: int

    def explained(self, items: Sequence[Item], wanted: Wanted) -> Iterator[list[Explanation]]:
        """Of each item its explanations, in the order of its targets.

        Args:
            items: of the same shapes, up to `chunk` of them.
            wanted: the targets.
        """
        runs = [list(items[start : start + self.size]) for start in range(0, len(items), self.size)]

        def explain(run: list[Item]) -> list[list[Explanation]]:
            kinds = list(self.explaining.explained(run, self.size, wanted))
            return [[one for by_row in kinds for one in by_row[row]] for row in range(len(run))]

        if min(self.count, len(runs)) < 2:
            yield from (rows for run in runs for rows in explain(run))
            return
        with at_rest(self.count, "srd-onnx-explaining") as pool:
            yield from (rows for found in pool.map(explain, runs) for rows in found)


def lanes_of(explaining: E, batch_size: int) -> Lanes[E]:
    """How so many inputs are explained at once.

    Runs share the threads evenly. Explaining part by part, in bounded memory, takes one after the other; methods other
    than SRD all in one run.
    """
    alone, together = explaining.at_once(), explaining.at_once(batch_size)
    if explaining.provider != CPU or explaining.method is not None or batch_size == 1:
        return Lanes(explaining, together, 1, together)
    chunk = max(batch_size, alone)
    if explaining.max_memory is not None:
        return Lanes(explaining, alone, 1, chunk)
    threads = explaining.threads or usable()
    count = min(-(-chunk // alone), threads)
    return Lanes(explaining.with_threads(threads // count), alone, count, chunk)
