"""Many targets by ratios, and maps by the forward pass: the same as pass by pass."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from onnx import helper

from srd_onnx import Explainer, Explanation, runs
from srd_onnx.inputs.sources import Array
from srd_onnx.targets import At, Contrast, Target
from srd_onnx.zoo import sample_photo, zoo
from tests.attention_nets import block, multihead, windows
from tests.fuzz_checks import of_random_networks
from tests.fuzz_graphs import Grown
from tests.nets import model_of, small_cnn, two_nodes
from tests.small_nets import in_single, tokens

EXACT = 1e-5  # relative to the largest number of the map


def same(found: Sequence[Explanation], wanted: Sequence[Explanation], within: float = EXACT) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one.target, one.label, one.name) == (other.target, other.label, other.name)
        for name, map_ in other.relevances.items():
            scale = max(float(np.abs(map_).max(initial=0)), 1e-6)
            np.testing.assert_allclose(one.relevances[name], map_, rtol=0, atol=within * scale)
        assert one.score == pytest.approx(other.score, rel=within, abs=1e-6)
        booked = sum(other.ledger.values())
        size = max(abs(booked), abs(other.score), float(np.abs(other.relevance).sum()))
        assert sum(one.ledger.values()) == pytest.approx(booked, abs=10 * within * size + 1e-6)


@pytest.fixture
def pass_by_pass(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Explanations one target at a time."""

    def explained(make: Any, *args: Any, **kwargs: Any) -> list[Explanation]:
        with monkeypatch.context() as patch:
            patch.setattr("srd_onnx.explaining.SEVERAL", 10**9)
            return list(make().explain(*args, **kwargs))

    return explained


@pytest.mark.parametrize("model", sorted(zoo()))
def test_many_targets_of_the_shipped_models(model: str, pass_by_pass: Any) -> None:
    def make() -> Explainer:
        return Explainer(model, preset="paper", providers="cpu")

    targets: list[Target] = [*range(0, 1000, 100), "top2", Contrast(285, 282)]
    found = make().explain(sample_photo(), targets)
    same(found, pass_by_pass(make, sample_photo(), targets))
    assert found[-1].target == "285-over-282"
    assert found[-1].label == "Egyptian cat (285) rather than tiger cat (282)"


@pytest.mark.parametrize("model", sorted(zoo()))
def test_the_forward_pass_of_the_shipped_models(model: str) -> None:
    explainer = Explainer(model, preset="paper", providers="cpu")
    same(explainer.explain_forward(sample_photo(), "top2"), explainer.explain(sample_photo(), "top2"))


def data(*shape: int, dtype: Any = np.float32) -> Array:
    return np.random.default_rng(5).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"sign": "positive"},
        {"bias": "ledger"},
        {"seed": "logprob"},
        {"seed": "contrast"},
        {"boundary": "relu2"},
    ],
    ids=str,
)
@pytest.mark.parametrize("batch", [1, 4])
def test_options_and_batches(options: dict[str, Any], batch: int, pass_by_pass: Any) -> None:
    def make() -> Explainer:
        return Explainer(small_cnn(batch=batch), preset="paper", providers="cpu", **options)

    x = data(3, 3, 32, 32)
    targets: list[Target] = [0, 1, 2, 3, 4, "top2"]
    same(make().explain(x, targets), pass_by_pass(make, x, targets))
    same(make().explain(x, targets, batch_size=3), pass_by_pass(make, x, targets))
    same(make().explain_forward(x, targets), pass_by_pass(make, x, targets))


NETS = [
    tokens(),
    multihead(),
    windows(),
    block("split"),
    block("fused", fused=True),
    block("mask", mask="causal"),
]


@pytest.mark.parametrize("net", NETS, ids=str)
def test_transformers_and_tokens(net: Any, pass_by_pass: Any) -> None:
    def make() -> Explainer:
        return Explainer(
            in_single(net), preset="paper", layout={"x": net.layout}, providers="cpu", preprocess=np.asarray
        )

    x = net.photo().astype(np.float32)
    targets = [0, 1, 2, 3, 4]
    same(make().explain(x, targets), pass_by_pass(make, x, targets))
    same(make().explain_forward(x, targets), pass_by_pass(make, x, targets))


def test_many_elements_of_one_tensor(pass_by_pass: Any) -> None:
    def make() -> Explainer:
        return Explainer(small_cnn(), preset="paper", providers="cpu")

    targets = [At("relu2", (channel, 3, slice(2, 5))) for channel in range(6)]
    x = data(2, 3, 32, 32)
    same(make().explain(x, targets), pass_by_pass(make, x, targets))


