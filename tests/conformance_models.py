"""From a recorded conformance case of ONNX to a graph that rules can cross: converted, in double precision, folded.

What does not depend on the inputs that vary becomes a constant, the sizes of tensors too, as in `simplify`; here it is
onnx.reference that folds, because ONNX Runtime has neither the newest opsets nor double precision everywhere.
"""

import re
import zlib
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.functions import without_rule, write_out
from srd_onnx.graph.ir import Graph, OpKey
from srd_onnx.graph.opset import default_opset, name_nodes, to_opset
from srd_onnx.graph.simplify import WORKING_OPSET
from srd_onnx.graph.walk import walk
from tests.conformance_ops import CONFORMANCE

Array = NDArray[Any]
SINGLE = TensorProto.FLOAT
DOUBLE = TensorProto.DOUBLE
REAL = frozenset({SINGLE, DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})
_REAL_NAMES = frozenset({"tensor(float)", "tensor(float16)", "tensor(bfloat16)"})
_TYPE_ATTRIBUTES = ("to", "dtype", "softmax_precision", "stash_type", "output_dtype")


@dataclass(frozen=True)
class Prepared:
    """A case in one precision at an opset that rules know; `feeds` are its recorded inputs."""

    model: ModelProto
    feeds: Mapping[str, Array]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Folded:
    """The part of a case that depends on the inputs that vary, and their recorded values."""

    model: ModelProto
    graph: Graph
    feeds: Mapping[str, Array]
    dtype: np.dtype[Any]


def is_real(array: Any) -> bool:
    """Whether it is a tensor of floating-point numbers wide enough to have derivatives (not float8, float4)."""
    return isinstance(array, np.ndarray | np.generic) and helper.np_dtype_to_tensor_dtype(array.dtype) in REAL


def base_name(name: str) -> str:
    """The case that an expanded one is the expansion of."""
    return re.sub(r"_expanded.*$", "", name)


def seed(*words: Any) -> int:
    """A number that depends on nothing but the words."""
    return zlib.crc32("/".join(map(str, words)).encode())


def prepared(case: Any, rules: Container[OpKey]) -> Prepared:
    """The case at opset 18 or later, in float64 where the schemas of its operators have it, else in float32.

    Operators without a rule that onnx defines by others are written out, as `simplify` does.

    Raises:
        OpsetError: onnx cannot convert it.
    """
    model = ModelProto()
    model.CopyFrom(case.model)
    name_nodes(model.graph)
    model = to_opset(model, max(WORKING_OPSET, default_opset(model)))
    name_nodes(model.graph)
    model = write_out(model, without_rule(rules, default_opset(model)))
    fixed, whole = _single_only(model)
    names = [i.name for i in model.graph.input]
    given = dict(zip(names, case.data_sets[0][0], strict=True))
    dtype = np.dtype(np.float32 if whole else np.float64)
    _retype(model.graph, helper.np_dtype_to_tensor_dtype(dtype), fixed)
    feeds = {
        name: np.asarray(array).astype(np.float32 if name in fixed else dtype) if is_real(array) else array
        for name, array in given.items()
    }
    return Prepared(model, feeds, dtype)


