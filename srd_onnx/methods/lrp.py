"""LRP, and what is called its composites: which rule at which node."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np

from srd_onnx.engine.backward import Policy
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.cotangents import CotangentSession
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import InputError, OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.methods.entrance import Entrance, entrance_of
from srd_onnx.methods.gradients import arriving, by_position
from srd_onnx.methods.lrp_rules import (
    STABILISER,
    LayerRule,
    at_integers,
    box_rule,
    epsilon_rule,
    flat_rule,
    gamma_rule,
    moved,
    weights_of,
    zplus_rule,
)
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.subject import Subject

First = Literal["box", "flat", "gamma"]
PATENT = (
    "Its authors call LRP patented; it is free for personal and scientific use. Ask them before any other use "
    "(docs/methods.md)."
)
_OVERVIEW = "Montavon, Binder, Lapuschkin, Samek, Müller 2019, doi 10.1007/978-3-030-28954-6_10"
_OUTSIDE = 1e-3  # of the width of the box: what rounding may make of its ends


@dataclass(frozen=True, eq=False)
class _Box:
    """The least and the greatest number that a pixel may be in the units of the model's input, by channel."""

    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class _Rules:
    """Which rule is for what.

    Attributes:
        other: for a node without weights, and for a matrix product or convolution on one position, the dense head.
        inner: for the others, the convolutions; and for the dense head if `everywhere`.
        first: for those that read the model's input; None for no difference.
    """

    other: LayerRule
    inner: LayerRule
    everywhere: bool
    first: LayerRule | None = None

    def policy(self, plan: Plan) -> Policy:
        """What travels; decided before any of it is emitted."""
        chosen = {step.node.name: self._of(plan, step) for step in plan.steps}
        if self.first is not None:
            for step in _up_to_first(plan):
                chosen[step.node.name] = moved if weights_of(step) is None else self.first

        def back(emit: Emitter, step: Step, arrived: Flows) -> Flows:
            return chosen[step.node.name](emit, step, arrived)

        return Policy(back, weighed=True)

    def _of(self, plan: Plan, step: Step) -> LayerRule:
        if weights_of(step) is None:
            return self.other
        return self.inner if self.everywhere or _has_positions(plan, step) else self.other


def _has_positions(plan: Plan, step: Step) -> bool:
    y = step.node.output()
    return plan.roles[y.name].count(y) > 1


def _up_to_first(plan: Plan) -> Sequence[Step]:
    """The convolutions that read the input of the model, and what moves its elements to them.

    Raises:
        UnsupportedCaseError: something else reads it.
    """
    read, found = {source.name for source in plan.sources}, []
    for step in reversed(plan.steps):
        node = step.node
        if read.isdisjoint(node.input(i).name for i in step.carriers):
            continue
        if weights_of(step) is not None:
            if _has_positions(plan, step):
                found.append(step)
            continue
        floats = any(v is not None and v.constant is not None and v.is_float for v in node.inputs)
        moves = step.rule.routes(node, plan.roles) and not step.rule.nonlinear and len(step.carriers) == 1
        if not (at_integers(step) or (moves and not floats)):
            raise UnsupportedCaseError(
                f"{node}: it changes the input before the first convolution, for which LRP has a rule of its own that "
                "needs to know the least and the greatest pixel; use first=gamma"
            )
        read.update(v.name for v in node.outputs if v is not None)
        found.append(step)
    return found


@dataclass(frozen=True, eq=False)
class _Lrp:
    session: CotangentSession
    entrance: Entrance
    box: _Box | None

    @property
    def plan(self) -> Plan:
        return self.session.plan

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        for source in self.plan.sources if self.box is not None else ():
            self._require_inside(feeds[source.name], self.plan.roles[source.name].channels)
        arrived = self.session(feeds, seed)
        maps = {name: by_position(self.plan, name, one, "sum") for name, one in arrived.cotangents.items()}
        return Attributed(self.entrance(maps), arrived.seed, arrived.scores)

    def _require_inside(self, pixels: Array, channels: Sequence[int]) -> None:
        assert self.box is not None
        shape = [-1 if axis in channels else 1 for axis in range(pixels.ndim)]
        low, high = self.box.low.reshape(shape), self.box.high.reshape(shape)
        slack = _OUTSIDE * (high - low)
        if (pixels < low - slack).any() or (pixels > high + slack).any():
            raise InputError(
                f"the input goes from {pixels.min():.4g} to {pixels.max():.4g}, outside of what the preprocessing "
                f"makes of pixels ({self.box.low.min():.4g} to {self.box.high.max():.4g}): LRP-zB at the first layer "
                "would be wrong. Give the right preprocessing, or use first=flat or first=gamma"
            )


def _compiled(rules: _Rules, subject: Subject, case: Case) -> _Lrp:
    session = arriving(subject, case, policy=rules.policy, tangent=False)
    return _Lrp(session, entrance_of(session.plan), None)


def _method(name: str, title: str, source: str, rules: _Rules, **parameters: float) -> Method:
    make = partial(_compiled, rules)
    return Method(name, title, "propagation", source, make, parameters, note=PATENT)


def _require_positive(**given: float) -> None:
    for name, value in given.items():
        if not (np.isfinite(value) and value > 0):
            raise OptionError(f"{name}={value}: it must be a number above 0")


