"""The plan: which nodes relevance crosses, by which rule, in which form; every gap found before any work."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import networkx as nx

from srd_onnx.errors import (
    LayoutError,
    UnknownTensorError,
    UnreachableTargetError,
    UnsupportedCaseError,
    UnsupportedOpError,
)
from srd_onnx.ir import Graph, Node, Value
from srd_onnx.options import Options
from srd_onnx.roles import Axes, Problems, Role, living, propagate
from srd_onnx.rule import Rule, RuleTable

Form = Literal["cotangent", "position"]


@dataclass(frozen=True)
class Step:
    """One node that relevance crosses.

    Attributes:
        forms: "cotangent" above the boundary, "position" below it; both for a node with outputs on both sides; none
            where gaps elsewhere leave the boundary open.
        carriers: the inputs that receive relevance.
        routes: it moves relevance without computing a ratio.
        approximate: why it is not exact, or None.
    """

    node: Node
    rule: Rule
    forms: tuple[Form, ...]
    carriers: tuple[int, ...]
    routes: bool
    approximate: str | None

    @property
    def form(self) -> str:
        """How relevance crosses it, in a word: "routes", "position", "cotangent", "cotangent+position", or ""."""
        return "routes" if self.routes and self.forms == ("position",) else "+".join(self.forms)


@dataclass(frozen=True)
class Gap:
    """A node that relevance can reach and that has no rule."""

    node: Node
    covered: tuple[int, ...]  # versions of the operator that do have a rule

    @property
    def reason(self) -> str:
        """Which versions of the operator do have a rule."""
        versions = ", ".join(map(str, self.covered))
        return f"only versions {versions} have a rule" if versions else "no version is covered"

    def __str__(self) -> str:
        named = "" if self.node.name in self.node.origins else f" (made from {', '.join(self.node.origins)})"
        return f"{self.node.key}  node '{self.node.name}'{named}  ({self.reason})"


@dataclass(frozen=True, eq=False)
class Plan:
    """Plain data: print it, save it, or hand it to `backward.build`.

    `steps` runs from the target back to the input. `shares` names the tensors whose relevance is a scalar per
    position (the boundary and what lies before it). `boundary` names where cotangents are collapsed.
    """

    graph: Graph
    roles: dict[str, Axes] = field(repr=False)
    source: Value
    output: Value
    target: Value
    boundary: tuple[str, ...]
    shares: frozenset[str] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    gaps: tuple[Gap, ...]
    options: Options

    @property
    def preactivations(self) -> tuple[Value, ...]:
        """The inputs of the nonlinearities that relevance crosses, from input to target."""
        found = [s.node.input(i) for s in reversed(self.steps) if s.rule.nonlinear for i in s.carriers]
        return tuple(dict.fromkeys(found))

    def require_complete(self) -> None:
        """Refuse to go on where relevance would reach a node without a rule.

        Raises:
            UnsupportedOpError: listing every such node.
        """
        if self.gaps:
            total = len(self.graph.nodes)
            raise UnsupportedOpError(
                f"{len(self.gaps)} of {total} nodes have no relevance rule:\n"
                + "\n".join(f"  {gap}" for gap in self.gaps)
                + "\nAdd a rule with @rule(...) in graph_rules/, or cut the graph there."
            )

    def __str__(self) -> str:
        lines = [
            f"target    {self.target.name} {list(self.target.shape)}",
            f"boundary  {', '.join(self.boundary) or '(none)'}",
            f"input     {self.source.name} {list(self.source.shape)} axes {self.roles[self.source.name]}",
        ]
        for step in self.steps:
            note = f"  approximate: {step.approximate}" if step.approximate else ""
            lines.append(f"  {step.form:10} {step.node.key!s:32} {' + '.join(step.node.origins)}{note}")
        lines += [f"  NO RULE    {gap}" for gap in self.gaps]
        return "\n".join(lines)


def make_plan(graph: Graph, start: dict[str, Axes], rules: RuleTable, options: Options) -> Plan:
    """Decide everything that can be decided before the model runs.

    Args:
        graph: the simplified graph.
        start: the axes of the explained input, by its name.
        rules: the rule table.
        options: boundary, seed, sign, bias.

    Raises:
        LayoutError: if a rule contradicts the roles that the layout leads to.
        UnknownTensorError: if the boundary does not exist or relevance does not cross it.
        UnreachableTargetError: if no relevance can get from the target to the input.
        UnsupportedCaseError: if the shape of a tensor that relevance crosses depends on the data.
    """
    (source,) = (value for value in graph.inputs if value.name in start)
    problems: Problems = {}
    roles = propagate(graph, start, rules, problems)
    output = graph.outputs[0]
    target = _before_link(graph, rules, output)
    crossed, gaps, reached = _crossing(graph, rules, roles, source, target)
    if target.name == source.name:
        raise UnreachableTargetError(
            f"what is explained of the output '{output.name}' is the input '{source.name}' itself: "
            "nothing lies between them"
        )
    if source.name not in reached:
        raise UnreachableTargetError(
            f"the target '{target.name}' does not depend on the input '{source.name}' along any path that carries "
            "relevance (real numbers, not gates); choose another output"
        )
    _require_known(crossed)
    if gaps:
        open_steps = tuple(
            Step(n, rule, (), carriers, routes=False, approximate=rule.approximate(n))
            for n, rule, carriers in crossed
        )
        return Plan(graph, roles, source, output, target, (), frozenset(), open_steps, tuple(gaps), options)
    for node, _, _ in reversed(crossed):
        if node.name in problems:
            raise problems[node.name]
    _require_roles(crossed, roles, target)
    edges = _carrying_edges(crossed)
    if options.boundary == "encoder":
        boundary = _encoder(graph, roles, crossed, target, source)
    else:
        boundary = {_named(graph, reached, options.boundary)}
    shares = frozenset(boundary | set().union(*(nx.ancestors(edges, name) for name in boundary)))
    steps = tuple(_step(node, rule, carriers, roles, shares) for node, rule, carriers in crossed)
    collapsed = _collapsed(steps, shares, target)
    return Plan(graph, roles, source, output, target, collapsed, shares, steps, (), options)


Crossed = list[tuple[Node, Rule, tuple[int, ...]]]


def _before_link(graph: Graph, rules: RuleTable, output: Value) -> Value:
    """The value before a softmax, log-softmax or sigmoid at the end: what those only rescale (DESIGN.md)."""
    producers, value = graph.producers, output
    while (node := producers.get(value.name)) is not None:
        rule = rules.get(node.key)
        if rule is None or rule.head is None:
            return output
        value = node.input(0)
        if rule.head == "link":
            return value
    return output


def _crossing(
    graph: Graph, rules: RuleTable, roles: dict[str, Axes], source: Value, target: Value
) -> tuple[Crossed, list[Gap], set[str]]:
    """Nodes between target and input that relevance crosses, last first; nodes without a rule; tensors reached."""
    dependent = living(graph, roles, [source.name]) | {target.name}
    reached, crossed, gaps = {target.name}, Crossed(), []
    for node in reversed(graph.nodes):
        if not any(value is not None and value.name in reached for value in node.outputs):
            continue
        inputs = [v.name if v is not None else "" for v in node.inputs]
        if not dependent.intersection(inputs):
            continue
        rule = rules.get(node.key)
        if rule is not None and any(name in roles for name in inputs):
            carriers = tuple(i for i in rule.carriers(node, roles) if inputs[i] in dependent)
            # Behind a node without a rule axes are unknown: relevance may reach it, so that the gap must show.
            carriers += tuple(
                i
                for i, v in enumerate(node.inputs)
                if v is not None and v.is_float and v.name in dependent and v.name not in roles
            )
        else:
            carriers = tuple(i for i, name in enumerate(inputs) if name in dependent)
        reached.update(inputs[i] for i in carriers)
        if rule is None:
            gaps.append(Gap(node, _covered(node, rules)))
        elif carriers:
            crossed.append((node, rule, carriers))
    return crossed, gaps, reached


def _covered(node: Node, rules: RuleTable) -> tuple[int, ...]:
    same = [k for k in rules if (k.domain, k.op_type) == (node.key.domain, node.key.op_type)]
    return tuple(sorted(key.since for key in same))


def _require_known(crossed: Crossed) -> None:
    lost = [
        f"  {node.key}  node '{node.name}', tensor '{value.name}'"
        for node, _, _ in crossed
        for value in node.outputs
        if value is not None and not value.known
    ]
    if lost:
        raise UnsupportedCaseError(
            f"the shapes of {len(lost)} tensors that relevance crosses are not known before the model runs:\n"
            + "\n".join(lost)
            + "\nThey depend on the data, or the input is too small for these layers. Use a larger input, or "
            "export the model with fixed shapes."
        )


def _require_roles(crossed: Crossed, roles: dict[str, Axes], target: Value) -> None:
    lost = [node for node, _, _ in crossed if node.output().name not in roles]
    if lost:
        raise LayoutError(
            f"the axes were lost at {lost[-1]}: batch, position and channel cannot be told apart"
        )
    if roles[target.name].roles[:1] != (Role.BATCH,):
        raise LayoutError(
            f"the target '{target.name}' has axes '{roles[target.name]}'; its first axis must be the batch"
        )


def _carrying_edges(crossed: Crossed) -> nx.DiGraph:
    edges = nx.DiGraph()
    for node, _, carriers in crossed:
        for value in node.outputs:
            if value is not None:
                edges.add_edges_from((node.input(i).name, value.name) for i in carriers)
    return edges


def _encoder(
    graph: Graph, roles: dict[str, Axes], crossed: Crossed, target: Value, source: Value
) -> set[str]:
    """The last tensors before the target that have more than one position."""
    many = {name for name, value in graph.values.items() if name in roles and roles[name].count(value) > 1}
    if target.name in many:
        return {target.name}
    single: set[str] = {target.name}
    found: set[str] = set()
    for node, _, carriers in crossed:
        if not any(value is not None and value.name in single for value in node.outputs):
            continue
        for name in (node.input(i).name for i in carriers):
            (found if name in many else single).add(name)
    return found or {source.name}


def tensor_named(graph: Graph, wanted: str) -> str | None:
    """The tensor of that name, or the one that the node of that (original) name computes; None if there is none."""
    if wanted in graph.values:
        return wanted
    for node in graph.nodes:
        if wanted == node.name or wanted in node.origins:
            return node.output().name
    return None


def _named(graph: Graph, reached: set[str], wanted: str) -> str:
    name = tensor_named(graph, wanted)
    if name in reached:
        return name
    made = (node for node in graph.nodes if any(v is not None and v.name in reached for v in node.outputs))
    names = {*reached, *(origin for node in made for origin in node.origins)}
    close = difflib.get_close_matches(wanted, sorted(names), n=3, cutoff=0.5)
    raise UnknownTensorError(
        f"boundary '{wanted}' "
        + ("is a tensor that relevance does not cross" if name else "is not a tensor of the simplified graph")
        + (f"; did you mean {' or '.join(repr(c) for c in close)}?" if close else ".")
        + " `srd-onnx check MODEL` lists what relevance crosses."
    )


def _step(
    node: Node, rule: Rule, carriers: tuple[int, ...], roles: dict[str, Axes], shares: frozenset[str]
) -> Step:
    sides = {value.name in shares for value in node.outputs if value is not None and value.name in roles}
    named: tuple[tuple[Form, bool], ...] = (("cotangent", False), ("position", True))
    forms = tuple(form for form, side in named if side in sides)
    return Step(node, rule, forms, carriers, rule.routes(node, roles), rule.approximate(node))


def _collapsed(steps: Iterable[Step], shares: frozenset[str], target: Value) -> tuple[str, ...]:
    """Where a cotangent meets a tensor of the position side, nearest to the target first."""
    found = [target.name] if target.name in shares else []
    for step in steps:
        if "cotangent" in step.forms:
            found += [n for n in (step.node.input(i).name for i in step.carriers) if n in shares]
    return tuple(dict.fromkeys(found))
