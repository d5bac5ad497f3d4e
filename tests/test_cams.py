"""Class activation maps by their definitions, as loops in double precision on networks small enough to write down."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.graph.ir import Array
from srd_onnx.methods import METHODS
from srd_onnx.methods.scoring import Scored, Scorer
from srd_onnx.targets import Contrast
from tests.method_nets import Convolved, Weights, convolved, data, softmax
from tests.nets import model_of

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


@dataclass(frozen=True, eq=False)
class WithFlat(Convolved):
    """The last two channels are the same everywhere: 0.3, which no sum of weights gives exactly, and 0."""

    def activations(self, x: Array) -> Array:
        found = super().activations(x)
        found[-2], found[-1] = np.float32(0.3), 0
        return found

    def model(self, layout: str = "NCHW", batch: int | str = "N") -> onnx.ModelProto:
        model = super().model(layout, batch)
        kernel = self.kernel.astype(np.float32)
        kernel[-2:] = 0
        flat = np.zeros(len(kernel), np.float32)
        flat[-2:] = 0.3, -1
        for name, array in {"w": kernel, "flat": flat}.items():
            kept = [one for one in model.graph.initializer if one.name != name]
            del model.graph.initializer[:]
            model.graph.initializer.extend([*kept, numpy_helper.from_array(array, name)])
        model.graph.node[0].input.append("flat")
        return model


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many changed inputs the model was asked for, run by run."""
    rows, plainly = list[int](), Scorer.changed

    def counted(self: Scorer, item: Mapping[str, Array], source: str, changed: Array) -> Scored:
        rows.append(len(changed))
        return plainly(self, item, source, changed)

    monkeypatch.setattr(Scorer, "changed", counted)
    return rows


def test_scorecam_scores_the_black_picture_once(scored: list[int]) -> None:
    plain, x = convolved(), data(1)
    net = WithFlat(plain.kernel, plain.weights, plain.bias)
    a = net.activations(x[0])
    masks = [large(one) for one in a[:-2]]
    masks = [(one - one.min()) / (one.max() - one.min()) for one in masks] + [np.zeros((8, 10))] * 2
    scores = [net.tail(net.activations(x[0] * mask))[1] for mask in masks]
    grid = large(weighed(softmax(np.array(scores)), a))
    (found,) = explained(net, "scorecam", x)
    np.testing.assert_allclose(found, grid, atol=2e-5 * np.abs(grid).max())
    assert sum(scored) == len(a) - 1


def test_ablationcam_scores_what_takes_nothing_away_once(scored: list[int]) -> None:
    plain, x = convolved(8), data(1)
    net = WithFlat(plain.kernel.copy(), plain.weights, plain.bias)
    net.kernel[[0, 3]] = 0
    grid = wanted("ablationcam", net, x[0], 1)
    (found,) = explained(net, "ablationcam", x)
    np.testing.assert_allclose(found, grid, atol=2e-5 * np.abs(grid).max())
    assert sum(scored) == len(net.kernel) - 2  # three channels are 0


@pytest.mark.parametrize("method", ["gradcam", "hirescam", "ablationcam"])
def test_a_contrast(method: str) -> None:
    net, x = convolved(), data(1)
    both = Convolved(net.kernel, (net.weights[1] - net.weights[3])[None], (net.bias[1] - net.bias[3])[None])
    (found,) = explained(net, method, x, Contrast(1, 3))
    grid = wanted(method, both, x[0], 0)
    np.testing.assert_allclose(found, grid, atol=1e-4 * np.abs(grid).max())
