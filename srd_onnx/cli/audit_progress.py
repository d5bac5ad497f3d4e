"""How far an audit is, on a terminal: a bar, and what is left by what was timed so far."""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from srd_onnx.audit.run import Watch
from srd_onnx.cli.pace import spell

if TYPE_CHECKING:
    from srd_onnx.audit.state import ImageRow


class Left:
    """How long the rest takes, where images of the sanity sample take longer than the others.

    Args:
        kinds: of all images in order: whether they are of the sample.
        seconds: what images took that were done before, by their number.
    """

    def __init__(self, kinds: list[bool], seconds: Mapping[int, float]) -> None:
        self._left = {kind: kinds.count(kind) for kind in (False, True)}
        self._timed: dict[bool, list[float]] = {False: [], True: []}
        self._before = seconds

    def add(self, number: int, kind: bool, seconds: float) -> None:  # noqa: FBT001 - the kind is data
        """An image is done; what it took before counts in place of next to nothing."""
        self._left[kind] -= 1
        self._timed[kind].append(max(seconds, self._before.get(number, 0.0)))

    def in_words(self) -> str:
        """`about 3 min left`; `at least 3 min left` while a kind of image was not timed."""
        total, unknown = 0.0, False
        for kind, count in self._left.items():
            timed = self._timed[kind]
            # The first one also compiles.
            usual = timed[1:] or timed
            total += count * sum(usual) / len(usual) if usual else 0.0
            unknown = unknown or (count > 0 and not timed)
        return f"{'at least' if unknown else 'about'} {spell(total)} left"


class Bar(Watch):
    """Shows it."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task: Any = self._progress.add_task("reading", total=None, left="")
        self._left: Left | None = None
        self._began = 0.0

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def hashed(self) -> None:
        """One more image was read."""
        self._progress.advance(self._task)

    def begun(self, images: "Sequence[ImageRow]", seconds: Mapping[int, float]) -> None:
        """Begin to count images that are done."""
        self._left = Left([row.sanity for row in images], seconds)
        self._began = time.perf_counter()
        self._progress.reset(self._task, total=len(images), description="explaining")

    def done(self, image: "ImageRow") -> None:
        """One more is done."""
        assert self._left is not None
        now = time.perf_counter()
        self._left.add(image.id, image.sanity, now - self._began)
        self._began = now
        self._progress.update(self._task, advance=1, left=self._left.in_words())

    def writing(self) -> None:
        """The report is written, which takes a while."""
        self._progress.update(self._task, description="writing the report", left="")
