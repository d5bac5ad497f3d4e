"""What becomes of the maps of the passes in the end: focus and smoothing (both ours).

**Focus.** The map r of a boundary near the target tells classes apart but is coarse; the maps f¹ ... fⁿ of boundaries
nearer to the input are finer and finer, but know less and less of the class. Their geometric mean has both; squared,
it is as sharp as a single fine map. At position i

    m_i = c (r_i⁺ f¹_i⁺ ... fⁿ_i⁺)^(2 / (n + 1)),        c so that Σ m = Σ r⁺;

what speaks against the target, Σ r⁻, is booked; so is Σ r⁺ where the maps share no position at all.

**Smoothing.** Strided convolutions leave a pattern of single pixels. Each position's relevance is spread over its
neighbours in the picture by a Gaussian, cut at the border and scaled, so that the sum stays what it is.
"""

from collections.abc import Sequence

import networkx as nx
import numpy as np
from onnx import ModelProto, helper

from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import Options
from srd_onnx.graph.ir import Graph, Value

BOOKED = "against the target, or not shared by all boundaries"
_TYPE = helper.np_dtype_to_tensor_dtype
_POWER = 2.0  # of the geometric mean
_CUT = 3.0  # standard deviations at which the Gaussian ends


def finished(
    emit: Emitter, options: Options, value: Value, coarse: str, fine: Sequence[str]
) -> tuple[str, str | None]:
    """Emit the map of the maps of the passes, and what is to be booked, [N]; None for nothing.

    Args:
        emit: takes the nodes.
        options: `smooth`.
        value: shape [N, *positions] and dtype of the maps; N may be any where they are run.
        coarse: of the first pass.
        fine: of the passes that give it focus.
    """
    found, booked = _focused(emit, value, coarse, fine) if fine else (coarse, None)
    if options.smooth and value.rank == 3:  # a picture; neighbours in a sequence are not alike
        found = _smoothed(emit, value, found, options.smooth)
    return found, booked


def finish_model(options: Options, value: Value, opset: int, finer: int) -> ModelProto:
    """What `finished` emits, as a model of its own: in, the maps of `finer` + 1 passes; out, `map` and `booked`."""
    emit = Emitter(Graph((), (), (), opset, nx.MultiDiGraph()), {})
    coarse, *fine = names = [f"map/{i}" for i in range(finer + 1)]
    found, booked = finished(emit, options, value, coarse, fine)
    kind = _TYPE(value.dtype)
    shape: list[str | int | None] = ["N", *value.shape[1:]]
    outputs = {"map": found} | ({"booked": booked} if booked else {})
    graph = helper.make_graph(
        [*emit.nodes, *(helper.make_node("Identity", [tensor], [name]) for name, tensor in outputs.items())],
        "finish",
        [helper.make_tensor_value_info(name, kind, shape) for name in names],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        emit.initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _focused(emit: Emitter, value: Value, coarse: str, fine: Sequence[str]) -> tuple[str, str]:
    axes = list(range(1, value.rank))
    zero, one = emit.like(value, 0.0), emit.like(value, 1.0)
    positive = _positive(emit, value, coarse)
    # Root by root: the product of small numbers would underflow.
    power = _POWER / (len(fine) + 1)
    shared = _root(emit, value, positive, power)
    for tensor in fine:
        shared = emit("Mul", shared, _root(emit, value, _positive(emit, value, tensor), power))
    total, whole = emit.total(shared, axes), emit.total(positive, axes)
    none = emit("Equal", total, zero)
    found = emit("Mul", shared, emit("Div", whole, emit("Where", none, one, total)))
    left = emit("Sub", emit.total(coarse, axes), emit("Where", none, zero, whole))
    return found, emit("Reshape", left, emit.ints([-1]))


def _root(emit: Emitter, value: Value, tensor: str, power: float) -> str:
    # Several times faster than Pow where it is the same.
    return emit("Sqrt", tensor) if power == 0.5 else emit("Pow", tensor, emit.like(value, power))


def _positive(emit: Emitter, value: Value, tensor: str) -> str:
    """The positive part; a NaN stays one, where Relu makes it 0, so that it is found."""
    above = emit("Cast", emit("Greater", tensor, emit.like(value, 0.0)), to=_TYPE(value.dtype))
    return emit("Mul", tensor, above)


def _smoothed(emit: Emitter, value: Value, tensor: str, sigma: float) -> str:
    radius = int(np.ceil(_CUT * sigma))
    kernel = np.exp(-np.square(np.arange(-radius, radius + 1) / sigma) / 2)
    kernel /= kernel.sum()
    found = emit("Unsqueeze", tensor, emit.ints([1]))
    for axis in (2, 3):
        size = value.shape[axis - 1]
        along, window, pads = [1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]
        along[axis], window[axis] = size, kernel.size
        pads[axis - 2] = pads[axis] = radius
        # What of the kernel lies in the picture, seen from each position.
        inside = np.convolve(np.ones(size), kernel)[radius : radius + size]
        found = emit("Mul", found, emit.like(value, (1 / inside).reshape(along)))
        found = emit("Conv", found, emit.like(value, kernel.reshape(window)), pads=pads)
    return emit("Squeeze", found, emit.ints([1]))
