"""What is checked of one graph of a conformance case: the emitted VJPs, against differences and as adjoints."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, helper

from graph_rules.registry import carries
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.mixing import biases
from srd_onnx.engine.rule import RuleTable
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Axes, Problems, propagate
from tests.conformance_models import Array, Folded, evaluate, seed

DIRECTIONS = 3
ATTEMPTS = 8


@dataclass(frozen=True)
class Accuracy:
    """Of a precision: the step of the differences, their error relative to the slopes, that of sums to their terms."""

    step: float
    slopes: float
    cancellation: float
    sums: float


ACCURACY: Mapping[str, Accuracy] = {
    "float64": Accuracy(2.0**-18, 1e-6, 1e-10, 1e-9),
    "float32": Accuracy(2.0**-7, 2e-3, 1e-4, 2e-5),
}


class NoRule(Exception):  # noqa: N818 - not an error: a finding
    """Relevance would cross operators without a rule."""


class Wrong(AssertionError):  # noqa: N818
    """Numbers disagree."""


def check(
    name: str, part: Folded, axes: Mapping[str, Axes], outputs: Sequence[str], rules: RuleTable
) -> None:
    """The VJPs of a graph, with the inputs of these axes varying.

    Raises:
        NoRule: relevance would cross what has no rule.
        UnsupportedCaseError, LayoutError: a rule refuses.
        Wrong: a number is wrong.
    """
    problems: Problems = {}
    roles = propagate(part.graph, axes, rules, problems)
    for node in part.graph.nodes:
        if node.name in problems and any(
            v is not None and v.is_float and v.name not in roles for v in node.outputs
        ):
            raise problems[node.name]
    passes = [_Backward(part, roles, outputs, rules, problems, tangent=t) for t in (True, False)]
    _check_tangent(name, part, passes[0])
    _check_pattern(name, part, passes[1])


class _Backward:
    """The emitted VJP of a whole graph, from the cotangents of its outputs to those of its inputs."""

    def __init__(
        self,
        part: Folded,
        roles: Mapping[str, Axes],
        outputs: Sequence[str],
        rules: RuleTable,
        problems: Problems,
        *,
        tangent: bool,
    ) -> None:
        self.part, self.outputs = part, outputs
        self.emit = emit = Emitter(part.graph, roles, tangent=tangent)
        flows: defaultdict[str, list[str]] = defaultdict(list)
        self.biases: list[tuple[str, str]] = []
        for name in outputs:
            flows[name].append(f"u:{name}")
            if not tangent and not _alive(emit, part.graph.values[name]):
                # Constant under the fixed pattern: all of it is a bias.
                self.biases.append((name, f"u:{name}"))
        missing = set()
        for node in reversed(part.graph.nodes):
            arrived = [
                emit.sum(flows[v.name]) if v is not None and flows[v.name] else None for v in node.outputs
            ]
            # Under a fixed pattern an output can be constant though its inputs vary; its slope is not.
            if not any(arrived) or not any(
                _alive(emit, v) for v in (node.inputs if tangent else node.outputs)
            ):
                continue
            if node.key not in rules:
                missing.add(str(node.key))
                continue
            if node.name in problems:
                raise problems[node.name]
            rule = rules[node.key]
            chosen = range(len(node.inputs)) if tangent else rule.carriers(node, roles)
            with emit.origin(node.name, rule.name):
                for i, (v, flow) in enumerate(zip(node.inputs, rule.vjp(emit, node, arrived), strict=True)):
                    if v is not None and flow is not None and i in chosen and _alive(emit, v):
                        flows[v.name].append(flow)
                parts = [] if tangent else biases(emit, rule, node)
            self.biases += [
                (b, g) for b, g in zip(parts, arrived, strict=False) if b is not None and g is not None
            ]
        if missing:
            raise NoRule(", ".join(sorted(missing)))
        self.results = {v.name: emit.sum(flows[v.name]) if flows[v.name] else None for v in part.graph.inputs}
        self.model = self._assembled()

    def _assembled(self) -> ModelProto:
        model = ModelProto()
        model.CopyFrom(self.part.model)
        values = self.part.graph.values
        model.graph.node.extend(self.emit.nodes)
        model.graph.initializer.extend(self.emit.initializers)
        for name in self.outputs:
            kind = helper.np_dtype_to_tensor_dtype(values[name].dtype)
            model.graph.input.append(helper.make_tensor_value_info(f"u:{name}", kind, values[name].shape))
        return model

    def run(
        self, feeds: Mapping[str, Array], u: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """The cotangents of the inputs (zeros where nothing flows), and every tensor."""
        known = evaluate(self.model, {**feeds, **{f"u:{name}": a for name, a in u.items()}})
        found = {}
        for name, array in feeds.items():
            result = self.results[name]
            found[name] = np.zeros(np.shape(array)) if result is None else known[result]
            if np.shape(found[name]) != np.shape(array):
                raise Wrong(f"the VJP of {name} has shape {np.shape(found[name])}, not {np.shape(array)}")
        return found, known


def _alive(emit: Emitter, value: Value | None) -> bool:
    return value is not None and emit.varies(value) and carries(value)


def _cotangents(name: str, part: Folded, outputs: Sequence[str], what: str) -> dict[str, Array]:
    """Random ones; zero where the output is not finite (scores under a mask)."""
    known = evaluate(part.model, part.feeds)
    found = {}
    for o in outputs:
        noise = _normal(np.shape(known[o]), known[o].dtype, name, what, o)
        found[o] = np.where(np.isfinite(known[o]), noise, np.zeros_like(noise))
    return found


def _normal(shape: Sequence[int], dtype: Any, *words: Any) -> Array:
    return np.asarray(np.random.default_rng(seed(*words)).standard_normal(tuple(shape))).astype(dtype)


def _points(name: str, part: Folded) -> Iterator[dict[str, Array]]:
    """The recorded inputs moved a little, off kinks and ties; upwards or downwards only where the domain ends."""
    for attempt in range(ATTEMPTS):
        moved = {}
        for key, recorded in part.feeds.items():
            x = np.where(np.isfinite(recorded), recorded, 1.5)
            noise = _normal(x.shape, x.dtype, name, "noise", key, attempt)
            noise = (noise, np.abs(noise), -np.abs(noise), 0.01 * noise)[attempt % 4]
            moved[key] = (x + noise * 0.02 * (float(np.abs(x).mean()) + 0.05)).astype(x.dtype)
        yield moved


def _check_tangent(name: str, part: Folded, back: _Backward) -> None:
    accuracy = ACCURACY[str(part.dtype)]
    u = _cotangents(name, part, back.outputs, "u")
    for feeds in _points(name, part):
        v = [{k: _normal(x.shape, x.dtype, name, i, k) for k, x in feeds.items()} for i in range(DIRECTIONS)]
        slopes = [_slope(part, feeds, way, u, accuracy) for way in v]
        if any(slope is None for slope in slopes):
            continue
        flows, _ = back.run(feeds, u)
        for way, slope in zip(v, slopes, strict=True):
            assert slope is not None
            along, error = slope
            got = sum(_inner(flows[key], way[key]) for key in feeds)
            if not abs(got - along) <= error:
                raise Wrong(
                    f"tangent: {got:.9g} along a direction, central differences say {along:.9g} ± {error:.0e}"
                )
        _check_linear(name, part, back, feeds)
        return
    raise Wrong("no point near the recorded inputs where it is smooth")


def _slope(
    part: Folded, x: Mapping[str, Array], v: Mapping[str, Array], u: Mapping[str, Array], accuracy: Accuracy
) -> tuple[float, float] | None:
    """The derivative of <u, y> along v, and how far off it may be; None where two steps disagree: a kink is near."""
    found = []
    for step in (accuracy.step, accuracy.step / 4):
        ahead, behind = (
            evaluate(part.model, {k: (a + s * step * v[k]).astype(a.dtype) for k, a in x.items()})
            for s in (1, -1)
        )
        if not (_same_shapes(ahead, u) and _same_shapes(behind, u)):
            return None
        with np.errstate(invalid="ignore"):
            rises = [(np.asarray(ahead[o], float) - behind[o]) / (2 * step) for o in u]
        each = [_product(rise, w) for rise, w in zip(rises, u.values(), strict=True)]
        size = sum(float(np.abs(_product(ahead[o], w)).sum()) for o, w in u.items())
        scale = sum(float(np.abs(e).sum()) for e in each)
        total = sum(float(e.sum()) for e in each)
        found.append((total, accuracy.slopes * scale + accuracy.cancellation * size))
    (wide, error), (narrow, _) = found
    if not np.isfinite([wide, narrow, error]).all() or abs(wide - narrow) > 4 * error:
        return None
    return wide, 4 * error


def _same_shapes(known: Mapping[str, Any], u: Mapping[str, Array]) -> bool:
    """Whether the outputs are as large as at the recorded inputs; a size among the inputs moves too."""
    return all(np.shape(known[o]) == np.shape(w) for o, w in u.items())


def _check_pattern(name: str, part: Folded, back: _Backward) -> None:
    """<y, u> = Σ <x, VJP u> + <b, u>, where the VJP is finite; and linearity."""
    accuracy = ACCURACY[str(part.dtype)]
    u = _cotangents(name, part, back.outputs, "u")
    for feeds in _points(name, part):
        if not _same_shapes(evaluate(part.model, feeds), u):
            continue
        flows, known = back.run(feeds, u)
        pairs = [(known[o], u[o]) for o in back.outputs]
        pairs_in = [(feeds[key], flows[key]) for key in feeds]
        whole = [_inner(y, w) for y, w in pairs]
        parts = [_inner(x, g) for x, g in pairs_in]
        parts += [
            _inner(np.broadcast_to(known[b], np.shape(_of(known, u, g))), _of(known, u, g))
            for b, g in back.biases
        ]
        if not np.isfinite(whole).all():
            continue
        scale = sum(float(np.abs(_product(a, b)).sum()) for a, b in [*pairs, *pairs_in])
        if not abs(sum(whole) - sum(parts)) <= accuracy.sums * scale + 1e-12:
            raise Wrong(f"pattern: <y, u> = {sum(whole):.9g}, but inputs and bias have {sum(parts):.9g}")
        _check_linear(name, part, back, feeds)
        return
    raise Wrong("no point near the recorded inputs where it is finite")


def _of(known: Mapping[str, Any], u: Mapping[str, Array], flow: str) -> Array:
    return u[flow.removeprefix("u:")] if flow.startswith("u:") else known[flow]


def _check_linear(name: str, part: Folded, back: _Backward, feeds: Mapping[str, Array]) -> None:
    u, w = (_cotangents(name, part, back.outputs, what) for what in "uw")
    both = {o: (2 * u[o] - 3 * w[o]).astype(u[o].dtype) for o in u}
    one, other, mixed = (back.run(feeds, c)[0] for c in (u, w, both))
    for key in feeds:
        scale = max(float(np.max(np.abs(a), initial=0.0)) for a in (one[key], other[key]))
        error = np.max(np.abs(mixed[key] - (2 * one[key] - 3 * other[key])), initial=0.0)
        if not error <= ACCURACY[str(part.dtype)].sums * (10 * scale + 0.001):
            raise Wrong(f"not linear in the cotangent: {key} is off by {error:.1e}")


def _product(a: Any, b: Any) -> Array:
    """``a * b`` in double precision; where no relevance is, none comes of an infinite number either (a mask)."""
    a, b = np.asarray(a, float), np.asarray(b, float)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(b == 0, 0.0, a * b))


def _inner(a: Any, b: Any) -> float:
    return float(np.sum(_product(a, b)))
