"""Networks that give pictures back: small U-Nets with every kind of upsampling, and a pixel-shuffle upscaler."""

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from graph_rules import RULES
from srd_onnx import Explainer
from srd_onnx.engine.backward import build
from srd_onnx.engine.options import Bias, Options
from srd_onnx.engine.plan import make_plan
from srd_onnx.engine.seed import TARGET
from srd_onnx.graph.roles import parse_layout
from srd_onnx.graph.walk import walk
from srd_onnx.targets import At
from tests.harness import info, reference
from tests.small_nets import Array, Net

SHAPE = (2, 3, 8, 12)
Up = Callable[[Net, str, int], str]


def by_transpose(net: Net, x: str, channels: int) -> str:
    return net.add(
        "ConvTranspose", x, net.random(channels, channels, 2, 2), net.random(channels), strides=[2, 2]
    )


def by_overlapping_transpose(net: Net, x: str, channels: int) -> str:
    weights = net.random(channels, 1, 4, 4)
    return net.add("ConvTranspose", x, weights, strides=[2, 2], pads=[1, 1, 1, 1], group=channels)


def resized(mode: str, how: str) -> Up:
    def up(net: Net, x: str, channels: int) -> str:
        scales = f"scales{len(net.constants)}"
        net.constants[scales] = np.array([1, 1, 2, 2], np.float32)
        larger = net.add("Resize", x, "", scales, mode=mode, coordinate_transformation_mode=how)
        return net.conv(larger, (channels, channels, 1, 1))

    return up


def by_shuffle(net: Net, x: str, channels: int) -> str:
    return net.add("DepthToSpace", net.conv(x, (4 * channels, channels, 1, 1)), blocksize=2, mode="CRD")


UPS: dict[str, Up] = {
    "transpose": by_transpose,
    "overlap": by_overlapping_transpose,
    "nearest": resized("nearest", "asymmetric"),
    "linear": resized("linear", "half_pixel"),
    "aligned": resized("linear", "align_corners"),
    "cubic": resized("cubic", "half_pixel"),
    "shuffle": by_shuffle,
}


def u_net(name: str) -> Net:
    """Two levels: down by MaxPool, up, the skip joined by Concat, a probability for each pixel."""
    net, up = Net(f"u_net_{name}", SHAPE, "NCHW"), UPS[name]
    outer = net.add("Relu", net.conv("x", (4, 3, 3, 3), pads=[1] * 4))
    inner = net.add("MaxPool", outer, kernel_shape=[2, 2], strides=[2, 2])
    inner = net.add("Relu", net.conv(inner, (5, 4, 3, 3), pads=[1] * 4))
    joined = net.add("Concat", outer, up(net, inner, 5), axis=1)
    last = net.add("Relu", net.conv(joined, (4, 9, 3, 3), pads=[1] * 4))
    net.boundary = last
    net.add("Sigmoid", net.conv(last, (1, 4, 1, 1)))
    return net.done()


def upscaler() -> Net:
    """Mirrored edges, a residual block, twice the size by DepthToSpace, plus the picture enlarged."""
    net = Net("upscaler", SHAPE, "NCHW")
    edges = net.ints(0, 0, 1, 1, 0, 0, 1, 1)
    first = net.add("Relu", net.conv(net.add("Pad", "x", edges, mode="reflect"), (4, 3, 3, 3)))
    net.boundary = deep = net.add("Add", first, net.conv(first, (4, 4, 3, 3), pads=[1] * 4))
    large = net.add("DepthToSpace", net.conv(deep, (12, 4, 3, 3), pads=[1] * 4), blocksize=2)
    net.constants["scales"] = np.array([1, 1, 2, 2], np.float32)
    net.add("Add", large, net.add("Resize", "x", "", "scales", mode="linear"))
    return net.done()


NETS: dict[str, Callable[[], Net]] = {
    **{name: lambda name=name: u_net(name) for name in UPS},  # type: ignore[misc]
    "upscaler": upscaler,
}

every_net = pytest.mark.parametrize("name", NETS)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@every_net
def test_in_double_precision_map_and_ledger_are_the_seed(name: str, bias: Bias) -> None:
    net = NETS[name]()
    model = net.model()
    axes = parse_layout("NCHW", "x", SHAPE)
    backward = build(make_plan(walk(model), {"x": axes}, RULES, Options(bias=bias, boundary=net.boundary)))
    model.graph.node.extend(backward.emit.nodes)
    model.graph.initializer.extend(backward.emit.initializers)
    model.graph.input.append(info(TARGET, np.int64, (2,)))
    x, target = net.photo(), np.array([37, -1])
    wanted = [backward.relevance["x"], backward.seed, *(tensor for _, tensor in backward.ledger)]
    model.graph.output.extend(onnx.ValueInfoProto(name=tensor) for tensor in wanted)
    relevance, seed, *ledger = reference(model, {"x": x, TARGET: target}, wanted)
    assert relevance.shape == (2, 8, 12)
    assert np.abs(relevance).max(axis=(1, 2)).min() > 1e-3
    total = relevance.sum(axis=(1, 2)) + np.sum([np.zeros(2), *ledger], axis=0)
    np.testing.assert_allclose(total, seed, rtol=1e-9, atol=1e-9 * np.abs(relevance).sum())


def single(net: Net) -> ModelProto:
    """The net in single precision, as a file would hold it."""
    model = net.model()
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor)
        if data.dtype == np.float64:
            tensor.CopyFrom(numpy_helper.from_array(data.astype(np.float32), tensor.name))
    graph = helper.make_graph(
        list(model.graph.node),
        net.name,
        [info("x", np.float32, SHAPE)],
        [onnx.ValueInfoProto(name="logits")],
        list(model.graph.initializer),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    return model


def photo(net: Net) -> Array:
    return net.photo().astype(np.float32)


@every_net
def test_a_pixel_of_the_picture_is_explained_on_the_runtime(name: str) -> None:
    net = NETS[name]()
    explainer = Explainer(single(net), preset="paper", layout="NCHW", providers="cpu")
    for index in (37, -1):
        for each in explainer.explain(photo(net), None if index < 0 else index):
            scale = np.abs(each.relevance).sum() + sum(map(abs, each.ledger.values()))
            assert np.isfinite(each.relevance).all()
            assert np.abs(each.relevance).max() > 1e-3
            assert abs(each.residual) <= 1e-4 * scale


def test_a_region_of_the_mask_is_explained_by_what_lies_around_it() -> None:
    """Three layers of 3x3, one behind a pool of 2x2: a corner of the mask sees five pixels far."""
    net = u_net("transpose")
    explainer = Explainer(single(net), preset="paper", layout="NCHW", providers="cpu")
    (explanation, _) = explainer.explain(photo(net), At("logits", (0, slice(0, 1), slice(0, 1))))
    assert np.abs(explanation.relevance[:5, :5]).max() > 1e-3
    np.testing.assert_array_equal(explanation.relevance[:, 5:], 0)