def _single_only(model: ModelProto) -> tuple[set[str], bool]:
    """Graph inputs that the schemas have in float32 but not in float64, and whether a computed tensor is such."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    free = {i.name for i in model.graph.input} | {t.name for t in model.graph.initializer}
    fixed: set[str] = set()
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, versions[""], "")
        types = {c.type_param_str: set(c.allowed_type_strs) for c in schema.type_constraints}
        slots = [(name, param) for name, param in zip(node.input, schema.inputs, strict=False) if name]
        for name, param in slots:
            if _lacks_double(types.get(param.type_str, {param.type_str})):
                fixed.add(name)
        if any(_lacks_double(types.get(param.type_str, {param.type_str})) for param in schema.outputs):
            return set(), True
    return (fixed, False) if fixed <= free and not _used_as_double(model, fixed) else (set(), True)


def _used_as_double(model: ModelProto, fixed: Collection[str]) -> bool:
    """Whether a tensor that must be float32 is read by several nodes, of which some may want float64."""
    readers = [name for node in model.graph.node for name in node.input if name in fixed]
    return len(readers) != len(set(readers))


def _lacks_double(types: Collection[str]) -> bool:
    return "tensor(double)" not in types and bool(_REAL_NAMES & set(types))


def _retype(graph: GraphProto, wanted: int, fixed: Collection[str]) -> None:
    """Make every floating-point tensor of the wanted type, in place."""
    for info in [*graph.input, *graph.output]:
        tensor = info.type.tensor_type
        if tensor.elem_type in REAL:
            tensor.elem_type = SINGLE if info.name in fixed else wanted
    del graph.value_info[:]
    for tensor in graph.initializer:
        if tensor.name not in fixed:
            tensor.CopyFrom(_of_type(tensor, wanted))
    for node in nodes(graph):
        if node.op_type == "ConstantOfShape" and not node.attribute:
            zero = numpy_helper.from_array(np.zeros(1, helper.tensor_dtype_to_np_dtype(wanted)))
            node.attribute.append(helper.make_attribute("value", zero))
        for attribute in node.attribute:
            _retype_attribute(node, attribute, wanted)


def _retype_attribute(node: NodeProto, attribute: AttributeProto, wanted: int) -> None:
    if attribute.type == AttributeProto.TENSOR:
        attribute.t.CopyFrom(_of_type(attribute.t, wanted))
    elif attribute.name in _TYPE_ATTRIBUTES and attribute.i in REAL:
        attribute.i = wanted
    elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
        data = np.asarray(helper.get_attribute_value(attribute))
        array = data.astype(helper.tensor_dtype_to_np_dtype(wanted))
        attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(array)))


def _of_type(tensor: TensorProto, wanted: int) -> TensorProto:
    if tensor.data_type not in REAL:
        return tensor
    array = numpy_helper.to_array(tensor).astype(helper.tensor_dtype_to_np_dtype(wanted))
    return numpy_helper.from_array(array, tensor.name)


def evaluate(model: ModelProto, feeds: Mapping[str, Array]) -> dict[str, Any]:
    """Every tensor of the model on onnx.reference."""
    with np.errstate(all="ignore"):
        found = ReferenceEvaluator(model, new_ops=CONFORMANCE).run(None, dict(feeds), intermediate=True)
    return dict(found)


def folded(case: Prepared, varying: Sequence[str]) -> Folded:
    """The case with all but some of its inputs held constant, and the branches taken where conditions are constant."""
    model = ModelProto()
    model.CopyFrom(case.model)
    while True:
        known = evaluate(model, case.feeds)
        alive = depending(model.graph, varying)
        chosen = [n for n in model.graph.node if n.op_type == "If" and n.input[0] not in alive]
        if not chosen:
            break
        for node in chosen:
            _inline(model.graph, node, bool(known[node.input[0]]))
    return _rest(model, case, known, alive, varying)


def depending(graph: GraphProto, varying: Sequence[str]) -> set[str]:
    """Tensors that depend on the values of these inputs, not merely on their shapes."""
    found = set(varying)
    for node in graph.node:
        if node.op_type not in ("Shape", "Size") and found & set(names_read(node)):
            found.update(name for name in node.output if name)
    return found


def names_read(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs read from outside included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
            made = {i.name for i in graph.input} | {t.name for t in graph.initializer}
            made.update(name for inner in graph.node for name in inner.output)
            inside = [name for inner in graph.node for name in names_read(inner)]
            yield from (name for name in [*inside, *(o.name for o in graph.output)] if name not in made)


def _inline(graph: GraphProto, node: NodeProto, condition: bool) -> None:
    """Put the branch that is taken in the place of an If."""
    place = list(graph.node).index(node)
    wanted = "then_branch" if condition else "else_branch"
    (branch,) = (a.g for a in node.attribute if a.name == wanted)
    own = {name for inner in branch.node for name in inner.output} | {t.name for t in branch.initializer}
    renamed = {name: f"{node.name}/{name}" for name in own if name}
    renamed.update(zip([o.name for o in branch.output], node.output, strict=True))
    rest = list(graph.node)[place + 1 :]
    copies = []
    for tensor in branch.initializer:
        copies.append(helper.make_node("Constant", [], [renamed[tensor.name]], value=tensor))
    for inner in branch.node:
        copy = NodeProto()
        copy.CopyFrom(inner)
        copy.name = f"{node.name}/{inner.name}"
        _rename_inputs(copy, renamed)
        copy.output[:] = [renamed.get(name, name) for name in inner.output]
        copies.append(copy)
    outer = [(o.name, y) for o, y in zip(branch.output, node.output, strict=True) if o.name not in own]
    copies += [helper.make_node("Identity", [x], [y], name=f"{node.name}/{y}") for x, y in outer]
    before = list(graph.node)[:place]
    del graph.node[:]
    graph.node.extend([*before, *copies, *rest])
    name_nodes(graph)


def _rename_inputs(node: NodeProto, renamed: Mapping[str, str]) -> None:
    """In place, in the node's subgraphs too."""
    node.input[:] = [renamed.get(name, name) for name in node.input]
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
            for inner in graph.node:
                _rename_inputs(inner, renamed)


def _rest(
    model: ModelProto,
    case: Prepared,
    known: Mapping[str, Any],
    alive: Collection[str],
    varying: Sequence[str],
) -> Folded:
    living = [
        n for n in model.graph.node if n.op_type not in ("Shape", "Size") and set(alive) & set(names_read(n))
    ]
    made = {name for node in living for name in node.output if name}
    read = {name for node in living for name in names_read(node) if name} - made - set(varying)
    wanted = [o.name for o in model.graph.output if o.name in made]
    constants = [numpy_helper.from_array(np.asarray(known[name]), name) for name in sorted(read)]
    graph = helper.make_graph(
        living,
        "case",
        [_info(name, known[name]) for name in varying],
        [_info(name, known[name]) for name in wanted],
        constants,
        value_info=[
            _info(n, known[n]) for n in sorted(made - set(wanted)) if isinstance(known[n], np.ndarray)
        ],
    )
    result = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", default_opset(model))], ir_version=10
    )
    return Folded(result, walk(result), {name: case.feeds[name] for name in varying}, case.dtype)


def _info(name: str, array: Any) -> onnx.ValueInfoProto:
    array = np.asarray(array)
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
