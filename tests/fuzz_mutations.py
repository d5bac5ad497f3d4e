"""Damage to real models: one to three random changes of the structure of the proto, as careless tools make them."""

import contextlib
import math
import resource
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.errors import SrdOnnxError
from srd_onnx.inputs.ports import Port
from tests.fuzz_checks import adds_up, says_something

Array = NDArray[Any]
Rng = np.random.Generator
LARGEST_INPUT = 1 << 20  # elements
SIZES = (-1, -3, 0, 1, 2, 3, 5, 7, 64, 1000, 2**31, 2**62, -(2**63))
REALS = (0.0, -1.0, 0.5, 2.0, 1e-30, 1e30, -1e38, math.inf, -math.inf, math.nan)
WORDS = ("", "SAME_UPPER", "VALID", "NOTSET", "constant", "reflect", "linear", "NCHW", "nonsense", "ö\0")
OPERATORS = ("Relu", "Sigmoid", "Softmax", "Identity", "Shape", "NonZero", "Loop", "If", "Cast", "Abs", "Add", "Mul",
             "Div", "Log", "MatMul", "Conv", "Gemm", "Flatten", "Transpose", "Reshape", "GlobalAveragePool",
             "ReduceMean", "ArgMax", "Not", "Nonsense", "", "Dropout", "Concat", "Split", "MaxPool",
             "Unique")  # fmt: skip


@contextlib.contextmanager
def limited_memory(more: int = 6 << 30) -> Iterator[None]:
    """So many bytes of address space more than now, so that absurd sizes are refused and not tried."""
    old, hard = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (old, hard))


def pick(rng: Rng, options: Sequence[Any]) -> Any:
    return options[int(rng.integers(len(options)))]


def names_of(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    return [
        *(name for node in graph.node for name in [*node.input, *node.output]),
        *(value.name for value in [*graph.input, *graph.output]),
        *(tensor.name for tensor in graph.initializer),
        "nowhere",
        "",
    ]


def drop_node(model: onnx.ModelProto, rng: Rng) -> None:
    del model.graph.node[int(rng.integers(len(model.graph.node)))]


def bypass_node(model: onnx.ModelProto, rng: Rng) -> None:
    """Without it what comes after gets what came before."""
    place = int(rng.integers(len(model.graph.node)))
    node = model.graph.node[place]
    if not node.input or not node.output:
        return
    before, after = node.input[0], node.output[0]
    del model.graph.node[place]
    for other in model.graph.node:
        for i, name in enumerate(other.input):
            if name == after:
                other.input[i] = before


def duplicate_node(model: onnx.ModelProto, rng: Rng) -> None:
    """Its outputs under their own names, so that a tensor is made twice, or under others."""
    node = NodeProto()
    node.CopyFrom(pick(rng, model.graph.node))
    if rng.integers(2):
        node.output[:] = [f"{name}_again" for name in node.output]
    model.graph.node.insert(int(rng.integers(len(model.graph.node) + 1)), node)


def swap_nodes(model: onnx.ModelProto, rng: Rng) -> None:
    a, b = (int(i) for i in rng.integers(len(model.graph.node), size=2))
    kept = NodeProto()
    kept.CopyFrom(model.graph.node[a])
    model.graph.node[a].CopyFrom(model.graph.node[b])
    model.graph.node[b].CopyFrom(kept)


def rewire(model: onnx.ModelProto, rng: Rng) -> None:
    """An input becomes any tensor: cycles and dangling names among them."""
    node = pick(rng, model.graph.node)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = pick(rng, names_of(model))


def swap_inputs(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    node.input[:] = [str(name) for name in rng.permutation(list(node.input))]


def change_arity(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    field = node.input if rng.integers(2) else node.output
    if rng.integers(2) and field:
        del field[int(rng.integers(len(field)))]
    else:
        field.append(pick(rng, names_of(model)))


def rename(model: onnx.ModelProto, rng: Rng) -> None:
    """A tensor, everywhere or at one place; or a node."""
    names = names_of(model)
    old, new = pick(rng, names), pick(rng, [*names, "target", "relevance", "srd.seed", "direction", "ü ß"])
    kind = int(rng.integers(3))
    if kind == 0:
        pick(rng, model.graph.node).name = new
    elif kind == 1:
        node = pick(rng, model.graph.node)
        if node.output:
            node.output[0] = new
    else:
        for node in model.graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]
        for value in [*model.graph.input, *model.graph.output, *model.graph.initializer]:
            if value.name == old:
                value.name = new


def change_operator(model: onnx.ModelProto, rng: Rng) -> None:
    node = pick(rng, model.graph.node)
    if rng.integers(5):
        node.op_type = pick(rng, OPERATORS)
    else:
        node.domain = pick(rng, ["", "ai.onnx", "com.microsoft", "ai.onnx.ml", "nobody"])


def change_attribute(model: onnx.ModelProto, rng: Rng) -> None:
    owners = [node for node in model.graph.node if node.attribute]
    if not owners:
        return
    node = pick(rng, owners)
    attribute = pick(rng, node.attribute)
    kind = int(rng.integers(6))
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.name = pick(rng, ["axis", "axes", "group", "nonsense", attribute.name])
    elif kind == 2:
        made = helper.make_attribute(attribute.name, pick(rng, [1, 1.5, "text", [1, 2], [0.5]]))
        attribute.CopyFrom(made)
    elif attribute.type == AttributeProto.INT:
        attribute.i = pick(rng, SIZES)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = pick(rng, REALS)
    elif attribute.type == AttributeProto.STRING:
        attribute.s = pick(rng, WORDS).encode()
    elif attribute.type == AttributeProto.INTS and attribute.ints:
        if kind == 3:
            attribute.ints.append(pick(rng, SIZES))
        elif kind == 4:
            del attribute.ints[int(rng.integers(len(attribute.ints)))]
        else:
            attribute.ints[int(rng.integers(len(attribute.ints)))] = pick(rng, SIZES)


def change_weights(model: onnx.ModelProto, rng: Rng) -> None:
    """Some or all numbers of an initializer become NaN, infinite, huge, tiny or zero."""
    stored = [t for t in model.graph.initializer if t.data_type in (TensorProto.FLOAT, TensorProto.INT64)]
    if not stored:
        return
    tensor = pick(rng, stored)
    data = numpy_helper.to_array(tensor).copy()
    flat = data.reshape(-1)
    if not flat.size:
        return
    number = pick(rng, REALS) if data.dtype.kind == "f" else pick(rng, SIZES)
    place: Any = slice(None) if rng.integers(3) == 0 else int(rng.integers(flat.size))
    if rng.integers(4) == 0 and data.dtype.kind == "f":
        with np.errstate(all="ignore"):
            flat[:] *= np.float32(pick(rng, REALS))
    else:
        flat[place] = number
    tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))


