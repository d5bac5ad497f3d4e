"""What each axis of each tensor means: batch, position or channel.

Relevance belongs to positions; sharing ratios are inner products over channels. So every tensor that relevance
crosses must have known roles. They start from the layout of the input and are carried through each node by its rule.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, IntEnum

from srd_onnx.engine.rule import Rule, RuleTable
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from srd_onnx.graph.ir import Graph, Node, Value


class Role(Enum):
    """The meaning of one axis."""

    BATCH = "N"
    POSITION = "P"
    CHANNEL = "C"


class Gate(IntEnum):
    """How much a tensor is made to be a factor: in a product the greater gate is held fixed (DESIGN.md, section 2).

    BOUNDED functions (erf, tanh, a clip) are gates of what is not bounded, as in a GELU written out; SATURATING ones
    (sigmoid, hard-sigmoid, softmax) are gates of those too, as in an LSTM. An INVERSE, 1 / b, is what something is
    divided by, such as the statistic of a normalisation: greater than any, since a quotient belongs to its numerator.
    """

    NONE = 0
    BOUNDED = 1
    SATURATING = 2
    INVERSE = 3


@dataclass(frozen=True)
class Axes:
    """The roles of a tensor's axes in order, and what kind of factor it is.

    `gate`: what function the tensor went through, if since then only through maps that keep it a per-element factor.
    `inert`: it depends on the input only through integers (a mask, a position): relevance never reaches it.
    """

    roles: tuple[Role, ...]
    gate: Gate = Gate.NONE
    inert: bool = False

    @property
    def channels(self) -> tuple[int, ...]:
        """Indices of the channel axes."""
        return tuple(i for i, role in enumerate(self.roles) if role is Role.CHANNEL)

    @property
    def positions(self) -> tuple[int, ...]:
        """Indices of the position axes."""
        return tuple(i for i, role in enumerate(self.roles) if role is Role.POSITION)

    def position_shape(self, value: Value) -> tuple[int, ...]:
        """The shape of one scalar per position of `value`: channel axes of size 1."""
        return tuple(
            1 if role is Role.CHANNEL else size for role, size in zip(self.roles, value.shape, strict=True)
        )

    def count(self, value: Value) -> int:
        """How many positions `value` has, per batch item."""
        count = 1
        for axis in self.positions:
            count *= value.shape[axis]
        return count

    def __str__(self) -> str:
        return "".join(role.value for role in self.roles)


Roles = Mapping[str, Axes]

_LETTERS = {"N": Role.BATCH, "B": Role.BATCH, "C": Role.CHANNEL} | dict.fromkeys("HWDTLP", Role.POSITION)
_USUAL = {2: "NC", 3: "NCT", 4: "NCHW", 5: "NCDHW"}
_PICTURE_CHANNELS = (1, 3, 4)


def parse_layout(layout: str, name: str, shape: Sequence[int | None]) -> Axes:
    """Axes from letters such as "NCHW", "NHWC", "NTC": N batch, C channel, any of H W D T L a position.

    Args:
        layout: one letter per axis.
        name: of the input, for the message.
        shape: its declared sizes, None where any size goes.

    Raises:
        LayoutError: on an unknown letter, a length that is not the rank, or a batch axis that is not in front.
    """
    if unknown := sorted(set(layout) - set(_LETTERS)):
        raise LayoutError(
            f"layout '{layout}': unknown letter {', '.join(unknown)}; use N (batch), C (channel), H W D T L"
        )
    if len(layout) != len(shape):
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        raise LayoutError(f"layout '{layout}' has {len(layout)} axes, but input '{name}' has [{sizes}]")
    if any(letter in "NB" for letter in layout[1:]):
        raise LayoutError(f"layout '{layout}': only the first axis can be the batch (N)")
    return Axes(tuple(_LETTERS[letter] for letter in layout))


def guess_layout(shape: tuple[int | None, ...], name: str, *, integers: bool = False) -> str:
    """The usual layout for an input of this rank; channels last where only the last axis can be colours.

    Args:
        shape: declared sizes, None where any size goes.
        name: of the input, for the message.
        integers: it holds counts, so that a matrix of them is N×T token ids and not N×C features.

    Raises:
        LayoutError: if there is no usual layout for this rank.
    """
    rank = len(shape)
    usual = {**_USUAL, 1: "N", 2: "NT"} if integers else _USUAL
    if rank == 0:
        return ""
    if rank not in usual:
        raise LayoutError(
            f"input '{name}' has {rank} axes: no usual layout; say which with --layout / layout= (e.g. NTC)"
        )
    last_only = shape[-1] in _PICTURE_CHANNELS and shape[1] not in _PICTURE_CHANNELS if rank >= 4 else False
    if last_only:
        return "N" + usual[rank][2:] + "C"
    return usual[rank]


Problems = dict[str, LayoutError | UnsupportedCaseError]


def propagate(
    graph: Graph, start: Roles, rules: RuleTable, problems: Problems | None = None
) -> dict[str, Axes]:
    """Roles of every tensor that depends on the input, as far as the rules carry them.

    A tensor that does not depend on the input has no entry. The outputs of a node without a rule are taken to have
    the axes of its input if they have as many: relevance never crosses them (the plan reports the gap), and where
    the node lies in the branch of a gate they show that it is one.

    Args:
        graph: the simplified graph.
        start: axes of the graph's inputs.
        rules: the rule table.
        problems: takes the nodes, by name, whose rule refused, so that it matters only where relevance crosses them.

    Raises:
        LayoutError, UnsupportedCaseError: what a rule refuses, if `problems` does not take it.
    """
    roles = dict(start)
    for node in graph.nodes:
        varying = [v for v in node.inputs if v is not None and v.name in roles]
        if not varying or any(v is not None and not v.known for v in node.outputs):
            continue
        rule = rules.get(node.key)
        if rule is not None:
            try:
                found = _of_outputs(node, rule, roles)
            except (LayoutError, UnsupportedCaseError) as error:
                if problems is None:
                    raise
                problems[node.name] = error
                rule = None
        if rule is None:
            axes = roles[varying[0].name]
            same_rank = (v for v in node.outputs if v is not None and v.rank == varying[0].rank)
            found = {v.name: Axes(axes.roles) for v in same_rank}
        alive = bool(_alive(node, rule, roles))
        for value in node.outputs:
            if value is not None and value.name in found:
                inert = not alive or (rule is None and not value.is_float and not is_quantised(value))
                roles[value.name] = replace(found[value.name], inert=inert)
    return roles


class _Needed(dict[str, Axes]):
    """Roles that a rule asks for; what does not depend on the model's input has none to give."""

    def __init__(self, node: Node, roles: Roles) -> None:
        super().__init__(roles)
        self.node = node

    def __missing__(self, name: str) -> Axes:
        raise UnsupportedCaseError(
            f"{self.node}: the rule needs '{name}' to depend on the model's input, but only another operand does"
        )


