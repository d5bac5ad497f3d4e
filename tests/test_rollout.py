"""Attention rollout by its definition, on transformers whose attention weights are read from ONNX Runtime directly."""

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from srd_onnx import Explainer
from srd_onnx.errors import LayoutError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.methods.attention import rolled_out
from srd_onnx.targets import At
from tests.attention_nets import block, multihead, windows
from tests.fused_nets import encoder, inputs
from tests.method_nets import convolved, data, vit
from tests.nets import model_of
from tests.small_nets import Net, in_single


def explainer(net: Net, **options: Any) -> Explainer:
    return Explainer(
        in_single(net),
        method="attention-rollout",
        layout={"x": net.layout},
        providers="cpu",
        preprocess=np.asarray,
        **options,
    )


def weights_of(net: Net, x: Array) -> list[Array]:
    """The outputs of all Softmax nodes, [N, heads, T, T], from the input on."""
    model = in_single(net)
    names = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(array, np.float64) for array in session.run(names, {"x": x})]


def rolled(weights: list[Array], item: int) -> Array:
    """[T, T] by loops."""
    count = weights[0].shape[-1]
    total = [[float(i == j) for j in range(count)] for i in range(count)]
    for one in weights:
        mixed = np.zeros((count, count))
        for i in range(count):
            for j in range(count):
                mixed[i, j] = sum(head[i, j] for head in one[item]) / len(one[item]) + (i == j)
            mixed[i] /= sum(mixed[i])
        total = [
            [sum(mixed[i, k] * total[k][j] for k in range(count)) for j in range(count)] for i in range(count)
        ]
    return np.array(total)


def enlarged(tokens: Array) -> Array:
    """2 × 2 places over 8 × 12 positions, linearly between the centres of cells of 4 × 6, by loops."""
    grid, found = tokens.reshape(2, 2), np.zeros((8, 12))
    for i in range(8):
        down = min(max((i + 0.5) / 4 - 0.5, 0), 1)
        for j in range(12):
            right = min(max((j + 0.5) / 6 - 0.5, 0), 1)
            above = grid[0, 0] * (1 - right) + grid[0, 1] * right
            below = grid[1, 0] * (1 - right) + grid[1, 1] * right
            found[i, j] = above * (1 - down) + below * down
    return found


READ = {
    "class token": [1, 0, 0, 0, 0],
    "mean": [1 / 5] * 5,
    "patches": [0, 1 / 4, 1 / 4, 1 / 4, 1 / 4],
}


@pytest.mark.parametrize("pool", READ)
@pytest.mark.parametrize("batch", [1, 2])
def test_rollout_by_loops(pool: str, batch: int) -> None:
    net = vit(pool, batch)
    x = net.photo().astype(np.float32)
    found = explainer(net).explain(x, 0)
    weights = weights_of(net, x)
    assert len(weights) == 2
    for i in range(batch):
        wanted = enlarged((READ[pool] @ rolled(weights, i))[1:])
        np.testing.assert_allclose(found[i].relevance, wanted, rtol=1e-4)
    assert np.abs(found[0].relevance - enlarged((READ[pool] @ rolled(weights[:1], 0))[1:])).max() > 1e-3


