"""The backward pass, emitted as ONNX nodes: seed, cotangents down to the boundary, sharing ratios below it.

Position form, per node that mixes positions (DESIGN.md, section 2):

    expand    g_j = v_j R_j / |v_j|²
    VJP       of the node's rule
    collapse  R_i = <x_i, (VJP g)_i>
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from srd_onnx.engine.collapse import collapse
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.focus import BOOKED, finished
from srd_onnx.engine.half import account_type, in_account, spread
from srd_onnx.engine.mixing import biases, mixed
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import Flows
from srd_onnx.engine.seed import Seeded, along_direction, of_class
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Role


@dataclass(frozen=True)
class Backward:
    """The emitted pass and what its outputs are called.

    Attributes:
        emit: holds the nodes and initializers.
        relevance: tensor [N, *positions] of each explained input, by its name.
        seed: tensor [N], the explained number: what relevance and ledger must add up to.
        seeded: where the seed comes from: an input `target`, or an input `direction`.
        ledger: (what is booked, tensor [N]) in the order of the walk.
        entered: what enters at each tensor of the boundary, a scalar per position, by its name.
    """

    emit: Emitter
    relevance: Mapping[str, str]
    seed: str
    seeded: Seeded
    ledger: tuple[tuple[str, str], ...]
    entered: Mapping[str, str]


@dataclass(frozen=True)
class Head:
    """The emitted pass from the target to the boundary.

    Attributes:
        shares: tensor of relevance, a scalar per position, of each tensor of the boundary, by its name.
        others: see `Backward`.
    """

    emit: Emitter
    shares: Mapping[str, str]
    seed: str
    seeded: Seeded
    ledger: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Policy:
    """What travels from the target to the boundary, in place of the plain cotangent.

    Attributes:
        back: emits what a node gives its inputs of what arrived at its outputs, each shaped like its tensor.
        weighed: what starts is the direction times the scores (relevance of neurons) instead of the direction.
    """

    back: Callable[[Emitter, Step, Flows], Flows]
    weighed: bool = False


def _derivative(emit: Emitter, step: Step, cotangents: Flows) -> Flows:
    return step.rule.vjp(emit, step.node, cotangents)


DERIVATIVE = Policy(_derivative)


@dataclass(frozen=True)
class Cotangents:
    """The emitted pass from the target to the boundary, where nothing is collapsed.

    Attributes:
        at: what arrives at each tensor of the boundary, shaped like it, by its name.
        biases: (step, output of its node, tensor): the bias of each output, times what arrived there; nothing where the
            true derivative travels, which knows no bias.
        seed, seeded: see `Backward`.
    """

    emit: Emitter
    at: Mapping[str, str]
    biases: tuple[tuple[Step, Value, str], ...]
    seed: str
    seeded: Seeded


def build_cotangents(plan: Plan, policy: Policy = DERIVATIVE, *, free: bool = False) -> Cotangents:
    """Emit what travels down to the boundary under a policy; the true derivative if the plan is for it.

    Raises:
        UnsupportedOpError: if the plan has gaps.
        UnsupportedCaseError: if a rule does not cover this use of its operator.
    """
    plan.require_complete()
    return _Pass(plan, plan.emitter(), policy).arriving(free=free)


def build_head(plan: Plan, *, free: bool = False) -> Head:
    """Emit the backward pass down to the boundary only; see `build`."""
    plan.require_complete()
    return _Pass(plan, plan.emitter()).head(free=free)


def build_rival(plan: Plan, emit: Emitter) -> Head:
    """Emit, beside a pass that explains a class, what enters at the boundary for the strongest other class."""
    return _Pass(plan, emit, rival=True).head(free=False)


def build(plan: Plan, *, tangent: bool = False, free: bool = False, plain: bool = False) -> Backward:
    """Emit the backward pass of a plan.

    Args:
        plan: what is to be done.
        tangent: the true derivative instead of the map with the activation pattern held fixed; it goes through gates
            if the plan was made for it too.
        free: seed with the input `direction` instead of the index in the input `target`.
        plain: as the definition is written, not by what is cheaper.

    Raises:
        UnsupportedOpError: if the plan has gaps.
        UnsupportedCaseError: if a rule does not cover this use of its operator.
    """
    plan.require_complete()
    emit = plan.emitter(tangent=tangent, plain=plain)
    made = _Pass(plan, emit).run(free=free)
    finer = [_Pass(one, emit).run(free=free).relevance for one in plan.focus]
    relevance, ledger = {}, list(made.ledger)
    for source in plan.sources:
        with emit.origin(source.name, "finish"):
            coarse = made.relevance[source.name]
            fine = [maps[source.name] for maps in finer]
            relevance[source.name], booked = finished(emit, plan.options, map_of(plan, source), coarse, fine)
        if booked is not None:
            ledger.append((BOOKED, booked))
    return replace(made, relevance=relevance, ledger=tuple(ledger))


class _Pass:
    """One walk from the target to the input: contributions are gathered per tensor and summed when it is reached."""

    def __init__(
        self, plan: Plan, emit: Emitter, policy: Policy = DERIVATIVE, *, rival: bool = False
    ) -> None:
        self.plan = plan
        self.emit = emit
        self.policy = policy
        self.rival = rival
        self.entered: dict[str, str] = {}
        self.cotangents: defaultdict[str, list[str]] = defaultdict(list)
        self.shares: defaultdict[str, list[str]] = defaultdict(list)
        self.ledger: list[tuple[str, str]] = []

    def run(self, *, free: bool) -> Backward:
        emit, plan = self.emit, self.plan
        seeded, seed = self._seed(free=free)
        for step in plan.steps:
            with emit.origin(step.node.name, step.rule.name):
                self._book_bias(step, self._carry_cotangents(step))
                self._carry_shares(step)
        relevance = {}
        for source in plan.sources:
            with emit.origin(source.name, "collapse"):
                share = self._share(source)
                assert share is not None  # the plan has found a path to this input
                relevance[source.name] = emit.reshape(share, relevance_shape(plan, source))
        return Backward(emit, relevance, seed, seeded, tuple(self.ledger), self.entered)

    def head(self, *, free: bool) -> Head:
        emit, plan = self.emit, self.plan
        seeded, seed = self._seed(free=free)
        for step in plan.steps:
            with emit.origin(step.node.name, step.rule.name):
                self._book_bias(step, self._carry_cotangents(step))
        shares = {}
        for name in plan.boundary:
            with emit.origin(name, "collapse"):
                share = self._share(plan.graph.values[name])
                assert share is not None  # it is where cotangents arrive
                shares[name] = share
        return Head(emit, shares, seed, seeded, tuple(self.ledger))

    def arriving(self, *, free: bool) -> Cotangents:
        emit, plan = self.emit, self.plan
        seeded, seed = self._seed(free=free)
        found: list[tuple[Step, Value, str]] = []
        for step in plan.steps:
            with emit.origin(step.node.name, step.rule.name):
                cotangents = self._carry_cotangents(step)
                found += [(step, *part) for part in self._bias_parts(step, cotangents)]
        at = {name: emit.sum(self.cotangents[name]) for name in plan.boundary}
        for name, tensor in at.items():
            value = plan.graph.values[name]
            if not value.is_float:  # what arrives at integers is real
                at[name] = emit.cast(tensor, real_kind(plan, value).dtype)
        return Cotangents(emit, at, tuple(found), seed, seeded)

    def _seed(self, *, free: bool) -> tuple[Seeded, str]:
        emit, target, batch = self.emit, self.plan.target, self.plan.batch
        with emit.origin(target.name, "seed"):
            kind = self.plan.options.seed
            seeded = (
                along_direction(emit, target, batch)
                if free
                else of_class(emit, target, batch, kind, rival=self.rival)
            )
            parts = (in_account(emit, one, target) for one in (seeded.scores, seeded.direction))
            seed = emit.total(emit.weighed(*parts), [1], keepdims=False)
            begun = emit.weighed(seeded.scores, seeded.direction) if self.policy.weighed else seeded.direction
            self.cotangents[target.name].append(emit.reshape(begun, target.shape))
        return seeded, seed

    def _carry_cotangents(self, step: Step) -> Flows:
        """Hand on what arrived at the outputs of a node, and give it."""
        cotangents = [self._cotangent(v) if v is not None else None for v in step.node.outputs]
        if any(cotangents):
            self._gather(step, self.policy.back(self.emit, step, cotangents), self.cotangents)
        return cotangents

    def _carry_shares(self, step: Step) -> None:
        shares = [self._share(v) if v is not None else None for v in step.node.outputs]
        if any(shares):
            flows = self._routed(step, shares) if step.routes else self._mixed(step, shares)
            self._gather(step, flows, self.shares)

    def _gather(self, step: Step, flows: Sequence[str | None], into: defaultdict[str, list[str]]) -> None:
        for index, (value, flow) in enumerate(zip(step.node.inputs, flows, strict=True)):
            if value is not None and flow is not None and index in step.carriers:
                into[value.name].append(flow)

    def _cotangent(self, value: Value) -> str | None:
        """The cotangent of a tensor above the boundary; None below it or where none came."""
        flows = [] if value.name in self.plan.shares else self.cotangents[value.name]
        return self.emit.sum(flows) if flows else None

    def _share(self, value: Value) -> str | None:
        """Relevance per position of a tensor at or below the boundary, collapsing what arrives as a cotangent."""
        if value.name not in self.plan.shares:
            return None
        flows = list(self.shares[value.name])
        if arrived := self.cotangents[value.name]:
            entered = self._entered(value, collapse(self.emit, value, self.emit.sum(arrived)))
            self.entered[value.name] = entered
            flows.append(entered)
        return self.emit.sum(flows) if flows else None

    def _entered(self, value: Value, share: str) -> str:
        """What enters at the boundary: all of it, or its positive part with the rest booked."""
        if self.plan.options.sign == "signed":
            return share
        emit = self.emit
        positive = emit("Relu", share)
        self._book(f"negative part at {value.name}", emit("Sub", share, positive), value)
        return positive

    def _routed(self, step: Step, shares: Sequence[str | None]) -> Sequence[str | None]:
        flows = spread(self.emit, step.rule, step.node, shares)
        if step.rule.lossy(step.node):
            self._book_lost(step, shares, flows)
        return flows

    def _mixed(self, step: Step, shares: Sequence[str | None]) -> Sequence[str | None]:
        """What sharing ratios direct; then the share of the bias and of PFVs that are zero, which none directs."""
        emit, node = self.emit, step.node
        flows, undirected = mixed(emit, step, shares)
        if self.plan.options.bias == "ledger":
            for value, left in zip(node.outputs, undirected, strict=True):
                if value is not None and left is not None:
                    self._book(label(step), left, value)
            return flows
        rest = spread(emit, step.rule, node, undirected)
        if step.rule.lossy(node):
            self._book_lost(step, undirected, rest)
        return [emit("Add", f, r) if f and r else f or r for f, r in zip(flows, rest, strict=True)]

    def _book_bias(self, step: Step, cotangents: Flows) -> None:
        for value, part in self._bias_parts(step, cotangents):
            whole = in_account(self.emit, part, value)
            small = self.emit.over_channels(whole, value) if self.emit.blocked(value) else whole
            self._book(label(step), small, value)

    def _bias_parts(self, step: Step, cotangents: Flows) -> list[tuple[Value, str]]:
        """Of each output what its bias contributes to the target."""
        if self.emit.tangent or not any(cotangents):
            return []
        parts = biases(self.emit, step.rule, step.node)
        return [
            (value, self.emit.weighed(bias, flow))
            for value, bias, flow in zip(step.node.outputs, parts, cotangents, strict=True)
            if bias is not None and value is not None and flow is not None
        ]

    def _book_lost(self, step: Step, before: Sequence[str | None], after: Sequence[str | None]) -> None:
        """Relevance that found no position in the input: it sat on padding."""
        emit = self.emit
        sums = {}
        for kind, values, flows in (("in", step.node.outputs, before), ("out", step.node.inputs, after)):
            parts = [
                emit.per_item(flow, value)
                for value, flow in zip(values, flows, strict=True)
                if value is not None and flow is not None
            ]
            sums[kind] = emit.sum(parts)
        self.ledger.append((label(step), emit("Sub", sums["in"], sums["out"])))

    def _book(self, name: str, tensor: str, value: Value) -> None:
        self.ledger.append((name, self.emit.per_item(tensor, value)))


def relevance_shape(plan: Plan, source: Value) -> tuple[int, ...]:
    """[N, *positions]: the shape of the relevance of an input; N is 1 where it has no batch axis."""
    roles = plan.roles[source.name].roles
    sizes = zip(source.shape, roles, strict=True)
    return (plan.batch, *(size for size, role in sizes if role is Role.POSITION))


def map_of(plan: Plan, source: Value) -> Value:
    """Shape and dtype of the relevance of an input; from integers (a picture of bytes) in that of the target."""
    return Value("", relevance_shape(plan, source), account_type(real_kind(plan, source)))


def real_kind(plan: Plan, value: Value) -> Value:
    """Whose real numbers are used for what belongs to a tensor: its own; of integers those of the target."""
    return value if value.is_float else plan.target


def label(step: Step) -> str:
    """The original name of the node that something is booked against."""
    return step.node.origins[0]
