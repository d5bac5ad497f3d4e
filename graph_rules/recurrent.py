"""LSTM, GRU and RNN: the recurrence unrolled backward over its sequence, which has a fixed length."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from graph_rules.cells import Cell, Gru, Lstm, Rnn
from graph_rules.recurrence import States, Unrolled
from graph_rules.recurrent_nodes import (
    INITIAL,
    activation_of,
    directions,
    kept_items,
    recurrent_carriers,
    recurrent_lossy,
    recurrent_roles,
    recurrent_routes,
    recurrent_spread,
    sizes,
    turned,
    turned_back,
)
from graph_rules.registry import Vjp, rule
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _outputs(emit: Emitter, node: Node) -> str:
    """All hidden states; computed again where the model has no use for them."""
    if node.outputs[0] is not None:
        return node.outputs[0].name
    names = [v.name if v is not None else "" for v in node.inputs]
    attrs = {k: list(v) if isinstance(v, tuple) else v for k, v in node.attrs.items()}
    return emit.many(node.key.op_type, *names, outputs=1, **attrs)[0]


def _of_direction(emit: Emitter, tensor: str, at: int, count: int, axis: int, shape: Sequence[int]) -> str:
    """One direction of a tensor, its axis dropped; `shape` is what is left."""
    if count > 1:
        tensor = emit.many("Split", tensor, emit.ints([1] * count), outputs=count, axis=axis)[at]
    return emit.reshape(tensor, shape)


class _Layer:
    """A node taken apart into its directions."""

    def __init__(self, emit: Emitter, node: Node) -> None:
        self.emit, self.node = emit, node
        self.steps, self.items = sizes(node)
        self.reverses = directions(node)
        weights = [node.constant(i) for i in (1, 2, 3)]
        assert weights[0] is not None
        assert weights[1] is not None
        self.matrix, self.recurrent, self.bias = weights[0], weights[1], weights[2]
        self.size = self.recurrent.shape[2]
        self.x = turned(emit, node, node.input(0).name, "state")
        self.y = turned(emit, node, _outputs(emit, node), "Y")
        kept = kept_items(node)
        self.kept = None if kept is None else kept[:, :, None]

    def state(self, flow: str | None, at: int) -> str | None:
        """One direction of a state [D, N, H] in the layout of the node, as [1, N, H]."""
        if flow is None:
            return None
        state = turned(self.emit, self.node, flow, "state")
        return _of_direction(self.emit, state, at, len(self.reverses), 0, (1, self.items, self.size))

    def full(self, tensor: str, at: int) -> str:
        """One direction of all hidden states, [T, N, H]."""
        shape = (self.steps, self.items, self.size)
        return _of_direction(self.emit, tensor, at, len(self.reverses), 1, shape)

    def cells(self) -> Iterator[tuple[int, Cell]]:
        """Each direction with its gates."""
        for at in range(len(self.reverses)):
            seq, op = self._unrolled(at), self.node.key.op_type
            if op == "LSTM":
                yield at, Lstm(seq)
            elif op == "GRU":
                yield at, Gru(seq)
            else:
                yield at, Rnn(seq, activation_of(self.node))

    def _initial(self, index: int, at: int) -> str:
        value = self.node.optional(index)
        found = self.state(value.name if value is not None else None, at)
        return found or self.emit.zeros((1, self.items, self.size), self.node.input(0).dtype)

    def _unrolled(self, at: int) -> Unrolled:
        emit, count, reverse = self.emit, self.steps, self.reverses[at]
        start = States(*(self._initial(i, at) for i in INITIAL[: 1 + (self.node.key.op_type == "LSTM")]))
        after = self.full(self.y, at)
        assert start.hidden is not None
        before = start.hidden
        if count > 1:
            cut = (1, count) if reverse else (0, count - 1)
            others = emit("Slice", after, emit.ints(cut[:1]), emit.ints(cut[1:]), emit.ints([0]))
            if reverse and self.kept is not None:
                others = emit("Where", emit.const(self.kept[1:] > 0), others, start.hidden)
            before = emit("Concat", *((others, before) if reverse else (before, others)), axis=0)
        gates = _GATES[self.node.key.op_type] * self.size
        bias = np.zeros(2 * gates, self.matrix.dtype) if self.bias is None else self.bias[at]
        order = tuple(range(count))[:: -1 if reverse else 1]
        peepholes = self.node.constant(7)
        return Unrolled(
            emit, self.node, self.x, before, after, start, self.matrix[at], self.recurrent[at],
            bias[:gates], bias[gates:], None if peepholes is None else peepholes[at], order, self.kept,
        )  # fmt: skip


# The part that comes from no input


def _bias(emit: Emitter, node: Node) -> Flows | None:
    """What each output has if all that varies is zero: the affine recurrence, run on its biases alone."""
    data = node.constant(3)
    fixed = [v for v in (node.optional(i) for i in INITIAL) if v is not None and not emit.varies(v)]
    if (data is None or not data.any()) and not fixed:
        return None
    layer = _Layer(emit, node)
    outputs: list[list[str]] = [[], [], []]
    for at, cell in layer.cells():
        for found, part in zip(outputs, _run_forth(layer, cell, at), strict=True):
            found.extend([part] if part else [])
    full = [emit.reshape(t, (layer.steps, 1, layer.items, layer.size)) for t in outputs[0]]
    y = full[0] if len(full) == 1 else emit("Concat", *full, axis=1)
    found = [turned_back(emit, node, y, "Y")]
    for parts in outputs[1 : len(node.outputs)]:
        state = parts[0] if len(parts) == 1 else emit("Concat", *parts, axis=0)
        found.append(turned_back(emit, node, state, "state"))
    return found


def _run_forth(layer: _Layer, cell: Cell, at: int) -> tuple[str, str, str | None]:
    """Of one direction: the part of all hidden states [T, N, H], and of the states at the end [1, N, H]."""
    seq, emit, node = cell.seq, layer.emit, layer.node
    starts = [
        (node.optional(i), state)
        for i, state in zip(INITIAL, (seq.start.hidden, seq.start.cell), strict=True)
    ]
    part = States(*(state if v is not None and not emit.varies(v) else None for v, state in starts))
    zero = emit.zeros((1, layer.items, layer.size), node.input(0).dtype)
    ys = [""] * layer.steps
    for step in seq.order:
        new, kept = cell.forth(step, part), seq.kept_at(step)
        assert new.hidden is not None
        if kept is None:
            part = new
        else:
            chosen = emit.const(kept > 0)
            part = States(
                emit("Where", chosen, new.hidden, part.hidden or zero),
                emit("Where", chosen, new.cell, part.cell or zero) if new.cell else None,
            )
        shown = emit("Mul", new.hidden, seq.const(kept)) if kept is not None else new.hidden
        ys[step] = emit("Expand", shown, emit.ints((1, layer.items, layer.size)))
    assert part.hidden is not None
    whole = [
        emit("Expand", t, emit.ints((1, layer.items, layer.size))) if t else None
        for t in (part.hidden, part.cell)
    ]
    assert whole[0] is not None
    return seq.joined(ys), whole[0], whole[1]


# The rules


def _run_back(layer: _Layer, cell: Cell, at: int, cotangents: Flows) -> tuple[str, States]:
    """The cotangents of the input and of the initial states, by one direction."""
    seq, emit = cell.seq, layer.emit
    given = turned(emit, layer.node, cotangents[0], "Y") if cotangents[0] else None
    ys = seq.steps(layer.full(given, at)) if given else None
    ends = [layer.state(flow, at) for flow in (*cotangents[1:], None, None)[:2]]
    hidden, memory = ends
    gates: list[str | None] = [None] * layer.steps
    for step in seq.backward():
        kept = seq.kept_at(step)
        arrived = seq.add(hidden, ys[step] if ys else None)
        if arrived is None and memory is None:
            continue
        flow, before = cell.back(step, States(seq.masked(arrived, kept), seq.masked(memory, kept)))
        gates[step] = flow
        if kept is None:
            hidden, memory = before.hidden, before.cell
        else:
            # An item that does not take the step keeps its states.
            hidden = seq.add(before.hidden, seq.masked(hidden, 1 - kept))
            memory = seq.add(before.cell, seq.masked(memory, 1 - kept))
    flows = [gate for gate in gates if gate is not None]
    assert len(flows) == layer.steps
    return cell.input_back(seq.joined(flows)), States(hidden, memory)


def _back(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    layer = _Layer(emit, node)
    inputs: list[str] = []
    initial: list[States] = []
    for at, cell in layer.cells():
        flow, states = _run_back(layer, cell, at, cotangents)
        inputs.append(flow)
        initial.append(states)
    flows: list[str | None] = [None] * len(node.inputs)
    for index in recurrent_carriers(node, emit.roles):
        if index == 0:
            flows[0] = turned_back(emit, node, emit.sum(inputs), "state")
        else:
            parts = [s.hidden if index == INITIAL[0] else s.cell for s in initial]
            whole = [p for p in parts if p is not None]
            together = whole[0] if len(whole) == 1 else emit("Concat", *whole, axis=0)
            flows[index] = turned_back(emit, node, together, "state")
    return flows


def _recurrent(op_type: str) -> Callable[[Vjp], Vjp]:
    return rule(
        op_type,
        versions=(14, 22),
        roles=recurrent_roles,
        carriers=recurrent_carriers,
        routes=recurrent_routes,
        spread=recurrent_spread,
        bias=_bias,
        lossy=recurrent_lossy,
        nonlinear=True,
    )


@_recurrent("LSTM")
def lstm(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``C = f C' + i s a``, ``H = o s' C``, gates and secants of tanh held fixed, from the last step to the first."""
    return _back(emit, node, cotangents)


@_recurrent("GRU")
def gru(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``H = (1 - z) s a + z H'`` with gates and the secant of tanh held fixed, back from the last step to the first."""
    return _back(emit, node, cotangents)


@_recurrent("RNN")
def rnn(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``H = s a`` with the secant of tanh (or the mask of relu) held fixed, back from the last step to the first."""
    return _back(emit, node, cotangents)