def test_the_score_is_reported_and_the_class_makes_no_difference() -> None:
    net = vit()
    x = net.photo().astype(np.float32)
    one, other = explainer(net).explain(x[:1], [0, 2])
    np.testing.assert_array_equal(one.relevance, other.relevance)
    session = onnxruntime.InferenceSession(
        in_single(net).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    scores = session.run(None, {"x": x})[0][0]
    assert other.meta["seed_value"] == pytest.approx(scores[2], rel=1e-5)


def test_weights_the_other_way_round() -> None:
    """(Vᵀ Aᵀ)ᵀ instead of A V: the tokens that are looked at are the rows of what is multiplied."""
    net = vit()
    x = net.photo().astype(np.float32)
    turned = in_single(net)
    nodes = list(turned.graph.node)
    softmaxes = {n.output[0] for n in nodes if n.op_type == "Softmax"}
    drops = {n.output[0] for n in nodes if n.op_type == "Dropout" and n.input[0] in softmaxes}
    del turned.graph.node[:]
    for node in nodes:
        if node.op_type == "MatMul" and node.input[0] in drops:
            a, v = node.input
            make = onnx.helper.make_node
            turned.graph.node.extend(
                [
                    make("Transpose", [a], [f"{a}T"], name=f"{node.name} a", perm=[0, 1, 3, 2]),
                    make("Transpose", [v], [f"{v}T"], name=f"{node.name} v", perm=[0, 1, 3, 2]),
                    make("MatMul", [f"{v}T", f"{a}T"], [f"{v}{a}"], name=node.name),
                    make(
                        "Transpose", [f"{v}{a}"], [node.output[0]], name=f"{node.name} y", perm=[0, 1, 3, 2]
                    ),
                ]
            )
        else:
            turned.graph.node.append(node)
    other = Explainer(
        turned, method="attention-rollout", layout={"x": "NCHW"}, providers="cpu", preprocess=np.asarray
    )
    np.testing.assert_allclose(
        other.explain(x, 0)[0].relevance, explainer(net).explain(x, 0)[0].relevance, rtol=1e-4
    )


def test_a_sequence_keeps_its_own_positions() -> None:
    """Tokens are the input's own: `multihead` has the batch and the heads in one axis, and pools by the mean."""
    net = multihead()
    x = net.photo().astype(np.float32)
    (found,) = explainer(net).explain(x, 0)
    (weights,) = weights_of(net, x)
    wanted = np.asarray(rolled([weights[None]], 0).mean(axis=0))
    np.testing.assert_allclose(found.relevance, wanted, rtol=1e-4)


def test_rolled_out_by_a_known_answer() -> None:
    """Each token looks at the one before it, and the first at itself: powers of a half of both."""
    shift = np.eye(3, k=-1)
    shift[0, 0] = 1
    found = rolled_out([shift[None, None], shift[None, None]])[0]
    np.testing.assert_allclose(found, [[1.0, 0, 0], [0.75, 0.25, 0], [0.25, 0.5, 0.25]])


def inside_one_operator() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    make = onnx.helper.make_node
    nodes = [
        *(make("MatMul", ["input", name], [f"{name}x"], name=name) for name in "qkv"),
        make("Attention", ["qx", "kx", "vx"], ["a"], name="the heads", q_num_heads=2, kv_num_heads=2),
        make("ReduceMean", ["a", "axis"], ["m"], name="mean", keepdims=0),
        make("MatMul", ["m", "w"], ["output"], name="fc"),
    ]
    weights: dict[str, Any] = {name: rng.standard_normal((6, 6)).astype(np.float32) for name in "qkv"}
    weights |= {"axis": np.array([1]), "w": rng.standard_normal((6, 3)).astype(np.float32)}
    return model_of(nodes, weights, (["N", 5, 6], ["N", 3]), opset=23)


def test_attention_inside_one_operator_is_named() -> None:
    fused = Explainer(inside_one_operator(), method="attention-rollout", providers="cpu", layout="NTC")
    said = r"weights inside them:\n  ai.onnx::Attention v23, node 'the heads'\nExport the model"
    with pytest.raises(UnsupportedCaseError, match=said):
        fused.explain(data(1, (5, 6)))


def test_tokens_of_a_text() -> None:
    """Ids are no reals, but they are the positions; of several inputs all but one must be held fixed."""
    model, x = encoder(), {n: array[:1] for n, array in inputs(encoder()).items()}
    with pytest.raises(
        UnsupportedCaseError, match=r"over one input, but relevance reaches 'ids', 'kinds': hold the others"
    ):
        Explainer(model, method="attention-rollout", providers="cpu").explain(x)
    fixed = {"kinds": x["kinds"], "mask": x["mask"]}
    (found,) = Explainer(model, method="attention-rollout", providers="cpu", fixed=fixed).explain(
        {"ids": x["ids"]}, 0
    )
    names = [node.output[0] for node in model.graph.node if node.op_type == "Softmax"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    wanted = rolled([np.asarray(one, np.float64) for one in session.run(names, x)], 0)[0]
    np.testing.assert_allclose(found.relevance, wanted, rtol=1e-4, atol=1e-6)


def test_windows_have_no_rollout() -> None:
    net = windows()
    with pytest.raises(LayoutError, match=r"attention rollout multiplies weights from all tokens"):
        explainer(net).explain(net.photo().astype(np.float32))


def test_a_network_without_attention() -> None:
    with pytest.raises(UnsupportedCaseError, match=r"attention rollout needs a transformer"):
        Explainer(convolved().model(), method="attention-rollout", providers="cpu").explain(data(1))


def test_a_target_with_many_positions() -> None:
    net = block("split")
    with pytest.raises(UnsupportedCaseError, match=r"has many positions: explain a class"):
        explainer(net).explain(net.photo().astype(np.float32), At(net.boundary, (0, 1, 2)))
