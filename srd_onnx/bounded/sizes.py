"""How much memory an explanation takes at the most, from the shapes in its plan; without the weights, which stay."""

import math

from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Value

COPIES = (
    2  # of all that the forward pass computes: that, what travels back, and what ONNX Runtime keeps beside it
)


def given_of(plan: Plan) -> int:
    """Bytes of what there is in any case: the inputs, as given and as a batch, and their maps."""
    return sum(3 * _size(value) for value in plan.sources)


def kept_of(plan: Plan) -> int:
    """Bytes of what there is of the whole where parts are explained: that, and the boundary tensors."""
    return given_of(plan) + sum(_size(plan.graph.values[name]) for name in plan.boundary)


def bytes_of(plan: Plan) -> int:
    """Bytes that explaining the whole at once takes besides that, at the most."""
    values = plan.graph.values.values()
    return COPIES * sum(_size(value) for value in values if value.known and value.constant is None)


def _size(value: Value) -> int:
    return math.prod(value.shape) * value.dtype.itemsize
