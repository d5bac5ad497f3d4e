"""Cutting a tape into pieces, run one after the other, that hand tensors on.

The forward nodes are cut into segments. The first pieces compute what is kept: the tensors that cross a cut. Then, from
the last segment to the first, a piece computes its segment again and goes backward through it. Each backward node is in
the segment of the forward node that it was emitted for; cotangents and relevance are handed from piece to piece. The
nodes are those of the whole, so that the numbers are the same but for rounding.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from onnx import ModelProto, NodeProto

from srd_onnx.bounded.tape import Tape
from srd_onnx.graph.ir import Array
from srd_onnx.graph.walk import captured

_VIEWS = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True, eq=False)
class Piece:
    """Nodes that run at once.

    Attributes:
        tape: that they are of.
        nodes: in topological order.
        takes, gives: tensors.
        back: whether it goes backward, or only computes what is kept.
    """

    tape: Tape
    nodes: tuple[NodeProto, ...]
    takes: tuple[str, ...]
    gives: tuple[str, ...]
    back: bool

    @cached_property
    def peak(self) -> float:
        """Bytes at once of what it computes, each tensor held until it was last read; nothing for unknown shapes."""
        root, last = self._roots, dict[str, int]()
        for place, node in enumerate(self.nodes):
            last.update(
                {root[name]: place for name in (*node.output, *node.input, *captured(node)) if name in root}
            )
        last.update({root[name]: len(self.nodes) for name in self.gives})
        done: list[list[str]] = [[] for _ in range(len(self.nodes) + 1)]
        for name, place in last.items():
            done[place].append(name)
        held = peak = 0.0
        for node, ended in zip(self.nodes, done, strict=False):
            held += sum(self.tape.known_size(name) for name in node.output if root.get(name) == name)
            peak = max(peak, held)
            held -= sum(self.tape.known_size(name) for name in ended)
        return peak

    @cached_property
    def _roots(self) -> dict[str, str]:
        """The tensor whose memory each tensor that it computes is in: its own, or that of what it is a view of."""
        root: dict[str, str] = {}
        for node in self.nodes:
            view = root.get(node.input[0]) if node.op_type in _VIEWS and node.domain == "" else None
            root.update({name: view or name for name in node.output if name})
        return root

    @cached_property
    def computed(self) -> tuple[str, ...]:
        """The tensors of the forward pass that it computes."""
        return tuple(name for node in self.nodes for name in node.output if name in self.tape.place)

    @cached_property
    def weights(self) -> dict[str, Array]:
        """Those of its constants that are large."""
        return {name: self.tape.weights[name] for name in self._constants if name in self.tape.weights}

    def exposing(self, names: Sequence[str]) -> "Piece":
        """It, up to these tensors of the forward pass that it computes."""
        where = dict.fromkeys(self.takes, -1)
        nodes, reads = _part(self.tape, names, where, 0)
        return Piece(self.tape, nodes, reads, tuple(names), back=False)

    def model(self) -> ModelProto:
        """It, as a model of its own, but for its weights."""
        tape, model = self.tape, ModelProto()
        model.CopyFrom(tape.empty)
        model.graph.node.extend(self.nodes)
        model.graph.input.extend(tape.kinds[name] for name in self.takes)
        model.graph.output.extend(tape.kinds[name] for name in self.gives)
        model.graph.initializer.extend(tape.constants[name] for name in self._constants)
        return model

    @cached_property
    def _constants(self) -> tuple[str, ...]:
        read = dict.fromkeys(name for node in self.nodes for name in (*node.input, *captured(node)))
        return tuple(name for name in read if name in self.tape.constants)


def cut(tape: Tape, starts: Sequence[int]) -> list[Piece]:
    """The pieces, in the order in which they run.

    Args:
        tape: what is cut.
        starts: the places in `tape.forward` at which segments begin, rising from 0.
    """
    segments = {name: bisect_right(starts, place) - 1 for name, place in tape.place.items()}
    where = segments | _homes(tape, starts, segments)
    ends: list[list[str]] = [[] for _ in starts]
    for name in dict.fromkeys((*(n for n in where if n not in segments), *tape.outputs)):
        ends[where.get(name, -1)].append(name)
    back = [_part(tape, names, where, one) for one, names in enumerate(ends)]
    handed = {name for _, reads in back for name in reads}.union(tape.outputs)
    pieces = []
    for (nodes, reads), names in zip(back, ends, strict=True):
        if gives := tuple(name for name in names if name in handed):
            pieces.append(Piece(tape, nodes, reads, gives, back=True))
    for one in reversed(range(len(starts))):
        kept = [name for name in segments if segments[name] == one and name in handed]
        if kept:
            nodes, reads = _part(tape, kept, where, one)
            handed.update(reads)
            pieces.append(Piece(tape, nodes, reads, tuple(kept), back=False))
    return pieces[::-1]


def done_after(pieces: Sequence[Piece]) -> list[list[str]]:
    """After each piece, what no later one takes and is no output."""
    outputs, later, found = set(pieces[0].tape.outputs), set[str](), []
    for piece in reversed(pieces):
        here = [n for n in dict.fromkeys((*piece.takes, *piece.gives)) if n not in later and n not in outputs]
        found.append(here)
        later.update(piece.takes)
    return found[::-1]


def _homes(tape: Tape, starts: Sequence[int], segments: Mapping[str, int]) -> dict[str, int]:
    """The segment in which each tensor that depends on the target is made.

    It is that of the forward node that it was emitted for; but no later one, seen from the input, than those of what it
    is made of. A sum is made where its last operand is, so that one tensor is handed on and not several.
    """
    homes: dict[str, int] = {}
    last = len(starts) - 1
    for node, reads, place in zip(tape.nodes, tape.reads, tape.made_for, strict=True):
        if node.output[0] not in tape.seeded:
            continue
        own = last if place is None or node.op_type == "Sum" else bisect_right(starts, place) - 1
        home = min([own, *(homes[name] for name in reads if name in homes)])
        homes.update(dict.fromkeys(node.output, home))
    return homes


def _part(
    tape: Tape, names: Iterable[str], where: Mapping[str, int], segment: int
) -> tuple[tuple[NodeProto, ...], tuple[str, ...]]:
    """The nodes that compute some tensors in a segment, and what comes from elsewhere.

    What depends on neither target nor input is computed in each segment that reads it; so is what the backward pass
    makes of the forward pass alone (norms, masks).
    """
    found, reads, open_names = set[int](), dict[str, None](), list(names)
    while open_names:
        name = open_names.pop()
        index = tape.index.get(name)
        if index is None or where.get(name, segment) != segment:
            reads[name] = None
        elif index not in found:
            found.add(index)
            open_names.extend(tape.reads[index])
    return tuple(tape.nodes[index] for index in sorted(found)), tuple(reads)
