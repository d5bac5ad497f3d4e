"""Reading ahead: a thread decodes and preprocesses the next inputs while the model works on this one."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from srd_onnx.errors import InputError
from srd_onnx.threads import at_rest

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Failure:
    """An input that could not be explained.

    Attributes:
        name: of the file without its ending, or "input7" for the eighth source.
        error: why.
        index: the how many-th source it is from, from 0.
    """

    name: str
    error: InputError
    index: int


def read_ahead(
    sources: Iterable[S], read: Callable[[int, S], Iterable[T]], ahead: int
) -> Generator[tuple[int, T] | Failure, None, None]:
    """What `read` gives for each source, in order and with its number, up to `ahead` sources before it is asked for.

    Both the sources and `read` run in one thread of their own, one source after the other. When the iterator ends or is
    closed that thread is at rest, and has taken no other source since. An InputError becomes a `Failure`, beside which
    the source gives nothing; whatever else is raised comes out where its turn is.
    """
    numbered = enumerate(sources)

    def step() -> list[tuple[int, T] | Failure] | None:
        found = next(numbered, None)
        if found is None:
            return None
        index, source = found
        try:
            return [(index, item) for item in read(index, source)]
        except InputError as error:
            name = Path(source).stem if isinstance(source, str | Path) else f"input{index}"
            return [Failure(name, error, index)]

    with at_rest(1, "srd-onnx-reading") as thread:
        pending: deque[Future[list[tuple[int, T] | Failure] | None]] = deque()
        pending.extend(thread.submit(step) for _ in range(ahead))
        while (found := pending.popleft().result()) is not None:
            pending.append(thread.submit(step))
            yield from found
