"""Attention written out in primitive operators, from target to input; and where its relevance goes, in loops."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from graph_rules import RULES
from graph_rules.registry import varying
from srd_onnx.engine.backward import build
from srd_onnx.engine.options import Bias, Options
from srd_onnx.engine.plan import make_plan
from srd_onnx.engine.rule import Rule, RuleTable
from srd_onnx.engine.seed import TARGET
from srd_onnx.graph.ir import OpKey
from srd_onnx.graph.roles import Axes, Gate, Role
from srd_onnx.graph.walk import walk
from tests import checks
from tests.attention_nets import BLOCKS
from tests.case_types import Case, Const, Rand, Var
from tests.harness import LETTERS, bench, emitted_position, emitted_vjp, info, reference
from tests.small_nets import Net

Array = NDArray[Any]

every_block = pytest.mark.parametrize("name", BLOCKS)
every_bias = pytest.mark.parametrize("bias", ["distribute", "ledger"])

# Every operand that varies carries: together with `tangent` the true derivative of the whole network.
DERIVATIVE: Mapping[OpKey, Rule] = {key: replace(rule, carriers=varying) for key, rule in RULES.items()}


@dataclass(frozen=True)
class Explained:
    """A network with its backward pass."""

    model: ModelProto
    wanted: tuple[str, ...]

    def __call__(self, x: Array, target: int = 1) -> tuple[Array, Array, Array]:
        """Relevance, seed and the sum of the ledger."""
        feeds = {"x": x, TARGET: np.full(len(x), target)}
        relevance, seed, *booked = reference(self.model, feeds, self.wanted)
        return relevance, seed, np.sum([np.zeros(len(x)), *booked], axis=0)


@functools.cache
def net_of(name: str) -> Net:
    return BLOCKS[name]()


def explained(net: Net, options: Options, rules: RuleTable = RULES, *, tangent: bool = False) -> Explained:
    model = net.model()
    axes = Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in net.layout))
    backward = build(make_plan(walk(model), {"x": axes}, rules, options), tangent=tangent)
    model.graph.node.extend(backward.emit.nodes)
    model.graph.initializer.extend(backward.emit.initializers)
    model.graph.input.append(info(TARGET, np.int64, net.shape[:1]))
    wanted = [backward.relevance["x"], backward.seed, *(tensor for _, tensor in backward.ledger)]
    names = [f"out{i}" for i in range(len(wanted))]
    for tensor, name in zip(wanted, names, strict=True):
        model.graph.node.append(helper.make_node("Identity", [tensor], [name], name=name))
    return Explained(model, tuple(names))


def boundary_of(net: Net, where: str) -> str:
    return {"input": "x", "attention": net.boundary, "encoder": "encoder"}[where]


@every_bias
@pytest.mark.parametrize("where", ["encoder", "attention", "input"])
@every_block
def test_a_block_conserves(name: str, where: str, bias: Bias) -> None:
    net = net_of(name)
    run = explained(net, Options(boundary=boundary_of(net, where), bias=bias))
    relevance, seed, booked = run(net.photo())
    letters = zip(net.shape, net.layout, strict=True)
    assert relevance.shape == tuple(size for size, letter in letters if letter != "C")
    assert np.isfinite(relevance).all()
    assert np.abs(relevance).max() > 0
    total = relevance.reshape(len(seed), -1).sum(axis=1)
    size = np.abs(relevance).sum() + np.abs(booked).sum() + np.abs(seed).sum()
    np.testing.assert_allclose(total + booked, seed, rtol=0, atol=1e-10 * size)


@every_block
def test_the_tangent_of_a_block_is_its_derivative(name: str) -> None:
    """Carried to the input in cotangent form, relevance is what scaling each position changes."""
    net, step = net_of(name), 1e-5
    x = net.photo()
    run = explained(net, Options(boundary="x"), DERIVATIVE, tangent=True)
    relevance, _, _ = run(x)
    expected = np.zeros_like(relevance)
    positions = tuple(s for s, letter in zip(net.shape, net.layout, strict=True) if letter not in "NC")
    scores = net.model()
    for at in np.ndindex(positions):
        moved = []
        for sign in (1, -1):
            nudged = x.copy()
            nudged[(slice(None), *at)] *= 1 + sign * step
            moved.append(reference(scores, {"x": nudged}, ["logits"])[0][:, 1])
        expected[(slice(None), *at)] = (moved[0] - moved[1]) / (2 * step)
    np.testing.assert_allclose(relevance, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@every_block
def test_relevance_passes_the_attention_by_its_values_alone(name: str) -> None:
    net = net_of(name)
    model = net.model()
    axes = Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in net.layout))
    plan = make_plan(walk(model), {"x": axes}, RULES, Options())
    crossed = {step.node.output().name: step for step in plan.steps}
    assert crossed[net.boundary].carriers == (1,)
    assert "Softmax" not in {step.node.key.op_type for step in plan.steps}


# What the attention node does to relevance, word for word


WEIGHTS, VALUES = Var("NCQK", (2, 3, 4, 5), gate=Gate.SATURATING), Var("NCKC", (2, 3, 5, 2))


@every_bias
def test_attention_is_the_definition(bias: Bias) -> None:
    """R_j = Σ_i R_i <v̂(i<-j), y_i> / |y_i|²; v̂ has for each head the weight times the value; no bias is there."""
    case = Case("attention-definition", "MatMul", 13, (WEIGHTS, VALUES), ("NCQC",), held=frozenset({0}))
    b = bench(case, RULES)
    (weights, values), (shares,) = b.operands, b.shares()
    assert weights is not None
    assert values is not None
    assert shares is not None
    y = np.einsum("nhij,nhjd->nhid", weights, values)
    expected = np.zeros((2, 1, 5, 1))
    for n in range(2):
        for i in range(4):
            length = sum(y[n, h, i, d] ** 2 for h in range(3) for d in range(2))
            for j in range(5):
                for h in range(3):
                    for d in range(2):
                        part = weights[n, h, i, j] * values[n, h, j, d]
                        expected[n, 0, j, 0] += shares[n, 0, i, 0] * part * y[n, h, i, d] / length
    emitted = emitted_position(b, [shares], bias)
    _, got, *booked = emitted(b.feeds | {"u0": shares})
    assert got is not None
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    assert sum((np.abs(x).max() for x in booked if x is not None), 0.0) < 1e-12


def test_attention_that_is_silent_gives_each_key_an_equal_part() -> None:
    case = Case("attention-silent", "MatMul", 13, (WEIGHTS, VALUES), ("NCQC",), held=frozenset({0}))
    b = bench(case, RULES, zero=True)
    (shares,) = b.shares()
    assert shares is not None
    _, got = emitted_position(b, [shares], "distribute")(b.feeds | {"u0": shares})
    assert got is not None
    each = shares.sum(axis=2, keepdims=True) / 5
    np.testing.assert_allclose(got, np.broadcast_to(each, (2, 1, 5, 1)), rtol=0, atol=1e-12)


# What ONNX Runtime cannot run, and what is refused

THREE = (Var("NQC", (2, 3, 4)), Var("NKC", (2, 5, 4)), Var("NKC", (2, 5, 6)))
HEADS = {"q_num_heads": 2, "kv_num_heads": 2}


def test_windows_of_attention() -> None:
    """ONNX Runtime 1.31 knows opset 25 but not its two new attributes."""
    attrs = HEADS | {"left_window_size": 1, "right_window_size": 2}
    case = Case("attention-window", "Attention", 25, THREE, ("NQC",), attrs, held=frozenset({0, 1}))
    checks.check_against_definition(case, RULES)
    checks.check_against_definition(case, RULES, zero=True)
    checks.check_adjoint(case, RULES)
    checks.check_conservation(case, RULES)
    checks.check_differences(case, RULES)


def test_a_query_that_sees_no_key_is_silent() -> None:
    mask = np.ones((3, 5), bool)
    mask[1] = False
    inputs = (*THREE, Const(mask, "bool"))
    case = Case("attention-blind", "Attention", 24, inputs, ("NQC",), HEADS, held=frozenset({0, 1}))
    checks.check_against_definition(case, RULES)
    checks.check_adjoint(case, RULES)
    checks.check_differences(case, RULES)


def test_a_short_mask_hides_the_last_keys() -> None:
    inputs = (*THREE, Rand((3, 4)))
    case = Case("attention-short", "Attention", 24, inputs, ("NQC",), HEADS, held=frozenset({0, 1}))
    b = bench(case, RULES)
    (u,) = b.cotangents()
    assert u is not None
    flows = emitted_vjp(b, [u])(b.feeds | {"u0": u})
    assert flows[2] is not None
    assert np.abs(flows[2][:, :4]).max() > 0
    assert np.abs(flows[2][:, 4]).max() == 0
    checks.check_conservation(case, RULES)
    checks.check_differences(case, RULES)


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("shift", [-1e5, -50.0, 0.0, 50.0, 1e5])
def test_softmax_as_a_feature_conserves_far_from_zero(size: float, shift: float) -> None:
    """f(0) + slope v = y to the rounding of y and v, however large v is."""
    x = np.array([[-1.0, 0.0, 0.5, 1.0], [2.0, 2.0, 2.0, 2.0]]) * size + shift
    case = Case(f"softmax-{size}-{shift}", "Softmax", 13, (Var("NC", (2, 4)),), ("NC",))
    b = bench(case, RULES)
    emitter = b.emitter()
    with emitter.origin("node", "test"):
        bias = b.rule.bias(emitter, b.node)
        slope = b.rule.vjp(emitter, b.node, ["one"])[0]
    assert isinstance(bias, str)
    assert slope is not None
    model = b.forward
    model.graph.node.extend(emitter.nodes)
    model.graph.initializer.extend(emitter.initializers)
    model.graph.input.append(info("one", np.float64, (2, 4)))
    y, offset, line = reference(model, {"x0": x, "one": np.ones((2, 4))}, ["y0", bias, slope])
    assert np.isfinite(line).all()
    assert offset.max() <= 1
    np.testing.assert_allclose(offset + line * x, y, rtol=0, atol=1e-14)
