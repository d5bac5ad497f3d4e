"""Whole emitted passes in double precision against SRD in plain numpy, and their conservation."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper

from graph_rules import RULES
from srd_onnx.engine.backward import Backward, build
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import Bias, Options, Seed, Sign
from srd_onnx.engine.plan import Plan, make_plan
from srd_onnx.engine.rule import Flows, RuleTable
from srd_onnx.engine.seed import TARGET
from srd_onnx.graph.ir import Node
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.graph.walk import walk
from tests import srd_numpy
from tests.harness import LETTERS, info, reference
from tests.small_nets import NETS, Net
from tests.srd_numpy import Explained

Array = NDArray[Any]
Part = Callable[[Emitter, Node, Flows], Flows]

PRECISE = 1e-9
TARGETS = {"top": np.array([-1, -1]), "given": np.array([3, 0]), "mixed": np.array([1, -1])}

every_net = pytest.mark.parametrize("net", NETS)
every_seed = pytest.mark.parametrize("seed", ["logit", "logprob", "contrast"])
every_sign = pytest.mark.parametrize("sign", ["signed", "positive"])
every_bias = pytest.mark.parametrize("bias", ["distribute", "ledger"])


@functools.cache
def net_of(name: str) -> Net:
    return NETS[name]()


def planned(net: Net, options: Options, rules: RuleTable = RULES) -> tuple[ModelProto, Plan]:
    model = net.model()
    axes = Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in net.layout))
    return model, make_plan(walk(model), {"x": axes}, rules, options)


@functools.cache
def emitted(name: str, options: Options) -> tuple[ModelProto, Backward]:
    return emitted_by(RULES, name, options)


def emitted_by(rules: RuleTable, name: str, options: Options) -> tuple[ModelProto, Backward]:
    """Forward and backward of a net in one model that has passed the checker."""
    net = net_of(name)
    model, plan = planned(net, options, rules)
    backward = build(plan)
    model.graph.node.extend(backward.emit.nodes)
    model.graph.initializer.extend(backward.emit.initializers)
    batch = net.shape[0]
    kept = tuple(size for size, letter in zip(net.shape, net.layout, strict=True) if letter != "C")
    model.graph.input.append(info(TARGET, np.int64, (batch,)))
    outputs: dict[str, tuple[str, tuple[int, ...]]] = {
        "relevance": (backward.relevance["x"], kept),
        "seed": (backward.seed, (batch,)),
    }
    outputs |= {f"ledger{i}": (tensor, (batch,)) for i, (_, tensor) in enumerate(backward.ledger)}
    for out, (tensor, shape) in outputs.items():
        model.graph.node.append(helper.make_node("Identity", [tensor], [out], name=out))
        model.graph.output.append(info(out, np.float64, shape))
    onnx.checker.check_model(model, full_check=True)
    return model, backward


def explained(name: str, options: Options, x: Array, target: Array) -> Explained:
    return run(*emitted(name, options), x, target)


def run(model: ModelProto, backward: Backward, x: Array, target: Array) -> Explained:
    chosen_index = backward.seeded.chosen
    assert chosen_index is not None
    booked = [f"ledger{i}" for i in range(len(backward.ledger))]
    wanted = ["relevance", "seed", "logits", chosen_index, *booked]
    relevance, seed, logits, chosen, *ledger = reference(model, {"x": x, TARGET: target}, wanted)
    return Explained(relevance, seed, np.sum([np.zeros(len(x)), *ledger], axis=0), logits, chosen)


def close(got: Array, want: Array, scale: float) -> None:
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=0, atol=PRECISE * scale)


@every_bias
@every_sign
@every_seed
@every_net
def test_emitted_pass_is_srd_in_plain_numpy_and_conserves(
    net: str, seed: Seed, sign: Sign, bias: Bias
) -> None:
    options = Options(seed=seed, sign=sign, bias=bias)
    x = net_of(net).photo()
    target = TARGETS["mixed"]
    got = explained(net, options, x, target)
    want = srd_numpy.explain(net_of(net), x, target, options)
    scale = float(np.abs(want.logits).max() + np.abs(want.relevance).max())
    close(got.logits, want.logits, scale)
    np.testing.assert_array_equal(got.chosen, want.chosen)
    close(got.seed, want.seed, scale)
    close(got.relevance, want.relevance, scale)
    close(got.booked, want.booked, scale)
    close(srd_numpy.per_image(got.relevance) + got.booked, got.seed, scale)
    assert np.abs(got.relevance).max() > 1e-3, "an explanation of nothing agrees with anything"


@pytest.mark.parametrize("target", TARGETS)
@every_net
def test_targets_are_told_apart(net: str, target: str) -> None:
    x = net_of(net).photo(1)
    got = explained(net, Options(), x, TARGETS[target])
    want = srd_numpy.explain(net_of(net), x, TARGETS[target], Options())
    np.testing.assert_array_equal(got.chosen, want.chosen)
    close(got.relevance, want.relevance, float(np.abs(want.logits).max() + np.abs(want.relevance).max()))


@every_net
def test_default_boundary_is_the_last_tensor_with_several_positions(net: str) -> None:
    _, plan = planned(net_of(net), Options())
    assert plan.boundary == (net_of(net).boundary,)


@every_bias
@pytest.mark.parametrize(("net", "boundary"), [("residual", "t1"), ("residual", "x"), ("tokens", "t2"),
                                               ("squeeze_and_excite", "t1"), ("channels_last", "t3")])  # fmt: skip
def test_another_boundary_is_srd_in_plain_numpy(net: str, boundary: str, bias: Bias) -> None:
    """A boundary that lies earlier: cotangents cross residual sums, gates and winners."""
    options = Options(boundary=boundary, bias=bias)
    x, target = net_of(net).photo(2), TARGETS["given"]
    got = explained(net, options, x, target)
    want = srd_numpy.explain(net_of(net), x, target, options)
    scale = float(np.abs(want.logits).max() + np.abs(want.relevance).max())
    close(got.relevance, want.relevance, scale)
    close(got.booked, want.booked, scale)
    close(srd_numpy.per_image(got.relevance) + got.booked, got.seed, scale)


@every_bias
@every_net
def test_a_zero_image_conserves_without_nan(net: str, bias: Bias) -> None:
    options = Options(bias=bias)
    x = np.zeros(net_of(net).shape)
    got = explained(net, options, x, TARGETS["top"])
    assert np.isfinite(got.relevance).all()
    close(srd_numpy.per_image(got.relevance) + got.booked, got.seed, float(np.abs(got.logits).max()))
    want = srd_numpy.explain(net_of(net), x, TARGETS["top"], options)
    close(got.relevance, want.relevance, float(np.abs(want.logits).max() + np.abs(want.relevance).max()))


def test_what_sits_on_padding_alone_is_booked_against_its_layer() -> None:
    """With distribute all bias finds a place but that of positions which see only padding."""
    model, backward = emitted("padding_only", Options())
    booked = {
        label: column
        for (label, _), column in zip(
            backward.ledger,
            reference(
                model,
                {"x": net_of("padding_only").photo(), TARGET: TARGETS["top"]},
                [f"ledger{i}" for i in range(len(backward.ledger))],
            ),
            strict=True,
        )
    }
    assert "Conv 0" in booked
    assert np.abs(booked["Conv 0"]).min() > 1e-6


def test_without_such_positions_only_the_head_books_under_distribute() -> None:
    _, backward = emitted("residual", Options())
    assert {label for label, _ in backward.ledger} == {"Gemm 10"}


@every_net
def test_numpy_forward_is_the_model(net: str) -> None:
    x = net_of(net).photo(3)
    model = net_of(net).model()
    names = [name for layer in net_of(net).layers for name in layer.outputs]
    values = srd_numpy.forward(net_of(net), x)
    for name, value in zip(names, reference(model, {"x": x}, names), strict=True):
        np.testing.assert_allclose(values[name], value, rtol=0, atol=1e-12 * float(np.abs(value).max()))


SPOILED = [
    ("residual", "Conv"),
    ("residual", "MaxPool"),
    ("tokens", "Add"),
    ("tokens", "Gemm"),
    ("squeeze_and_excite", "Mul"),
    ("channels_last", "Transpose"),
]


@pytest.mark.parametrize("factor", [1.001, -0.5, 0.0])  # not -1: relevance may cross an even number of them
@pytest.mark.parametrize(("net", "op"), SPOILED)
def test_a_wrong_rule_shows_in_the_whole_pass(net: str, op: str, factor: float) -> None:
    def wrong(part: Part) -> Part:
        return lambda emit, node, flows: [
            emit("Mul", flow, emit.const(factor)) if flow else None for flow in part(emit, node, flows)
        ]

    rules = RULES | {
        key: replace(right, vjp=wrong(right.vjp), spread=wrong(right.spread))
        for key, right in RULES.items()
        if key.op_type == op
    }
    x, target = net_of(net).photo(), TARGETS["top"]
    got = run(*emitted_by(rules, net, Options()), x, target)
    want = srd_numpy.explain(net_of(net), x, target, Options())
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        close(got.relevance, want.relevance, float(np.abs(want.logits).max() + np.abs(want.relevance).max()))
