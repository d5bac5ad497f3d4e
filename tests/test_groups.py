"""Group normalisation as torch exports it, by an instance normalisation of groups: positions survive the reshapes."""

import numpy as np
import pytest

from srd_onnx.engine.options import Bias, Options
from tests.attention_nets import constant
from tests.small_nets import Net
from tests.test_attention import DERIVATIVE, explained

CHANNELS, SIDE = 4, 5


def group_net(groups: int) -> Net:
    """Conv, group norm, Relu, Conv, pool, classifier."""
    net = Net(f"groups {groups}", (2, 2, SIDE, SIDE), "NCHW")
    x = net.conv("x", (CHANNELS, 2, 3, 3), pads=[1, 1, 1, 1])
    grouped = net.add("Reshape", x, net.ints(0, groups, -1), out="NCR")
    ones, zeros = constant(net, np.ones(groups)), constant(net, np.zeros(groups))
    normal = net.add("InstanceNormalization", grouped, ones, zeros)
    back = net.add("Reshape", normal, net.ints(2, CHANNELS, SIDE, SIDE), out="NCHW")
    scaled = net.add("Mul", back, net.random(CHANNELS, 1, 1))
    x = net.add("Relu", net.add("Add", scaled, net.random(CHANNELS, 1, 1)))
    return net.head(net.conv(x, (CHANNELS, CHANNELS, 3, 3)), CHANNELS)


@pytest.mark.parametrize("bias", ["distribute", "ledger"])
@pytest.mark.parametrize("groups", [2, 4])
def test_it_conserves(groups: int, bias: Bias) -> None:
    net = group_net(groups)
    relevance, seed, booked = explained(net, Options(bias=bias))(net.photo())
    assert relevance.shape == (2, SIDE, SIDE)
    assert len(np.unique(relevance.round(9))) > SIDE * SIDE
    total = relevance.sum(axis=(1, 2)) + booked
    np.testing.assert_allclose(total, seed, rtol=0, atol=1e-9 * np.abs(relevance).sum())


def test_a_pixel_keeps_its_relevance_through_the_groups() -> None:
    """With 1x1 convolutions around it, all of the relevance of a position stays at that position."""
    net = Net("pointwise", (2, 2, SIDE, SIDE), "NCHW")
    x = net.conv("x", (CHANNELS, 2, 1, 1), bias=False)
    grouped = net.add("Reshape", x, net.ints(0, 2, -1), out="NCR")
    normal = net.add("InstanceNormalization", grouped, constant(net, np.ones(2)), constant(net, np.zeros(2)))
    net.boundary = net.add("Reshape", normal, net.ints(0, CHANNELS, SIDE, SIDE), out="NCHW")
    there = net.add("Mul", net.boundary, constant(net, np.eye(SIDE)[2][:, None] * np.eye(SIDE)[1]))
    net.classify(net.add("Flatten", net.add("GlobalAveragePool", there), out="NC"), CHANNELS)
    relevance, _, _ = explained(net, Options(boundary=net.boundary))(net.photo())
    elsewhere = relevance.copy()
    elsewhere[:, 2, 1] = 0
    assert np.abs(relevance[:, 2, 1]).min() > 0
    assert np.abs(elsewhere).max() <= 1e-12 * np.abs(relevance).max()


def test_its_tangent_is_its_derivative() -> None:
    net, step = group_net(2), 1e-5
    x = net.photo()
    relevance, _, _ = explained(net, Options(boundary="x"), DERIVATIVE, tangent=True)(x)
    ahead, behind = (explained(net, Options())(x * (1 + s * step))[1] for s in (1, -1))
    slope = (ahead - behind) / (2 * step)
    np.testing.assert_allclose(relevance.sum(axis=(1, 2)), slope, rtol=0, atol=1e-6 * np.abs(relevance).sum())
