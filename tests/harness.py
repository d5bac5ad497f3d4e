"""From a `Case` to numbers: a model of one node, what its rule emits for it, and both evaluated."""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from srd_onnx.engine.backward import _Pass
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.half import account_type
from srd_onnx.engine.mixing import biases
from srd_onnx.engine.options import Bias, Options
from srd_onnx.engine.plan import Step
from srd_onnx.engine.rule import Rule, RuleTable
from srd_onnx.graph.ir import Graph, Node, Value
from srd_onnx.graph.roles import Axes, Role, propagate
from srd_onnx.graph.simplify import WORKING_OPSET
from srd_onnx.graph.walk import walk
from srd_onnx.ort import runtime
from tests.cases import Case, Const, Rand, Same, Var
from tests.reference_ops import CORRECTED

Array = NDArray[Any]
NEWEST_ON_RUNTIME = 26  # the opset up to which ONNX Runtime loads models
UNINFERRED = ("Compress", "GroupNormalization", "MaxUnpool", "OneHot")  # onnx infers no shape
LETTERS = {"N": Role.BATCH, "C": Role.CHANNEL}


@dataclass(frozen=True)
class Bench:
    """A case built: its forward model, graph and rule, and the values of its operands."""

    case: Case
    forward: ModelProto
    graph: Graph
    roles: Mapping[str, Axes]
    rule: Rule
    operands: tuple[Array | None, ...]
    dtype: np.dtype[Any]

    @property
    def node(self) -> Node:
        return self.graph.nodes[0]

    @property
    def feeds(self) -> dict[str, Array]:
        return {value.name: self.operand(value.name) for value in self.graph.inputs}

    def operand(self, name: str) -> Array:
        array = self.operands[int(name.removeprefix("x"))]
        assert array is not None
        return array

    def emitter(self, *, tangent: bool = False, plain: bool = True) -> Emitter:
        masked = any(isinstance(spec, Var) and spec.masked for spec in self.case.inputs) or None
        return Emitter(self.graph, self.roles, tangent=tangent, masked=masked, plain=plain)

    def noise(self, what: str, shape: Sequence[int], dtype: np.dtype[Any] | None = None) -> Array:
        """Random numbers that depend on nothing but the case's name and `what`."""
        return drawn(f"{self.case.name}/{what}", shape, real(self, dtype or self.dtype))

    @property
    def outputs(self) -> list[Value]:
        """The outputs that can carry relevance."""
        return [v for v in self.node.outputs[: len(self.case.out)] if v is not None]

    def cotangents(self, what: str = "u") -> list[Array | None]:
        """One per output; None for the outputs that the case leaves dead."""
        return [
            None if i in self.case.dead else self.noise(f"{what}{i}", value.shape, value.dtype)
            for i, value in enumerate(self.outputs)
        ]

    def shares(self, what: str = "r") -> list[Array | None]:
        """Relevance per position, one per output; None for the outputs that the case leaves dead."""
        return [
            None
            if i in self.case.dead
            else self.noise(f"{what}{i}", self.axes(v).position_shape(v), account_type(v))
            for i, v in enumerate(self.outputs)
        ]

    def real_like(self, emit: Emitter, number: float) -> str:
        """A constant of the dtype of the node's output, or of the reals that its integers stand for."""
        return emit.const(number, real(self, self.node.output().dtype))

    def axes(self, value: Value) -> Axes:
        """The roles that the rule gave the tensor."""
        return self.roles[value.name]


def drawn(seed: str, shape: Sequence[int], dtype: np.dtype[Any] | type) -> Array:
    """Normal numbers that single precision holds exactly; a third of them is small, as near a kink."""
    rng = np.random.default_rng(zlib.crc32(seed.encode()))
    values = rng.standard_normal(tuple(shape)) * np.where(rng.random(tuple(shape)) < 0.3, 0.04, 1.5)
    return values.astype(np.float32).astype(dtype)


def bench(case: Case, rules: RuleTable, *, precision: str | None = None, zero: bool = False) -> Bench:
    """Build a case.

    Args:
        precision: "float32" for ONNX Runtime; by default the case's own.
        zero: all operands that vary and are not held fixed are zero.
    """
    dtype = np.dtype(precision or case.dtype)
    operands = _operands(case, dtype, zero=zero)
    forward = _model(case, operands, dtype)
    graph = walk(forward)
    start = {
        value.name: _axes(case, value) for value in graph.inputs if isinstance(_spec(case, value.name), Var)
    }
    key = graph.nodes[0].key
    assert (key.op_type, key.since) == (case.op, case.since)
    return Bench(case, forward, graph, propagate(graph, start, rules), rules[key], operands, dtype)


def _spec(case: Case, name: str) -> Any:
    return case.inputs[int(name.removeprefix("x"))]


