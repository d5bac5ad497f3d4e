"""What a recurrent node says, and how relevance goes through it in position form.

Held fixed, the gates leave a map that is affine in the whole sequence and in the initial states, so that the state at
a time is fed by every position that the recurrence has passed by then.
"""

from collections.abc import Sequence

import numpy as np

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import LayoutError
from srd_onnx.graph.ir import Array, Node
from srd_onnx.graph.roles import Axes, Role, Roles

INITIAL = (5, 6)  # the inputs initial_h, initial_c
_DEFAULT = {"LSTM": ("sigmoid", "tanh", "tanh"), "GRU": ("sigmoid", "tanh"), "RNN": ("tanh",)}
_ORDER = {"Y": (2, 0, 1, 3), "state": (1, 0, 2)}  # from the default layout to the other one


# What the node says


def is_batchwise(node: Node) -> bool:
    """Whether items come before times."""
    return bool(node.attrs["layout"])


def directions(node: Node) -> tuple[bool, ...]:
    """For each direction whether it is the reverse one."""
    ways: dict[str, tuple[bool, ...]] = {
        "forward": (False,),
        "reverse": (True,),
        "bidirectional": (False, True),
    }
    return ways[node.attrs["direction"]]


def activation_of(node: Node) -> str:
    """The activation of an RNN; of the others that they have the usual ones."""
    op, count = node.key.op_type, len(directions(node))
    usual = _DEFAULT[op]
    given = tuple(name.lower() for name in node.attrs.get("activations", ()))[: count * len(usual)]
    if op == "RNN" and given and set(given) <= {"tanh", "relu"} and len(set(given)) == 1:
        return str(given[0])
    node.require(
        given in ((), usual * count), f"activations {', '.join(given)} are not covered, only the default ones"
    )
    return usual[-1]


def _check(node: Node) -> None:
    node.require(not node.attrs.get("clip"), "clipped gates (attribute clip) are not covered")
    node.require(not node.attrs.get("input_forget"), "coupled gates (attribute input_forget) are not covered")
    activation_of(node)
    for index in (1, 2, 3, 7):
        node.constant(index)
    lengths = node.constant(4)
    node.require(
        lengths is None or bool((lengths > 0).all()), "an empty sequence (sequence_lens of 0) is not covered"
    )


def sizes(node: Node) -> tuple[int, int]:
    """How many steps and how many items."""
    first, second = node.input(0).shape[:2]
    return (second, first) if is_batchwise(node) else (first, second)


def kept_items(node: Node) -> Array | None:
    """1.0 where an item of the batch takes a step, [T, N]; None where every one takes all."""
    lengths, (count, _) = node.constant(4), sizes(node)
    if lengths is None or (lengths >= count).all():
        return None
    return (np.arange(count)[:, None] < lengths[None]).astype(float)


def _reading(node: Node, role_of_x: Sequence[Role]) -> tuple[Role, Role, Role]:
    """The roles of time, items and features."""
    time, items, features = role_of_x
    return (items, time, features) if is_batchwise(node) else (time, items, features)


def recurrent_roles(node: Node, roles: Roles) -> list[Axes | None]:
    """Times and items keep their roles; directions and features are channels."""
    _check(node)
    x, batchwise = node.input(0), is_batchwise(node)
    node.require(
        x.name in roles and not roles[x.name].inert,
        "only its initial state is computed from the input, not its sequence",
    )
    time, items, features = _reading(node, roles[x.name].roles)
    count, many = sizes(node)
    node.require(
        time is not Role.BATCH or count == 1,
        "it runs along the batch axis, so that images are no longer independent",
    )
    wrong = features is not Role.CHANNEL and x.shape[2] > 1
    if wrong or (kept_items(node) is not None and items is Role.CHANNEL and many > 1):
        raise LayoutError(
            f"{node}: takes [time, items, features]{' with items first' if batchwise else ''}, but its input "
            f"{list(x.shape)} has axes {roles[x.name]} (N batch, C channel, P position); is its layout right?"
        )
    time = Role.CHANNEL if time is Role.BATCH else time
    rest = Role.CHANNEL  # directions and features
    full = (items, time, rest, rest) if batchwise else (time, rest, items, rest)
    state = (items, rest, rest) if batchwise else (rest, items, rest)
    for value in (node.optional(i) for i in INITIAL):
        own = roles[value.name].roles if value is not None and value.name in roles else state
        if value is not None and any(
            a is not b and n > 1 for a, b, n in zip(own, state, value.shape, strict=True)
        ):
            raise LayoutError(
                f"{node}: the initial state '{value.name}' has axes {roles[value.name]}, not {Axes(state)}"
            )
    return [Axes(full), *[Axes(state)] * (len(node.outputs) - 1)]


