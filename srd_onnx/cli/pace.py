"""How long an evaluation still takes, as far as that can be known: from what each method and metric took so far."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srd_onnx.evaluation.numbers import Evaluation, Row

_MINUTE, _HOUR = 60, 3600


@dataclass
class Pace:
    """What is left to do, by (method, metric), and what it takes.

    Attributes:
        left: numbers that are not there yet.
        maps_left: the same of maps, by method.
    """

    left: Counter[tuple[str, str]]
    maps_left: Counter[str]
    _seconds: dict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    _map_seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    _begun: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)

    @property
    def done(self) -> int:
        """How many numbers are there."""
        return sum(map(len, self._seconds.values()))

    def add(self, row: "Row") -> None:
        """One number is there."""
        self.left[row.method, row.metric] -= 1
        self._seconds[row.method, row.metric].append(row.seconds)
        map_of = (row.method, row.image, row.grid)
        if map_of not in self._begun:
            self._begun.add(map_of)
            self.maps_left[row.method] -= 1
            self._map_seconds[row.method].append(row.map_seconds)

    def drop(self, name: str) -> None:
        """A method or a metric takes part no longer."""
        del self.maps_left[name]
        for key in [key for key in self.left if name in key]:
            del self.left[key]

    def remaining(self) -> tuple[float, int]:
        """The seconds that what was timed will take, and how many methods have something that was not timed yet."""
        seconds, untimed = 0.0, set()
        for key, count in self.left.items():
            if count > 0 and key in self._seconds:
                seconds += count * _mean(self._seconds[key])
            elif count > 0:
                untimed.add(key[0])
        for method, count in self.maps_left.items():
            if method in self._map_seconds:
                seconds += count * _mean(self._map_seconds[method])
        return seconds, len(untimed)

    def in_words(self) -> str:
        """`about 3 min left`; `at least 3 min, 4 methods not timed yet`."""
        seconds, untimed = self.remaining()
        if not untimed:
            return f"about {spell(seconds)} left"
        plural = "s" if untimed > 1 else ""
        return f"at least {spell(seconds)} left, {untimed} method{plural} not timed yet"


def pace_of(evaluation: "Evaluation") -> Pace:
    """Before the first number."""
    names = [contender.name for contender in evaluation.contenders]
    asked = Counter(metric for question in evaluation.questions for metric in question.asks)
    left = Counter({(name, metric): count for name in names for metric, count in asked.items()})
    return Pace(left, Counter(dict.fromkeys(names, sum(bool(q.asks) for q in evaluation.questions))))


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)


def spell(seconds: float) -> str:
    """`40 s`, `3 min`, `1.5 h`."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h"
