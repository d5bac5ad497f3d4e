"""What `benchmarks.peers` times is the same network on both sides."""

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.nets import resnet50
from benchmarks.peers_torch import forward, grad_cam, input_x_gradient, twin
from srd_onnx import Explainer
from srd_onnx.ort.runtime import CPU, make_session

X = np.random.default_rng(0).standard_normal((1, 3, 224, 224)).astype(np.float32)


def test_the_twin_of_resnet50_says_and_explains_the_same() -> None:
    graph = resnet50()
    net = twin("resnet50", graph)
    data = graph.SerializeToString()
    logits = make_session(data, [CPU]).run(None, {"input": X})[0]
    np.testing.assert_allclose(forward(net, X, 7), logits, rtol=1e-3, atol=1e-3)
    ours = Explainer(data, method="gradient-x-input", providers="cpu").explain(X, 7)[0].relevance
    theirs = input_x_gradient(net, X, 7)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=0.02 * np.abs(theirs).max())
    assert grad_cam(net, X, 7).shape == (1, 224, 224)


def test_other_names_are_refused() -> None:
    graph = resnet50()
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32), "other"))
    with pytest.raises(RuntimeError, match=r"Unexpected key|Missing key"):
        twin("resnet50", graph)
