"""A small network as ONNX and as matrices in double precision, a convolution being the matrix that it is.

`x` [N, 3, 4, 4] -> conv1 -> Relu -> conv2 -> Add (skip) -> Relu -> GlobalAveragePool -> Flatten -> Gemm -> 4 scores.
"""

from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from tests.nets import model_of

Real = NDArray[np.float64]
SHAPE = (3, 4, 4)
CLASSES = 4


@dataclass(frozen=True)
class Matrix:
    """``y = W x + b`` on flattened tensors; `linked` says which inputs an output has a weight for."""

    w: Real
    b: Real
    linked: NDArray[np.bool_]


def conv_matrix(w: Real, b: Real, side: int) -> Matrix:
    """A convolution of stride 1 that keeps the size, tap by tap."""
    out, into, k, _ = w.shape
    made = np.zeros((out, side, side, into, side, side))
    linked = np.zeros(made.shape, bool)
    for o, i, y, x, dy, dx in np.ndindex(out, into, side, side, k, k):
        at = y + dy - k // 2, x + dx - k // 2
        if min(at) >= 0 and max(at) < side:
            made[o, y, x, i, *at] = w[o, i, dy, dx]
            linked[o, y, x, i, *at] = True
    size = side * side
    return Matrix(
        made.reshape(out * size, into * size), np.repeat(b, size), linked.reshape(out * size, into * size)
    )


@dataclass(frozen=True)
class DenseNet:
    """The network; `mean` is the average pool."""

    model: onnx.ModelProto
    conv1: Matrix
    conv2: Matrix
    mean: Matrix
    gemm: Matrix

    def forward(self, x: Real) -> dict[str, Real]:
        """Every tensor of one input, flattened."""
        v1 = self.conv1.w @ x.ravel() + self.conv1.b
        h1 = np.maximum(v1, 0)
        branch = self.conv2.w @ h1 + self.conv2.b
        v2 = branch + h1
        h2 = np.maximum(v2, 0)
        pooled = self.mean.w @ h2
        scores = self.gemm.w @ pooled + self.gemm.b
        return {
            "x": x.ravel(),
            "v1": v1,
            "h1": h1,
            "branch": branch,
            "v2": v2,
            "h2": h2,
            "pooled": pooled,
            "scores": scores,
        }

    def gradient(self, x: Real, target: int, *, guided: bool = False) -> dict[str, Real]:
        """The derivative of a score by every tensor; with `guided` its positive part behind each rectifier."""
        at = self.forward(x)
        found = {"pooled": self.gemm.w[target]}
        found["h2"] = self.mean.w.T @ found["pooled"]
        found["v2"] = _rectified(found["h2"], at["v2"], guided=guided)
        found["h1"] = self.conv2.w.T @ found["v2"] + found["v2"]
        found["v1"] = _rectified(found["h1"], at["v1"], guided=guided)
        return found | {"x": self.conv1.w.T @ found["v1"]}


def _rectified(flow: Real, v: Real, *, guided: bool) -> Real:
    passed = np.where(v > 0, flow, 0.0)
    return np.maximum(passed, 0) if guided else passed


def dense_net(seed: int = 0, *, bias: bool = True) -> DenseNet:
    """With random weights, float32 so that both sides have the same."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.standard_normal(shape).astype(np.float32) * np.float32(0.5)

    side, wide = SHAPE[1], 5
    weights = {
        "w1": normal(wide, SHAPE[0], 3, 3),
        "b1": normal(wide) * bias,
        "w2": normal(wide, wide, 3, 3),
        "b2": normal(wide) * bias,
        "w3": normal(CLASSES, wide),
        "b3": normal(CLASSES) * bias,
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["v1"], name="conv1", pads=[1] * 4),
        helper.make_node("Relu", ["v1"], ["h1"], name="relu1"),
        helper.make_node("Conv", ["h1", "w2", "b2"], ["branch"], name="conv2", pads=[1] * 4),
        helper.make_node("Add", ["branch", "h1"], ["v2"], name="add"),
        helper.make_node("Relu", ["v2"], ["h2"], name="relu2"),
        helper.make_node("GlobalAveragePool", ["h2"], ["pool"], name="pool"),
        helper.make_node("Flatten", ["pool"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["output"], name="gemm", transB=1),
    ]
    model = model_of(nodes, dict(weights), (["N", *SHAPE], ["N", CLASSES]))
    real = {name: data.astype(np.float64) for name, data in weights.items()}
    pool = np.kron(np.eye(wide), np.full((1, side * side), 1 / (side * side)))
    return DenseNet(
        model,
        conv_matrix(real["w1"], real["b1"], side),
        conv_matrix(real["w2"], real["b2"], side),
        Matrix(pool, np.zeros(wide), pool > 0),
        Matrix(real["w3"], real["b3"], np.ones_like(real["w3"], bool)),
    )


def inputs(count: int = 3, seed: int = 1) -> NDArray[np.float32]:
    """Of both signs, from -1 to 1.5."""
    found = np.random.default_rng(seed).uniform(-1, 1.5, (count, *SHAPE))
    return found.astype(np.float32)
