"""Class activation maps by their definitions, as loops in double precision on networks small enough to write down."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.errors import LayoutError, NonFiniteError, OptionError, UnknownTensorError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.methods import METHODS, method_named
from srd_onnx.targets import Contrast
from tests.method_nets import (
    Convolved,
    Weights,
    convolved,
    data,
    linear,
    softmax,
    tokens_net,
    two_inputs,
    vit,
)
from tests.nets import model_of, small_cnn
from tests.small_nets import Net, in_single

CAMS = sorted(name for name, make in METHODS.items() if make().family == "activation map")
WITH_MASKS = [*CAMS, "reciprocam:mask=gaussian"]


def large(grid: Array) -> Array:
    """OpenCV's linear interpolation to the input."""
    return np.asarray(cv2.resize(grid, (10, 8), interpolation=cv2.INTER_LINEAR))


def explained(net: Convolved, method: str, x: Array, target: Any = 1, **options: Any) -> list[Array]:
    explainer = Explainer(net.model(), method=method, boundary="relu", providers="cpu", **options)
    return [one.relevance for one in explainer.explain(x, target)]


class Behind(Protocol):
    """A network behind the layer, and the layer."""

    def activations(self, x: Array) -> Array: ...

    def tail(self, activations: Array) -> Array: ...

    def without(self, activations: Array, channel: int) -> Array: ...


# The definitions: of A, G [C, H, W], the network, its input, the class: a map on the grid.


def weighed(weights: Any, a: Array) -> Array:
    found = np.zeros(a.shape[1:])
    for c, i, j in np.ndindex(*a.shape):
        found[i, j] += weights[c] * a[c, i, j]
    return np.maximum(found, 0)


def gradcam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    return weighed([sum(g[c].ravel()) / g[c].size for c in range(len(a))], a)


