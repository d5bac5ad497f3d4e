"""Which conformance cases of ONNX no rule for relevance applies to, and why: predicates on the case, a closed set."""

from typing import Any

from onnx import ModelProto, NodeProto

from srd_onnx.graph.external_data import nodes
from tests.conformance_models import depending, is_real, names_read

_RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
_SEQUENCES = frozenset({"SplitToSequence", "ConcatFromSequence"})
_TRAINED = frozenset({"Dropout", "BatchNormalization"})
_STEPS = frozenset({"Ceil", "EyeLike", "Floor", "Hardmax", "MelWeightMatrix", "Round", "Sign"})
_CHOOSES_SHAPE = frozenset({"NonZero", "Range", "Unique"})
_LOOPS = frozenset({"If", "Loop", "Scan"})
_FROM_INTEGERS = frozenset(
    {"ConvInteger", "DequantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul"}
)

DOMAIN = "an operator of another domain than ai.onnx"
TYPES = "sequence, optional or map types"
INVALID = "the case is broken: it reads a tensor that nothing makes"
RANDOM = "random"
TRAINING = "training mode"
NO_REAL_INPUT = "integers, booleans or strings go in"
NO_REAL_OUTPUT = "integers, booleans, strings or floats of 8 bits or fewer come out"
QUANTISED = "integers that stand for reals go in; only their scales are real"
BITS = "reads the bits of a number"
STEPS = "piecewise constant: the derivative is zero or does not exist"
DATA_SHAPE = "the shape of the result depends on the data"
EMPTY = "nothing goes in or comes out: a tensor without elements"
CONTROL = "control flow that depends on the data: If, Loop or Scan"
REASONS = (
    DOMAIN,
    TYPES,
    INVALID,
    NO_REAL_INPUT,
    NO_REAL_OUTPUT,
    QUANTISED,
    BITS,
    STEPS,
    RANDOM,
    TRAINING,
    DATA_SHAPE,
    CONTROL,
    EMPTY,
)


def why_not(case: Any, operator: NodeProto) -> str | None:
    """Why a case says nothing about the derivative of an operator; None if it does.

    Args:
        case: a recorded case of onnx.
        operator: what it tests: its only node, or the node that it is the expansion of.
    """
    model: ModelProto = case.model
    given, results = case.data_sets[0]
    op = operator.op_type
    reals = [a for a in given if is_real(a)]
    found = [a for a in results if is_real(a)]
    checks = (
        (operator.domain not in ("", "ai.onnx"), DOMAIN),
        (_other_types(model), TYPES),
        (_undefined(model), INVALID),
        (not reals, NO_REAL_INPUT),
        (not found, NO_REAL_OUTPUT),
        (op in _FROM_INTEGERS, QUANTISED),
        (op == "BitCast", BITS),
        (op in _STEPS, STEPS),
        (op in _RANDOM or any(n.op_type in _RANDOM for n in nodes(model.graph)), RANDOM),
        (op in _TRAINED and _trains(case, operator), TRAINING),
        (op in _CHOOSES_SHAPE, DATA_SHAPE),
        (not any(a.size for a in reals) or not any(a.size for a in found), EMPTY),
        (_branches_on_data(case), CONTROL),
    )
    return next((reason for applies, reason in checks if applies), None)


def _other_types(model: ModelProto) -> bool:
    infos = [*model.graph.input, *model.graph.output]
    ops = [node.op_type for node in nodes(model.graph)]
    return any(not i.type.HasField("tensor_type") for i in infos) or any(
        op.startswith(("Sequence", "Optional")) or op in _SEQUENCES for op in ops
    )


def _undefined(model: ModelProto) -> bool:
    graph = model.graph
    made = {i.name for i in graph.input} | {t.name for t in graph.initializer} | {""}
    for node in graph.node:
        if not made.issuperset(names_read(node)):
            return True
        made.update(node.output)
    return not made.issuperset(o.name for o in graph.output)


def _trains(case: Any, operator: NodeProto) -> bool:
    """Whether its attribute (BatchNormalization) or its third input (Dropout) says so."""
    if any(a.name == "training_mode" and a.i for a in operator.attribute):
        return True
    given = dict(zip([i.name for i in case.model.graph.input], case.data_sets[0][0], strict=True))
    return operator.op_type == "Dropout" and len(operator.input) > 2 and bool(given[operator.input[2]])


def _branches_on_data(case: Any) -> bool:
    graph = case.model.graph
    named = zip(graph.input, case.data_sets[0][0], strict=True)
    alive = depending(graph, [info.name for info, array in named if is_real(array)])
    return any(
        alive.intersection(node.input[:1] if node.op_type == "If" else [*node.input, *node.output])
        for node in graph.node
        if node.op_type in _LOOPS
    )
