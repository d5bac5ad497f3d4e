"""Data that cannot be explained, and models that are fed in another way."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from srd_onnx.errors import ImageError, InputError, LayoutError, NonFiniteError, ShapeError, SrdOnnxError
from tests.nets import model_of, two_nodes
from tests.test_explainer import DATA, PHOTOS, Array, in_one_run, make, make_explainer


def at(array: Array, index: tuple[int, ...], value: float) -> Array:
    changed = array.copy()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (
            at(DATA, (1, 2, 3, 4), np.nan),
            NonFiniteError,
            "input0_1: NaN or infinity at index [2, 3, 4]; check the file and the preprocessing",
        ),
        (
            at(DATA[0], (0, 0, 5), -np.inf),
            NonFiniteError,
            "input0: NaN or infinity at index [0, 0, 5]; check the file and the preprocessing",
        ),
        (
            DATA.astype(np.float64) * 1e60,
            NonFiniteError,
            "input0_0: its values are too large for the float32 that the model takes; check the preprocessing",
        ),
        (DATA[0, 0], ShapeError, "input 0 has shape [32, 32], but the model's input has the 4 axes NCPP"),
        (
            DATA[None],
            ShapeError,
            "input 0 has shape [1, 7, 3, 32, 32], but the model's input has the 4 axes NCPP",
        ),
        (DATA.astype(str), ShapeError, "input 0 has dtype <U32; the model takes numbers"),
        (DATA > 0, ShapeError, "input 0 has dtype bool; the model takes numbers"),
        ([DATA[0], 3], InputError, "an input is a path or a numpy array, not a int"),
        (None, InputError, "the inputs are a path, a numpy array or a list of these, not a NoneType"),
    ],
)
def test_data_that_cannot_be_explained_is_told_with_where(
    inputs: Any, error: type[SrdOnnxError], message: str
) -> None:
    with pytest.raises(error) as caught:
        make_explainer().explain(inputs)
    assert (type(caught.value), str(caught.value)) == (error, message)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (1, 4, 32, 32),
            "the data has 4 channels, but input 'input' with the axes NCPP takes 3; a photo has 3 (RGB, BGR) or "
            "1 (GRAY): check the channel order and the layout",
        ),
        (
            (1, 3, 32, 31),
            "input 'input' has shape [1, 3, 32, 31], but the model declares ['N', 3, 32, 32]; "
            "resize or crop the data to fit (a name such as 'N' stands for any size)",
        ),
    ],
)
def test_another_size_than_the_model_declares_is_refused(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError) as caught:
        make_explainer().explain(np.zeros(shape, np.float32))
    assert str(caught.value) == message


def test_a_missing_photo_is_refused() -> None:
    with pytest.raises(ImageError, match=r"no/such\.png"):
        make_explainer().explain("no/such.png")


def test_a_photo_for_a_model_of_tokens_is_refused() -> None:
    model = model_of([make("Relu", ["input"], ["output"])], {}, (["N", 8, 4], ["N", 8, 4]))
    with pytest.raises(LayoutError) as caught:
        make_explainer(model, layout="NTC").explain(PHOTOS[0])
    assert str(caught.value) == (
        "the input has axes NPC, which is no picture (N, C and two positions); give arrays, not photos"
    )


def steep_net() -> onnx.ModelProto:
    """A slope near the largest float32: the node `steep` overflows for large inputs."""
    nodes = [
        make("Conv", ["input", "w"], ["c"], name="conv"),
        make("PRelu", ["c", "huge"], ["p"], name="steep"),
        make("GlobalAveragePool", ["p"], ["g"], name="gap"),
        make("Flatten", ["g"], ["output"], name="flatten"),
    ]
    rng = np.random.default_rng(0)
    weights: dict[str, Array] = {
        "w": rng.standard_normal((2, 3, 1, 1)).astype(np.float32),
        "huge": np.array([3e38], np.float32).reshape(1, 1, 1),
    }
    return model_of(nodes, weights, (["N", 3, 8, 8], ["N", 2]))


def test_an_activation_that_overflows_is_told_with_its_node() -> None:
    with pytest.raises(NonFiniteError) as caught:
        make_explainer(steep_net()).explain(DATA[:1, :, :8, :8] * 100)
    assert str(caught.value) == (
        "infinity in the activation 'p', computed by ai.onnx::PRelu v16, node 'steep'; "
        "check the preprocessing (a wrong scale overflows) and the weights"
    )


def test_activations_whose_squares_overflow_are_told() -> None:
    with pytest.raises(
        NonFiniteError,
        match=r"^every activation is finite but .* as large as \d+e\+2\d overflow when squared; ",
    ):
        make_explainer().explain(DATA[:1] * 1e22)


def test_one_bad_input_does_not_spoil_the_message_for_a_batch() -> None:
    data = DATA[:2, :, :8, :8].copy()
    data[0] = 0
    data[1] *= 1e30
    with pytest.raises(NonFiniteError, match=r"^infinity in the activation 'p', computed by "):
        in_one_run(make_explainer(steep_net()), data)
    with pytest.raises(NonFiniteError, match=r"^infinity in the activation 'p', computed by "):
        make_explainer(steep_net()).explain(data, batch_size=2)


def test_a_model_of_several_inputs_takes_a_dictionary() -> None:
    model = model_of([make("Add", ["input", "second"], ["output"])], {}, ([1, 3], [1, 3]))
    model.graph.input.append(helper.make_tensor_value_info("second", 1, [1, 3]))
    subject = make_explainer(model, preset="paper")
    a, b = np.array([[1.0, 2.0, 3.0]]), np.array([[4.0, 5.0, -6.0]])
    found = subject.explain({"input": a, "second": b}, [2, 0])
    assert [{k: float(v) for k, v in one.relevances.items()} for one in found] == [
        {"input": 3.0, "second": -6.0},
        {"input": 1.0, "second": 4.0},
    ]
    assert [output.name for output in subject.compile().graph.output] == [
        "output",
        "relevance/input",
        "relevance/second",
    ]
    with pytest.raises(InputError) as caught:
        subject.explain(a)
    assert str(caught.value) == (
        "the model has the inputs 'input', 'second': give a dictionary from their names to arrays"
    )
    with pytest.raises(InputError) as caught:
        subject.explain({"input": a, "other": b})
    assert str(caught.value) == (
        "the model takes the inputs ['input', 'second'], but ['input', 'other'] were given"
    )


@pytest.mark.parametrize("name", ["target", "relevance", "srd.seed"])
def test_a_tensor_with_one_of_our_names_is_refused_by_name(name: str) -> None:
    model = two_nodes()
    model.graph.node[0].output[0] = model.graph.node[1].input[0] = name
    with pytest.raises(SrdOnnxError) as caught:
        make_explainer(model).explain(DATA[:1, :1, :4, :4])
    assert str(caught.value) == (
        f"the model has a tensor called '{name}', a name that the explained model needs for itself: "
        "rename the tensor, e.g. with onnx.compose.add_prefix"
    )
