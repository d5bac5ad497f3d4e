"""The plan: which nodes relevance crosses, by which rule, in which form; every gap found before any work."""

import difflib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from srd_onnx.engine.boundary import behind_integers, below, encoder, named, scales, tensor_named
from srd_onnx.engine.crossing import Crossed, Gap, before_link, cross
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import ENCODER, NO_FOCUS, SCALES, Options
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.rule import Rule, RuleTable
from srd_onnx.errors import (
    LayoutError,
    UnknownTensorError,
    UnreachableTargetError,
    UnsupportedCaseError,
    UnsupportedOpError,
)
from srd_onnx.graph.ir import Graph, Node, Value
from srd_onnx.graph.roles import Axes, Problems, Role, Roles, is_quantised, propagate

Form = Literal["cotangent", "position"]
_MOST_ELEMENTS = 1 << 40


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


@dataclass(frozen=True, eq=False)
class Plan:
    """Plain data: print it, save it, or hand it to `backward.build`.

    `steps` runs from the target back to the input. `shares` names the tensors whose relevance is a scalar per
    position (the boundary and what lies before it). `boundary` names where cotangents are collapsed. `tangent`: it is
    for the true derivative, which goes through gates and statistics too. `focus` are the plans of the passes that
    sharpen the map of this one. `blocks`: it is for ONNX Runtime's CPU provider, see `Emitter.blocked`.
    """

    graph: Graph
    roles: dict[str, Axes] = field(repr=False)
    sources: tuple[Value, ...]
    target: Value
    boundary: tuple[str, ...]
    shares: frozenset[str] = field(repr=False)
    steps: tuple[Step, ...] = field(repr=False)
    gaps: tuple[Gap, ...]
    options: Options
    tangent: bool = False
    focus: tuple["Plan", ...] = ()
    blocks: bool = True

    def emitter(self, *, plain: bool = False, tangent: bool = False, prefix: str = "srd") -> Emitter:
        """What takes the backward nodes; the true derivative if that is asked for, or the plan is for it."""
        return Emitter(
            self.graph,
            self.roles,
            tangent=tangent or self.tangent,
            plain=plain,
            blocks=self.blocks,
            prefix=prefix,
        )

    @property
    def batch(self) -> int:
        """How many inputs are explained at once."""
        return batch_size(self.roles, self.sources)

    @cached_property
    def outline(self) -> Outline:
        """What of it is still needed once the model is compiled."""
        boundary = tuple(self.graph.values[name] for name in self.boundary)
        values = (*self.sources, self.target, *boundary)
        return Outline(
            self.sources,
            self.target,
            boundary,
            {value.name: self.roles[value.name] for value in values},
            self.batch,
            {step.node.origins[0]: step.approximate for step in self.steps if step.approximate},
        )

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
            *(f"focus     {', '.join(one.boundary)}" for one in self.focus),
        ]
        lines += [f"input     {s.name} {list(s.shape)} axes {self.roles[s.name]}" for s in self.sources]
        for step in self.steps:
            note = f"  approximate: {step.approximate}" if step.approximate else ""
            lines.append(f"  {step.form:10} {step.node.key!s:32} {' + '.join(step.node.origins)}{note}")
        lines += [f"  NO RULE    {gap}" for gap in self.gaps]
        return "\n".join(lines)


