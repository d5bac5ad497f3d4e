"""FullGrad: the gradient at the input and at every bias, which together make up the score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.backward import DERIVATIVE, Policy
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.cotangents import CotangentSession
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Axes, Role, is_quantised
from srd_onnx.methods.entrance import Entrance, entrance_of
from srd_onnx.methods.gradients import arriving
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.subject import Subject

_TINY = 1e-6  # as in the authors' code: keeps a flat map flat


@dataclass(frozen=True, eq=False)
class Parts:
    """Of what the explained number is the sum.

    Attributes:
        input: ``x dz/dx``, shaped like x, the input; or like what one of integers becomes first.
        biases: of each node with a bias its original name, its output, and the bias times what arrived at it.
        seed: the explained number, [N].
        scores: [N, K].
    """

    input: Array
    biases: Sequence[tuple[str, Value, Array]]
    seed: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class FullGradient:
    """FullGrad, compiled."""

    session: CotangentSession
    entrance: Entrance

    @property
    def plan(self) -> Plan:
        """What is done."""
        return self.session.plan

    def parts(self, feeds: Mapping[str, Array], seed: Array) -> Parts:
        """The full gradient before it is made a picture: it sums to the explained number."""
        arrived, (name,) = self.session(feeds, seed), self.plan.boundary
        found = zip(self.session.biases, arrived.biases, strict=True)
        return Parts(
            arrived.values[name] * arrived.cotangents[name],
            [(node, value, part) for (node, value), part in found],
            arrived.seed,
            arrived.scores,
        )

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        """Maps of one batch; see `Attribute`."""
        found, (name,) = self.parts(feeds, seed), self.plan.boundary
        roles = self.plan.roles
        total = picture(found.input, roles[name])
        for _, value, part in found.biases:
            whole = np.broadcast_to(part, value.shape)
            if len(roles[value.name].positions) == total.ndim - 1:
                total = total + stretched(picture(whole, roles[value.name]), total.shape[1:])
        return Attributed(self.entrance({name: total}), found.seed, found.scores)


def picture(part: Array, axes: Axes) -> Array:
    """ψ of the paper: the magnitude, brought to 0..1 for each item, summed over channels; [N, *positions]."""
    order = [axis for role in Role for axis, own in enumerate(axes.roles) if own is role]
    size = np.abs(np.asarray(part, np.float64)).transpose(order)
    if Role.BATCH not in axes.roles:
        size = size[None]
    others = tuple(range(1, size.ndim))
    size = size - size.min(axis=others, keepdims=True)
    size = size / (size.max(axis=others, keepdims=True) + _TINY)
    places = len(axes.positions)
    summed: Array = size.sum(axis=tuple(range(1 + places, size.ndim)))
    return summed


def stretched(maps: Array, shape: Sequence[int]) -> Array:
    """Maps [N, *positions] at another resolution, linearly, the outermost positions on each other."""
    for axis, size in enumerate(shape, 1):
        have = maps.shape[axis]
        at = np.linspace(0, have - 1, size) if size > 1 else np.zeros(1)
        low = np.minimum(at.astype(np.int64), max(have - 2, 0))
        high, part = np.minimum(low + 1, have - 1), at - low
        part = part.reshape([-1 if i == axis else 1 for i in range(maps.ndim)])
        maps = maps.take(low, axis) * (1 - part) + maps.take(high, axis) * part
    return maps


def _policy(plan: Plan) -> Policy:
    """The map with the pattern fixed.

    Raises:
        UnsupportedCaseError: naming a node that quantises.
    """
    for step in plan.steps:
        step.node.require(
            "cotangent" not in step.forms or not is_quantised(step.node.output()),
            "the biases of integers, what rounding and saturation change, are as large as the signal: FullGrad is for "
            "the network before it was quantised",
        )
    return DERIVATIVE


def _compiled(subject: Subject, case: Case) -> FullGradient:
    session = arriving(subject, case, policy=_policy, tangent=False, biases=True)
    if len(session.plan.sources) > 1 or len(session.plan.boundary) > 1:
        names = ", ".join(source.name for source in session.plan.sources)
        raise UnsupportedCaseError(
            f"FullGrad is for one input with one way in, to which the biases belong; explained are {names}"
        )
    return FullGradient(session, entrance_of(session.plan))


def fullgrad() -> Method:
    """``ψ(x dz/dx) + Σ over layers of ψ(b dz/db)``, ψ the magnitude from 0 to 1 (Srinivas, Fleuret 2019, equation 7).

    The bias of a layer is what its output has under the fixed activation pattern that comes from no input, a saturated
    Clip included; layers without positions (the dense head) have no place in the map, as in the authors' code.
    """
    return Method(
        "fullgrad",
        "FullGrad",
        "gradient",
        "Srinivas, Fleuret 2019, arXiv 1905.00780",
        _compiled,
    )
