"""FullGrad: the parts of the full gradient, and their map."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from srd_onnx import Explainer
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.methods.fullgrad import FullGradient, fullgrad, picture, stretched
from tests.dense_nets import CLASSES, SHAPE, Real, dense_net, inputs
from tests.nets import small_cnn
from tests.test_gradient_methods import assert_close, explained


def compiled(model: onnx.ModelProto, batch: int) -> FullGradient:
    explainer = Explainer(model, method=fullgrad(), providers="cpu")
    shape = (batch, *explainer.input_shape[1:])
    made = fullgrad().make(explainer, explainer.case({explainer.ports[0].name: shape}))
    assert isinstance(made, FullGradient)
    return made


def full_gradient(x: Real, target: int) -> dict[str, Real]:
    """Of `dense_net` the bias times the derivative at it, by node, and the input's part."""
    net = dense_net()
    by = net.gradient(x, target)
    onehot = np.eye(CLASSES)[target]
    return {
        "input": x.ravel() * by["x"],
        "conv1": net.conv1.b * by["v1"],
        "conv2": net.conv2.b * by["v2"],
        "gemm": net.gemm.b * onehot,
    }


def test_the_parts_of_the_full_gradient_and_their_sum() -> None:
    net, x = dense_net(), inputs()
    found = compiled(net.model, len(x)).parts({"input": x}, np.full(len(x), 2))
    for i, row in enumerate(x.astype(np.float64)):
        expected = full_gradient(row, 2)
        assert_close(found.input[i].ravel().astype(np.float64), expected["input"])
        ours = {name: np.asarray(part[i], np.float64).ravel() for name, _, part in found.biases}
        assert ours.keys() == {"conv1", "conv2", "gemm"}
        for name, part in ours.items():
            assert_close(part, expected[name])
        assert sum(part.sum() for part in expected.values()) == pytest.approx(found.seed[i], rel=1e-5)


@pytest.mark.parametrize("clipped", [False, True])
def test_the_full_gradient_of_a_larger_network_sums_to_the_score(clipped: bool) -> None:
    model = small_cnn()
    if clipped:
        _as_relu6(model)
    x = np.random.default_rng(2).standard_normal((2, 3, 32, 32)).astype(np.float32)
    found = compiled(model, 2).parts({"input": x}, np.array([-1, 4]))
    total = found.input.reshape(2, -1).sum(axis=1, dtype=np.float64)
    for _, value, part in found.biases:
        total += np.broadcast_to(part, value.shape).reshape(2, -1).sum(axis=1, dtype=np.float64)
    np.testing.assert_allclose(total, found.seed, rtol=1e-4)
    assert abs(found.seed[0] - found.input[0].sum()) > 0.01 * abs(found.seed[0])


def _as_relu6(model: onnx.ModelProto) -> None:
    """Rectifiers that saturate soon: what they cut off is a bias, too."""
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Clip"
            node.input.extend(["low", "high"])
    for name, number in (("low", 0.0), ("high", 0.5)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(number, np.float32), name))


def scaled_loop(part: Real) -> Real:
    """ψ of one item [C, H, W], summed over channels."""
    size = np.abs(part)
    size = size - size.min()
    total: Real = (size / (size.max() + 1e-6)).sum(axis=0)
    return total


def test_the_map_of_fullgrad() -> None:
    net, x = dense_net(), inputs()
    for row, one in zip(x.astype(np.float64), explained(net.model, "fullgrad", x), strict=True):
        parts = full_gradient(row, 2)
        expected = scaled_loop(parts["input"].reshape(SHAPE))
        for name in ("conv1", "conv2"):  # as large as the input; the dense head has no place
            expected = expected + scaled_loop(parts[name].reshape(-1, *SHAPE[1:]))
        assert_close(one, expected)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_close(one, scaled_loop(parts["input"].reshape(SHAPE)), 1e-3)


def test_a_map_is_stretched_between_the_outermost_positions() -> None:
    small = np.array([[[0.0, 2.0], [4.0, 6.0]]])
    np.testing.assert_allclose(
        stretched(small, (3, 5))[0], [[0, 0.5, 1, 1.5, 2], [2, 2.5, 3, 3.5, 4], [4, 4.5, 5, 5.5, 6]]
    )
    np.testing.assert_allclose(stretched(np.array([[[7.0]]]), (2, 3)), np.full((1, 2, 3), 7.0))
    np.testing.assert_allclose(stretched(np.arange(5.0)[None], (1,)), [[0.0]])


def test_a_picture_of_a_part_has_the_batch_first_whatever_its_axes_are() -> None:
    part = np.random.default_rng(0).standard_normal((4, 2, 3))  # position, batch, channel
    axes = Axes((Role.POSITION, Role.BATCH, Role.CHANNEL))
    found = picture(part, axes)
    for item in range(2):
        np.testing.assert_allclose(found[item], scaled_loop(part[:, item].T), rtol=1e-12)
    (alone,) = picture(part[:, 0], Axes((Role.POSITION, Role.CHANNEL)))
    np.testing.assert_allclose(alone, found[0], rtol=1e-12)


def test_a_flat_part_stays_flat() -> None:
    np.testing.assert_array_equal(
        picture(np.full((1, 2, 3), -4.0), Axes((Role.BATCH, Role.CHANNEL, Role.POSITION))), 0
    )
