"""A network under the activation pattern of another input: against plain numpy, and what must hold for any network."""

import functools

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray
from onnx import helper

from graph_rules import RULES
from srd_onnx import Explainer, zoo
from srd_onnx.apop.pattern_run import Pattern, pattern_run
from srd_onnx.engine.options import Options
from srd_onnx.engine.plan import make_plan
from srd_onnx.errors import InputError, OptionError, ShapeError, SrdOnnxError
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.graph.walk import walk
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.attention_nets import BLOCKS
from tests.fuzz_graphs import Grown, grown
from tests.harness import LETTERS, reference
from tests.nets import model_of, small_cnn
from tests.oracles import ORACLES
from tests.small_nets import NETS, Layer, Net
from tests.srd_numpy import ancestors, forward
from tests.test_attention import explained
from tests.test_recurrent import classifier

Array = NDArray[np.floating]
make = helper.make_node
PATTERNS = [Pattern(), Pattern("active"), *(Pattern(layers=k) for k in (0, 1, 2, 0.5)), Pattern("active", 1)]

# What a reader takes for a nonlinear layer of one operand, and for one that has active neurons.
NONLINEAR = ("Relu", "LeakyRelu", "HardSwish", "Tanh", "MaxPool", "LayerNormalization")
RECTIFIERS = ("Relu", "LeakyRelu", "HardSwish")


# Against plain numpy, in double precision


def apply(layer: Layer, pattern: list[Array], new: list[Array], held: frozenset[int]) -> list[Array]:
    """What the affine map of a layer at `pattern` makes of `new`."""
    return list(ORACLES[layer.op].freeze(layer.attrs, pattern, held)(new))


def replayed(net: Net, x: Array, other: Array, pattern: Pattern) -> Array:
    """The logits of `other` under the pattern of `x`, straight from the definition."""
    values, new = forward(net, x), {"x": other}
    crossed = [bool(ancestors(net, "logits").intersection(layer.outputs)) for layer in net.layers]
    bends = [on and (la.op in NONLINEAR or bool(la.held)) for la, on in zip(net.layers, crossed, strict=True)]
    left, whole = pattern.count(sum(bends)), pattern.layers is None
    for layer, on, nonlinear in zip(net.layers, crossed, bends, strict=True):
        own = [values[name] for name in layer.inputs]
        fresh = [new.get(name, values[name]) for name in layer.inputs]
        held = net.held(layer)
        if left > 0 or whole:
            if not on:
                continue
            left -= nonlinear
            given = [o if i in held else f for i, (o, f) in enumerate(zip(own, fresh, strict=True))]
            if pattern.kind == "active" and layer.op in RECTIFIERS:
                (y,), (was,) = apply(layer, given, given, held), apply(layer, own, own, held)
                made = [np.where(was > 0, y, 0)]
            else:
                made = apply(layer, own, given, held)
        elif any(name in new for name in layer.inputs):
            made = apply(layer, fresh, fresh, held)
        else:
            continue
        new.update(zip(layer.outputs, made, strict=True))
    return new["logits"]


@functools.cache
def net_of(name: str) -> Net:
    return {**NETS, **BLOCKS}[name]()


def under(net: Net, pattern: Pattern, x: Array, other: Array) -> tuple[Array, Array]:
    """The scores of `x`, and those of `other` under its pattern."""
    model = net.model()
    axes = Axes(tuple(LETTERS.get(letter, Role.POSITION) for letter in net.layout))
    plan = make_plan(walk(model), {"x": axes}, RULES, Options())
    made = pattern_run(model, plan, RULES, pattern)
    scores, logits = reference(made.model, {"x": x, "apop/x": other}, [made.scores, made.replayed])
    return scores, logits


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
@pytest.mark.parametrize("name", NETS)
def test_small_networks_under_a_pattern_are_what_numpy_makes_of_them(name: str, pattern: Pattern) -> None:
    net = net_of(name)
    x, other = net.photo(), net.photo(1)
    scores, logits = under(net, pattern, x, other)
    np.testing.assert_allclose(scores, forward(net, x)["logits"], rtol=1e-9)
    wanted = replayed(net, x, other, pattern)
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


every_network = pytest.mark.parametrize("name", [*NETS, *BLOCKS])


@every_network
def test_run_on_the_pattern_itself_they_give_its_scores(name: str) -> None:
    net = net_of(name)
    scores, logits = under(net, Pattern(), net.photo(), net.photo())
    np.testing.assert_allclose(logits, scores, rtol=0, atol=1e-10 * np.abs(scores).max())


