"""Smooth activations. Each has two linearisations: the derivative (`tangent`), and the secant through 0 (`pattern`).

A gated one, `v h(v)`, is frozen with its gate: the secant is `h(v)`.
"""

import math

from graph_rules.frozen import elementwise, ratio, rectifier, scaled, secant, unless_masked
from graph_rules.registry import activation, bounded, gate
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node


@elementwise("Sigmoid", versions=(13,), roles=gate, bias=unless_masked(0.5), head="link")
def sigmoid(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g y (1 - y)``; frozen: ``g (y - 1/2) / v``."""
    y = node.output()
    if emit.tangent:
        slope = emit("Mul", y.name, emit("Sub", emit.like(y, 1.0), y.name))
    else:
        slope = secant(emit, node, 0.5, (1 / 4, 0, -1 / 48, 0, 1 / 480, 0, -17 / 80640))
    return scaled(emit, node, cotangents, slope)


@elementwise("Tanh", versions=(13,), roles=bounded)
def tanh(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (1 - y²)``; frozen: ``g y / v``."""
    y = node.output()
    if emit.tangent:
        slope = emit("Sub", emit.like(y, 1.0), emit("Mul", y.name, y.name))
    else:
        slope = secant(emit, node, 0.0, (1, 0, -1 / 3, 0, 2 / 15, 0, -17 / 315))
    return scaled(emit, node, cotangents, slope)


@elementwise("Softsign", versions=(1, 22), roles=bounded)
def softsign(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g / (1 + |v|)²``; frozen: ``g / (1 + |v|)``."""
    v = node.input(0)
    below = emit("Add", emit("Abs", v.name), emit.like(v, 1.0))
    slope = emit("Reciprocal", below)
    return scaled(emit, node, cotangents, emit("Mul", slope, slope) if emit.tangent else slope)


def _exponential_slope(emit: Emitter, node: Node, scale: float, stretch: float, above: float) -> str:
    """Of ``scale (exp(v / stretch) - 1)`` where v < 0, of ``above v`` elsewhere."""
    v, y = node.input(0), node.output()
    if emit.tangent:
        slope = emit("Div", emit("Add", y.name, emit.like(v, scale)), emit.like(v, stretch))
    else:
        series = [scale / stretch**k / math.factorial(k) for k in range(1, 8)]
        slope = secant(emit, node, 0.0, series, radius=0.05 * abs(stretch))
    return emit("Where", emit("Less", v.name, emit.like(v, 0.0)), slope, emit.like(v, above))


@rectifier("Elu", versions=(6, 22), roles=activation)
def elu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0; elsewhere ``g (y + alpha)``, frozen: ``g y / v``."""
    slope = _exponential_slope(emit, node, node.attrs["alpha"], 1.0, 1.0)
    return scaled(emit, node, cotangents, slope)


@rectifier("Selu", versions=(6, 22), roles=activation)
def selu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g gamma`` where v >= 0; elsewhere ``g (y + gamma alpha)``, frozen: ``g y / v``."""
    gamma, alpha = node.attrs["gamma"], node.attrs["alpha"]
    return scaled(emit, node, cotangents, _exponential_slope(emit, node, gamma * alpha, 1.0, gamma))


@rectifier("Celu", versions=(12, 28), roles=activation)
def celu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g`` where v >= 0; elsewhere ``g (y + alpha) / alpha``, frozen: ``g y / v``."""
    alpha = node.attrs["alpha"]
    node.require(alpha > 0, f"alpha {alpha:g} is not positive")
    return scaled(emit, node, cotangents, _exponential_slope(emit, node, alpha, alpha, 1.0))


@elementwise("Softplus", versions=(1, 22), roles=activation, bias=unless_masked(math.log(2)))
def softplus(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g sigmoid(v)``; frozen: ``g (y - ln 2) / v``."""
    if emit.tangent:
        slope = emit("Sigmoid", node.input(0).name)
    else:
        slope = secant(emit, node, math.log(2), (1 / 2, 1 / 8, 0, -1 / 192, 0, 1 / 2880, 0, -17 / 645120))
    return scaled(emit, node, cotangents, slope)


# Gated ones: v h(v)


def _gate_of(emit: Emitter, node: Node, at_zero: float) -> str:
    """``h(v) = y / v``."""
    return ratio(emit, node.input(0), node.output().name, at_zero)


def _gelu_derivative(emit: Emitter, node: Node) -> str:
    """``Phi + v phi``; of the form with tanh ``(1 + t) / 2 + v (1 - t²) c (1 + 3 a v²) / 2``."""
    v = node.input(0)

    def at(number: float) -> str:
        return emit.like(v, number)

    square = emit("Mul", v.name, v.name)
    if node.attrs["approximate"] == "none":
        bell = emit("Mul", emit("Exp", emit("Mul", square, at(-0.5))), at(1 / math.sqrt(2 * math.pi)))
        odd = emit("Erf", emit("Mul", v.name, at(math.sqrt(0.5))))
    else:
        c, a = math.sqrt(2 / math.pi), 0.044715
        inner = emit("Mul", v.name, emit("Add", emit("Mul", square, at(a * c)), at(c)))
        odd = emit("Tanh", inner)
        rise = emit("Add", emit("Mul", square, at(1.5 * a * c)), at(c / 2))
        bell = emit("Mul", emit("Sub", at(1.0), emit("Mul", odd, odd)), rise)
    half = emit("Add", emit("Mul", odd, at(0.5)), at(0.5))
    return emit("Add", half, emit("Mul", v.name, bell))


@rectifier("Gelu", versions=(20,), roles=activation)
def gelu(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (Phi(v) + v phi(v))``; frozen: ``g Phi(v)``. Both forms, each with its own Phi."""
    slope = _gelu_derivative(emit, node) if emit.tangent else _gate_of(emit, node, 0.5)
    return scaled(emit, node, cotangents, slope)


@rectifier("Mish", versions=(18, 22), roles=activation)
def mish(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (t + v (1 - t²) sigmoid(v))`` with ``t = tanh(softplus(v))``; frozen: ``g t``."""
    v = node.input(0)
    if emit.tangent:
        t = emit("Tanh", emit("Softplus", v.name))
        rise = emit("Sub", emit.like(v, 1.0), emit("Mul", t, t))
        slope = emit("Add", t, emit("Mul", emit("Mul", v.name, rise), emit("Sigmoid", v.name)))
    else:
        slope = _gate_of(emit, node, 0.6)
    return scaled(emit, node, cotangents, slope)


@rectifier("Swish", versions=(24,), roles=activation)
def swish(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``g (s + alpha y (1 - s))`` with ``s = sigmoid(alpha v)``; frozen: ``g s``."""
    v, y, alpha = node.input(0), node.output(), node.attrs["alpha"]
    if emit.tangent:
        s = emit("Sigmoid", emit("Mul", v.name, emit.like(v, alpha)))
        rise = emit("Mul", emit("Sub", emit.like(v, 1.0), s), emit.like(v, alpha))
        slope = emit("Add", s, emit("Mul", y.name, rise))
    else:
        slope = _gate_of(emit, node, 0.5)
    return scaled(emit, node, cotangents, slope)