@pytest.mark.parametrize("batch", ["N", 1])
def test_many_pixels_behind_a_resize(batch: str | int, pass_by_pass: Any) -> None:
    """Its constant sizes hold for one item: the head must not take several at once."""
    make = helper.make_node
    nodes = [
        make("Conv", ["input", "w"], ["small"], name="conv"),
        make("Resize", ["small", "", "", "sizes"], ["output"], name="resize", mode="linear"),
    ]
    weights = {"w": data(1, 3, 3, 3), "sizes": np.array([1, 1, 12, 12], np.int64)}
    model = model_of(nodes, weights, ([batch, 3, 8, 8], [batch, 1, 12, 12]))

    def explainer() -> Explainer:
        return Explainer(model, preset="paper", providers="cpu")

    targets: list[Target] = [0, 13, 70, 143]
    found = explainer().explain(data(1, 3, 8, 8), targets)
    assert all(np.abs(one.relevance).max() > 0 for one in found)
    same(found, pass_by_pass(explainer, data(1, 3, 8, 8), targets))


def test_what_is_booked_where_the_batch_is_not_the_first_axis(pass_by_pass: Any) -> None:
    make = helper.make_node
    nodes = [
        make("Transpose", ["input"], ["turned"], perm=[1, 0, 2]),
        make("GRU", ["turned", "w", "r", "b"], ["steps"], name="gru", hidden_size=2),
        make("ReduceMean", ["steps", "time"], ["mean"], keepdims=0),
        make("Gemm", ["mean", "last"], ["output"], name="gemm"),
    ]
    weights = {
        "w": data(1, 6, 3), "r": data(1, 6, 2), "b": data(1, 12), "last": data(2, 5), "time": np.array([0, 1]),
    }  # fmt: skip
    model = model_of(nodes, weights, (["N", 4, 3], ["N", 5]), opset=18)

    def explainer() -> Explainer:
        return Explainer(
            model, preset="paper", layout="NTC", providers="cpu", preprocess=np.asarray, bias="ledger"
        )

    targets: list[Target] = [0, 1, 2, 3, 4]
    found = explainer().explain(data(2, 4, 3), targets, batch_size=2)
    assert len({round(one.ledger["gru"], 6) for one in found}) == len(found)
    same(found, pass_by_pass(explainer, data(2, 4, 3), targets, batch_size=2))


def test_a_contrast_is_the_difference_of_its_classes() -> None:
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    x = data(1, 3, 32, 32)
    one, other, between = explainer.explain(x, [0, 1, Contrast(0, 1)])
    scale = float(np.abs(one.relevance).max())
    np.testing.assert_allclose(between.relevance, one.relevance - other.relevance, rtol=0, atol=EXACT * scale)
    assert between.score == pytest.approx(one.score - other.score, rel=1e-5)


def test_two_targets_are_not_worth_the_ratios() -> None:
    explainer = Explainer(two_nodes(), preset="paper", providers="cpu")
    explainer.explain(data(1, 1, 4, 4), [0, 1, 0])
    assert all(isinstance(one, runs.Single) for one in explainer._sessions.values())


def test_ratios_and_the_forward_pass_on_random_networks() -> None:
    """Whatever can be explained pass by pass is the same by ratios and by fields."""

    def forward(explainer: Explainer, feeds: Any, case: Grown, wanted: list[Explanation]) -> None:
        same(explainer.explain_forward(feeds, case.target), wanted, 1e-3)

    of_random_networks(forward, 40)


def test_a_model_that_is_made_for_one_item_though_it_says_otherwise(pass_by_pass: Any) -> None:
    """Its batch is open, but a reshape in it says one: the larger batch has no roles there, and is not tried."""
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "shape"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "v"], ["output"], name="fc"),
    ]
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": rng.standard_normal((2, 1, 3, 3)).astype(np.float32),
        "shape": np.array([1, 8]),
        "v": rng.standard_normal((8, 5)).astype(np.float32),
    }
    model = model_of(nodes, weights, (["N", 1, 4, 4], ["N", 5]))

    def make() -> Explainer:
        return Explainer(model, preset="paper", providers="cpu")

    x = data(2, 1, 4, 4)
    same(make().explain(x, [0, 1, 2, 3, 4]), pass_by_pass(make, x, [0, 1, 2, 3, 4]))


@pytest.mark.parametrize("behind", ["c", "p"])
def test_scales_that_are_measured_are_of_no_item(behind: str, pass_by_pass: Any) -> None:
    """A scale that is computed has no axes, and so no batch."""
    make_node = helper.make_node
    parts = [
        make_node("Conv", ["input", "w"], ["c"], name="conv"),
        make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        make_node("DynamicQuantizeLinear", [behind], ["q", "scale", "zero"], name="quantise"),
        make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], name="back"),
        make_node("Conv", ["d", "v"], ["output"], name="last"),
    ]
    weights: dict[str, Any] = {"w": data(3, 1, 3, 3), "v": data(5, 3, 1, 1)}
    side = 2 if behind == "c" else 1
    model = model_of(parts, weights, (["N", 1, 4, 4], ["N", 5, side, side]), opset=18)

    def make() -> Explainer:
        return Explainer(model, preset="paper", layout="NCHW", providers="cpu")

    x, targets = data(2, 1, 4, 4), [At("output", (k, 0, 0)) for k in range(5)]
    same(make().explain(x, targets), pass_by_pass(make, x, targets))
    same(make().explain_forward(x, targets), pass_by_pass(make, x, targets))