@every_network
def test_under_a_pattern_they_are_affine(name: str) -> None:
    net = net_of(name)
    a, b, middle = (
        under(net, Pattern(), net.photo(), other)[1]
        for other in (net.photo(1), net.photo(2), 0.5 * (net.photo(1) + net.photo(2)))
    )
    np.testing.assert_allclose(middle, 0.5 * (a + b), rtol=0, atol=1e-10 * np.abs(a).max())


@every_network
def test_without_any_layer_they_are_the_network_itself(name: str) -> None:
    net = net_of(name)
    _, logits = under(net, Pattern(layers=0), net.photo(), net.photo(1))
    (wanted,) = reference(net.model(), {"x": net.photo(1)}, ["logits"])
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


@every_network
def test_the_linear_part_is_the_transpose_of_the_backward_pass(name: str) -> None:
    """``<x, VJP e_t> = replay(x)_t - replay(0)_t``, the cotangent of score t being carried to the input."""
    net, target = net_of(name), 1
    relevance, _, _ = explained(net, Options(boundary="x"))(net.photo(), target)
    (_, whole), (_, rest) = (under(net, Pattern(), net.photo(), v) for v in (net.photo(), 0 * net.photo()))
    wanted = (whole - rest)[:, target]
    found = relevance.reshape(len(wanted), -1).sum(axis=1)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(whole).max())


# What must hold for any network


@pytest.mark.parametrize("name", sorted(zoo.zoo()))
def test_shipped_models_run_on_the_photo_itself_give_its_logits(name: str) -> None:
    photo = zoo.sample_photo()
    explainer = Explainer(name, providers="cpu")
    for pattern in ("exact", "active"):
        (found,) = explainer.apop(photo, photo, pattern=pattern)
        assert np.abs(found.logits - found.original).max() <= 1e-5 * np.abs(found.original).max()
        assert found.top1
        assert found.top5


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_run_on_the_pattern_itself_give_its_logits(op: str, direction: str) -> None:
    x = np.random.default_rng(1).standard_normal((2, 6, 4)).astype(np.float32)
    explainer = Explainer(classifier(op, what="all", direction=direction), layout="NTC", providers="cpu")
    for found in explainer.apop(x, x):
        np.testing.assert_allclose(found.logits, found.original, rtol=0, atol=1e-5)