def make_plan(
    graph: Graph,
    start: Roles,
    rules: RuleTable,
    options: Options,
    explained: str | None = None,
    *,
    tangent: bool = False,
) -> Plan:
    """Decide everything that can be decided before the model runs.

    Args:
        graph: the simplified graph.
        start: the axes of the graph's inputs, by name.
        rules: the rule table.
        options: boundary, seed, sign, bias.
        explained: the tensor (or original node) that is explained; the first output if left out, or what comes before
            a softmax, log-softmax or sigmoid at its end.
        tangent: for the true derivative, which crosses gates and statistics too.

    Raises:
        LayoutError: if a rule contradicts the roles that the layout leads to.
        UnknownTensorError: if the boundary or what is explained does not exist, or relevance does not cross it.
        UnreachableTargetError: if no relevance can get from the target to an input.
        UnsupportedCaseError: if the shape of a tensor that relevance crosses depends on the data.
    """
    problems: Problems = {}
    roles = propagate(graph, start, rules, problems)
    target = (
        before_link(graph, rules, graph.outputs[0]) if explained is None else _explained(graph, explained)
    )
    crossed, gaps, reached = cross(graph, rules, roles, start, target, tangent=tangent)
    sources = tuple(value for value in graph.inputs if value.name in start and value.name in reached)
    _require_reached(graph, sources, target)
    _require_known(crossed)
    _require_small(crossed)
    if gaps:
        open_steps = tuple(
            Step(n, rule, (), carriers, routes=False, approximate=rule.approximate(n))
            for n, rule, carriers in crossed
        )
        return Plan(graph, roles, sources, target, (), frozenset(), open_steps, tuple(gaps), options, tangent)
    for node, _, _ in reversed(crossed):
        if node.name in problems:
            raise problems[node.name]
    _restore_batch(roles, sources, target)
    _require_roles(crossed, roles, sources, target)
    if options.boundary == ENCODER:
        chosen = encoder(graph, roles, crossed, target)
    else:
        chosen = {named(graph, crossed, reached, options.boundary)}
    whole = Plan(graph, roles, sources, target, (), frozenset(), (), (), options, tangent)
    first = _bounded(whole, crossed, reached, chosen)
    if options.focus == NO_FOCUS:
        return first
    finer = (
        scales(graph, roles, crossed, first.boundary, sources)
        if options.focus == SCALES
        else [named(graph, crossed, reached, options.focus)]
    )
    passes = []
    for name in finer:
        own = replace(options, boundary=name, sign="positive", focus=NO_FOCUS)
        if name not in first.boundary:
            passes.append(_bounded(replace(whole, options=own), crossed, reached, {name}))
    return replace(first, focus=tuple(passes))


def _bounded(whole: Plan, crossed: Crossed, reached: set[str], chosen: set[str]) -> Plan:
    """The plan whose boundary is at these tensors."""
    roles, sources = whole.roles, whole.sources
    shares = below(crossed, chosen | behind_integers(crossed)) | {s.name for s in sources}
    steps = tuple(_step(node, rule, carriers, roles, shares, reached) for node, rule, carriers in crossed)
    return replace(whole, shares=shares, steps=steps, boundary=_collapsed(steps, shares, whole.target))


def forward_plan(
    graph: Graph, start: Roles, rules: RuleTable, options: Options, explained: str | None = None
) -> Plan:
    """The inputs and the target alone, for what runs the model and looks at nothing inside: no steps, and no gaps.

    Args:
        graph: the simplified graph.
        start: the axes of the graph's inputs, by name.
        rules: the rule table; they say what the target is, and nothing has to be covered.
        options: seed; the others mean nothing here.
        explained: see `make_plan`.

    Raises:
        LayoutError: if the first axis of the target is not the batch, where that is more than one.
        UnknownTensorError, UnsupportedCaseError: if what is explained does not exist, or cannot be.
        UnreachableTargetError: if the target does not depend on an input.
    """
    roles = propagate(graph, start, rules, {})
    target = _explained(graph, explained or before_link(graph, rules, graph.outputs[0]).name)
    needed = {target.name}
    for node in reversed(graph.nodes):
        if any(value is not None and value.name in needed for value in node.outputs):
            needed.update(value.name for value in node.inputs if value is not None)
    given = [value for value in graph.inputs if value.name in start and value.name in needed]
    real = [value for value in given if value.is_float or is_quantised(value)]
    sources = tuple(real or given)
    _require_reached(graph, sources, target)
    if target.name not in roles:
        roles[target.name] = Axes((Role.CHANNEL,) * target.rank)
        if target.shape[:1] == (batch_size(roles, sources),):
            roles[target.name] = Axes((Role.BATCH, *(Role.CHANNEL,) * (target.rank - 1)))
    _restore_batch(roles, sources, target)
    _require_batch(roles, sources, target)
    return Plan(graph, roles, sources, target, (), frozenset(), (), (), options)