def _axes(case: Case, value: Value) -> Axes:
    spec = _spec(case, value.name)
    return Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in spec.layout), gate=spec.gate)


def _operands(case: Case, dtype: np.dtype[Any], *, zero: bool) -> tuple[Array | None, ...]:
    made: list[Array | None] = []
    for i, spec in enumerate(case.inputs):
        seed = f"{case.name}/x{i}"
        match spec:
            case Var(shape=shape, dtype="int8"):
                rng = np.random.default_rng(zlib.crc32(seed.encode()))
                made.append(rng.integers(-128, 128, shape).astype(np.int8))
            case Var(shape=shape, within=(low, high)):
                noise = _squeezed(drawn(seed, shape, dtype), low, high)
                made.append(np.zeros(shape, dtype) if zero and low <= 0 <= high else noise)
            case Var(shape=shape, masked=True):
                noise = drawn(seed, shape, dtype)
                noise.flat[::3] = -np.inf
                made.append(np.zeros(shape, dtype) if zero else noise)
            case Var(shape=shape, positive=positive):
                own = np.dtype(spec.dtype) if spec.dtype else dtype
                noise = _positive(drawn(seed, shape, own)) if positive else drawn(seed, shape, own)
                made.append(np.zeros(shape, own) if zero and i not in case.held else noise)
            case Rand(shape=shape, positive=positive):
                noise = drawn(seed, shape, dtype)
                made.append(_positive(noise) if positive else noise)
            case Const(data=data, dtype=kind):
                made.append(np.asarray(data, kind or dtype))
            case Same(of=of):
                made.append(made[of])
            case _:
                made.append(None)
    return tuple(made)


def _positive(noise: Array) -> Array:
    return np.asarray(np.abs(noise) + noise.dtype.type(0.25))


def _squeezed(noise: Array, low: float, high: float) -> Array:
    """Numbers strictly between two bounds, exact in single precision, spread as wide as the noise."""
    part = 0.5 + np.arctan(noise.astype(np.float64)) / np.pi
    return np.asarray((low + (high - low) * part).astype(np.float32).astype(noise.dtype))


def _model(case: Case, operands: Sequence[Array | None], dtype: np.dtype[Any]) -> ModelProto:
    names = [
        "" if spec is None else f"x{spec.of}" if isinstance(spec, Same) else f"x{i}"
        for i, spec in enumerate(case.inputs)
    ]
    outputs = [f"y{i}" for i in range(len(case.out) + case.masks)]
    attrs = dict(case.attrs)
    if "to" in attrs:
        to = dtype if attrs["to"] == "own" else np.dtype(attrs["to"])
        attrs["to"] = helper.np_dtype_to_tensor_dtype(to)
    node = helper.make_node(case.op, names, outputs, name="node", **attrs)
    inputs, constants = [], []
    for name, spec, array in zip(names, case.inputs, operands, strict=True):
        if isinstance(spec, Var):
            assert array is not None
            inputs.append(info(name, array.dtype, array.shape))
        elif isinstance(spec, Rand | Const):
            assert array is not None
            constants.append(numpy_helper.from_array(array, name))
    blank = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], case.name, inputs, blank, constants)
    opset = max(WORKING_OPSET, case.since)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    if case.op in UNINFERRED:
        given = dict(zip(names, operands, strict=True))
        feeds = {i.name: array for i in inputs if (array := given[i.name]) is not None}
        (result,) = reference(model, feeds, outputs)
        model.graph.output[0].CopyFrom(info(outputs[0], dtype, result.shape))
    return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def info(name: str, dtype: Any, shape: Sequence[int]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape))


# What a rule emits


@dataclass(frozen=True)
class Emitted:
    """Forward node and emitted nodes in one model; `names` are its outputs, None where nothing flows."""

    model: ModelProto
    names: tuple[str | None, ...]
    emit: Emitter

    def __call__(self, feeds: Mapping[str, Array]) -> list[Array | None]:
        """Evaluate in the precision of the feeds on onnx.reference."""
        results = reference(self.model, feeds, [n for n in self.names if n is not None])
        return [results.pop(0) if n is not None else None for n in self.names]

    def on_runtime(self, feeds: Mapping[str, Array]) -> list[Array | None]:
        """Evaluate on ONNX Runtime, every node as it is written."""
        wanted = [n for n in self.names if n is not None]
        if not wanted:
            return list(self.names)  # type: ignore[arg-type]  # all None
        model = ModelProto()
        model.CopyFrom(self.model)
        for entry in model.opset_import:
            # A newer meaning that has a rule is an older one with more types.
            entry.version = min(entry.version, NEWEST_ON_RUNTIME)
        session = runtime.make_session(model.SerializeToString(), [runtime.CPU], threads=1, optimise=False)
        used = {value.name for value in session.get_inputs()}
        results = list(session.run(wanted, {k: v for k, v in feeds.items() if k in used}))
        return [results.pop(0) if n is not None else None for n in self.names]


