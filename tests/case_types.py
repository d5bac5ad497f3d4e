"""What a test case of a rule is made of: one frozen row per way of using an operator."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from srd_onnx.graph.roles import Gate

INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)


@dataclass(frozen=True)
class Var:
    """An operand that depends on the model's input: axis letters (N batch, C channel, any other a position), shape."""

    layout: str
    shape: tuple[int, ...]
    gate: Gate = Gate.NONE
    dtype: str | None = None  # only where it is not the case's
    positive: bool = False
    within: tuple[float, float] | None = None  # where the operator is defined
    masked: bool = False  # every third element is -inf


@dataclass(frozen=True)
class Rand:
    """A constant of random numbers."""

    shape: tuple[int, ...] = ()
    positive: bool = False


@dataclass(frozen=True)
class Const:
    """A constant with this data; of the case's dtype if none is said."""

    data: Any
    dtype: str | None = None


@dataclass(frozen=True)
class Same:
    """The same tensor as an earlier operand."""

    of: int


Operand = Var | Rand | Const | Same | None


@dataclass(frozen=True, eq=False)
class Case:
    """One use of one operator.

    Attributes:
        out: axis letters of each output that carries relevance.
        attrs: given attributes; "to" of Cast by the name of the type, or "own" for the case's.
        held: operands that vary but are held fixed under the pattern (gates).
        dead: outputs that receive nothing.
        masks: outputs after those of `out` that never carry relevance.
        dtype: of the reals; not float64 only where the operator's schema has no float64.
        no_pattern: why there is no map under a fixed pattern: the rule must refuse, tangent is tested alone.
    """

    name: str
    op: str
    since: int
    inputs: tuple[Operand, ...]
    out: tuple[str, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    held: frozenset[int] = frozenset()
    dead: frozenset[int] = frozenset()
    masks: int = 0
    dtype: str = "float64"
    no_pattern: str | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def varying(self) -> tuple[int, ...]:
        """Indices of the operands that vary."""
        return tuple(i for i, spec in enumerate(self.inputs) if isinstance(spec, Var | Same))

    def layout(self, index: int) -> str | None:
        """Axis letters of an operand that carries relevance, None for one that is held fixed or constant."""
        spec = self.inputs[index]
        while isinstance(spec, Same):
            spec = self.inputs[spec.of]
        return spec.layout if isinstance(spec, Var) and index not in self.held else None


def ints(*data: int) -> Const:
    return Const(data, "int64")


def rows(
    op: str, versions: Sequence[int], how: str, *inputs: Operand, out: str | tuple[str, ...] = "", **rest: Any
) -> Iterator[Case]:
    """The same row for several versions of the operator; the output's axes are the first operand's unless said."""
    fields: dict[str, Any] = {k: frozenset(rest.pop(k)) for k in ("held", "dead") if k in rest}
    fields |= {k: rest.pop(k) for k in ("masks", "dtype", "no_pattern") if k in rest}
    first = inputs[0]
    outs = (out,) if isinstance(out, str) else out
    if outs == ("",):
        assert isinstance(first, Var)
        outs = (first.layout,)
    for since in versions:
        yield Case(f"{op}-{since}-{how}", op, since, inputs, outs, rest, **fields)


IMAGE = Var("NCHW", (2, 3, 4, 3))
TOKENS = Var("NTC", (2, 4, 3))
MASKED = Var("NTC", (2, 4, 5), masked=True)
GATE = Var("NCHW", (2, 3, 4, 3), gate=Gate.SATURATING)
SHAPES = (13, 21, 23, 24, 25)
