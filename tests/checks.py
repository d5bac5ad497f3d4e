"""The checks that every rule must pass; each takes the rule table, so that a wrong rule can be fed to it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from srd_onnx.engine.emit import FORWARD_NODE, RULE
from srd_onnx.engine.options import Bias
from srd_onnx.engine.rule import RuleTable
from tests.cases import Case, Same
from tests.definition import Layouts, share_positions
from tests.harness import Bench, Emitted, bench, emitted_bias, emitted_position, emitted_vjp, reference
from tests.oracle_types import Array, Replay, weighed
from tests.oracles import ORACLES

TOLERANCE: Mapping[str, float] = {"float64": 1e-10, "float32": 2e-6}  # relative to the largest number at hand
STEP = 1e-6  # of the central differences
DIFFERENCES = 1e-7  # their error, relative to the slopes: curvature
CANCELLATION = 1e-9  # and relative to the values themselves: a few rounding errors / STEP
SINGLE = 1e-5  # single against double precision, relative to the largest number


def check_against_definition(
    case: Case, rules: RuleTable, bias: Bias = "distribute", *, zero: bool = False, plain: bool = True
) -> None:
    """Position form: what the engine emits for this node is what the definition says, and so is what it books."""
    b = bench(case, rules, zero=zero)
    shares = b.shares()
    operands = real_operands(b)
    layouts = Layouts([case.layout(i) for i in range(len(case.inputs))], case.out)
    routed = b.rule.routes(b.node, b.roles)
    expected = share_positions(ORACLES[case.op], case.attrs, operands, layouts, shares, bias, routed=routed)
    assert expected.most_feeds <= 1 or not routed, "it claims to route, but several positions feed one"
    emitted = emitted_position(b, shares, bias, plain=plain)
    results = emitted(b.feeds | given(shares))
    got, booked = results[: len(case.inputs)], results[len(case.inputs) :]
    wanted = merged(case, expected.flows)
    assert [g is None for g in got] == [w is None for w in wanted], "relevance reaches other operands"
    for g, w in zip(got, wanted, strict=True):
        if w is not None:
            close(g, w, b)
    close(sum_of(booked, len(expected.booked)), expected.booked, b, scale=biggest(shares))
    if bias == "distribute" and not b.rule.lossy(b.node):
        assert not booked, "something is booked though every position has a place to go"


def check_conservation(case: Case, rules: RuleTable) -> None:
    """<y, u> = Σ <x, VJP u> + <b, u> for the map with its pattern held fixed."""
    b = bench(case, rules)
    u = b.cotangents()
    flows = emitted_vjp(b, u)(b.feeds | given(u))
    rest = emitted_bias(b)(b.feeds)
    y = real_outputs(b)
    whole = [inner(v, w) for v, w in zip(y, u, strict=True) if w is not None]
    operands = real_operands(b)
    parts = [
        inner(x, g)
        for i, (x, g) in enumerate(zip(operands, flows, strict=True))
        if i in carriers(b) and g is not None
    ]
    for bias, value, cotangent in zip(rest, y, u, strict=True):
        if bias is not None and cotangent is not None:
            parts.append(inner(np.broadcast_to(bias, value.shape), cotangent))
    scale = sum(np.abs(v * w).sum() for v, w in zip(y, u, strict=True) if w is not None)
    close(np.asarray(sum(parts)), np.asarray(sum(whole)), b, scale=float(scale))


def check_adjoint(case: Case, rules: RuleTable) -> None:
    """<u, J v> = <J^T u, v>, where J v is the linear part of the replay; and the replay at the point is the output."""
    b = bench(case, rules)
    u = b.cotangents()
    replay, operands = replay_of(b), real_operands(b)
    for got, want in zip(replay(operands), real_outputs(b), strict=True):
        close(got, want, b)
    flows = emitted_vjp(b, u)(b.feeds | given(u))
    v = [b.noise(f"v{i}", np.shape(o)) if case.layout(i) else o for i, o in enumerate(operands)]
    zeros = [np.zeros(np.shape(o)) if case.layout(i) else o for i, o in enumerate(operands)]
    moved = [one - none for one, none in zip(replay(v), replay(zeros), strict=True)]
    left = [inner(jv, w) for jv, w in zip(moved, u, strict=True) if w is not None]
    right = []
    for i, (direction, flow) in enumerate(zip(v, flows, strict=True)):
        if case.layout(i):
            assert flow is not None, f"operand {i} varies but receives nothing"
            assert flow.shape == np.shape(direction)
            right.append(inner(direction, flow))
    scale = sum(np.abs(jv * w).sum() for jv, w in zip(moved, u, strict=True) if w is not None)
    close(np.asarray(sum(right)), np.asarray(sum(left)), b, scale=float(scale))


def check_differences(case: Case, rules: RuleTable) -> None:
    """The tangent VJP against central differences of the forward node along random directions."""
    b = bench(case, rules)
    u = b.cotangents()
    flows = emitted_vjp(b, u, tangent=True)(b.feeds | given(u))
    step, tolerance = (STEP, DIFFERENCES) if is_double(b) else (2.0**-7, 2e-4)
    for round_ in range(3):
        directions = {name: b.noise(f"v{round_}{name}", x.shape, x.dtype) for name, x in b.feeds.items()}
        ahead, behind = (
            real_outputs(b, {k: (x + s * step * directions[k]).astype(x.dtype) for k, x in b.feeds.items()})
            for s in (1, -1)
        )
        slopes = [(p.astype(float) - m) / (2 * step) for p, m in zip(ahead, behind, strict=True)]
        left = sum(inner(d, w) for d, w in zip(slopes, u, strict=True) if w is not None)
        right = sum(
            inner(directions[value.name], flow)
            for value, flow in zip(b.node.inputs, flows, strict=True)
            if value is not None and flow is not None
        )
        scale = sum(np.abs(d * w).sum() for d, w in zip(slopes, u, strict=True) if w is not None)
        size = sum(np.abs(p * w).sum() for p, w in zip(ahead, u, strict=True) if w is not None)
        atol = tolerance * float(scale) + (CANCELLATION * float(size) if is_double(b) else 0.0)
        np.testing.assert_allclose(right, left, rtol=0, atol=atol)


def check_linearity(case: Case, rules: RuleTable, *, tangent: bool = False) -> None:
    """VJP(2u - 3w) = 2 VJP(u) - 3 VJP(w)."""
    b = bench(case, rules)
    u, w = b.cotangents("u"), b.cotangents("w")
    both = [
        None if s is None or t is None else (2 * s - 3 * t).astype(s.dtype) for s, t in zip(u, w, strict=True)
    ]
    emitted = emitted_vjp(b, u, tangent=tangent)
    one, other, mixed = (emitted(b.feeds | given(c)) for c in (u, w, both))
    for s, t, m in zip(one, other, mixed, strict=True):
        if s is not None and t is not None:
            close(m, 2 * s - 3 * t, b)


def check_runtime(
    case: Case, rules: RuleTable, right: RuleTable | None = None, *, tangent: bool = False
) -> None:
    """ONNX Runtime in single precision against double precision: VJP, bias and position form, and the output itself."""
    exact, single = bench(case, right or rules), bench(case, rules, precision="float32")
    u, r = exact.cotangents(), exact.shares()
    makers: list[tuple[Any, Sequence[Array | None]]] = [
        (lambda b: emitted_vjp(b, b.cotangents(), tangent=tangent), u)
    ]
    if not tangent and case.no_pattern is None:
        makers += [(emitted_bias, []), (lambda b: emitted_position(b, b.shares(), "distribute"), r)]
    for make, inputs in makers:
        twins = [make(exact)(exact.feeds | given(inputs)), on_runtime(make(single), single, inputs)]
        for want, got in zip(*twins, strict=True):
            if want is None or got is None:
                assert want is None
                assert got is None
            else:
                close_single(got, want, biggest(inputs))
    outputs = Emitted(single.forward, tuple(v.name for v in single.outputs), single.emitter())
    for want, got in zip(raw_outputs(exact), outputs.on_runtime(single.feeds), strict=True):
        assert got is not None
        close_single(got, want, 0.0)


def check_emitted_graph(case: Case, rules: RuleTable, *, tangent: bool = False) -> None:
    """The checker accepts it, inferred types and shapes are those of the operands, and every node says its origin."""
    b = bench(case, rules)
    emitted = [emitted_vjp(b, b.cotangents(), tangent=tangent)]
    if not tangent:
        emitted += [
            emitted_bias(b),
            *(emitted_position(b, b.shares(), kind) for kind in ("distribute", "ledger")),
        ]
    for each in emitted:
        onnx.checker.check_model(each.model, full_check=True)
        for node in each.emit.nodes:
            assert node.domain == ""
            origin = {entry.key: entry.value for entry in node.metadata_props}
            assert origin.get(FORWARD_NODE) == "node"
            assert origin.get(RULE) in (b.rule.name, "test")


# Helpers


def replay_of(b: Bench) -> Replay:
    held = frozenset(i for i in range(len(b.case.inputs)) if b.case.layout(i) is None)
    return ORACLES[b.case.op].freeze(b.case.attrs, real_operands(b), held)


def carriers(b: Bench) -> frozenset[int]:
    return frozenset(i for i in range(len(b.case.inputs)) if b.case.layout(i) is not None)


def is_double(b: Bench) -> bool:
    return b.dtype == np.float64 and all(v.dtype == np.float64 for v in [*b.graph.inputs, *b.outputs])


def raw_outputs(b: Bench, feeds: Mapping[str, Array] | None = None) -> list[Array]:
    return reference(b.forward, feeds or b.feeds, [v.name for v in b.outputs])


def real_outputs(b: Bench, feeds: Mapping[str, Array] | None = None) -> list[Array]:
    """The outputs; integers as the reals they stand for."""
    if b.case.op == "DynamicQuantizeLinear":
        words, scale, zero = reference(b.forward, feeds or b.feeds, [v.name for v in b.node.outputs if v])
        return [(words.astype(float) - zero) * scale]
    return [dequantised(b, y) if y.dtype == np.int8 else y for y in raw_outputs(b, feeds)]


def real_operands(b: Bench) -> list[Any]:
    """The operands; of an operator that reads integers, the reals that its first one stands for."""
    first = b.operands[0]
    if first is not None and first.dtype == np.int8:
        return [dequantised(b, first), *b.operands[1:]]
    return list(b.operands)


def dequantised(b: Bench, words: Array) -> Array:
    scale, zero = b.operands[1:3]
    assert scale is not None
    assert zero is not None
    shape = [1, -1, *[1] * (words.ndim - 2)] if scale.ndim else []
    return np.asarray((words.astype(float) - zero.reshape(shape)) * scale.reshape(shape))


def given(arrays: Sequence[Array | None]) -> dict[str, Array]:
    return {f"u{i}": a for i, a in enumerate(arrays) if a is not None}


def merged(case: Case, flows: Sequence[Array | None]) -> list[Array | None]:
    """Flows to operands that are the same tensor, summed at the first of them."""
    sums = list(flows)
    for i, spec in enumerate(case.inputs):
        if isinstance(spec, Same):
            first, again = sums[spec.of], sums[i]
            assert first is not None
            sums[spec.of], sums[i] = first if again is None else first + again, None
    return sums


def sum_of(booked: Sequence[Array | None], batch: int) -> Array:
    return np.asarray(np.sum([np.zeros(batch), *(a for a in booked if a is not None)], axis=0))


def inner(a: Any, b: Any) -> float:
    return float(np.sum(weighed(np.asarray(a, float), np.asarray(b, float))))


def biggest(arrays: Sequence[Array | None]) -> float:
    return max((float(np.max(np.abs(a), initial=0)) for a in arrays if a is not None), default=0.0)


def close(got: Any, want: Array, b: Bench, scale: float = 0.0) -> None:
    precision = "float64" if is_double(b) else "float32"
    scale = max(scale, biggest([np.asarray(want)]))
    assert np.shape(got) == np.shape(want)
    np.testing.assert_allclose(got, want, rtol=0, atol=TOLERANCE[precision] * scale)


def close_single(got: Array, want: Array, scale: float) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=SINGLE * max(scale, biggest([want])))


def on_runtime(emitted: Emitted, b: Bench, inputs: Sequence[Array | None]) -> list[Array | None]:
    dtypes = {
        i.name: onnx.helper.tensor_dtype_to_np_dtype(i.type.tensor_type.elem_type)
        for i in emitted.model.graph.input
    }
    feeds = b.feeds | given(inputs)
    return emitted.on_runtime({k: a.astype(dtypes[k]) for k, a in feeds.items() if k in dtypes})
