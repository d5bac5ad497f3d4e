"""Methods that read the derivative of the score by the input."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from graph_rules import EXPANSIONS, RULES
from srd_onnx.engine.backward import DERIVATIVE, Policy
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.cotangents import CotangentSession, compile_cotangents
from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array
from srd_onnx.graph.roles import Role
from srd_onnx.methods.entrance import Entrance, entrance_of
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.subject import Subject

Reduction = Literal["sum", "greatest"]


def arriving(
    subject: Subject,
    case: Case,
    *,
    at: str | None = None,
    policy: Policy | Callable[[Plan], Policy] = DERIVATIVE,
    tangent: bool = True,
    biases: bool = False,
) -> CotangentSession:
    """What arrives, neuron by neuron, at a tensor, or at the inputs of the model; see `compile_cotangents`."""
    boundary = subject.ports[0].name if at is None else at
    own = replace(case, options=replace(case.options, boundary=boundary), tangent=tangent)
    return compile_cotangents(
        subject.model.proto,
        own,
        RULES,
        EXPANSIONS,
        subject.providers,
        subject.threads,
        policy=policy,
        biases=biases,
    )


def by_position(plan: Plan, name: str, neurons: Array, reduction: Reduction) -> Array:
    """Attributions shaped like a tensor, one for each position: the sum over channels, or the greatest magnitude."""
    roles = plan.roles[name].roles
    channels = tuple(axis for axis, role in enumerate(roles) if role is Role.CHANNEL)
    return np.asarray(
        neurons.sum(axis=channels) if reduction == "sum" else np.abs(neurons).max(axis=channels)
    )


@dataclass(frozen=True, eq=False)
class Gradient:
    """What arrives at the inputs, or its product with them."""

    session: CotangentSession
    entrance: Entrance
    times_input: bool

    @property
    def plan(self) -> Plan:
        """What is done."""
        return self.session.plan

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        """Maps of one batch; see `Attribute`."""
        arrived = self.session(feeds, seed)
        maps = {}
        for name, slope in arrived.cotangents.items():
            if self.times_input:
                maps[name] = by_position(self.plan, name, slope * arrived.values[name], "sum")
            else:
                maps[name] = by_position(self.plan, name, slope, "greatest")
        return Attributed(self.entrance(maps), arrived.seed, arrived.scores)


def gradient(session: CotangentSession, *, times_input: bool = False) -> Gradient:
    """The method for what a session gives.

    Raises:
        UnsupportedCaseError: as `entrance_of`.
    """
    return Gradient(session, entrance_of(session.plan), times_input)


def saliency() -> Method:
    """``max over channels of |dz/dx|`` (Simonyan, Vedaldi, Zisserman 2014, section 3.1)."""
    return Method(
        "saliency",
        "Saliency",
        "gradient",
        "Simonyan, Vedaldi, Zisserman 2014, arXiv 1312.6034",
        lambda subject, case: gradient(arriving(subject, case)),
    )


def gradient_times_input() -> Method:
    """``Σ over channels of x dz/dx`` (Shrikumar et al. 2016)."""
    return Method(
        "gradient-x-input",
        "Gradient × Input",
        "gradient",
        "Shrikumar, Greenside, Shcherbina, Kundaje 2016, arXiv 1605.01713",
        lambda subject, case: gradient(arriving(subject, case), times_input=True),
    )
