"""Guided Backprop: what travels through a rectifier is cut to its positive part."""

import numpy as np

from srd_onnx.engine.backward import Policy
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import Flows
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.roles import is_quantised
from srd_onnx.methods.gradients import Gradient, arriving, gradient
from srd_onnx.methods.method import Method
from srd_onnx.subject import Subject


def _guided(emit: Emitter, step: Step, arrived: Flows) -> Flows:
    flows = step.rule.vjp(emit, step.node, arrived)
    if step.rule.active is None or step.rule.active(emit, step.node) is None:
        return flows
    return [emit("Relu", flow) if flow is not None else None for flow in flows]


def _policy(plan: Plan) -> Policy:
    """The policy, where every rectifier is seen.

    Raises:
        UnsupportedCaseError: naming a node that hides one.
    """
    rectified = {
        v.name for step in plan.steps if step.rule.active is not None for v in step.node.outputs if v
    }
    for step in plan.steps:
        _refuse_saturation(step, rectified)
        _refuse_cells(step)
    return Policy(_guided)


def _refuse_saturation(step: Step, rectified: set[str]) -> None:
    """Integers that end at what stands for 0 rectify: exporters leave out the ReLU before them."""
    node, y = step.node, step.node.output()
    if (
        len(node.inputs) < 2
        or not is_quantised(y)
        or not node.input(0).is_float
        or node.input(0).name in rectified
    ):
        return
    zero_point = node.constant(2)
    zero = np.zeros(1, y.dtype) if zero_point is None else zero_point
    node.require(
        not (zero == np.iinfo(y.dtype).min).any(),
        "its integers begin where 0 is, which hides a rectifier that Guided Backprop would have to act on; explain "
        "the network before it was quantised",
    )


def _refuse_cells(step: Step) -> None:
    hidden = [str(kind) for kind in step.node.attrs.get("activations") or () if "relu" in str(kind).lower()]
    if hidden:
        raise UnsupportedCaseError(
            f"{step.node}: it hides the rectifiers {', '.join(hidden)}, on which Guided Backprop would have to act"
        )


def _compiled(subject: Subject, case: Case) -> Gradient:
    return gradient(arriving(subject, case, policy=_policy))


def guided_backprop() -> Method:
    """``dz/dx`` in which what travels back through a rectifier is positive only (Springenberg et al. 2015, figure 1).

    Every rectifier counts, also the leaky and the smooth ones; the map is the greatest magnitude over channels.
    """
    return Method(
        "guided-backprop",
        "Guided Backprop",
        "gradient",
        "Springenberg, Dosovitskiy, Brox, Riedmiller 2015, arXiv 1412.6806",
        _compiled,
    )
