"""What each axis of each tensor means: batch, position or channel.

Relevance belongs to positions; sharing ratios are inner products over channels. So every tensor that relevance
crosses must have known roles. They start from the layout of the input and are carried through each node by its rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from srd_onnx.errors import LayoutError
from srd_onnx.ir import Graph, Value
from srd_onnx.rule import RuleTable


class Role(Enum):
    """The meaning of one axis."""

    BATCH = "N"
    POSITION = "P"
    CHANNEL = "C"


@dataclass(frozen=True)
class Axes:
    """The roles of a tensor's axes in order, and whether it is a gate.

    `gate`: the tensor went through a saturating function (sigmoid, hard-sigmoid, softmax) and since then only
    through maps that keep it a per-element factor. In a product it is held fixed (DESIGN.md, section 2).
    """

    roles: tuple[Role, ...]
    gate: bool = False

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
        LayoutError: on an unknown letter, a length that is not the rank, or no batch axis in front.
    """
    if unknown := sorted(set(layout) - set(_LETTERS)):
        raise LayoutError(
            f"layout '{layout}': unknown letter {', '.join(unknown)}; use N (batch), C (channel), H W D T L"
        )
    if len(layout) != len(shape):
        sizes = ", ".join("?" if size is None else str(size) for size in shape)
        raise LayoutError(f"layout '{layout}' has {len(layout)} axes, but input '{name}' has [{sizes}]")
    if layout[:1] not in ("N", "B"):
        raise LayoutError(f"layout '{layout}': the first axis must be the batch (N); others have no rule yet")
    return Axes(tuple(_LETTERS[letter] for letter in layout))


def guess_layout(shape: tuple[int | None, ...], name: str) -> str:
    """The usual layout for an input of this rank; channels last where only the last axis can be colours.

    Args:
        shape: declared sizes, None where any size goes.
        name: of the input, for the message.

    Raises:
        LayoutError: if there is no usual layout for this rank.
    """
    rank = len(shape)
    if rank not in _USUAL:
        raise LayoutError(
            f"input '{name}' has {rank} axes: no usual layout; say which with --layout / layout= (e.g. NTC)"
        )
    last_only = shape[-1] in _PICTURE_CHANNELS and shape[1] not in _PICTURE_CHANNELS
    if rank >= 4 and last_only:
        return "N" + _USUAL[rank][2:] + "C"
    return _USUAL[rank]


def propagate(graph: Graph, start: Roles, rules: RuleTable) -> dict[str, Axes]:
    """Roles of every tensor that depends on the input, as far as the rules carry them.

    A tensor that does not depend on the input has no entry. The outputs of a node without a rule are taken to have
    the axes of its input if they have as many: relevance never crosses them (the plan reports the gap), and where
    the node lies in the branch of a gate they show that it is one.
    """
    roles = dict(start)
    for node in graph.nodes:
        rule = rules.get(node.key)
        varying = [v for v in node.inputs if v is not None and v.name in roles]
        if not varying or any(v is not None and not v.known for v in node.outputs):
            continue
        if rule is None:
            same_rank = (v for v in node.outputs if v is not None and v.rank == varying[0].rank)
            roles.update({v.name: Axes(roles[varying[0].name].roles) for v in same_rank})
            continue
        for value, axes in zip(node.outputs, rule.roles(node, roles), strict=False):
            if value is not None and axes is not None:
                if len(axes.roles) != value.rank:
                    raise LayoutError(f"{node}: roles {axes} do not fit '{value.name}' {list(value.shape)}")
                roles[value.name] = axes
    return roles
