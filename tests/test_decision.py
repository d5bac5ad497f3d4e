"""Inside a decision: relevance of every layer, and what active and inactive neurons carry, against other ways to it."""

from typing import Any

import numpy as np
import pytest
from onnx import helper

from srd_onnx import Explainer, Explanation
from srd_onnx.graph.ir import Array
from srd_onnx.inside.decision import Decision, LayerShare
from srd_onnx.targets import At, Contrast, Target
from srd_onnx.zoo import sample_photo, zoo
from tests.attention_nets import block, multihead
from tests.fuzz_checks import of_random_networks
from tests.fuzz_graphs import Grown
from tests.nets import model_of, small_cnn
from tests.small_nets import concatenation, fan_out, in_single, squeeze_and_excite, tokens

DATA = np.random.default_rng(3).standard_normal((3, 3, 32, 32)).astype(np.float32)


def share_of(decision: Decision, name: str) -> LayerShare:
    (found,) = (share for share in decision.layers if share.name == name)
    return found


def check(decision: Decision, wanted: Any, within: float = 1e-4) -> None:
    """The map at the input is that of `explain`; what each layer carries adds up."""
    explanation = decision.explanation
    assert (explanation.target, explanation.label, explanation.name) == (
        wanted.target,
        wanted.label,
        wanted.name,
    )
    size = max(abs(wanted.score), float(np.abs(wanted.relevance).sum()), 1e-6)
    (first, *_) = decision.layers
    assert first.op == "input"
    np.testing.assert_allclose(decision.relevance[first.name], wanted.relevance, rtol=0, atol=within * size)
    np.testing.assert_array_equal(decision.relevance[first.name], explanation.relevance)
    assert list(decision.relevance) == [share.name for share in decision.layers]
    for share in decision.layers:
        assert share.relevance == pytest.approx(decision.relevance[share.name].sum(), abs=within * size)
        assert share.mixes == (share.bias is not None)
        if share.active is not None:
            assert share.inactive is not None
            assert share.bias is not None
            assert share.active + share.inactive + share.bias == pytest.approx(1, abs=1e-4)
    assert sum(share.booked for share in decision.layers) <= sum(map(abs, decision.ledger.values())) + 1e-6


@pytest.mark.parametrize("model", sorted(zoo()))
def test_decisions_of_the_shipped_models(model: str) -> None:
    explainer = Explainer(model, preset="paper", providers="cpu")
    targets: list[Target] = ["top2", Contrast(285, 282)]
    found = explainer.inside(sample_photo(), targets)
    wanted = explainer.explain(sample_photo(), targets)
    assert len(found) == 3
    for one, other in zip(found, wanted, strict=True):
        check(one, other)
        boundary = sum(share_of(one, name).relevance for name in one.boundary)
        above = sum(one.ledger.values())  # nothing is booked below: the bias is distributed
        assert boundary == pytest.approx(other.meta["seed_value"] - above, rel=1e-3)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
def test_batches_and_the_ledger(bias: str) -> None:
    explainer = Explainer(small_cnn(batch=4), preset="paper", providers="cpu", bias=bias)
    found = explainer.inside(DATA, [2, 5])
    wanted = explainer.explain(DATA, [2, 5])
    assert [one.explanation.name for one in found] == ["input0_0", "input0_0", "input0_1", "input0_1"] + [
        "input0_2"
    ] * 2
    for one, other in zip(found, wanted, strict=True):
        check(one, other)
        # Along a chain of layers what is missing below is what was booked on the way.
        seed, booked = other.meta["seed_value"], one.ledger
        assert one.layers[-1].relevance == pytest.approx(
            seed - sum(v for k, v in booked.items() if k in ("output", "flatten", "gap")), rel=1e-3
        )
        assert share_of(one, "pool1").relevance == pytest.approx(
            one.layers[0].relevance + sum(booked.get(name, 0) for name in ("pool1", "conv1")), rel=1e-3
        )
    if bias == "ledger":
        assert share_of(found[0], "conv1").booked == found[0].ledger["conv1"] != 0


def test_relevance_of_a_layer_times_its_fields_is_the_map() -> None:
    """Every path of the network leads through these layers."""
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    (decision,) = explainer.inside(DATA[:1], 4)
    for layer in ("conv1", "relu1", "pool1", "add", "depthwise", "encoder"):
        (erf,) = explainer.erf(DATA[:1], layer)
        name = decision.boundary[0] if layer == "encoder" else layer
        carried = decision.relevance[name].reshape(-1)
        np.testing.assert_allclose(
            np.tensordot(carried, erf.maps, 1), decision.explanation.relevance, rtol=0, atol=1e-5
        )


def by_hand(v: Array, b: Array, relevance: Array) -> tuple[float, float, float]:
    """Active, inactive and bias as loops over positions and channels; v [C, H, W]."""
    total = np.zeros(3)
    for y in range(v.shape[1]):
        for x in range(v.shape[2]):
            norm = sum(float(v[c, y, x]) ** 2 for c in range(len(v)))
            weight = abs(float(relevance[y, x])) / float(np.abs(relevance, dtype=np.float64).sum())
            for c in range(len(v)):
                one, constant = float(v[c, y, x]), float(b[c])
                total[0 if one > 0 else 1] += weight * (one - constant) * one / norm
                total[2] += weight * constant * one / norm
    return float(total[0]), float(total[1]), float(total[2])


