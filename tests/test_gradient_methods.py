"""The gradient methods against closed forms and loops in double precision."""

from collections.abc import Callable
from typing import Any, get_args

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.engine.options import Seed
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.methods import METHODS, Method
from srd_onnx.methods.averaged import integrated_gradients, smoothgrad
from srd_onnx.methods.scoring import directions
from tests.dense_nets import CLASSES, SHAPE, Real, dense_net, inputs
from tests.nets import model_of, small_cnn

OURS = ("integrated-gradients", "smoothgrad", "guided-backprop", "fullgrad")


def explained(model: onnx.ModelProto, method: str | Method, x: Any, targets: Any = 2) -> list[Real]:
    found = Explainer(model, method=method, providers="cpu").explain(x, targets=targets, batch_size=len(x))
    return [np.asarray(one.relevance, np.float64) for one in found]


def assert_close(found: Real, expected: Real, part: float = 1e-5) -> None:
    np.testing.assert_allclose(found, expected, rtol=0, atol=part * np.abs(expected).max())


def summed(flat: Real) -> Real:
    total: Real = flat.reshape(SHAPE).sum(axis=0)
    return total


def greatest(flat: Real) -> Real:
    size: Real = np.abs(flat.reshape(SHAPE)).max(axis=0)
    return size


# Integrated Gradients


def squares(seed: int = 3) -> tuple[onnx.ModelProto, Real]:
    """``z_k = Σ_j C_kj (A x)_j²`` as nodes; A comes back with C as one: A [6, 4] and C [3, 6] side by side."""
    rng = np.random.default_rng(seed)
    a, c = rng.standard_normal((6, 4)).astype(np.float32), rng.standard_normal((3, 6)).astype(np.float32)
    nodes = [
        helper.make_node("Gemm", ["input", "a"], ["v"], name="v", transB=1),
        helper.make_node("Mul", ["v", "v"], ["square"], name="square"),
        helper.make_node("Gemm", ["square", "c"], ["output"], name="out", transB=1),
    ]
    model = model_of(nodes, {"a": a, "c": c}, (["N", 4], ["N", 3]))
    return model, np.concatenate([a, c.T], axis=1).astype(np.float64)


@pytest.mark.parametrize("baseline", [0.0, -0.7])
def test_integrated_gradients_of_squares(baseline: float) -> None:
    """Along the path the derivative is linear, so that its integral is ``C A (v(x) + v(b))``."""
    model, both = squares()
    a, c = both[:, :4], both[:, 4:].T
    x = np.random.default_rng(0).standard_normal((2, 4)).astype(np.float32)
    method = integrated_gradients(steps=3, baseline=baseline)
    explainer = Explainer(model, method=method, layout="NL", providers="cpu")
    for row, one in zip(x.astype(np.float64), explainer.explain(x, targets=1, batch_size=2), strict=True):
        b = np.full(4, baseline)
        expected = [
            (row[i] - b[i]) * sum(c[1, j] * a[j, i] * (a[j] @ row + a[j] @ b) for j in range(6))
            for i in range(4)
        ]
        np.testing.assert_allclose(one.relevance, expected, rtol=1e-4, atol=1e-5)
        before = sum(c[1, j] * (a[j] @ b) ** 2 for j in range(6))
        assert one.ledger == pytest.approx({f"baseline {baseline:g}": before}, rel=1e-5, abs=1e-6)
        assert one.residual == pytest.approx(0, abs=1e-5 * max(1, abs(one.score)))


def test_one_point_of_the_quadrature_is_too_few_for_a_bent_path_and_the_residual_says_so() -> None:
    net, x = dense_net(), inputs(1)
    few, many = (
        Explainer(net.model, method=integrated_gradients(steps=n), providers="cpu").explain(x)[0]
        for n in (1, 300)
    )
    assert few.meta["method"]["complete"]
    assert abs(few.residual) > 10 * abs(many.residual)
    assert abs(many.residual) < 5e-3 * abs(many.score)


def test_integrated_gradients_explain_the_top_class_of_the_input_not_of_the_path() -> None:
    net, x, method = dense_net(3), inputs(2), "integrated-gradients:steps=4"
    top = {int(net.forward(row.astype(np.float64))["scores"].argmax()) for row in x}
    start = int(net.forward(np.zeros(SHAPE))["scores"].argmax())
    assert top == {1} != {start}
    for left_out, given, wrong in zip(
        *(explained(net.model, method, x, t) for t in (None, 1, start)), strict=True
    ):
        assert_close(left_out, given, 1e-6)
        assert np.abs(left_out - wrong).max() > 0.1 * np.abs(wrong).max()