def lrp_epsilon(epsilon: float = 1e-6) -> Method:
    """LRP-ε at every node: ``R_x = x ⊙ J^T (R ⊘ (y + ε sign y))`` (Bach et al. 2015, equation 58).

    Args:
        epsilon: in the units of the outputs of the layers, not relative to them; as in zennit.
    """
    _require_positive(epsilon=epsilon)
    rule = epsilon_rule(epsilon)
    source = "Bach, Binder, Montavon, Klauschen, Müller, Samek 2015, doi 10.1371/journal.pone.0130140"
    return _method("lrp-epsilon", "LRP-ε", source, _Rules(rule, rule, everywhere=True), epsilon=epsilon)


def lrp_zplus() -> Method:
    """LRP-z+ at every convolution and matrix product, LRP-ε elsewhere (Montavon et al. 2017, section 4.1)."""
    rules = _Rules(epsilon_rule(STABILISER), zplus_rule(), everywhere=True)
    source = "Montavon, Lapuschkin, Binder, Samek, Müller 2017, arXiv 1512.02479"
    return _method("lrp-zplus", "LRP-z+", source, rules)


def lrp_gamma(gamma: float = 0.25) -> Method:
    """LRP-γ at every convolution and matrix product, LRP-ε elsewhere (Montavon et al. 2019, section 10.2.1)."""
    _require_positive(gamma=gamma)
    rules = _Rules(epsilon_rule(STABILISER), gamma_rule(gamma), everywhere=True)
    return _method("lrp-gamma", "LRP-γ", _OVERVIEW, rules, gamma=gamma)


def lrp_epsilon_plus(epsilon: float = 1e-6) -> Method:
    """LRP-ε at the dense head, LRP-z+ at the convolutions; `EpsilonPlus` of zennit."""
    _require_positive(epsilon=epsilon)
    rules = _Rules(epsilon_rule(epsilon), zplus_rule(), everywhere=False)
    return _method("lrp-epsilon-plus", "LRP-ε/z+", _OVERVIEW, rules, epsilon=epsilon)


def lrp_composite(epsilon: float = 1e-6, gamma: float = 0.25, first: str = "box") -> Method:
    """LRP-ε at the dense head, LRP-γ at the convolutions, and a rule for pixels at the first of them.

    With "box" it is `EpsilonGammaBox` of zennit (Montavon et al. 2019, section 10.3 and figure 10.4).

    Args:
        epsilon: of LRP-ε.
        gamma: of LRP-γ.
        first: "box", LRP-zB between what the model's preprocessing makes of black and of white; "flat", equally to all
            pixels that a neuron sees; "gamma", as the other convolutions.

    Raises:
        OptionError: a value means nothing.
    """
    _require_positive(epsilon=epsilon, gamma=gamma)
    if first not in get_args(First):
        raise OptionError(f"first='{first}' is not one of {', '.join(get_args(First))}")
    rules = _Rules(epsilon_rule(epsilon), gamma_rule(gamma), everywhere=False)
    if first == "flat":
        rules = replace(rules, first=flat_rule())
    make: Callable[[Subject, Case], _Lrp] = partial(_boxed if first == "box" else _compiled, rules)
    parameters = {"epsilon": epsilon, "gamma": gamma, "first": first}
    return Method("lrp-composite", "LRP-ε/γ", "propagation", _OVERVIEW, make, parameters, note=PATENT)


def _boxed(rules: _Rules, subject: Subject, case: Case) -> _Lrp:
    """With LRP-zB at the first convolution, if there is one."""

    def policy(plan: Plan) -> Policy:
        box = _pixel_box(subject, plan)
        own = rules if box is None else replace(rules, first=box_rule(box.low, box.high))
        return own.policy(plan)

    session = arriving(subject, case, policy=policy, tangent=False)
    return _Lrp(session, entrance_of(session.plan), _pixel_box(subject, session.plan))


def _pixel_box(subject: Subject, plan: Plan) -> _Box | None:
    """What the preprocessing makes of the least and the greatest pixel; None where nothing convolves pixels.

    Raises:
        OptionError: it is a function of which that is not known, or does not fit the input.
    """
    if not any(weights_of(step) is not None and _has_positions(plan, step) for step in plan.steps):
        return None
    preprocess = subject.preprocess
    if not isinstance(preprocess, Preprocess):
        raise OptionError(
            "LRP-zB at the first layer needs the least and the greatest pixel, which a preprocessing that is a "
            "function of one's own does not tell: use first=flat or first=gamma, or give a Preprocess"
        )
    source = plan.sources[0]
    widths = [source.shape[axis] for axis in plan.roles[source.name].channels]
    if len(plan.sources) > 1 or widths != [preprocess.channels]:
        raise OptionError(
            f"LRP-zB at the first layer is for one picture of {preprocess.channels} channels, not for inputs "
            f"{', '.join(f'{s.name} {list(s.shape)}' for s in plan.sources)}: use first=flat or first=gamma"
        )
    pixels = np.array([[0.0], [255.0]]) * preprocess.scale
    ends = (pixels - np.array(preprocess.mean)) / np.array(preprocess.std) * np.ones(preprocess.channels)
    return _Box(ends.min(axis=0), ends.max(axis=0))