def gradcam_plus_plus(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    weights = np.zeros(len(a))
    for c, i, j in np.ndindex(*a.shape):
        if g[c, i, j] != 0:
            alpha = g[c, i, j] ** 2 / (2 * g[c, i, j] ** 2 + a[c].sum() * g[c, i, j] ** 3)
            weights[c] += alpha * max(g[c, i, j], 0)
    return weighed(weights, a)


def xgradcam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    weights = np.zeros(len(a))
    for c, i, j in np.ndindex(*a.shape):
        weights[c] += a[c, i, j] * g[c, i, j] / a[c].sum() if a[c].any() else 0
    return weighed(weights, a)


def layercam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    found = np.zeros(a.shape[1:])
    for c, i, j in np.ndindex(*a.shape):
        found[i, j] += max(g[c, i, j], 0) * a[c, i, j]
    return np.maximum(found, 0)


def hirescam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    found = np.zeros(a.shape[1:])
    for c, i, j in np.ndindex(*a.shape):
        found[i, j] += g[c, i, j] * a[c, i, j]
    return found


def scorecam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    scores = []
    for channel in a:
        mask = large(channel)
        mask = (mask - mask.min()) / (mask.max() - mask.min())
        scores.append(net.tail(net.activations(x * mask))[t] - net.tail(net.activations(0 * x))[t])
    return weighed(softmax(np.array(scores)), a)


def ablationcam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    weights = []
    for c in range(len(a)):
        weights.append((net.tail(a)[t] - net.without(a, c)[t]) / net.tail(a)[t])
    return weighed(weights, a)


def reciprocam(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    found = np.zeros(a.shape[1:])
    for i, j in np.ndindex(*found.shape):
        alone = np.zeros_like(a)
        alone[:, i, j] = a[:, i, j]
        found[i, j] = softmax(net.tail(alone))[t]
    return np.asarray((found - found.min()) / (found.max() - found.min()))


def gaussian(a: Array, g: Array, net: Behind, x: Array, t: int) -> Array:
    found, parts = np.zeros(a.shape[1:]), {-1: 1 / 4, 0: 1 / 2, 1: 1 / 4}
    for i, j in np.ndindex(*found.shape):
        near = np.zeros_like(a)
        for k, m in np.ndindex(*found.shape):
            near[:, k, m] = a[:, k, m] * parts.get(k - i, 0) * parts.get(m - j, 0)
        found[i, j] = softmax(net.tail(near))[t]
    return np.asarray((found - found.min()) / (found.max() - found.min()))


DEFINITIONS: dict[str, Callable[[Array, Array, Behind, Array, int], Array]] = {
    "gradcam": gradcam,
    "gradcam-plus-plus": gradcam_plus_plus,
    "xgradcam": xgradcam,
    "layercam": layercam,
    "hirescam": hirescam,
    "scorecam": scorecam,
    "ablationcam": ablationcam,
    "reciprocam": reciprocam,
    "reciprocam:mask=gaussian": gaussian,
}


def wanted(method: str, net: Convolved, x: Array, target: int) -> Array:
    grid = DEFINITIONS[method](net.activations(x), net.weights[target], net, x.astype(np.float64), target)
    return large(grid)


def test_every_map_has_a_definition_here() -> None:
    assert sorted(DEFINITIONS) == sorted(WITH_MASKS)


@pytest.mark.parametrize("method", WITH_MASKS)
@pytest.mark.parametrize("target", [0, 1, 3])
def test_by_loops(method: str, target: int) -> None:
    net, x = convolved(), data(2)
    for found, one in zip(explained(net, method, x, target), x, strict=True):
        grid = wanted(method, net, one, target)
        np.testing.assert_allclose(found, grid, atol=2e-5 * np.abs(grid).max())


@pytest.mark.parametrize("method", WITH_MASKS)
def test_wrong_weights_are_noticed(method: str) -> None:
    net, x = convolved(), data(1)
    grid = wanted(method, net, x[0], 1)
    turned = Convolved(net.kernel, np.roll(net.weights, 1, axis=1), net.bias)
    (found,) = explained(turned, method, x)
    assert np.abs(found - grid).max() > 1e-2 * np.abs(grid).max()


@pytest.mark.parametrize("method", WITH_MASKS)
def test_channels_last(method: str) -> None:
    net, x = convolved(), data(2)
    explainer = Explainer(net.model("NHWC"), method=method, boundary="relu", layout="NHWC", providers="cpu")
    for one, other in zip(
        explainer.explain(x.transpose(0, 2, 3, 1), 1), explained(net, method, x), strict=True
    ):
        np.testing.assert_allclose(one.relevance, other, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize("method", WITH_MASKS)
@pytest.mark.parametrize("batch", ["N", 1, 2])
def test_the_same_map_alone_and_in_a_batch(method: str, batch: int | str) -> None:
    net, x = convolved(), data(3)
    alone = [explained(net, method, one[None])[0] for one in x]
    other = Explainer(net.model(batch=batch), method=method, boundary="relu", providers="cpu")
    for one, found in zip(alone, other.explain(x, 1, batch_size=3), strict=True):
        np.testing.assert_allclose(found.relevance, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("method", WITH_MASKS)
def test_several_targets_do_not_mix(method: str) -> None:
    net, x = convolved(), data(2)
    explainer = Explainer(net.model(), method=method, boundary="relu", providers="cpu")
    for i, found in enumerate(explainer.explain(x, [0, 1, 3], batch_size=2)):
        (one,) = explained(net, method, x[i // 3][None], [0, 1, 3][i % 3])
        np.testing.assert_allclose(found.relevance, one, atol=1e-5 * np.abs(one).max())


@pytest.mark.parametrize("method", CAMS)
def test_the_record(method: str) -> None:
    net, x = convolved(), data(1)
    explainer = Explainer(net.model(), method=method, boundary="relu", providers="cpu")
    (found,) = explainer.explain(x, 2)
    scores = net.tail(net.activations(x[0]))
    assert found.meta["method"]["name"] == method
    assert found.meta["boundary"] == ["relu"]
    assert found.meta["seed_value"] == pytest.approx(scores[2], rel=1e-5)
    np.testing.assert_allclose(found.logits, scores, rtol=1e-4)


def test_hirescam_adds_up_to_the_score_before_it_is_enlarged() -> None:
    """On an input of the size of the grid nothing is enlarged: one convolution of stride 1, and a pool."""
    rng = np.random.default_rng(0)
    make = helper.make_node
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
        make("GlobalAveragePool", ["r"], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("Gemm", ["f", "v", "b"], ["output"], name="fc", transB=1),
    ]
    weights: Weights = {
        "w": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "v": rng.standard_normal((4, 5)).astype(np.float32),
        "b": np.array([1, 2, 3, 4], np.float32),
    }
    model = model_of(nodes, weights, (["N", 3, 8, 10], ["N", 4]))
    for target, bias in enumerate([1, 2, 3, 4]):
        (found,) = Explainer(model, method="hirescam", providers="cpu").explain(data(1), target)
        assert found.meta["boundary"] == ["r"]  # where the encoder ends
        assert found.relevance.sum() == pytest.approx(found.meta["seed_value"] - bias, rel=1e-4)
        # With one weight for all positions Grad-CAM is the positive part of the same map.
        (other,) = Explainer(model, method="gradcam", providers="cpu").explain(data(1), target)
        np.testing.assert_allclose(other.relevance, np.maximum(found.relevance, 0), atol=1e-5)


@pytest.mark.parametrize("method", [m for m in WITH_MASKS if not m.startswith("reciprocam")])
def test_the_seed_is_explained(method: str) -> None:
    """The explained number of logprob is a direction in the scores: the same as a network with one such score."""
    net, x = convolved(), data(1)
    scores = net.tail(net.activations(x[0]))
    direction = np.eye(4)[1] - softmax(scores)
    single = Convolved(
        net.kernel, np.tensordot(direction, net.weights, axes=1)[None], np.array([direction @ net.bias])
    )
    (found,) = explained(net, method, x, seed="logprob")
    grid = wanted(method, single, x[0], 0)
    np.testing.assert_allclose(found, grid, atol=1e-4 * np.abs(grid).max())


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "ablationcam"])
def test_a_contrast(method: str) -> None:
    net, x = convolved(), data(1)
    both = Convolved(net.kernel, (net.weights[1] - net.weights[3])[None], (net.bias[1] - net.bias[3])[None])
    (found,) = explained(net, method, x, Contrast(1, 3))
    grid = wanted(method, both, x[0], 0)
    np.testing.assert_allclose(found, grid, atol=1e-4 * np.abs(grid).max())


# Inside a larger network: other forward tensors are read beside the layer.


def edited(model: onnx.ModelProto, tensor: str, factor: Array, x: Array) -> Array:
    """Scores of the model as it was, with one tensor times a factor, by ONNX Runtime."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = list(changed.graph.node)
    for node in nodes:
        for i, name in enumerate(node.input):
            if name == tensor:
                node.input[i] = "edited"
    at = next(i for i, node in enumerate(nodes) if tensor in node.output)
    mul = helper.make_node("Mul", [tensor, "factor"], ["edited"], name="edit")
    del changed.graph.node[:]
    changed.graph.node.extend([*nodes[: at + 1], mul, *nodes[at + 1 :]])
    changed.graph.initializer.append(onnx.numpy_helper.from_array(factor.astype(np.float32), "factor"))
    session = onnxruntime.InferenceSession(changed.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run([model.graph.output[0].name], {model.graph.input[0].name: x})
    return np.asarray(scores[0], np.float64)


def value_of(model: onnx.ModelProto, tensor: str, x: Array) -> Array:
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.ValueInfoProto(name=tensor))
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run([tensor], {model.graph.input[0].name: x})[0], np.float64)


@pytest.mark.parametrize("layer", ["relu2", "relu1", "relu4"])
@pytest.mark.parametrize("batch", ["N", 1])
def test_changed_activations_beside_a_skip_connection(layer: str, batch: int | str) -> None:
    model, x = small_cnn(batch=batch), data(1, (3, 32, 32))
    a = value_of(model, layer, x)[0]
    score = edited(model, layer, np.ones(1), x)[4]
    ablated = [edited(model, layer, 1 - np.eye(8)[c].reshape(1, 8, 1, 1), x)[4] for c in range(8)]
    grid = weighed([(score - one) / score for one in ablated], a)
    (found,) = Explainer(model, method="ablationcam", boundary=layer, providers="cpu").explain(x, 4)
    large_grid = cv2.resize(grid, (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found.relevance, large_grid, atol=1e-4 * large_grid.max())


def test_the_derivative_beside_a_skip_connection() -> None:
    """By finite differences of the model as it was: the total derivative by the inner layer, the skip left as it is."""
    model, x = small_cnn(), data(1, (3, 32, 32))
    a = value_of(model, "relu2", x)[0]
    total, step = np.zeros(8), 1e-2
    for c in range(8):
        factor = np.eye(8)[c].reshape(1, 8, 1, 1) * step
        total[c] = (edited(model, "relu2", 1 + factor, x)[4] - edited(model, "relu2", 1 - factor, x)[4]) / (
            2 * step
        )
    (found,) = Explainer(model, method="xgradcam", boundary="relu2", providers="cpu").explain(x, 4)
    sums = a.sum(axis=(1, 2))
    assert (sums == 0).any()  # a dead channel has no weight
    grid = weighed(
        total / np.where(sums == 0, 1, sums), a
    )  # Σ G A is the derivative by a factor of the channel
    large_grid = cv2.resize(grid, (32, 32), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(found.relevance, large_grid, atol=2e-2 * large_grid.max())
    assert found.meta["boundary"] == ["relu2"]


@pytest.mark.parametrize("method", ["ablationcam", "reciprocam"])
def test_a_model_made_for_one_item_is_run_one_by_one(method: str) -> None:
    """It says that it takes any batch, but a reshape in it says one."""
    net, x = convolved(), data(2)
    model = net.model()
    flatten = next(n for n in model.graph.node if n.op_type == "Flatten")
    flatten.CopyFrom(helper.make_node("Reshape", ["relu", "one"], ["f"], name="flatten"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 120]), "one"))
    other = Explainer(model, method=method, boundary="relu", providers="cpu")
    for found, one in zip(other.explain(x, 1), explained(net, method, x), strict=True):
        np.testing.assert_allclose(found.relevance, one, atol=1e-5 * np.abs(one).max())


def test_the_layer_may_be_the_input() -> None:
    net, x = linear(), data(1)
    (found,) = Explainer(net.model(), method="hirescam", boundary="input", providers="cpu").explain(x, 2)
    np.testing.assert_allclose(
        found.relevance, (net.weights[2].reshape(x[0].shape) * x[0]).sum(axis=0), atol=1e-5
    )
    (found,) = Explainer(net.model(), method="ablationcam", boundary="input", providers="cpu").explain(x, 2)
    parts = (net.weights[2].reshape(x[0].shape) * x[0]).sum(axis=(1, 2)) / net(x[0])[2]
    np.testing.assert_allclose(found.relevance, weighed(parts, x[0]), atol=1e-5)


# Tokens


def grid_of_tokens(values: Array) -> Array:
    """[5, C] behind the class token as [C, 2, 2]: the tokens of a picture, row by row."""
    found = np.zeros((values.shape[1], 2, 2))
    for t in range(4):
        found[:, t // 2, t % 2] = values[1 + t]
    return found


@dataclass(frozen=True, eq=False)
class Tokens:
    """A linear layer on a class token [C] and 2 × 2 others; weights [K, 5, C]."""

    weights: Array
    bias: Array
    first: Array

    def activations(self, x: Array) -> Array:
        raise AssertionError("not asked for")

    def tail(self, activations: Array) -> Array:
        return self._scores(activations, self.first)

    def without(self, activations: Array, channel: int) -> Array:
        kept = np.arange(len(self.first)) != channel
        return self._scores(activations * kept[:, None, None], self.first * kept)

    def _scores(self, activations: Array, first: Array) -> Array:
        tokens = np.stack([first, *(activations[:, i, j] for i in range(2) for j in range(2))])
        return np.asarray((self.weights * tokens).sum(axis=(1, 2)) + self.bias)


@pytest.mark.parametrize("method", [m for m in WITH_MASKS if m != "scorecam"])
@pytest.mark.parametrize("batch", [1, 2])
def test_tokens_of_a_picture(method: str, batch: int) -> None:
    """The class token is no place of the picture: left out of the map, and kept as it is when places are hidden."""
    net = tokens_net(batch)
    model, x = in_single(net), net.photo().astype(np.float32)
    (relu,) = (n.output[0] for n in model.graph.node if n.op_type == "Relu")
    tail = model.graph.node[-1]
    stored = {t.name: onnx.numpy_helper.to_array(t).astype(np.float64) for t in model.graph.initializer}
    weights, bias = stored[tail.input[1]].reshape(3, 5, 6), stored[tail.input[2]]
    found = Explainer(model, method=method, boundary=relu, providers="cpu", layout="NCHW").explain(x, 1)
    for i in range(batch):
        a = value_of(model, relu, x)[i]
        behind = Tokens(weights, bias, a[0])
        grid = DEFINITIONS[method](grid_of_tokens(a), grid_of_tokens(weights[1]), behind, x[i], 1)
        large_grid = cv2.resize(grid, (12, 8), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(found[i].relevance, large_grid, atol=2e-5 * np.abs(large_grid).max())


@pytest.mark.parametrize("method", CAMS)
@pytest.mark.parametrize("pool", ["class token", "mean"])
def test_a_transformer_at_its_own_boundary(method: str, pool: str) -> None:
    """The tokens that enter the last block of attention; the map of an item does not depend on the other one."""
    net = vit(pool)
    x = net.photo().astype(np.float32)
    explainer = Explainer(in_single(net), method=method, providers="cpu", layout="NCHW")
    both, swapped = explainer.explain(x, 0), explainer.explain(x[::-1], 0)
    srd = Explainer(in_single(net), providers="cpu", layout="NCHW").explain(x, 0)
    assert both[0].meta["boundary"] == srd[0].meta["boundary"]
    for one, other in zip(both, swapped[::-1], strict=True):
        np.testing.assert_allclose(
            one.relevance, other.relevance, atol=1e-5 * np.abs(one.relevance).max() + 1e-7
        )


def test_hirescam_is_0_before_a_layer_normalisation() -> None:
    """It forgets the scale of a token, so that the derivative along the token is 0; behind it the map is not."""
    net = vit()
    model, x = in_single(net), net.photo().astype(np.float32)
    before, behind = next((n.input[0], n.output[0]) for n in model.graph.node if n.name == _last_norm(net))
    maps = {
        layer: Explainer(model, method="hirescam", boundary=layer, providers="cpu", layout="NCHW").explain(
            x, 0
        )
        for layer in (before, behind)
    }
    assert np.abs(maps[before][0].relevance).max() < 1e-6
    assert np.abs(maps[behind][0].relevance).max() > 1e-3


def _last_norm(net: Net) -> str:
    """The one before the attention of the last block."""
    places = [i for i, layer in enumerate(net.layers) if layer.op == "LayerNormalization"]
    return f"LayerNormalization {places[-3]}"


# Refusals


@pytest.mark.parametrize("method", ["gradcam", "reciprocam"])
def test_positions_that_are_no_grid_of_the_picture(method: str) -> None:
    net = vit()
    explainer = Explainer(
        in_single(net), method=method, boundary=net.boundary, providers="cpu", layout="NCHW"
    )
    said = r"the positions of 't\d+' \[2, 2, 5, 3\] \(axes NCPC\) cannot be laid over the input 'x' \[2, 3, 8, 12\]: "
    with pytest.raises(LayoutError, match=said + r"choose another layer with boundary="):
        explainer.explain(net.photo().astype(np.float32), 0)


@pytest.mark.parametrize("method", CAMS)
def test_several_inputs(method: str) -> None:
    explainer = Explainer(two_inputs(), method=method, boundary="a", providers="cpu")
    with pytest.raises(
        UnsupportedCaseError, match=r"lies over one input, but relevance reaches 'a', 'b': hold the others"
    ):
        explainer.explain({"a": data(1), "b": data(1, (6,))}, 0)


def branches() -> onnx.ModelProto:
    make, rng = helper.make_node, np.random.default_rng(0)
    nodes = []
    for name in "pq":
        nodes += [
            make("Conv", ["input", f"w{name}"], [name], name=f"conv {name}"),
            make("GlobalAveragePool", [name], [f"pool {name}"], name=f"pool {name}"),
        ]
    nodes += [
        make("Concat", ["pool p", "pool q"], ["both"], name="both", axis=1),
        make("Flatten", ["both"], ["f"], name="flatten"),
        make("MatMul", ["f", "v"], ["output"], name="fc"),
    ]
    weights: Weights = {f"w{name}": rng.standard_normal((4, 3, 3, 3)).astype(np.float32) for name in "pq"}
    weights["v"] = rng.standard_normal((8, 3)).astype(np.float32)
    return model_of(nodes, weights, (["N", 3, 8, 10], ["N", 3]))


@pytest.mark.parametrize("method", CAMS)
def test_an_encoder_with_several_ends(method: str) -> None:
    with pytest.raises(
        OptionError, match=r"the encoder ends at 2: choose one with boundary= \('[pq]', '[pq]'\)"
    ):
        Explainer(branches(), method=method, providers="cpu").explain(data(1))
    found = Explainer(branches(), method=method, boundary="p", providers="cpu").explain(data(1))
    assert found[0].meta["boundary"] == ["p"]


@pytest.mark.parametrize("method", CAMS)
def test_a_layer_that_is_not_there(method: str) -> None:
    with pytest.raises(UnknownTensorError, match=r"boundary 'relo' is not a tensor.*did you mean 'relu'"):
        Explainer(convolved().model(), method=method, boundary="relo", providers="cpu").explain(data(1))


def test_a_score_of_0_has_no_ablation() -> None:
    net = convolved()
    nothing = Convolved(net.kernel, net.weights * 0, net.bias * 0)
    with pytest.raises(NonFiniteError, match=r"Ablation-CAM divides by the explained score, which is 0"):
        explained(nothing, "ablationcam", data(1))


@pytest.mark.parametrize("method", CAMS)
def test_a_layer_that_is_0_gives_a_map_of_0(method: str) -> None:
    net = convolved()
    dead = Convolved(-np.abs(net.kernel), net.weights, net.bias)
    (found,) = explained(dead, method, np.abs(data(1)))
    assert (found == 0).all()


def test_options_that_mean_nothing() -> None:
    with pytest.raises(OptionError, match=r"mask='round' is not one of single, gaussian"):
        method_named("reciprocam:mask=round")
    with pytest.raises(
        OptionError, match=r"reciprocam explains the probability of a class: seed='contrast' means"
    ):
        explained(convolved(), "reciprocam", data(1), seed="contrast")
