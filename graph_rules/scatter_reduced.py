"""ScatterElements and ScatterND that multiply, or take the greater or the lesser: what flows back, on flat tensors.

Every place of the output is made of the data there and of all updates that go there.
"""

from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node, Value


@dataclass(frozen=True, eq=False)
class Scatter:
    """A node of this kind, and where in the flat output each element of its flat updates goes."""

    emit: Emitter
    node: Node
    places: Array

    @property
    def data(self) -> Value:
        """What is replaced."""
        return self.node.input(0)

    @property
    def updates(self) -> Value:
        """What replaces it."""
        return self.node.input(2)

    def flat(self, value: Value, name: str | None = None) -> str:
        """A tensor of that value's shape as a vector."""
        return self.emit.reshape(name or value.name, [int(np.prod(value.shape, dtype=np.int64))])

    def taken(self, flow: str) -> str:
        """What a flat tensor like the output has where each of the updates goes."""
        return self.emit("Gather", flow, self.emit.const(self.places), axis=0)

    def placed(self, data: str, updates: str, reduction: str) -> str:
        """Flat updates in their places of flat data."""
        indices = self.emit.const(self.places)
        return self.emit("ScatterElements", data, indices, updates, axis=0, reduction=reduction)

    def ones_where(self, condition: str) -> str:
        """1 where it is true, else 0."""
        return self.emit("Where", condition, self.emit.like(self.data, 1.0), self.emit.like(self.data, 0.0))

    @property
    def arrivals(self) -> Array:
        """How many updates go to each place."""
        return np.bincount(self.places, minlength=int(np.prod(self.data.shape, dtype=np.int64)))

    def flows(self, data: str, updates: str) -> Flows:
        """The flat flows in the shapes of the operands that vary."""
        made: list[str | None] = [None, None, None]
        for index, flow in ((0, data), (2, updates)):
            value = self.node.input(index)
            if self.emit.varies(value):
                made[index] = self.emit.reshape(flow, value.shape)
        return made


def reduced_vjp(emit: Emitter, node: Node, g: str, places: Array) -> Flows:
    """``reduction`` "mul", "max" or "min"."""
    scatter = Scatter(emit, node, places)
    flat = scatter.flat(node.output(), g)
    return _product(scatter, flat) if node.attrs["reduction"] == "mul" else _won(scatter, flat)


def reduced_bias(emit: Emitter, node: Node, places: Array) -> str | None:
    """Where a constant operand wins, the output; where a product has no factor that varies, the data."""
    data, updates = node.input(0), node.input(2)
    if emit.varies(data) and emit.varies(updates):
        return None
    scatter = Scatter(emit, node, places)
    if node.attrs["reduction"] == "mul":
        alone = (scatter.arrivals == 0).reshape(data.shape)
        return None if emit.varies(data) else emit("Mul", data.name, emit.like(data, alone))
    ours, _, count = _winners(scatter)
    if emit.varies(data):
        ours = emit("Sub", count, ours)
    y = scatter.flat(node.output())
    return emit.reshape(emit("Mul", y, emit("Div", ours, count)), data.shape)


def _winners(scatter: Scatter) -> tuple[str, str, str]:
    """1 where the data, and where each of the updates, is the result; how many are, at each place."""
    emit, y = scatter.emit, scatter.flat(scatter.node.output())
    of_data = scatter.ones_where(emit("Equal", scatter.flat(scatter.data), y))
    of_updates = scatter.ones_where(emit("Equal", scatter.flat(scatter.updates), scatter.taken(y)))
    return of_data, of_updates, scatter.placed(of_data, of_updates, "add")


def _won(scatter: Scatter, g: str) -> Flows:
    """``g`` to the winner, equally to several in a tie."""
    emit = scatter.emit
    of_data, of_updates, count = _winners(scatter)
    share = emit("Div", g, count)
    return scatter.flows(emit("Mul", share, of_data), emit("Mul", scatter.taken(share), of_updates))


def _product(scatter: Scatter, g: str) -> Flows:
    """``g Π of the other factors``, divided under a fixed pattern by how many vary: equals share (ours)."""
    emit, data, updates = scatter.emit, scatter.data, scatter.updates
    zero, one = emit.like(data, 0.0), emit.like(data, 1.0)
    # One zero leaves a product to itself alone, two leave none to anyone.
    names = [scatter.flat(data), scatter.flat(updates)]
    is_zero = [emit("Equal", name, zero) for name in names]
    factors = [emit("Where", none, one, name) for none, name in zip(is_zero, names, strict=True)]
    zeros = [scatter.ones_where(none) for none in is_zero]
    product = scatter.placed(factors[0], factors[1], "mul")
    count = scatter.placed(zeros[0], zeros[1], "add")
    if not emit.tangent:
        sharing = int(emit.varies(data)) + scatter.arrivals * emit.varies(updates)
        g = emit("Div", g, emit.like(data, np.maximum(sharing, 1)))
    shared = emit("Mul", g, product)
    flows = []
    for i, (flow, all_zeros) in enumerate(((shared, count), (scatter.taken(shared), scatter.taken(count)))):
        others = emit("Equal", all_zeros, zeros[i])
        flows.append(emit("Where", others, emit("Div", flow, factors[i]), zero))
    return scatter.flows(flows[0], flows[1])
