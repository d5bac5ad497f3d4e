"""A network run on one input under the activation pattern of another, as one ordinary ONNX model.

The model has its inputs twice: by their own names those that make the pattern, by `apop/NAME` those that it is run on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from onnx import ModelProto

from srd_onnx.apop.replay import Replayer, again
from srd_onnx.engine.assemble import pruned, require_free, tensor_info, with_outputs
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import Flows, RuleTable
from srd_onnx.engine.seed import elements
from srd_onnx.errors import OptionError
from srd_onnx.graph.ir import Node, Value
from srd_onnx.graph.roles import is_quantised

PREFIX = "apop/"
Kind = Literal["exact", "active"]


@dataclass(frozen=True)
class Pattern:
    """What is taken from the input that makes the pattern.

    Attributes:
        kind: "exact", the affine map that SRD explains: masks, winners, gates, attention, statistics and secants are
            held fixed. "active": a rectifier silences the neurons that were inactive, and acts as it always does on
            those that were active; all else as in "exact".
        layers: the pattern holds for the first so many nonlinear layers (an int), or for this part of them (a float
            from 0 to 1); behind them the network runs as it is. None for all. A layer is a node that relevance crosses
            and that has a pattern: activations, maxima, normalisations, products with gates and with attention.
    """

    kind: Kind = "exact"
    layers: int | float | None = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise OptionError(f"pattern='{self.kind}' is not one of {', '.join(get_args(Kind))}")
        layers = self.layers
        if layers is None or (isinstance(layers, int) and not isinstance(layers, bool) and layers >= 0):
            return
        if not (isinstance(layers, float) and 0 <= layers <= 1):
            raise OptionError(
                f"layers={layers!r}: a whole number of layers, or a part of them from 0.0 to 1.0"
            )

    def count(self, total: int) -> int:
        """How many of so many layers follow the pattern."""
        if self.layers is None:
            return total
        return round(self.layers * total) if isinstance(self.layers, float) else min(self.layers, total)

    def is_whole(self, total: int) -> bool:
        """Whether no layer is left that runs as it is."""
        return self.layers is None or 0 < self.count(total) == total


@dataclass(frozen=True, eq=False)
class PatternRun:
    """The model and what it takes and gives.

    Attributes:
        model: outputs `scores` and `replayed`, [N, K] each.
        inputs: the new inputs, by the name of the input in whose place each stands.
        scores: name of the output of the pattern's own input.
        replayed: name of the output of the new input under the pattern.
        count: how many nonlinear layers follow the pattern.
        total: how many there are.
    """

    model: ModelProto
    inputs: Mapping[str, Value]
    scores: str
    replayed: str
    count: int
    total: int


def pattern_run(forward: ModelProto, plan: Plan, rules: RuleTable, pattern: Pattern) -> PatternRun:
    """Forward run and replay of a plan's target.

    Args:
        forward: the simplified model.
        plan: of that model; its steps are what is replayed.
        rules: the rule table.
        pattern: what is held fixed.

    Raises:
        UnsupportedOpError: if the plan has gaps.
        UnsupportedCaseError: if a rule does not cover this use of its operator.
    """
    plan.require_complete()
    replay = _Replay(plan, rules, pattern)
    require_free(forward, [value.name for value in replay.inputs.values()])
    replay.run()
    shape = [plan.batch, elements(plan.target, plan.batch)]
    with replay.emit.origin(plan.target.name, "scores"):
        names = [replay.emit.reshape(name, shape) for name in (plan.target.name, replay.of(plan.target))]
    model = with_outputs(forward, replay.emit, names)
    model.graph.input.extend(tensor_info(v.name, v.dtype, v.shape) for v in replay.inputs.values())
    return PatternRun(pruned(model), replay.inputs, names[0], names[1], replay.count, replay.total)


class _Replay:
    """One walk from the inputs to the target; `new` names what a tensor is in the run under the pattern."""

    def __init__(self, plan: Plan, rules: RuleTable, pattern: Pattern) -> None:
        self.plan, self.pattern = plan, pattern
        self.emit = plan.emitter(plain=True, prefix="replay")
        self.steps = {step.node.name: step for step in plan.steps}
        read = {step.node.input(i).name for step in plan.steps for i in step.carriers} | {plan.target.name}
        self.replayer = Replayer(self.emit, rules, frozenset(read), plan.target.dtype)
        self.inputs = {source.name: self._input(source) for source in plan.sources}
        self.new = {name: value.name for name, value in self.inputs.items()}
        self.reals = {source.name for source in plan.sources if is_quantised(source)}
        self.total = sum(map(self._has_pattern, plan.steps))
        self.count = pattern.count(self.total)

    def _input(self, source: Value) -> Value:
        dtype = self.plan.target.dtype if is_quantised(source) else source.dtype
        return Value(PREFIX + source.name, source.shape, dtype)

    def _has_pattern(self, step: Step) -> bool:
        """Whether it is nonlinear, or holds an operand fixed that depends on the input."""
        held = (v for i, v in enumerate(step.node.inputs) if i not in step.carriers)
        return step.rule.nonlinear or any(self.emit.varies(v) for v in held)

    def of(self, value: Value) -> str:
        """What a tensor is in the run under the pattern: where nothing new reaches it, what it is in the other one."""
        return self.new.get(value.name, value.name)

    def run(self) -> None:
        left, whole = self.count, self.pattern.is_whole(self.total)
        for node in self.plan.graph.nodes:
            step = self.steps.get(node.name)
            if left > 0 or whole or self._reads_reals(node):
                if step is not None:
                    self._under_pattern(step)
                    left -= self._has_pattern(step)
            elif any(v is not None and v.name in self.new for v in node.inputs):
                self._freely(node)

    def _reads_reals(self, node: Node) -> bool:
        """Whether it gets integers that were replayed as the reals that they stand for."""
        return any(v is not None and v.name in self.reals for v in node.inputs)

    def _under_pattern(self, step: Step) -> None:
        node = step.node
        news = [
            self.of(v) if v is not None and i in step.carriers else None for i, v in enumerate(node.inputs)
        ]
        with self.emit.origin(node.name, step.rule.name):
            made = self._active(step, news) if self.pattern.kind == "active" else None
            found = self.replayer(step.rule, node, news) if made is None else made
        self._keep(node, found)
        self.reals.update(v.name for v in node.outputs if v is not None and is_quantised(v))

    def _active(self, step: Step, news: Flows) -> Flows | None:
        """A rectifier as it is, silent where it was inactive."""
        active = step.rule.active(self.emit, step.node) if step.rule.active is not None else None
        if active is None:
            return None
        (y,) = again(self.emit, step.node, news)
        return [self.emit("Where", active, y or "", self.emit.like(step.node.output(), 0.0))]

    def _freely(self, node: Node) -> None:
        news = [self.new.get(v.name) if v is not None else None for v in node.inputs]
        with self.emit.origin(node.name, "again"):
            self._keep(node, again(self.emit, node, news))

    def _keep(self, node: Node, made: Flows) -> None:
        for value, name in zip(node.outputs, made, strict=True):
            if value is not None and name is not None:
                self.new[value.name] = name