def linear_network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    weights: dict[str, NDArray[np.generic]] = {
        "w": rng.standard_normal((4, 3, 3, 3), np.float32),
        "b": rng.standard_normal(4, np.float32),
        "fc": rng.standard_normal((4, 5), np.float32),
    }
    nodes = [
        make("Conv", ["input", "w", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        make("AveragePool", ["c"], ["p"], kernel_shape=[2, 2]),
        make("GlobalAveragePool", ["p"], ["g"]),
        make("Flatten", ["g"], ["f"]),
        make("MatMul", ["f", "fc"], ["output"]),
    ]
    return model_of(nodes, weights, (["N", 3, 8, 8], ["N", 5]))


@pytest.mark.parametrize("pattern", PATTERNS, ids=str)
def test_a_linear_network_is_unchanged_by_any_pattern(pattern: Pattern) -> None:
    x, other = np.random.default_rng(0).standard_normal((2, 1, 3, 8, 8)).astype(np.float32)
    explainer = Explainer(linear_network(), providers="cpu")
    (found,) = explainer.apop(x, other, pattern=pattern.kind, layers=pattern.layers)
    (alone,) = explainer.apop(other, other)
    np.testing.assert_allclose(found.logits, alone.original, rtol=1e-5, atol=1e-6)


def test_without_any_layer_it_is_the_network_itself() -> None:
    x, other = np.random.default_rng(0).standard_normal((2, 3, 3, 32, 32)).astype(np.float32)
    model = small_cnn()
    session = make_session(model.SerializeToString(), [CPU])
    (wanted,) = run(session, None, {"input": other})
    found = Explainer(model, providers="cpu").apop(x, other, layers=0)
    np.testing.assert_allclose(np.stack([f.logits for f in found]), wanted, rtol=1e-4, atol=1e-5)
    assert {f.layers for f in found} == {(0, 6)}


QUICK = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def test_grown_networks_reproduce_themselves_and_are_affine_under_a_pattern() -> None:
    outcomes: list[str] = []

    @QUICK
    @given(grown())
    def one(case: Grown) -> None:
        try:
            explainer = Explainer(
                case.model, layout=case.layouts, providers="cpu", threads=1, preprocess=np.asarray
            )
            itself = explainer.apop([case.feeds], [case.feeds])
            itself += explainer.apop([case.feeds], [case.feeds], pattern="active", layers=0.5)
        except SrdOnnxError as error:
            outcomes.append(type(error).__name__)
            return
        outcomes.append("replayed")
        for found in itself:
            near(found.logits, found.original, np.abs(found.original).max())
        if any(array.dtype.kind != "f" for array in case.feeds.values()):
            return
        rng = np.random.default_rng(0)
        ends = [
            {n: rng.standard_normal(a.shape).astype(a.dtype) for n, a in case.feeds.items()} for _ in "ab"
        ]
        middle = {n: (0.5 * (ends[0][n] + ends[1][n])).astype(a.dtype) for n, a in case.feeds.items()}
        a, b, half = (explainer.apop([case.feeds], [news]) for news in (*ends, middle))
        for left, right, between in zip(a, b, half, strict=True):
            scale = max(np.abs(left.logits).max(), np.abs(right.logits).max(), np.abs(left.original).max())
            near(between.logits, 0.5 * (left.logits + right.logits), scale)

    one()
    assert outcomes.count("replayed") >= 0.8 * len(outcomes)


def near(found: Array, wanted: Array, scale: float) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * max(scale, 1e-6))


# Active neurons


def test_rectifiers_are_what_has_active_neurons() -> None:
    assert {key.op_type for key, rule in RULES.items() if rule.active is not None} == {
        *("Celu", "Clip", "Elu", "Gelu", "HardSwish", "LeakyRelu", "Mish", "PRelu", "Relu", "Selu", "Swish"),
        "ThresholdedRelu",
    }


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [((0, 6), [0, 0, 3.5, 6]), ((-1, 1), [-1, 0.25, 3.5, 9])],
    ids=["ReLU6 is a rectifier", "a Clip on both sides is not"],
)
def test_active_neurons_of_a_clip(bounds: tuple[float, float], wanted: list[float]) -> None:
    low, high = (np.array(bound, np.float32) for bound in bounds)
    model = model_of(
        [make("Clip", ["input", "low", "high"], ["output"])], {"low": low, "high": high}, ([1, 4], [1, 4])
    )
    x = np.array([[-2, -0.5 if bounds[0] == 0 else 0.5, 0.5, 0.5]], np.float32)
    other = np.array([[3, 0.25, 3.5, 9]], np.float32)
    (found,) = Explainer(model, providers="cpu").apop(x, other, pattern="active")
    np.testing.assert_array_equal(found.logits, wanted)


# The result, and what is refused


def test_one_input_serves_all_patterns() -> None:
    x, other = np.random.default_rng(0).standard_normal((2, 3, 3, 32, 32)).astype(np.float32)
    explainer = Explainer(small_cnn(batch=2), providers="cpu")
    together = explainer.apop(x, other[:1])
    for one, found in zip(x, together, strict=True):
        (alone,) = explainer.apop(one, other[0])
        np.testing.assert_allclose(found.logits, alone.logits, rtol=1e-5)
        assert found.top1 == (found.best(1) == [found.predicted])
        assert found.top5 == (found.predicted in found.best())
    assert [f.name for f in together] == ["input0_0", "input0_1", "input0_2"]


def test_what_does_not_fit_is_refused() -> None:
    explainer = Explainer(small_cnn(), providers="cpu")
    x = np.zeros((3, 3, 32, 32), np.float32)
    with pytest.raises(InputError, match="3 inputs make patterns, but 2 are to be run under them"):
        explainer.apop(x, x[:2])
    with pytest.raises(ShapeError, match="they must have the same shape"):
        Explainer(linear_network(), providers="cpu").apop(x[:1, :, :8, :8], x[:1, :2, :8, :8])


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ({"pattern": "half"}, "pattern='half' is not one of exact, active"),
        ({"layers": -1}, "layers=-1: a whole number"),
        ({"layers": 1.5}, "layers=1.5: a whole number"),
        ({"layers": True}, "layers=True: a whole number"),
    ],
)
def test_a_pattern_that_means_nothing_is_refused(pattern: dict[str, object], words: str) -> None:
    x = np.zeros((1, 3, 32, 32), np.float32)
    with pytest.raises(OptionError, match=words):
        Explainer(small_cnn(), providers="cpu").apop(x, x, **pattern)  # type: ignore[arg-type]