def reference(model: ModelProto, feeds: Mapping[str, Array], wanted: Sequence[str]) -> list[Array]:
    """Evaluate on onnx.reference with its wrong operators replaced."""
    if not wanted:
        return []
    return list(ReferenceEvaluator(model, new_ops=CORRECTED).run(list(wanted), dict(feeds)))


def emitted_vjp(b: Bench, cotangents: Sequence[Any], *, tangent: bool = False) -> Emitted:
    """The rule's VJP; cotangents are graph inputs u0, u1, ..."""
    emit = b.emitter(tangent=tangent)
    names = [None if u is None else f"u{i}" for i, u in enumerate(cotangents)]
    names += [None] * (len(b.node.outputs) - len(names))
    with emit.origin(b.node.name, b.rule.name):
        flows = b.rule.vjp(emit, b.node, names)
    outputs = [None if f is None else (f, v) for f, v in zip(flows, b.node.inputs, strict=True)]
    return assembled(b, emit, _given(cotangents), outputs)


def emitted_bias(b: Bench) -> Emitted:
    """The part of each output that comes from no input."""
    emit = b.emitter()
    with emit.origin(b.node.name, b.rule.name):
        parts = biases(emit, b.rule, b.node)[: len(b.case.out)]
    return assembled(b, emit, {}, [(bias, None) if bias else None for bias in parts])


def emitted_position(b: Bench, shares: Sequence[Any], bias: Bias, *, plain: bool = True) -> Emitted:
    """What the engine emits for this node in position form: a flow per operand, then one ledger column per booking."""
    node, rule = b.node, b.rule
    carriers = rule.carriers(node, b.roles)
    step = Step(node, rule, ("position",), carriers, rule.routes(node, b.roles), rule.approximate(node))
    first = node.output()
    # All that a crossing asks of the plan.
    plan: Any = SimpleNamespace(shares=frozenset(b.graph.values), options=Options(bias=bias))
    emit = b.emitter(plain=plain)
    crossing = _Pass(plan, emit)
    for i, (value, share) in enumerate(zip(node.outputs, shares, strict=False)):
        if value is not None and share is not None:
            crossing.shares[value.name].append(f"u{i}")
    with emit.origin(node.name, rule.name):
        crossing._carry_shares(step)
    with emit.origin(node.name, "test"):
        outputs: list[Any] = []
        for i, (value, spec) in enumerate(zip(node.inputs, b.case.inputs, strict=True)):
            flows = [] if value is None or isinstance(spec, Same) else crossing.shares[value.name]
            assert i in carriers or isinstance(spec, Same) or not flows
            if value is None or not flows:
                outputs.append(None)
            else:
                shape = emit.axes(value).position_shape(value)
                outputs.append((emit.sum(flows), (account_type(value), shape)))
        batch = first.shape[b.case.out[0].find("N")] if "N" in b.case.out[0] else 1
        outputs += [(tensor, (account_type(first), (batch,))) for _, tensor in crossing.ledger]
    return assembled(b, emit, _given(shares), outputs)


def _given(arrays: Sequence[Any]) -> dict[str, Array]:
    return {f"u{i}": a for i, a in enumerate(arrays) if a is not None}


def assembled(b: Bench, emit: Emitter, inputs: Mapping[str, Array], outputs: Sequence[Any]) -> Emitted:
    """One model: the forward node, the emitted nodes, cotangents as inputs.

    Args:
        outputs: (tensor, what it must look like: a Value or (dtype, shape), or None for anything); None for none.
    """
    model = ModelProto()
    model.CopyFrom(b.forward)
    graph = model.graph
    graph.node.extend(emit.nodes)
    graph.initializer.extend(emit.initializers)
    graph.input.extend(info(name, a.dtype, a.shape) for name, a in inputs.items())
    names: list[str | None] = []
    for i, output in enumerate(outputs):
        names.append(None if output is None else f"out{i}")
        if output is None:
            continue
        tensor, like = output
        graph.node.append(helper.make_node("Identity", [tensor], [f"out{i}"], name=f"out{i}"))
        if like is None:
            graph.output.append(onnx.ValueInfoProto(name=f"out{i}"))
        else:
            dtype, shape = (like.dtype, like.shape) if isinstance(like, Value) else like
            graph.output.append(info(f"out{i}", real(b, dtype), shape))
    if any(not o.type.HasField("tensor_type") for o in graph.output):
        model = onnx.shape_inference.infer_shapes(model)
    return Emitted(model, tuple(names), emit)


def real(b: Bench, dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The cotangent of an integer tensor is that of the reals it stands for."""
    return dtype if dtype.kind == "f" else b.dtype