def test_what_neurons_carry_is_the_definition() -> None:
    model = small_cnn()
    explainer = Explainer(model, preset="paper", providers="cpu")
    (decision,) = explainer.inside(DATA[:1], 4)
    exposed = explainer.preactivations(DATA[:1], ["bn1", "add"])
    # The first layer is affine in the input: what it gives for zeros, away from the border, is its bias.
    bias = explainer.preactivations(np.zeros_like(DATA[:1]), ["bn1"])["bn1"][0, :, 16, 16]
    for name, tensor, constant in (("conv1", "bn1", bias), ("add", "add", np.zeros(8))):
        share = share_of(decision, name)
        right = by_hand(exposed[tensor][0], constant, decision.relevance[name])
        assert (share.active, share.inactive, share.bias) == pytest.approx(right, abs=1e-4)


def test_only_what_a_nonlinearity_follows_has_active_neurons() -> None:
    (decision,) = Explainer(small_cnn(), preset="paper", providers="cpu").inside(DATA[:1], 4)
    known = {share.name: share.active is not None for share in decision.layers if share.mixes}
    assert known == {
        "conv1": True, "pool1": False, "conv2": True, "conv3": False, "add": True, "depthwise": True,
    }  # fmt: skip


def followed(*nodes: Any) -> Any:
    """A convolution from `input` to `c`, these nodes to `m`, and a mean of it."""
    weights: dict[str, Any] = {"w": np.random.default_rng(0).standard_normal((4, 3, 3, 3), np.float32)}
    weights |= {"half": np.float32(0.5), "one": np.float32(1)}
    ends = [
        helper.make_node("GlobalAveragePool", ["m"], ["p"], name="gap"),
        helper.make_node("Flatten", ["p"], ["output"], name="flatten"),
    ]
    conv = helper.make_node("Conv", ["input", "w"], ["c"], name="conv", pads=[1] * 4)
    return model_of([conv, *nodes, *ends], weights, ([1, 3, 8, 8], [1, 4]))


def followed_by(*nodes: Any) -> dict[str, bool]:
    """Which mixing layers have active neurons."""
    (decision,) = Explainer(followed(*nodes), preset="paper", providers="cpu").inside(DATA[:1, :, :8, :8], 0)
    return {share.name: share.active is not None for share in decision.layers if share.mixes}


def node(op: str, *tensors: str, **attributes: Any) -> Any:
    return helper.make_node(op, list(tensors[:-1]), [tensors[-1]], name=tensors[-1], **attributes)


def test_a_gate_that_a_layer_makes_of_itself_counts_and_others_do_not() -> None:
    silu = (node("Sigmoid", "c", "s"), node("Mul", "c", "s", "m"))
    assert followed_by(*silu) == {"conv": True}
    gelu = (
        node("Mul", "c", "half", "h"), node("Erf", "h", "e"), node("Add", "e", "one", "f"), node("Mul", "c", "f", "m"),
    )  # fmt: skip
    assert followed_by(*gelu) == {"conv": True}
    excited = (
        node("GlobalAveragePool", "c", "g"),
        node("Sigmoid", "g", "s"),
        node("Mul", "c", "s", "m"),
    )
    assert followed_by(*excited) == {"conv": False}
    same_size = node("MaxPool", "c", "m", kernel_shape=[3, 3], pads=[1] * 4)
    assert followed_by(same_size) == {"conv": False, "m": False}


NETS = [tokens(), multihead(), block("split"), concatenation(), fan_out(), squeeze_and_excite()]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_tokens_branches_and_gates(net: Any) -> None:
    explainer = Explainer(
        in_single(net), preset="paper", layout={"x": net.layout}, providers="cpu", preprocess=np.asarray
    )
    x = np.random.default_rng(1).standard_normal(net.shape).astype(np.float32)
    found, wanted = explainer.inside(x, [0, 1]), explainer.explain(x, [0, 1])
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        check(one, other)


def test_elements_of_an_inner_tensor() -> None:
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    targets: list[Target] = [3, At("relu2", (0, 3, 3)), At("relu2", (1,)), Contrast(1, 2)]
    found, wanted = explainer.inside(DATA[:2], targets), explainer.explain(DATA[:2], targets)
    for one, other in zip(found, wanted, strict=True):
        check(one, other)
    assert "add" not in found[2].relevance


def test_a_pfv_that_is_zero_is_all_bias_and_without_relevance_positions_weigh_the_same() -> None:
    model = followed(node("Relu", "c", "m"))
    zeros = np.zeros((1, 3, 8, 8), np.float32)
    (decision,) = Explainer(model, preset="paper", providers="cpu").inside(zeros, 0)
    share = share_of(decision, "conv")
    assert decision.explanation.relevance.any() == 0
    assert (share.active, share.inactive) == (0, 0)
    assert share.bias == pytest.approx(1)


def test_decisions_of_random_networks() -> None:
    """Whatever can be explained can be looked into, and is the same."""

    def looked_into(explainer: Explainer, feeds: Any, case: Grown, wanted: list[Explanation]) -> None:
        for one, other in zip(explainer.inside(feeds, case.target), wanted, strict=True):
            check(one, other, 1e-3)

    of_random_networks(looked_into, 30)