def recurrent_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The input and the initial states, as far as the model's input flows through them."""
    values = ((i, node.optional(i)) for i in (0, *INITIAL))
    return tuple(i for i, v in values if v is not None and v.name in roles and not roles[v.name].inert)


def recurrent_routes(node: Node, roles: Roles) -> bool:
    """One input with one time."""
    time = _reading(node, roles[node.input(0).name].roles)[0]
    alone = recurrent_carriers(node, roles) == (0,)
    return alone and (time is not Role.POSITION or sizes(node)[0] == 1)


def recurrent_lossy(node: Node) -> bool:
    """A time after the end of a shorter item has no input."""
    return kept_items(node) is not None


# The tensors in the default layout


def turned(emit: Emitter, node: Node, tensor: str, what: str) -> str:
    """From the layout of the node to the default one."""
    if not is_batchwise(node):
        return tensor
    order = _ORDER[what]
    return emit("Transpose", tensor, perm=[order.index(i) for i in range(len(order))])


def turned_back(emit: Emitter, node: Node, tensor: str, what: str) -> str:
    """From the default layout to that of the node."""
    return emit("Transpose", tensor, perm=list(_ORDER[what])) if is_batchwise(node) else tensor


# Relevance in position form


def _feeding(node: Node, roles: Roles) -> tuple[Array, Array]:
    """Which times s of the input feed each time t of the output, [N or 1, t, s]; which the last state, [N or 1, s]."""
    count = sizes(node)[0]
    if _reading(node, roles[node.input(0).name].roles)[0] is not Role.POSITION:
        return np.ones((1, 1, 1)), np.ones((1, 1))
    past = np.tri(count)
    found = np.maximum.reduce([past.T if reverse else past for reverse in directions(node)])[None]
    kept = kept_items(node)
    if kept is None:
        return found, np.ones((1, count))
    return found * kept.T[:, :, None] * kept.T[:, None, :], kept.T


def recurrent_spread(emit: Emitter, node: Node, shares: Flows) -> Flows:
    """Of each output position the same part to each time of the input that feeds it, and to each initial state."""
    carriers, x = recurrent_carriers(node, emit.roles), node.input(0)
    states = len(carriers) - 1
    whole, last = _feeding(node, emit.roles)
    items = _items(emit, node)
    to_input, to_state = list[str](), list[str]()
    for index, share in enumerate(shares):
        if share is None:
            continue
        if index == 0:
            counts = whole.sum(axis=2, keepdims=True)
            first = emit("Transpose", turned(emit, node, share, "Y"), perm=[2, 0, 1, 3])
            flow = emit.reshape(first, (items, whole.shape[1], 1))
        else:
            counts = last.sum(axis=1)[:, None, None]
            flow = emit.reshape(share, (items, 1, 1))
        part = np.where(counts > 0, 1.0 / np.maximum(counts + states, 1.0), 0.0)
        feeds = whole if index == 0 else last[:, None, :]
        matrix = np.ascontiguousarray(np.swapaxes(feeds * part, 1, 2))
        to_input.append(emit("MatMul", emit.like(x, matrix), flow))
        to_state.append(emit.total(emit("Mul", flow, emit.like(x, part)), [1]))
    flows: list[str | None] = [None] * len(node.inputs)
    for index in carriers:
        value = node.input(index)
        flow = emit.sum(to_input if index == 0 else to_state)
        if index == 0 and not is_batchwise(node):
            flow = emit("Transpose", flow, perm=[1, 0, 2])
        flows[index] = emit.reshape(flow, emit.axes(value).position_shape(value))
    return flows


def _items(emit: Emitter, node: Node) -> int:
    """How many items there are in position form."""
    x = node.input(0)
    return emit.axes(x).position_shape(x)[0 if is_batchwise(node) else 1]
