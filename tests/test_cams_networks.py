"""Activation maps where other tensors lie beside the layer, of tokens, and where there is none."""

from dataclasses import dataclass

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.errors import LayoutError, NonFiniteError, OptionError, UnknownTensorError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.methods import method_named
from tests.method_nets import Convolved, Weights, convolved, data, linear, tokens_net, two_inputs, vit
from tests.nets import model_of, small_cnn
from tests.small_nets import Net, in_single
from tests.test_cams import CAMS, DEFINITIONS, WITH_MASKS, explained, weighed

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