def _explained(graph: Graph, wanted: str) -> Value:
    name = tensor_named(graph, wanted)
    if name is None:
        close = difflib.get_close_matches(wanted, list(graph.values), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UnknownTensorError(f"'{wanted}' is neither a tensor nor a node of the simplified graph{hint}")
    value = graph.values[name]
    if not value.known:
        raise UnsupportedCaseError(
            f"the shape of '{wanted}' is not known before the model runs: it cannot be explained. "
            "Explain a tensor before it, or export the model with fixed shapes."
        )
    if not value.is_float:
        raise UnknownTensorError(
            f"'{wanted}' is {value.dtype}; only a tensor of real numbers can be explained"
        )
    return value


def _require_reached(graph: Graph, sources: tuple[Value, ...], target: Value) -> None:
    if target.name in {value.name for value in graph.inputs}:
        raise UnreachableTargetError(
            f"what is explained of the output '{graph.outputs[0].name}' is the input '{target.name}' itself: "
            "nothing lies between them"
        )
    if not sources:
        inputs = " or ".join(f"'{value.name}'" for value in graph.inputs)
        raise UnreachableTargetError(
            f"the target '{target.name}' does not depend on the input {inputs} along any path that carries "
            "relevance (real numbers, not gates); choose another output"
        )


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


def _require_small(crossed: Crossed) -> None:
    values = [v for node, _, _ in crossed for v in (*node.inputs, *node.outputs) if v is not None]
    for value in values:
        if math.prod(value.shape) > _MOST_ELEMENTS:
            raise UnsupportedCaseError(
                f"the tensor '{value.name}' {list(value.shape)}, which relevance crosses, is larger than any memory: "
                "its sizes come from the model, which may be damaged, or from the input"
            )


def _require_roles(
    crossed: Crossed, roles: dict[str, Axes], sources: tuple[Value, ...], target: Value
) -> None:
    lost = [node for node, _, _ in crossed if node.output().name not in roles]
    if lost:
        raise LayoutError(
            f"the axes were lost at {lost[-1]}: batch, position and channel cannot be told apart"
        )
    _require_batch(roles, sources, target)


def _require_batch(roles: dict[str, Axes], sources: tuple[Value, ...], target: Value) -> None:
    batch = batch_size(roles, sources)
    first = roles[target.name].roles[:1] == (Role.BATCH,) and target.shape[0] == batch
    if batch > 1 and not first:
        raise LayoutError(
            f"the target '{target.name}' {list(target.shape)} has axes '{roles[target.name]}'; its first axis must be "
            f"the batch of {batch}; explain one input at a time (batch 1)"
        )


def _restore_batch(roles: dict[str, Axes], sources: Sequence[Value], target: Value) -> None:
    """The first axis of the target is the batch where it may be: a batch of one is lost where axes merge with it."""
    axes = roles.get(target.name)
    if axes is None or Role.BATCH in axes.roles or target.shape[:1] != (1,):
        return
    if any(Role.BATCH in roles[source.name].roles for source in sources):
        roles[target.name] = replace(axes, roles=(Role.BATCH, *axes.roles[1:]))


def batch_size(roles: Roles, sources: Sequence[Value]) -> int:
    """How many independent inputs there are; 1 where no input has a batch axis."""
    sizes = {
        size
        for source in sources
        for size, role in zip(source.shape, roles[source.name].roles, strict=True)
        if role is Role.BATCH
    }
    if len(sizes) > 1:
        raise LayoutError(f"the inputs have batches of different sizes: {sorted(sizes)}")
    return sizes.pop() if sizes else 1


def _step(
    node: Node,
    rule: Rule,
    carriers: tuple[int, ...],
    roles: dict[str, Axes],
    shares: frozenset[str],
    reached: set[str],
) -> Step:
    sides = {value.name in shares for value in node.outputs if value is not None and value.name in reached}
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