@pytest.mark.parametrize("kind", get_args(Seed))
def test_a_seed_means_the_same_as_for_the_gradient(kind: Seed) -> None:
    """Of a linear network the integrated gradient from 0 is the gradient, whatever direction is explained."""
    rng = np.random.default_rng(5)
    w = rng.standard_normal((5, 4)).astype(np.float32)
    nodes = [helper.make_node("Gemm", ["input", "w"], ["output"], name="gemm", transB=1)]
    model = model_of(nodes, {"w": w}, (["N", 4], ["N", 5]))
    x = rng.standard_normal((3, 4)).astype(np.float32)

    def maps(method: str) -> list[Any]:
        explainer = Explainer(model, method=method, layout="NL", seed=kind, providers="cpu")
        return explainer.explain(x, targets=3, batch_size=3)

    for ours, plain in zip(maps("integrated-gradients:steps=2"), maps("gradient-x-input"), strict=True):
        np.testing.assert_allclose(ours.relevance, plain.relevance, rtol=1e-4, atol=1e-6)
        assert ours.meta["seed_value"] == pytest.approx(plain.meta["seed_value"], rel=1e-5)


def test_a_direction_is_taken_as_it_is() -> None:
    given = np.array([[1.0, -1.0, 0.5]])
    assert directions(np.zeros((1, 3)), given, "logprob") is given


# SmoothGrad


def test_smoothgrad_is_the_magnitude_of_the_mean_gradient() -> None:
    net, x = dense_net(), inputs()
    found = explained(net.model, smoothgrad(samples=5, noise=0.3, seed=4), x)
    for row, one in zip(x, found, strict=True):
        total = np.zeros(np.prod(SHAPE))
        for sample in range(5):
            normal = np.random.default_rng([4, sample, 0]).standard_normal(SHAPE)
            noisy = (row + 0.3 * (row.max() - row.min()) * normal).astype(np.float32)
            total += net.gradient(noisy.astype(np.float64), 2)["x"]
        assert_close(one, greatest(total / 5))


def test_without_noise_smoothgrad_is_saliency_and_with_another_seed_another_map() -> None:
    net, x = dense_net(), inputs(1)
    (plain,) = explained(net.model, "saliency", x)
    assert_close(explained(net.model, "smoothgrad:noise=0,samples=2", x)[0], plain, 1e-6)
    one, same, other = (explained(net.model, f"smoothgrad:samples=2,seed={s}", x)[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3 * np.abs(one).max()
    assert np.abs(one - plain).max() > 1e-3 * np.abs(one).max()


# Guided Backprop


def test_guided_backprop_cuts_what_travels_at_every_rectifier() -> None:
    net, x = dense_net(), inputs()
    for row, one in zip(x.astype(np.float64), explained(net.model, "guided-backprop", x), strict=True):
        assert_close(one, greatest(net.gradient(row, 2, guided=True)["x"]))
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            assert_close(one, greatest(net.gradient(row, 2)["x"]), 1e-3)


def test_guided_backprop_refuses_integers_that_hide_a_rectifier() -> None:
    net, x = dense_net(), inputs(1)
    model = net.model
    nodes = [node for node in model.graph.node if node.name != "relu1"]  # as exporters leave it out
    pair = [
        helper.make_node("QuantizeLinear", ["v1", "scale", "zero"], ["whole"], name="quantise"),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["h1"], name="dequantise"),
    ]
    stored: dict[str, NDArray[Any]] = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    stored["scale"] = np.array(0.02, np.float32)
    for zero, hides in (
        (np.array(0, np.uint8), True),
        (np.array(-128, np.int8), True),
        (np.array(9, np.int8), False),
    ):
        stored["zero"] = zero
        whole = model_of([nodes[0], *pair, *nodes[1:]], stored, (["N", *SHAPE], ["N", CLASSES]))
        if hides:
            with pytest.raises(UnsupportedCaseError, match=r"node 'quantise'.*hides a rectifier"):
                explained(whole, "guided-backprop", x)
        else:
            assert explained(whole, "guided-backprop", x)[0].any()


def test_guided_backprop_takes_integers_behind_a_rectifier_that_is_there() -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["h"], name="relu"),
        helper.make_node("QuantizeLinear", ["h", "scale", "zero"], ["whole"], name="quantise"),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["real"], name="dequantise"),
        helper.make_node("Gemm", ["real", "w"], ["output"], name="gemm", transB=1),
    ]
    weights: dict[str, NDArray[Any]] = {
        "scale": np.array(0.02, np.float32),
        "zero": np.array(0, np.uint8),
        "w": np.array([[2, -3, 5]], np.float32),
    }
    model = model_of(nodes, weights, (["N", 3], ["N", 1]))
    explainer = Explainer(model, method="guided-backprop", layout="NL", providers="cpu")
    (one,) = explainer.explain(np.array([[1, 1, -1]], np.float32), targets=0)
    np.testing.assert_allclose(one.relevance, [2, 0, 0])


def quantised(zero: NDArray[Any]) -> onnx.ModelProto:
    """``z = 2 a - 3 b + 5 c`` of three numbers that are made whole ones, in steps of 0.5 from 0 to 127.5."""
    nodes = [
        helper.make_node("QuantizeLinear", ["input", "scale", "zero"], ["whole"], name="quantise"),
        helper.make_node("DequantizeLinear", ["whole", "scale", "zero"], ["real"], name="dequantise"),
        helper.make_node("Gemm", ["real", "w"], ["output"], name="gemm", transB=1),
    ]
    weights: dict[str, NDArray[Any]] = {
        "scale": np.array(0.5, np.float32),
        "zero": zero,
        "w": np.array([[2, -3, 5]], np.float32),
    }
    return model_of(nodes, weights, (["N", 3], ["N", 1]))


