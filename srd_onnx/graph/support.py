"""Of how many positions of each tensor the target depends: its theoretical receptive field, from structure alone."""

import numpy as np
from onnx import helper

from srd_onnx.engine.crossing import Crossed
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import account_type, spread
from srd_onnx.graph.ir import Array, Graph, Value
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.ort.runtime import CPU, make_session, run


def positions_seen(graph: Graph, roles: dict[str, Axes], crossed: Crossed, target: Value) -> dict[str, int]:
    """How many positions of each crossed tensor the middle position of the target depends on, by tensor name.

    A tensor behind a spread that reads data has no entry.
    """
    found = undirected(graph, roles, crossed, target)
    return {name: int(np.count_nonzero(array)) for name, array in found.items()}


def undirected(graph: Graph, roles: dict[str, Axes], crossed: Crossed, target: Value) -> dict[str, Array]:
    """What of one unit at the middle position of the target reaches each position of each crossed tensor.

    It is sent from the target back along every rule's `spread`, which reaches exactly the positions that feed it. That
    needs no data: nothing of the forward pass is computed. A tensor behind a spread that does read data has no entry.

    Returns:
        for the first item of the batch, by tensor name: as the tensor, channel axes of size 1 and no batch axis.
    """
    emit = Emitter(graph, roles)
    shape, positions = roles[target.name].position_shape(target), roles[target.name].positions
    start = np.zeros(shape, np.float32)
    start[tuple(size // 2 if axis in positions else slice(None) for axis, size in enumerate(shape))] = 1
    flows: dict[str, list[str]] = {target.name: [emit.const(start.astype(account_type(target)))]}
    totals: dict[str, str] = {}
    for node, rule, carriers in crossed:
        shares = [_total(emit, flows, totals, v) if v is not None else None for v in node.outputs]
        if not any(shares):
            continue
        for index, flow in enumerate(spread(emit, rule, node, shares)):
            if flow is not None and index in carriers:
                flows.setdefault(node.input(index).name, []).append(flow)
    for name in list(flows):
        _total(emit, flows, totals, graph.values[name])
    return _computed(emit, graph, totals)


def _total(emit: Emitter, flows: dict[str, list[str]], totals: dict[str, str], value: Value) -> str | None:
    if value.name in flows and value.name not in totals:
        totals[value.name] = emit.sum(flows[value.name])
    return totals.get(value.name)


def _computed(emit: Emitter, graph: Graph, totals: dict[str, str]) -> dict[str, Array]:
    known = {t.name for t in emit.initializers}
    nodes = []
    for node in emit.nodes:
        if known.issuperset(name for name in node.input if name):
            nodes.append(node)
            known.update(node.output)
    wanted = {name: tensor for name, tensor in totals.items() if tensor in known}
    outputs = [helper.make_empty_tensor_value_info(f"seen/{i}") for i in range(len(wanted))]
    for output, tensor in zip(outputs, wanted.values(), strict=True):
        nodes.append(helper.make_node("Identity", [tensor], [output.name]))
    onnx_graph = helper.make_graph(nodes, "support", [], outputs, emit.initializers)
    model = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=10)
    session = make_session(model.SerializeToString(), [CPU])
    found = run(session, [o.name for o in outputs], {})
    return {name: _first_item(array, emit.roles[name]) for name, array in zip(wanted, found, strict=True)}


def _first_item(array: Array, axes: Axes) -> Array:
    """What belongs to the first item of the batch, whose axis need not be the first (recurrent layers)."""
    return array.take(0, axis=axes.roles.index(Role.BATCH)) if Role.BATCH in axes.roles else array
