"""Sharing ratios as data, for one node at a time, against the definition."""

from dataclasses import replace

import numpy as np

from srd_onnx.engine.options import Bias, Options
from srd_onnx.engine.plan import Plan, Step
from srd_onnx.engine.rule import RuleTable
from srd_onnx.sharing.carrying import backward
from srd_onnx.sharing.ratios import LayerRatios, decoded, ratio_model
from tests import checks
from tests.cases import Case
from tests.definition import Layouts, share_positions
from tests.harness import NEWEST_ON_RUNTIME, Bench, bench, reference
from tests.oracle_types import Array
from tests.oracles import ORACLES

DOUBLE, SINGLE, HALF = (
    1e-6,
    3e-5,
    1e-2,
)  # relative to the largest share; the parts of `spread` are in single precision
# ONNX Runtime, which probes the structure, has no convolution in double precision.
NOT_DOUBLE = (
    "Conv",
    "ConvTranspose",
    "AveragePool",
    "LpPool",
    "MaxPool",
    "DeformConv",
    "MaxUnpool",
    "OneHot",
)


def plan_of(b: Bench, bias: Bias) -> Plan:
    """A plan that crosses the node of the bench as scalars per position."""
    node, rule = b.node, b.rule
    step = Step(node, rule, ("position",), rule.carriers(node, b.roles), rule.routes(node, b.roles), None)
    graph = replace(b.graph, opset=min(b.graph.opset, NEWEST_ON_RUNTIME))
    sources = tuple(dict.fromkeys(node.input(i) for i in step.carriers))
    vars(graph)["masked"] = b.emitter().masked  # in a model the mask comes from a constant, which tells
    alive = [value for i, value in enumerate(b.outputs) if i not in b.case.dead]
    names = frozenset(value.name for value in (*alive, *sources))
    target = alive[0]
    return Plan(graph, dict(b.roles), sources, target, (target.name,), names, (step,), (), Options(bias=bias))


def ratios_of(b: Bench, bias: Bias) -> tuple[LayerRatios, ...]:
    made = ratio_model(plan_of(b, bias), b.forward)
    names = [output.name for output in made.model.graph.output]
    found = dict(zip(names, reference(made.model, b.feeds, names), strict=True))
    return decoded(made, b.feeds | found)


def check_ratios(case: Case, rules: RuleTable, bias: Bias = "distribute", *, zero: bool = False) -> None:
    """Relevance carried by the ratios of the node is what the definition says, and so is what is booked."""
    precision = "float32" if case.op in NOT_DOUBLE and case.dtype == "float64" else None
    b = bench(case, rules, precision=precision, zero=zero)
    tolerance = SINGLE if b.dtype == np.float32 else DOUBLE if b.dtype == np.float64 else HALF
    shares = b.shares()
    layouts = Layouts([case.layout(i) for i in range(len(case.inputs))], case.out)
    routed = b.rule.routes(b.node, b.roles)
    operands = checks.real_operands(b)
    expected = share_positions(ORACLES[case.op], case.attrs, operands, layouts, shares, bias, routed=routed)
    layers = ratios_of(b, bias)
    start = {
        value.name: np.asarray(share, np.float64).reshape(-1, 1)
        for value, share in zip(b.outputs, shares, strict=True)
        if share is not None
    }
    carried = backward(layers, start, bias)
    scale = checks.biggest(shares)
    wanted: dict[str, Array] = {}
    for value, flow in zip(b.node.inputs, expected.flows, strict=True):
        if value is not None and flow is not None:
            wanted[value.name] = wanted.get(value.name, 0) + flow.reshape(-1)
    for name, flow in wanted.items():
        got = carried.shares.get(name, np.zeros((flow.size, 1)))[:, 0]
        np.testing.assert_allclose(got, flow, rtol=0, atol=tolerance * max(scale, 1))
    booked = sum(amount.sum() for _, amount in carried.ledger)
    np.testing.assert_allclose(booked, expected.booked.sum(), rtol=0, atol=tolerance * max(scale, 1))
    for layer in layers:
        if layer.mixes:
            np.testing.assert_allclose(layer.total, 1, rtol=0, atol=tolerance)