def reshape_weights(model: onnx.ModelProto, rng: Rng) -> None:
    """Dimensions that still fit the data, or do not."""
    if not model.graph.initializer:
        return
    tensor = pick(rng, model.graph.initializer)
    kind, dims = int(rng.integers(5)), list(tensor.dims)
    if kind == 0:
        tensor.dims[:] = [math.prod(dims)]
    elif kind == 1:
        tensor.dims[:] = dims[::-1]
    elif kind == 2:
        tensor.dims[:] = [1, *dims]
    elif kind == 3 and dims:
        tensor.dims[int(rng.integers(len(dims)))] = pick(rng, SIZES)
    else:
        data = numpy_helper.to_array(tensor)
        if data.ndim:
            cut = np.take(data, range(data.shape[0] // 2), axis=0)
            tensor.CopyFrom(numpy_helper.from_array(cut, tensor.name))


def change_dtype(model: onnx.ModelProto, rng: Rng) -> None:
    kinds = [TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL,
             TensorProto.UINT8, TensorProto.STRING, TensorProto.BFLOAT16, TensorProto.COMPLEX64, 0, 99]  # fmt: skip
    kind = pick(rng, kinds)
    if rng.integers(2) or not model.graph.initializer:
        pick(rng, [*model.graph.input, *model.graph.output]).type.tensor_type.elem_type = kind
        return
    tensor = pick(rng, model.graph.initializer)
    if rng.integers(2) or kind in (TensorProto.STRING, TensorProto.COMPLEX64, 0, 99):
        tensor.data_type = kind
        return
    with np.errstate(all="ignore"):
        data = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(kind))
    tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))


