"""What a method of attribution is, other than SRD: a name, where it is from, and how maps are computed by it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array
from srd_onnx.subject import Subject

SRD = "srd"
Family = Literal["gradient", "propagation", "activation map", "attention", "black box", "control"]
LAYERED: Family = "activation map"  # made at the layer that the option `boundary` names


@dataclass(frozen=True, eq=False)
class Attributed:
    """Maps of N inputs.

    Shapes: maps, by the name of the explained input, [N, *positions] float32, signed as the method defines them;
    seed [N], the explained number; scores [N, K], the target tensor flattened; ledger: what a complete method keeps
    from the map (the score of the baseline), [N] by what it is booked against.
    """

    maps: Mapping[str, Array]
    seed: Array
    scores: Array
    ledger: Mapping[str, Array] = field(default_factory=dict)


class Attribute(Protocol):
    """A method, compiled for one model and shape."""

    @property
    def plan(self) -> Plan:
        """What was compiled; a black box needs no rules, so that its plan may have gaps."""

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        """Maps of one batch.

        Args:
            feeds: the graph's inputs, of the compiled shapes.
            seed: targets, int64 [N], -1 for the top class; or directions [N, K], if compiled with `case.free`.

        Raises:
            NonFiniteError: if a map is not finite.
        """


@dataclass(frozen=True, eq=False)
class Method:
    """A method with its parameters.

    Attributes:
        name: as the user writes it.
        title: as its authors write it.
        family: what it reads of the model.
        source: the paper.
        make: compiles it.
        parameters: what it was made with, seeds included; kept in `Explanation.meta`.
        complete: its maps and its ledger sum to the explained number, up to rounding and what `residual` says.
        note: what a user must know (a licence, a limit); empty for nothing.
    """

    name: str
    title: str
    family: Family
    source: str
    make: Callable[[Subject, Case], Attribute] = field(repr=False)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    complete: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain data for a report."""
        found = {"name": self.name, "title": self.title, "source": self.source, "complete": self.complete}
        return found | {"parameters": dict(self.parameters)} | ({"note": self.note} if self.note else {})


def title_of(method: Mapping[str, Any]) -> str:
    """A method other than SRD as a reader sees it, with its parameters, from its `to_dict`; empty for SRD."""
    if method["name"] == SRD:
        return ""
    parameters = ", ".join(f"{key} {value}" for key, value in method["parameters"].items())
    return f"{method['title']} ({parameters})" if parameters else str(method["title"])
