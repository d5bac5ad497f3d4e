"""Where the positions of a tensor look: its stride and the reach of its receptive fields, if every layer is local."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from srd_onnx.engine.plan import Plan, Step
from srd_onnx.errors import UnsupportedCaseError
from srd_onnx.graph.ir import Node

_WINDOWS = ("Conv", "MaxPool", "AveragePool", "LpPool")
_POINTWISE = {  # each position of the output looks at the same position of every input
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "ThresholdedRelu", "Clip", "Tanh"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Softplus", "Softsign", "Mish", "Gelu", "Erf", "Abs"),
    *("Neg", "Add", "Sub", "Mul", "Div", "Sum", "Max", "Min", "Mean"),
    *("Concat", "BatchNormalization", "Cast", "Identity", "Dropout"),
}


@dataclass(frozen=True)
class Reach:
    """Along one axis: position k looks at the input from ``k * stride - before`` to ``k * stride + after``."""

    stride: int
    before: int
    after: int

    @property
    def size(self) -> int:
        """Of the receptive field."""
        return self.before + self.after + 1


def reach_of(plan: Plan, tensor: str) -> tuple[Reach, Reach]:
    """The reach of a tensor [N, C, H, W] along both its axes, from the one input.

    Raises:
        UnsupportedCaseError: a node below it is not local: a position looks at the whole input, or in another way than
            through windows.
    """
    found: dict[str, tuple[Reach, Reach]] = {plan.sources[0].name: (Reach(1, 0, 0), Reach(1, 0, 0))}
    for step in reversed(plan.steps):
        if "position" not in step.forms:
            continue
        given = [found[v.name] for v in step.node.inputs if v is not None and v.name in found]
        if given:
            reach = _through(step, given)
            found.update({v.name: reach for v in step.node.outputs if v is not None})
    return found[tensor]


def _through(step: Step, given: Sequence[tuple[Reach, Reach]]) -> tuple[Reach, Reach]:
    node = step.node
    local = node.key.domain == "" and node.key.op_type in {*_WINDOWS, *_POINTWISE}
    shapes = [v.shape for v in node.inputs if v is not None and v.constant is None]
    if (
        not local
        or any(len(shape) != 4 for shape in shapes)
        or any(a[2:] != b[2:] for a, b in pairwise(shapes))
    ):
        raise UnsupportedCaseError(
            f"{node} is not local, so that the input cannot be explained part by part; leave out max_memory"
        )
    axes = [_widest([one[axis] for one in given], node) for axis in (0, 1)]
    if node.key.op_type in _WINDOWS:
        axes = [_windowed(node, axis, reach) for axis, reach in enumerate(axes)]
    return axes[0], axes[1]


def _widest(reaches: Sequence[Reach], node: Node) -> Reach:
    strides = {one.stride for one in reaches}
    if len(strides) > 1:
        raise UnsupportedCaseError(f"{node}: its inputs have different strides; leave out max_memory")
    return Reach(strides.pop(), max(r.before for r in reaches), max(r.after for r in reaches))


def _windowed(node: Node, axis: int, reach: Reach) -> Reach:
    attrs: Mapping[str, object] = node.attrs
    kernel = _numbers(attrs.get("kernel_shape")) or node.input(1).shape[2:]
    strides, dilations = (_numbers(attrs.get(name)) or (1, 1) for name in ("strides", "dilations"))
    wide = (kernel[axis] - 1) * dilations[axis]
    pads = _numbers(attrs.get("pads")) or (0, 0, 0, 0)
    begin = pads[axis]
    if (auto := attrs.get("auto_pad")) in ("SAME_UPPER", "SAME_LOWER"):
        taken, made = node.input(0).shape[2 + axis], node.output().shape[2 + axis]
        total = max((made - 1) * strides[axis] + wide + 1 - taken, 0)
        begin = total // 2 if auto == "SAME_UPPER" else -(-total // 2)
    return Reach(
        reach.stride * strides[axis],
        reach.before + begin * reach.stride,
        reach.after + (wide - begin) * reach.stride,
    )


def _numbers(found: object) -> tuple[int, ...]:
    return tuple(found) if isinstance(found, tuple | list) else ()


@dataclass(frozen=True)
class Span:
    """Some positions of a tensor along one axis, and the part of the input that they look at.

    Attributes:
        first, last: of the positions, `last` not included.
        start, stop: of the input; `start` is a multiple of the stride.
    """

    first: int
    last: int
    start: int
    stop: int


def spans(reach: Reach, positions: int, size: int, at_once: int) -> list[Span]:
    """All positions along an axis, `at_once` at a time.

    The parts of the input are of one length, so that one session serves all, and as long as the whole but for whole
    strides, so that what a layer pads depends on neither where a part begins nor where it ends.
    """
    groups = []
    for first in range(0, positions, at_once):
        last = min(first + at_once, positions)
        start = max(0, (first * reach.stride - reach.before) // reach.stride * reach.stride)
        stop = min(size, (last - 1) * reach.stride + reach.after + 1)
        groups.append((first, last, start, min(size, stop + (size - stop) % reach.stride)))
    length = max(stop - start for _, _, start, stop in groups)
    starts = [min(start, size - length) for _, _, start, _ in groups]
    return [Span(g[0], g[1], start, start + length) for g, start in zip(groups, starts, strict=True)]
