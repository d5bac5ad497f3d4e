"""Powers: Sqrt, Reciprocal, Pow. What a normalisation divides by is made of them.

The inverse of a tensor is a gate of its own grade: a product with `1 / b` is the quotient by b, in which the numerator
alone carries relevance, so that `x * rsqrt(mean(x²))` and `x / sqrt(mean(x²))` are one thing (ours).
"""

from dataclasses import replace

import numpy as np

from graph_rules.broadcasting import back, broadcast, equally, one_of
from graph_rules.frozen import elementwise, polynomial, ratio, scaled
from graph_rules.registry import cotangent, rule, same, varying
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Array, Node, Value
from srd_onnx.graph.roles import Axes, Gate, Roles


def inverted(axes: Axes) -> Axes:
    """The roles of `1 / b` from those of b; the inverse of an inverse is nothing special."""
    return replace(axes, gate=Gate.NONE if axes.gate is Gate.INVERSE else Gate.INVERSE)


@elementwise("Sqrt", versions=(13,), roles=same)
def sqrt(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / 2y``; frozen: ``g y / v``. 0 where v is, where neither is finite."""
    v, y = node.input(0), node.output()
    slope = ratio(emit, v, y.name, 0.0)
    return scaled(emit, node, cotangents, emit("Mul", slope, emit.like(v, 0.5)) if emit.tangent else slope)


def _inverse(node: Node, roles: Roles) -> tuple[Axes]:
    return (inverted(roles[node.input(0).name]),)


@elementwise("Reciprocal", versions=(13,), roles=_inverse)
def reciprocal(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``-g y²``; frozen: ``g y / v = g y²`` without a bias, since it is not finite at 0 (ours)."""
    y = node.output()
    slope = emit("Mul", y.name, y.name)
    return scaled(emit, node, cotangents, emit("Neg", slope) if emit.tangent else slope)


def _power_roles(node: Node, roles: Roles) -> tuple[Axes]:
    """A power of a gate is a gate, a negative one of anything an inverse; of a computed exponent neither."""
    (axes,) = broadcast(node, roles)
    exponent = node.input(1).constant
    if exponent is not None and (exponent < 0).all():
        return (inverted(axes),)
    kept = exponent is not None and (exponent > 0).all()
    return (axes if kept else replace(axes, gate=Gate.NONE),)


def _power_carriers(node: Node, roles: Roles) -> tuple[int, ...]:
    """The base; the exponent only of a constant base."""
    return varying(node, roles)[:1]


def _exponents(node: Node) -> Array | None:
    """A constant exponent in the dtype of the base, which its own need not be."""
    exponent = node.input(1).constant
    return None if exponent is None else exponent.astype(node.input(0).dtype)


def _power_bias(emit: Emitter, node: Node) -> str | None:
    """``v^0 = 1``; a power of a constant is 1 where the exponent is 0."""
    y = node.output()
    if not emit.varies(node.input(0)):
        return emit.like(y, 1.0)
    exponents = _exponents(node)
    if exponents is None or (exponents != 0).all():
        return None
    return emit.like(y, exponents == 0)


def _base_slope(emit: Emitter, node: Node) -> str:
    """``y / v``, which is ``v^(p-1)``: the limit where v is 0; frozen 0 where p is."""
    v, p, exponents = node.input(0), node.input(1), _exponents(node)
    if exponents is None:
        one = emit("Equal", p.name, emit.like(p, 1.0))
        at_zero = emit("Where", one, emit.like(v, 1.0), emit.like(v, 0.0))
        return ratio(emit, v, node.output().name, at_zero)
    if (exponents == 2).all():
        return v.name
    if (exponents >= 1).all():
        return emit("Pow", v.name, emit.like(v, exponents - 1))
    slope = ratio(emit, v, node.output().name, emit.like(v, exponents == 1))
    zero = exponents == 0
    return emit("Where", emit.const(zero), emit.like(v, 0.0), slope) if zero.any() else slope


def _exponent_slope(emit: Emitter, node: Node, base: Array, exponent: Value) -> str:
    """``y ln b``; frozen: ``(y - 1) / v``, and where ``t = v ln b`` is small ``ln b (1 + t/2 + t²/6 + ...)``."""
    y = node.output()
    rate = emit.like(y, np.log(base))
    if emit.tangent:
        return emit("Mul", y.name, rate)
    t = emit("Mul", exponent.name, rate)
    near = emit("Less", emit("Abs", t), emit.like(y, 0.05))
    small = emit("Where", near, t, emit.like(y, 0.0))
    series = polynomial(emit, y, small, [1, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040, 1 / 40320])
    safe = emit("Where", near, emit.like(y, 1.0), exponent.name)
    far_slope = emit("Div", emit("Sub", y.name, emit.like(y, 1.0)), safe)
    return emit("Where", near, emit("Mul", series, rate), far_slope)


@rule(
    "Pow",
    versions=(15,),
    roles=_power_roles,
    carriers=_power_carriers,
    routes=one_of(_power_carriers),
    spread=equally(_power_carriers),
    bias=_power_bias,
    nonlinear=True,
)
def pow_(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g p v^(p-1)`` to the base, ``g y ln v`` to the exponent p; frozen: ``g y / v`` to the base alone.

    The exponent of a constant base takes ``g (y - 1) / p``. A negative power is not finite at 0 and has no bias (ours).
    """
    g = cotangent(cotangents, node)
    v, p = node.input(0), node.input(1)
    flows: list[str | None] = [None, None]
    if emit.varies(v):
        slope = _base_slope(emit, node)
        if emit.tangent:
            exponents = _exponents(node)
            factor = emit.cast(p.name, v.dtype) if exponents is None else emit.like(v, exponents)
            slope = emit("Mul", slope, factor)
        flows[0] = back(emit, node, emit("Mul", g, slope), v)
    if emit.varies(p) and (emit.tangent or not emit.varies(v)):
        node.require(p.dtype == v.dtype, "base and computed exponent differ in precision")
        if v.constant is not None:
            node.require(bool((v.constant > 0).all()), "a power of a constant that is not positive")
            slope = _exponent_slope(emit, node, v.constant, p)
        else:
            positive = emit("Greater", v.name, emit.like(v, 0.0))
            log = emit("Log", emit("Where", positive, v.name, emit.like(v, 1.0)))
            slope = emit("Mul", node.output().name, log)
        flows[1] = back(emit, node, emit("Mul", g, slope), p)
    return flows