def _of_outputs(node: Node, rule: Rule, roles: Roles) -> dict[str, Axes]:
    found = {}
    roles = _Needed(node, roles)
    for value, axes in zip(node.outputs, rule.roles(node, roles), strict=False):
        if value is not None and axes is not None:
            if len(axes.roles) != value.rank:
                raise LayoutError(f"{node}: roles {axes} do not fit '{value.name}' {list(value.shape)}")
            found[value.name] = axes
    return found


def _alive(node: Node, rule: Rule | None, roles: Roles) -> tuple[int, ...]:
    """Inputs through which relevance could come: what the rule says, without one all that are not inert."""
    if rule is not None:
        return rule.carriers(node, roles)
    known = ((i, v.name) for i, v in enumerate(node.inputs) if v is not None and v.name in roles)
    return tuple(i for i, name in known if not roles[name].inert)


def living(graph: Graph, roles: Roles, sources: Iterable[str]) -> set[str]:
    """Tensors through which the model's input flows as real numbers, those of unknown roles included."""
    found = set(sources)
    for node in graph.nodes:
        names = {v.name for v in node.inputs if v is not None}
        for value in node.outputs:
            if value is None:
                continue
            if value.name in roles:
                alive = not roles[value.name].inert
            else:
                real = not value.known or value.is_float or is_quantised(value)
                alive = real and bool(names & found)
            if alive:
                found.add(value.name)
    return found


def is_quantised(value: Value) -> bool:
    """Whether its integers stand for reals: a picture of bytes, or what QuantizeLinear makes."""
    return value.dtype.kind in "iu" and value.dtype.itemsize == 1
