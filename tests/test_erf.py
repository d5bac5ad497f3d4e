"""Effective receptive fields: by ratios, by one-hot backward passes, by the forward recursion, by brute force."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.errors import OptionError, UnknownTensorError
from srd_onnx.inputs.sources import Array
from srd_onnx.inside.layers import Layer
from srd_onnx.sharing.carrying import forward
from srd_onnx.sharing.ratios import compile_ratios, run_ratios
from srd_onnx.targets import At
from srd_onnx.zoo import sample_photo
from tests.nets import model_of, small_cnn

EXACT = 1e-5  # of the largest number
make = helper.make_node


def data(*shape: int) -> Array:
    return np.random.default_rng(11).standard_normal(shape).astype(np.float32)


def convolutions(kernels: list[Array], pads: int = 0) -> onnx.ModelProto:
    """Convolutions one after the other, without bias, and a mean over positions."""
    weights: dict[str, Array] = {}
    nodes, last = [], "input"
    for i, kernel in enumerate(kernels):
        weights[f"w{i}"] = kernel.astype(np.float32)
        rank = kernel.ndim - 2
        nodes.append(make("Conv", [last, f"w{i}"], [f"y{i}"], name=f"conv{i}", pads=[pads] * (2 * rank)))
        last = f"y{i}"
    nodes.append(make("GlobalAveragePool", [last], ["pooled"]))
    nodes.append(make("Flatten", ["pooled"], ["output"]))
    shape = [1, kernels[0].shape[1], *[12] * (kernels[0].ndim - 2)]
    return model_of(nodes, weights, (shape, [1, kernels[-1].shape[0]]))


def test_fields_of_a_positive_linear_network_have_their_closed_form() -> None:
    """Of ones through kernels of ones every ratio is 1 / taps: fields are B-splines."""
    ones = np.ones((1, 1, 3))
    explainer = Explainer(convolutions([ones, ones, ones]), preset="paper", layout="NCT", providers="cpu")
    (erf,) = explainer.erf(np.ones((1, 1, 12), np.float32), "conv2")
    assert erf.maps.shape == (6, 12)
    spline = np.array([1, 3, 6, 7, 6, 3, 1]) / 27
    for position, map_ in zip(erf.positions[:, 0], erf.maps, strict=True):
        wanted = np.zeros(12)
        wanted[position : position + 7] = spline
        np.testing.assert_allclose(map_, wanted, rtol=0, atol=1e-7)


def test_a_field_is_the_normalised_product_of_weights_and_inputs() -> None:
    """With one channel and positive numbers a ratio is the part that the position contributes to the sum."""
    rng = np.random.default_rng(0)
    kernel, x = rng.uniform(0.5, 2, (1, 1, 3, 3)), rng.uniform(0.5, 2, (1, 1, 12, 12)).astype(np.float32)
    (erf,) = Explainer(convolutions([kernel]), preset="paper", providers="cpu").erf(x, "conv0", [(2, 5)])
    part = kernel[0, 0] * x[0, 0, 2:5, 5:8]
    wanted = np.zeros((12, 12))
    wanted[2:5, 5:8] = part / part.sum()
    np.testing.assert_allclose(erf.maps[0], wanted, rtol=0, atol=1e-6)


def one_hot(model: Any, x: Any, tensor: str, position: tuple[int, ...]) -> Array:
    """The map that a backward pass gives for relevance 1 at one position: the cotangent v / |v|² there."""
    v = Explainer(model, preset="paper", providers="cpu").preactivations(x, tensor)[tensor][0]
    weights = np.zeros_like(v)
    at = (slice(None), *position)
    weights[at] = v[at] / (v[at] ** 2).sum()
    return (
        Explainer(model, preset="paper", providers="cpu", boundary=tensor)
        .explain(x, At(tensor, weights))[0]
        .relevance
    )


@pytest.mark.parametrize("model", ["small_cnn", "squeezenet11", "efficientnet_lite0"])
def test_fields_by_ratios_by_a_backward_pass_and_by_the_forward_recursion(model: str) -> None:
    net: Any = small_cnn() if model == "small_cnn" else model
    x: Any = data(1, 3, 32, 32) if model == "small_cnn" else sample_photo()
    explainer = Explainer(net, preset="paper", providers="cpu")
    layers = [layer for layer in explainer.layers() if layer.mixes]
    layer = layers[2 * len(layers) // 3]
    places = [(0, 0), tuple(size // 2 for size in layer.positions), tuple(s - 1 for s in layer.positions)]
    (erf,) = explainer.erf(x, layer.tensor, places)
    by_recursion = fields_upward(explainer, x, layer, places)
    for position, map_, other in zip(places, erf.maps, by_recursion, strict=True):
        wanted = one_hot(net, x, layer.tensor, position)
        scale = float(np.abs(wanted).max())
        np.testing.assert_allclose(map_, wanted, rtol=0, atol=EXACT * scale)
        np.testing.assert_allclose(other, wanted, rtol=0, atol=EXACT * scale)
        assert map_.sum() == pytest.approx(1, abs=1e-4)


def fields_upward(explainer: Explainer, x: Any, layer: Layer, places: list[tuple[int, ...]]) -> list[Array]:
    ((items, size),) = explainer.chunks(x, 1)
    shapes = explainer.shapes(items[0], size)
    proto, plan = explainer.planned(explainer.case(shapes, layer.tensor, layer.tensor))
    ratios, _ = run_ratios(
        compile_ratios(plan, proto, explainer.providers, None), explainer.feeds(items, size)
    )
    source = plan.sources[0]
    height, width = source.shape[2:]
    last = None
    for found in forward(ratios, source.name, height * width, "distribute"):
        last = found
    assert last is not None
    assert last.tensor == layer.tensor
    columns = [np.ravel_multi_index(place, layer.positions) for place in places]
    dense = last.fields[:, columns]
    return list((dense if isinstance(dense, np.ndarray) else dense.toarray()).T.reshape(-1, height, width))


@pytest.mark.parametrize("model", ["squeezenet11", "efficientnet_lite0"])
def test_the_first_ratios_of_a_real_model_by_brute_force(model: str) -> None:
    """All input positions zero but one, the difference projected on the preactivation."""
    explainer = Explainer(model, preset="paper", providers="cpu")
    first = next(layer for layer in explainer.layers() if layer.op == "Conv")
    ((items, size),) = explainer.chunks(sample_photo(), 1)
    x = explainer.feeds(items, size)[explainer.ports[0].name]
    layer = explainer.ratios(sample_photo())[0][first.name]
    v, rest = (
        explainer.preactivations(data_, first.tensor)[first.tensor][0] for data_ in (x, np.zeros_like(x))
    )
    taps, index = layer.incoming[0].taps, layer.incoming[0].feeds.index
    for place in [(0, 0), (3, 50), (56, 56)]:
        j = np.ravel_multi_index(place, first.positions)
        for k in range(len(index)):
            if index[k, j] < 0:
                continue
            y, x_ = np.unravel_index(index[k, j], x.shape[2:])
            alone = np.zeros_like(x)
            alone[:, :, y, x_] = x[:, :, y, x_]
            change = explainer.preactivations(alone, first.tensor)[first.tensor][0] - rest
            mu = (change[:, *place] * v[:, *place]).sum() / (v[:, *place] ** 2).sum()
            assert taps[k, j] == pytest.approx(mu, abs=1e-5)


def test_nothing_outside_the_theoretical_receptive_field() -> None:
    """Exactly zero there, for every layer of a real model whose field does not fill the input."""
    explainer = Explainer("squeezenet11", preset="paper", providers="cpu")
    layers = [one for one in explainer.layers() if one.mixes and one.field and one.field[0] < 200]
    assert len(layers) > 12
    for layer in layers[::3]:
        middle = tuple(size // 2 for size in layer.positions)
        (erf,) = explainer.erf(sample_photo(), layer.tensor, [middle])
        rows, columns = np.nonzero(erf.maps[0])
        assert layer.field is not None
        assert rows.max() - rows.min() < layer.field[0]
        assert columns.max() - columns.min() < layer.field[1]


def test_the_layers_of_a_network_have_the_textbook_stride_and_field() -> None:
    found = {
        layer.name: layer for layer in Explainer("squeezenet11", preset="paper", providers="cpu").layers()
    }
    # field(n) = field(n-1) + (kernel - 1) * stride(n-1)
    assert (found["/c1/Conv"].stride, found["/c1/Conv"].field) == ((2.0, 2.0), (3, 3))
    assert (found["/pool/MaxPool"].stride, found["/pool/MaxPool"].field) == ((4.0, 4.0), (7, 7))
    assert (found["/fires.0/e3/Conv"].stride, found["/fires.0/e3/Conv"].field) == ((4.0, 4.0), (15, 15))
    assert (found["/fires.7/e3/Conv"].stride, found["/fires.7/e3/Conv"].field) == ((16.0, 16.0), (207, 207))


def test_layers_are_chosen_by_node_by_tensor_by_wildcard_and_as_the_encoder() -> None:
    explainer = Explainer("squeezenet11", preset="paper", providers="cpu")
    by_name = explainer.erf(sample_photo(), "/fires.7/Concat", [(6, 6)])[0]
    by_tensor = explainer.erf(sample_photo(), by_name.layer, [(6, 6)])[0]
    np.testing.assert_array_equal(by_name.maps, by_tensor.maps)
    several = explainer.erf(sample_photo(), "/fires.[01]/e3/*", [(6, 6)])
    assert len({erf.layer for erf in several}) == len(several) == 2
    encoder = explainer.erf(sample_photo(), positions=[(6, 6)])[0]
    assert encoder.layer == explainer.plan.boundary[0]


def test_what_cannot_be_shown_is_said() -> None:
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    x = data(1, 3, 32, 32)
    with pytest.raises(
        UnknownTensorError, match="'rleu2' is no layer that relevance crosses; did you mean 'relu2'"
    ):
        explainer.erf(x, "rleu2")
    with pytest.raises(OptionError, match=r"position \(40, 0\) lies outside 'relu2', which has .* positions"):
        explainer.erf(x, "relu2", [(40, 0)])
    with pytest.raises(OptionError, match=r"a position in 'relu2' has 2 coordinates .*, not 1"):
        explainer.erf(x, "relu2", [3])  # type: ignore[list-item]
    with pytest.raises(OptionError, match="positions='every'"):
        explainer.erf(x, "relu2", "every")  # type: ignore[arg-type]


def test_many_positions_come_in_parts_and_are_the_same() -> None:
    explainer = Explainer(small_cnn(), preset="paper", providers="cpu")
    x = data(1, 3, 32, 32)
    parts = list(explainer.erf_each(x, "relu1"))
    (whole,) = explainer.erf(x, "relu1")
    assert len(parts) > 1
    np.testing.assert_array_equal(np.concatenate([part.maps for part in parts]), whole.maps)
    np.testing.assert_allclose(whole.maps.sum(axis=(1, 2)), 1, rtol=0, atol=1e-4)


def test_a_layer_below_which_nothing_is_shared_sees_each_position_alone() -> None:
    from tests.evaluation_nets import explainer as colours

    (found,) = colours().erf(np.zeros((1, 3, 16, 16), np.float32), "encoder", [(3, 4)])
    alone = np.zeros((1, 16, 16), np.float32)
    alone[0, 3, 4] = 1
    np.testing.assert_array_equal(found.maps, alone)