@pytest.mark.parametrize("zero", [np.array(0, np.uint8), np.array(-128, np.int8)])
def test_the_derivative_ends_where_integers_do(zero: NDArray[Any]) -> None:
    """They saturate at 0 and at 127.5, as the ReLU and the ReLU6 do that exporters leave out before them."""
    explainer = Explainer(quantised(zero), method="saliency", layout="NL", providers="cpu")
    (one,) = explainer.explain(np.array([[1, -1, 200]], np.float32), targets=0)
    np.testing.assert_allclose(one.relevance, [2, 0, 0])
    (one,) = explainer.explain(np.array([[1, 3, 127]], np.float32), targets=0)
    np.testing.assert_allclose(one.relevance, [2, 3, 5])


def test_fullgrad_refuses_integers() -> None:
    model = quantised(np.array(3, np.uint8))
    explainer = Explainer(model, method="fullgrad", layout="NL", providers="cpu")
    with pytest.raises(UnsupportedCaseError, match=r"node 'quantise'.*before it was quantised"):
        explainer.explain(np.ones((1, 3), np.float32), targets=0)


def test_guided_backprop_refuses_a_recurrent_cell_with_a_rectifier_in_it() -> None:
    size = 2
    cell: dict[str, Any] = {"hidden_size": size, "activations": ["Relu"]}
    nodes = [
        helper.make_node("Transpose", ["input"], ["first"], name="time", perm=[1, 0, 2]),
        helper.make_node("RNN", ["first", "w", "r"], ["", "output"], name="cell", **cell),
    ]
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((1, size, 3)).astype(np.float32),
        "r": rng.standard_normal((1, size, size)).astype(np.float32),
    }
    model = model_of(nodes, dict(weights), ([1, 4, 3], [1, 1, size]))
    explainer = Explainer(model, method="guided-backprop", layout="NTC", providers="cpu")
    with pytest.raises(UnsupportedCaseError, match=r"node 'cell'.*hides the rectifiers Relu"):
        explainer.explain(np.ones((1, 4, 3), np.float32))


# All of them


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("make", [lambda: dense_net().model, small_cnn])
def test_the_same_alone_and_in_a_batch(method: str, make: Callable[[], onnx.ModelProto]) -> None:
    model = make()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x = np.random.default_rng(8).uniform(-1, 1, (3, *shape)).astype(np.float32)
    short = {"integrated-gradients": ":steps=3", "smoothgrad": ":samples=3"}.get(method, "")
    for row, together in zip(x, explained(model, method + short, x, None), strict=True):
        (alone,) = explained(model, method + short, row[None], None)
        assert_close(together, alone, 1e-5)


@pytest.mark.parametrize("method", OURS)
def test_what_a_method_was_made_with_is_recorded(method: str) -> None:
    made = METHODS[method]()
    (one,) = Explainer(dense_net().model, method=made, providers="cpu").explain(inputs(1))
    assert one.meta["method"] == made.to_dict()
    assert one.meta["method"]["complete"] is (method == "integrated-gradients")


@pytest.mark.parametrize("method", ["integrated-gradients", "smoothgrad"])
def test_between_integers_there_are_no_inputs(method: str) -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["x"], name="cast", to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["x"], ["flat"], name="flat"),
        helper.make_node("Gemm", ["flat", "w"], ["output"], name="gemm", transB=1),
    ]
    model = model_of(nodes, {"w": np.ones((2, 12), np.float32)}, (["N", 3, 2, 2], ["N", 2]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    with pytest.raises(UnsupportedCaseError, match=r"the input 'input' holds integers \(uint8\)"):
        explained(model, method, np.ones((1, 3, 2, 2), np.uint8), 0)


def test_fullgrad_is_for_one_input() -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["a", "b"], ["s"], name="add"),
            helper.make_node("Relu", ["s"], ["output"], name="relu"),
        ],
        "two",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in "ab"],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 4])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    explainer = Explainer(model, method="fullgrad", providers="cpu")
    with pytest.raises(UnsupportedCaseError, match=r"FullGrad is for one input.*explained are a, b"):
        explainer.explain({name: np.ones((1, 4), np.float32) for name in "ab"}, targets=0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: integrated_gradients(steps=0), r"steps=0: it must be at least 1"),
        (lambda: integrated_gradients(baseline=float("nan")), r"baseline=nan: it must be a finite number"),
        (lambda: smoothgrad(samples=0), r"samples=0: it must be at least 1"),
        (lambda: smoothgrad(noise=-0.1), r"noise=-0.1: it must be a part of the range"),
        (lambda: smoothgrad(noise=float("inf")), r"noise=inf"),
        (lambda: smoothgrad(seed=-1), r"seed=-1: it must not be negative"),
    ],
)
def test_parameters_that_mean_nothing_are_refused(make: Callable[[], Method], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()
