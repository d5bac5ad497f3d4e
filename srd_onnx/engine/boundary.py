"""Where cotangents end and sharing ratios begin: the boundary, by name or by how far the target sees."""

import difflib
from collections.abc import Collection, Iterable, Sequence

import networkx as nx

from srd_onnx.engine.crossing import Crossed
from srd_onnx.errors import UnknownTensorError
from srd_onnx.graph.ir import Graph, Value
from srd_onnx.graph.roles import Axes, is_quantised
from srd_onnx.graph.support import positions_seen

_PER_POSITION = 16  # positions of the input for each of the finest scale
_ODD = 1.1  # a scale of odd size has a little more than its part
_START, _END = object(), object()  # nodes of the flow graph that no tensor is


def encoder(graph: Graph, roles: dict[str, Axes], crossed: Crossed, target: Value) -> set[str]:
    """The last tensors before the target of which one position of the target needs more than one position.

    A tensor with many positions of which only one is used (the tokens, where the class token is taken) is not one. Of
    tensors that are computed from each other alone the first counts: what enters the last attention block, not its
    values as well. Empty where every position of the target depends on one position of each tensor only.
    """
    several = {n for n, value in graph.values.items() if n in roles and roles[n].count(value) > 1}
    seen: dict[str, int] | None = None
    single: set[str] = {target.name}
    found: set[str] = set()
    for node, rule, carriers in crossed:
        if not any(value is not None and value.name in single for value in node.outputs):
            continue
        # A pool before a single position sees all of its input; nothing has to be counted.
        pools = target.name not in several and len(carriers) == 1 and not rule.routes(node, roles)
        for name in (node.input(i).name for i in carriers):
            if name in several and not pools and seen is None:
                seen = positions_seen(graph, roles, crossed, target)
            many = name in several and (pools or seen is None or seen.get(name, 2) > 1)
            (found if many else single).add(name)
    return _first_of(found, crossed)


def _first_of(found: set[str], crossed: Crossed) -> set[str]:
    """Without the tensors that all relevance from there reaches another one of them after."""
    if len(found) < 2:
        return found
    edges = _flows(crossed)
    origins = {name for name in edges if not edges.in_degree(name)}
    kept = set()
    for name in found:
        open_paths = edges.subgraph(edges.nodes - (found - {name}))
        if origins & {name, *nx.ancestors(open_paths, name)}:
            kept.add(name)
    return kept


def scales(
    graph: Graph,
    roles: dict[str, Axes],
    crossed: Crossed,
    boundary: Collection[str],
    sources: Sequence[Value],
) -> list[str]:
    """The finer scales between the boundary and the inputs, coarse to fine, a tensor for each (ours).

    All relevance of the boundary passes through it; of those with as many positions it is the last one. Scales count
    that have more positions than the boundary, and at most a 16th of those of the input (a stride of 4 in pictures);
    if none has so few, the coarsest. Transformers have none. The rule names no resolution and no layer, so that it
    fits any network.
    """
    passed = passages(crossed, boundary, sources)
    count = {name: roles[name].count(graph.values[name]) for name in passed}
    whole = sum(roles[source.name].count(source) for source in sources)
    coarse = max(roles[name].count(graph.values[name]) for name in boundary)
    ends = {*boundary, *(source.name for source in sources)}
    inner = [name for name in passed if name not in ends and count[name] > 1]
    last = {count[name]: name for name in inner if count[name] > coarse}
    few = [n for n in sorted(last) if n * _PER_POSITION <= _ODD * whole]
    return [last[n] for n in few or sorted(last)[:1]]


def passages(crossed: Crossed, ends: Collection[str], sources: Sequence[Value]) -> list[str]:
    """The tensors that all relevance of some others passes on its way to the inputs, from there on."""
    edges = _flows(crossed)
    edges.add_edges_from((_START, source.name) for source in sources)
    edges.add_edges_from((name, _END) for name in ends)
    parents = nx.immediate_dominators(edges, _START)
    chain, name = list[str](), parents.get(_END)
    while name not in (None, _START):
        chain.append(name)
        name = parents[name]
    return chain[::-1]


def _flows(crossed: Crossed) -> nx.DiGraph:
    """From each tensor to those that are computed from it."""
    edges = nx.DiGraph()
    for node, _, carriers in crossed:
        for value in node.outputs:
            if value is not None:
                edges.add_edges_from((node.input(i).name, value.name) for i in carriers)
    return edges


def named(graph: Graph, crossed: Crossed, reached: set[str], wanted: str) -> str:
    """The tensor that the user calls `wanted`, by its name or that of the node that computes it.

    Raises:
        UnknownTensorError: if there is none, or relevance does not cross it.
    """
    name = tensor_named(graph, wanted)
    if name in reached:
        return name
    names = {*reached, *(origin for node, _, _ in crossed for origin in node.origins)}
    close = difflib.get_close_matches(wanted, sorted(names), n=3, cutoff=0.5)
    raise UnknownTensorError(
        f"boundary '{wanted}' "
        + ("is a tensor that relevance does not cross" if name else "is not a tensor of the simplified graph")
        + (f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ".")
        + " `srd-onnx check MODEL` lists what relevance crosses."
    )


def tensor_named(graph: Graph, wanted: str) -> str | None:
    """The tensor of that name, or the one that the node of that (original) name computes; None if there is none."""
    if wanted in graph.values:
        return wanted
    named = {node.name: node for node in graph.nodes}
    for node in [named[wanted]] if wanted in named else graph.nodes:
        if wanted == node.name or wanted in node.origins:
            return node.output().name
    return None


def below(crossed: Crossed, boundary: Iterable[str]) -> frozenset[str]:
    """The boundary and every tensor before it: those whose relevance is a scalar per position."""
    edges, start = _flows(crossed), set(boundary)
    return frozenset(start.union(*(nx.ancestors(edges, name) for name in start if name in edges)))


def behind_integers(crossed: Crossed) -> set[str]:
    """What is computed from integers that are no quantised reals (an embedding, a picture of bytes).

    Integers have no cotangent, so there relevance must be a scalar per position already.
    """
    made = {v.name for node, _, _ in crossed for v in node.outputs if v is not None}
    return {
        value.name
        for node, _, carriers in crossed
        for value in node.outputs
        if value is not None and any(_is_count(node.input(i), made) for i in carriers)
    }


def _is_count(value: Value, made: set[str]) -> bool:
    return not value.is_float and (value.name not in made or not is_quantised(value))
