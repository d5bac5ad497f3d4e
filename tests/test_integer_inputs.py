"""Inputs of integers, pictures of bytes and token ids: what is given to them, and methods that read derivatives."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from srd_onnx import Explainer
from srd_onnx.errors import InputError, UnsupportedCaseError
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.preprocess import Preprocess, torchvision_default
from srd_onnx.methods import METHODS
from tests.nets import model_of

make = helper.make_node
READ_DERIVATIVES = sorted(
    name for name, make in METHODS.items() if make().family in ("gradient", "propagation")
)
NEED_REALS = ("integrated-gradients", "smoothgrad")
FIRST = {"lrp-composite": "lrp-composite:first=flat"}
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 3, 6, 7)).astype(np.uint8)


def picture_net(kind: int, layout: str = "NCHW", *, twice: bool = False) -> onnx.ModelProto:
    """Bytes or reals, perhaps turned, cast, perhaps in two places, and convolved."""
    nodes = (
        [make("Transpose", ["input"], ["turned"], name="turn", perm=[0, 3, 1, 2])] if layout == "NHWC" else []
    )
    first = nodes[-1].output[0] if nodes else "input"
    nodes += [
        make("Cast", [first], ["x"], name="cast", to=TensorProto.FLOAT),
        make("Conv", ["x", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        make("Relu", ["c"], ["r"], name="relu"),
    ]
    if twice:
        nodes += [
            make("Cast", [first], ["y"], name="cast again", to=TensorProto.FLOAT16),
            make("Cast", ["y"], ["z"], name="cast back", to=TensorProto.FLOAT),
            make("Concat", ["r", "z"], ["both"], name="join", axis=1),
        ]
    last = "both" if twice else "r"
    nodes += [
        make("GlobalAveragePool", [last], ["p"], name="pool"),
        make("Flatten", ["p"], ["f"], name="flatten"),
        make("Gemm", ["f", "v"], ["output"], name="fc", transB=1),
    ]
    rng = np.random.default_rng(0)
    weights: dict[str, Any] = {
        "w": (rng.standard_normal((4, 3, 3, 3)) / 64).astype(np.float32),
        "b": rng.standard_normal(4).astype(np.float32),
        "v": rng.standard_normal((5, 7 if twice else 4)).astype(np.float32),
    }
    shape: list[int | str] = ["N", 3, 6, 7] if layout == "NCHW" else ["N", 6, 7, 3]
    model = model_of(nodes, weights, (shape, ["N", 5]))
    model.graph.input[0].type.tensor_type.elem_type = kind
    return model


def maps(model: onnx.ModelProto, method: str, x: Array, layout: str) -> list[Array]:
    explainer = Explainer(model, method=method, layout=layout, preprocess=np.asarray, providers="cpu")
    return [one.relevance for one in explainer.explain(x, 1)]


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("method", [name for name in READ_DERIVATIVES if name not in NEED_REALS])
def test_a_picture_of_bytes_is_explained_as_one_of_reals(method: str, layout: str) -> None:
    x = PIXELS if layout == "NCHW" else PIXELS.transpose(0, 2, 3, 1)
    named = FIRST.get(method, method)
    found = maps(picture_net(TensorProto.UINT8, layout), named, x, layout)
    wanted = maps(picture_net(TensorProto.FLOAT, layout), named, x.astype(np.float32), layout)
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == (6, 7)
        assert np.abs(other).max() > 0
        np.testing.assert_allclose(one, other, atol=1e-5 * np.abs(other).max())


def explained(kind: int, x: Array, **more: Any) -> Any:
    explainer = Explainer(picture_net(kind), layout="NCHW", providers="cpu", **more)
    (one,) = explainer.explain(x, 1)
    return one


def test_pixels_are_given_as_they_are_where_nothing_else_is_said() -> None:
    photo = np.random.default_rng(5).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    found = explained(TensorProto.UINT8, photo)
    kept = found.meta["preprocess"]
    assert found.meta["preprocess_assumed"] is True
    assert (kept["scale"], kept["mean"], kept["std"], kept["crop"]) == (1.0, [0.0], [1.0], [6, 7])
    seen = Preprocess(resize=8, crop=(6, 7)).view(photo).transpose(2, 0, 1)
    np.testing.assert_allclose(found.logits, explained(TensorProto.UINT8, seen[None]).logits)
    assert explained(TensorProto.FLOAT, photo).meta["preprocess"]["scale"] == 1 / 255


@pytest.mark.parametrize(
    ("kind", "preprocess"),
    [
        (TensorProto.UINT8, torchvision_default(6, 7)),  # below 0
        (TensorProto.UINT8, Preprocess(resize=(6, 7), scale=1 / 255)),  # between 0 and 1
        (TensorProto.UINT8, Preprocess(resize=(6, 7), scale=2)),  # above 255
        (TensorProto.INT8, Preprocess(resize=(6, 7))),  # above 127
    ],
)
def test_what_is_no_integer_of_the_model_is_refused(kind: int, preprocess: Preprocess) -> None:
    photo = np.random.default_rng(5).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    with pytest.raises(InputError, match=r"the model takes u?int8, but its values go from"):
        explained(kind, photo, preprocess=preprocess)


def test_what_is_nearly_an_integer_is_rounded_as_quantising_does() -> None:
    """(pixel / 255 - 0.5) / 0.5 at a scale of 1/127: the nearest integer, not the next towards 0."""
    photo = np.random.default_rng(5).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    quantised = Preprocess(scale=1 / 255, mean=(0.5,), std=(0.5 / 127,))
    whole = np.rint(quantised(photo)).astype(np.int8).transpose(2, 0, 1)
    found = explained(TensorProto.INT8, photo, preprocess=quantised)
    np.testing.assert_allclose(found.logits, explained(TensorProto.INT8, whole[None]).logits)


@pytest.mark.parametrize("given", [np.int64, np.float32])
def test_ids_that_the_model_cannot_hold_are_refused(given: Any) -> None:
    with pytest.raises(InputError, match="the model takes uint8"):
        explained(TensorProto.UINT8, np.full((1, 3, 6, 7), 256, given))


@pytest.mark.parametrize("method", ["gradient-x-input", "lrp-epsilon"])
def test_what_reads_the_bytes_twice_adds_up(method: str) -> None:
    found = maps(picture_net(TensorProto.UINT8, twice=True), method, PIXELS, "NCHW")
    wanted = maps(picture_net(TensorProto.FLOAT, twice=True), method, PIXELS.astype(np.float32), "NCHW")
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())


@pytest.mark.parametrize("method", NEED_REALS)
def test_what_lies_between_integers_is_no_input(method: str) -> None:
    with pytest.raises(UnsupportedCaseError, match=r"'input' holds integers \(uint8\)"):
        maps(picture_net(TensorProto.UINT8), method, PIXELS, "NCHW")


def token_net(
    nodes: list[onnx.NodeProto], read: str, count: int = 5
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """Ids, what is done with them, an embedding, and for each class a weight for each of its elements."""
    rng = np.random.default_rng(1)
    weights: dict[str, Any] = {
        "table": rng.standard_normal((9, 4)).astype(np.float32),
        "v": rng.standard_normal((3, count * 4)).astype(np.float32),
        "axis": np.array([1]),
    }
    nodes = [
        *nodes,
        make("Gather", ["table", read], ["e"], name="embed"),
        make("Flatten", ["e"], ["f"], name="flatten"),
        make("Gemm", ["f", "v"], ["output"], name="fc", transB=1),
    ]
    used = {name for node in nodes for name in node.input}
    kept = {name: array for name, array in weights.items() if name in used}
    model = model_of(nodes, kept, (["N", 5], ["N", 3]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return model, weights


IDS = np.array([[0, 8, 3, 3, 1], [2, 2, 7, 5, 4]])


@pytest.mark.parametrize("way", ["ids", "there and back"])
def test_tokens_have_what_their_embeddings_have(way: str) -> None:
    between = [
        make("Unsqueeze", ["input", "axis"], ["u"], name="unsqueeze"),
        make("Squeeze", ["u", "axis"], ["s"], name="squeeze"),
    ]
    model, weights = token_net(*([], "input") if way == "ids" else (between, "s"))
    slope = weights["v"][1].reshape(5, 4)
    for ids, saliency, product, shared in zip(
        IDS,
        maps(model, "saliency", IDS, "NT"),
        maps(model, "gradient-x-input", IDS, "NT"),
        maps(model, "lrp-epsilon", IDS, "NT"),
        strict=True,
    ):
        np.testing.assert_allclose(saliency, np.abs(slope).max(axis=1), rtol=1e-6)
        wanted = (slope * weights["table"][ids]).sum(axis=1)
        np.testing.assert_allclose(product, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(shared, wanted, rtol=1e-4, atol=1e-5)


def test_what_the_data_moves_is_refused() -> None:
    """The largest id first: which one that is the data says."""
    nodes = [
        make("ArgMax", ["input"], ["place"], name="where the largest is", axis=1, keepdims=0),
        make("Gather", ["input", "place"], ["largest"], name="pick", axis=1),
    ]
    model, _ = token_net(nodes, "largest", count=1)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    Explainer(model, layout="NT", preprocess=np.asarray, providers="cpu").explain(IDS[:1], 1)
    with pytest.raises(UnsupportedCaseError, match=r"'pick'.*integers, which have no derivative"):
        maps(model, "saliency", IDS[:1], "NT")