def change_shape(model: onnx.ModelProto, rng: Rng) -> None:
    """Of an input or output as it is declared."""
    value: ValueInfoProto = pick(rng, [*model.graph.input, *model.graph.output])
    dims, kind = value.type.tensor_type.shape.dim, int(rng.integers(6))
    if kind == 0:
        dims.add().dim_value = pick(rng, SIZES)
    elif kind == 1 and dims:
        del dims[int(rng.integers(len(dims)))]
    elif kind == 2:
        value.type.tensor_type.ClearField("shape")
    elif kind == 3:
        value.type.ClearField("value")
    elif dims:
        dim = pick(rng, dims)
        if rng.integers(3):
            dim.dim_value = pick(rng, SIZES)
        else:
            dim.dim_param = pick(rng, ["N", "", "M"])


def change_header(model: onnx.ModelProto, rng: Rng) -> None:
    kind = int(rng.integers(6))
    if kind <= 2 and model.opset_import:
        model.opset_import[0].version = pick(rng, [0, 1, 6, 7, 9, 11, 12, 13, 17, 18, 21, 24, 25, 99, -1])
    elif kind == 3:
        model.opset_import.add(
            domain=pick(rng, ["", "com.microsoft", "nobody"]), version=pick(rng, [1, 13, 21])
        )
    elif kind == 4:
        model.ir_version = pick(rng, [0, 1, 3, 4, 8, 10, 13, 99])
    else:
        del model.opset_import[:]


def change_outputs(model: onnx.ModelProto, rng: Rng) -> None:
    """Any tensor as an output, twice perhaps; or one input or output less or more."""
    graph, kind = model.graph, int(rng.integers(5))
    if kind == 0:
        pick(rng, graph.output).name = pick(rng, names_of(model))
    elif kind == 1:
        made = helper.make_empty_tensor_value_info(pick(rng, names_of(model)))
        graph.output.insert(0, made)
    elif kind == 2:
        field = graph.output if rng.integers(2) else graph.input
        if field:
            del field[int(rng.integers(len(field)))]
    elif kind == 3:
        graph.input.append(
            helper.make_tensor_value_info(pick(rng, [*names_of(model), "more"]), TensorProto.FLOAT, [1, 3])
        )
    elif graph.initializer:
        tensor = pick(rng, graph.initializer)
        if rng.integers(2):
            graph.initializer.remove(tensor)
        else:
            graph.initializer.add().CopyFrom(tensor)


MUTATIONS: tuple[Callable[[onnx.ModelProto, Rng], None], ...] = (
    drop_node,
    bypass_node,
    duplicate_node,
    swap_nodes,
    rewire,
    swap_inputs,
    change_arity,
    rename,
    change_operator,
    change_attribute,
    change_weights,
    reshape_weights,
    change_dtype,
    change_shape,
    change_header,
    change_outputs,
)


def mutated(model: onnx.ModelProto, seed: int) -> tuple[onnx.ModelProto, str]:
    """A damaged copy, and what was done to it."""
    rng = np.random.default_rng(seed)
    result, done = onnx.ModelProto(), []
    result.CopyFrom(model)
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        change = pick(rng, MUTATIONS)
        if result.graph.node and result.graph.input and result.graph.output:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # it is damaged too much already
                change(result, rng)
            done.append(change.__name__)
    return result, " + ".join(done)


def explain_mutated(model: onnx.ModelProto, seed: int) -> SrdOnnxError | None:
    """Explain what may be nonsense; our error, if it cannot be.

    Raises:
        PropertyError: an explanation that is not finite or does not add up.
        Exception: anything that is not our own.
    """
    rng = np.random.default_rng(seed)
    options = {"sign": pick(rng, ["signed", "positive"]), "bias": pick(rng, ["distribute", "ledger"])}
    try:
        # From bytes half of the time: what no proto in memory can be is seen only there.
        source = model.SerializeToString() if rng.integers(2) else model
        explainer = Explainer(source, providers="cpu", threads=1, **options)
        feeds = {port.name: data_for(port, rng) for port in explainer.ports}
        for explanation in explainer.explain(feeds):
            adds_up(explanation)
        if rng.integers(4) == 0:
            onnx.checker.check_model(explainer.compile())
    except SrdOnnxError as error:
        says_something(error)
        return error
    return None


def data_for(port: Port, rng: Rng) -> Array:
    shape = port.shape((16, 16))
    if math.prod(shape) > LARGEST_INPUT:
        shape = tuple(min(size, 8) for size in shape)
    if port.dtype.kind in "iub":
        return rng.integers(0, 2, shape).astype(port.dtype)
    if port.dtype.kind not in "f":
        return np.zeros(shape, np.float32)
    return rng.standard_normal(shape).astype(np.float32)
