"""Models with redrawn weights: which layers there are, what is redrawn with each, and that nothing else is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import ModelProto, helper, numpy_helper

from srd_onnx import Explainer
from srd_onnx.errors import ExternalDataError, UnknownTensorError
from srd_onnx.graph.load import load_model
from srd_onnx.metrics.randomised import randomised_model, weighted_layers
from srd_onnx.metrics.weights import layers_of
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.nets import model_of, small_cnn

Array = NDArray[Any]
make = helper.make_node
RNG = np.random.default_rng(0)


def normal(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def net(
    nodes: list[onnx.NodeProto], constants: dict[str, Array], output: tuple[int, ...] = (1, 4)
) -> ModelProto:
    """From an input [1, 3, 6, 6] or what the first node makes of it, to `output`."""
    return load_model(model_of(nodes, dict(constants), ([1, 3, 6, 6], list(output)))).proto


def outputs(model: ModelProto, names: list[str]) -> list[Array]:
    """Inner tensors for one input."""
    exposed = ModelProto()
    exposed.CopyFrom(model)
    del exposed.graph.output[:]
    exposed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    x = np.random.default_rng(5).standard_normal((1, 3, 6, 6)).astype(np.float32)
    return [np.asarray(a) for a in run(make_session(exposed.SerializeToString(), [CPU]), names, {"input": x})]


def chain() -> ModelProto:
    """Preprocessing, convolution, batch norm, a bias of its own, and a matrix with a bias behind it."""
    return net(
        [
            make("Sub", ["input", "mean"], ["x0"], name="mean"),
            make("Conv", ["x0", "w1", "b1"], ["c1"], name="conv", pads=[1, 1, 1, 1]),
            make("BatchNormalization", ["c1", "s", "o", "m", "v"], ["n1"], name="norm"),
            make("Relu", ["n1"], ["r1"], name="relu"),
            make("ReduceMean", ["r1"], ["p"], name="pool", axes=[2, 3], keepdims=0),
            make("MatMul", ["p", "w2"], ["h"], name="matrix"),
            make("Add", ["h", "b2"], ["output"], name="bias"),
        ],
        {
            "mean": normal(1, 3, 1, 1),
            "w1": normal(5, 3, 3, 3),
            "b1": normal(5),
            "s": normal(5),
            "o": normal(5),
            "m": normal(5),
            "v": np.abs(normal(5)) + 1,
            "w2": normal(5, 4),
            "b2": normal(4),
        },
    )


def read_by(model: ModelProto, node: str) -> list[Array]:
    """The constants that a node reads, computed ones too."""
    proto = next(n for n in model.graph.node if n.name == node)
    stored = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return [stored[name] for name in proto.input if name in stored]


def changed(before: ModelProto, after: ModelProto) -> set[str]:
    """Nodes of which a constant is another one."""
    return {
        n.name
        for n in before.graph.node
        if any(
            not np.array_equiv(a, b)
            for a, b in zip(read_by(before, n.name), read_by(after, n.name), strict=True)
        )
    }


def test_layers_from_the_output_to_the_input_with_what_goes_with_them() -> None:
    model = chain()
    assert weighted_layers(model) == ["matrix", "conv"]
    assert changed(model, randomised_model(model, ["matrix"], 0)) == {"matrix", "bias"}
    assert changed(model, randomised_model(model, ["conv"], 0)) == {"conv", "norm"}
    assert changed(model, randomised_model(model, ["matrix", "conv"], 0)) == {
        "matrix",
        "bias",
        "conv",
        "norm",
    }
    assert changed(model, randomised_model(model, [], 0)) == set()


def test_new_weights_have_the_distribution_of_the_old_ones() -> None:
    model = chain()
    after = randomised_model(model, ["matrix", "conv"], 0)
    for name in ("conv", "norm", "matrix", "bias"):
        for old, new in zip(read_by(model, name), read_by(after, name), strict=True):
            assert old.shape == new.shape
            assert old.dtype == new.dtype
            np.testing.assert_array_equal(np.sort(old, axis=None), np.sort(new, axis=None))


def test_the_model_given_stays_as_it_is() -> None:
    model = chain()
    before = model.SerializeToString(deterministic=True)
    randomised_model(model, weighted_layers(model), 0)
    assert model.SerializeToString(deterministic=True) == before


def test_the_seed_decides_and_stages_build_on_each_other() -> None:
    model = chain()
    one, again, other = (randomised_model(model, ["matrix"], seed) for seed in (0, 0, 1))
    both = randomised_model(model, ["conv", "matrix"], 0)
    (w,), (w_again,), (w_other,), (w_both,) = (read_by(m, "matrix") for m in (one, again, other, both))
    np.testing.assert_array_equal(w, w_again)
    np.testing.assert_array_equal(w, w_both)
    assert (w != w_other).any()


def test_tensors_before_the_layer_stay_and_those_behind_change() -> None:
    model = chain()
    after = randomised_model(model, ["matrix"], 0)
    for name, same in (("x0", True), ("r1", True), ("h", False), ("output", False)):
        (old,), (new,) = outputs(model, [name]), outputs(after, [name])
        assert np.array_equiv(old, new) == same, name


def shared() -> ModelProto:
    """Two convolutions that read one weight."""
    w = normal(3, 3, 1, 1)
    return net(
        [
            make("Conv", ["input", "w"], ["a"], name="first"),
            make("Relu", ["a"], ["b"], name="relu"),
            make("Conv", ["b", "w"], ["output"], name="second"),
        ],
        {"w": w},
        (1, 3, 6, 6),
    )


def test_a_shared_weight_is_redrawn_for_the_named_layer_alone() -> None:
    model = shared()
    assert weighted_layers(model) == ["second", "first"]
    for name in ("first", "second"):
        assert changed(model, randomised_model(model, [name], 0)) == {name}
    after = randomised_model(model, ["second"], 0)
    np.testing.assert_array_equal(outputs(model, ["a"])[0], outputs(after, ["a"])[0])
    assert (outputs(model, ["output"])[0] != outputs(after, ["output"])[0]).any()


def quantised() -> ModelProto:
    """A weight behind DequantizeLinear and Transpose, a bias as int32, a Constant node; one weight for two layers."""
    w = RNG.integers(-100, 100, (3, 3, 1, 1)).astype(np.int8)
    constants: dict[str, Array] = {
        "w": w,
        "scale": np.full(3, 0.01, np.float32),
        "zero": np.zeros(3, np.int8),
        "b": RNG.integers(-50, 50, 3).astype(np.int32),
        "b_scale": np.array(0.02, np.float32),
    }
    nodes = [
        make("Constant", [], ["w2"], name="constant", value=numpy_helper.from_array(normal(4, 108))),
        make("DequantizeLinear", ["w", "scale", "zero"], ["wf"], name="dq", axis=0),
        make("Transpose", ["wf"], ["wt"], name="transpose", perm=[1, 0, 2, 3]),
        make("DequantizeLinear", ["b", "b_scale"], ["bf"], name="dqb"),
        make("Conv", ["input", "wt", "bf"], ["c"], name="first"),
        make("Conv", ["c", "wt"], ["d"], name="second"),
        make("Flatten", ["d"], ["f"], name="flatten"),
        make("Gemm", ["f", "w2"], ["output"], name="head", transB=1),
    ]
    return net(nodes, constants)


def test_quantised_weights_keep_their_type_and_scale() -> None:
    model = quantised()
    assert weighted_layers(model) == ["head", "second", "first"]
    after = randomised_model(model, ["first"], 0)
    stored = {t.name: numpy_helper.to_array(t) for t in after.graph.initializer}
    (new,) = (a for name, a in stored.items() if a.dtype == np.int8 and a.ndim == 4 and name != "w")
    np.testing.assert_array_equal(np.sort(new, axis=None), np.sort(stored["w"], axis=None))
    assert sum(a.dtype == np.int32 for a in stored.values()) == 1
    (c, y), (c_new, y_new) = outputs(model, ["c", "output"]), outputs(after, ["c", "output"])
    assert (c != c_new).any()
    assert (y != y_new).any()


def test_a_chain_of_constants_is_copied_for_the_named_layer_alone() -> None:
    model = quantised()
    for name, kept, moved in (("second", "c", "d"), ("head", "d", "output")):
        after = randomised_model(model, [name], 0)
        np.testing.assert_array_equal(outputs(model, [kept])[0], outputs(after, [kept])[0])
        assert (outputs(model, [moved])[0] != outputs(after, [moved])[0]).any()


def test_what_is_no_weight_is_no_layer() -> None:
    """A mask over pairs, a weight of equal numbers, a scale, a shape, and a second output's layer."""
    model = net(
        [
            make("Mul", ["input", "half"], ["a"], name="scale"),
            make("Conv", ["a", "ones"], ["b"], name="mean filter"),
            make("Conv", ["b", "w"], ["c"], name="conv"),
            make("Add", ["c", "mask"], ["d"], name="mask"),
            make("Add", ["d", "far"], ["output"], name="far"),
            make("Conv", ["c", "w"], ["z"], name="aside"),
        ],
        {
            "half": np.array([0.5], np.float32),
            "ones": np.ones((3, 3, 1, 1), np.float32),
            "w": normal(3, 3, 1, 1),
            "mask": np.triu(np.full((6, 6), -1.0, np.float32)),
            "far": np.array([0, -1e9, 0, 0, 0, 0], np.float32),
        },
        (1, 3, 6, 6),
    )
    assert [(layer.name, len(layer.operands)) for layer in layers_of(model)] == [("conv", 1)]


def test_weights_of_one_output_channel_and_of_recurrent_cells_are_weights() -> None:
    model = net(
        [
            make("Conv", ["input", "w"], ["a"], name="to one"),
            make("Squeeze", ["a", "axis"], ["b"], name="squeeze"),
            make("Transpose", ["b"], ["c"], name="turn", perm=[1, 0, 2]),
            make("GRU", ["c", "wg", "rg", "bg"], ["", "h"], name="gru", hidden_size=2),
            make("Reshape", ["h", "shape"], ["output"], name="reshape"),
        ],
        {
            "w": normal(1, 3, 1, 1),
            "axis": np.array([1]),
            "wg": normal(1, 6, 6),
            "rg": normal(1, 6, 2),
            "bg": normal(1, 12),
            "shape": np.array([1, 2]),
        },
        (1, 2),
    )
    assert [(layer.name, len(layer.operands)) for layer in layers_of(model)] == [("gru", 3), ("to one", 1)]
    assert changed(model, randomised_model(model, ["gru"], 0)) == {"gru"}


def test_external_data_is_taken_in_by_loading(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(small_cnn(), str(path), save_as_external_data=True, size_threshold=0)
    inside = load_model(small_cnn()).proto
    outside = load_model(path).proto
    names = weighted_layers(outside)
    assert names == weighted_layers(inside)
    assert changed(inside, outside) == set()
    assert changed(randomised_model(inside, names, 0), randomised_model(outside, names, 0)) == set()
    assert changed(outside, randomised_model(outside, names, 0)) >= set(names)
    with pytest.raises(ExternalDataError, match="Read the model with `load_model`"):
        weighted_layers(onnx.load(str(path), load_external_data=False))


def test_an_unknown_layer_is_refused() -> None:
    expected = "no layer with weights is called 'matrx'; did you mean 'matrix'? There is: matrix, conv"
    with pytest.raises(UnknownTensorError) as caught:
        randomised_model(chain(), ["conv", "matrx"], 0)
    assert str(caught.value) == expected


@pytest.mark.parametrize("build", [chain, shared, quantised, lambda: load_model(small_cnn()).proto])
def test_every_stage_is_a_valid_model_that_can_be_explained(build: Callable[[], ModelProto]) -> None:
    model = build()
    names = weighted_layers(model)
    twice = randomised_model(randomised_model(model, names, 0), names, 1)
    for stage in [*(randomised_model(model, names[:n], 0) for n in range(len(names) + 1)), twice]:
        onnx.checker.check_model(stage, full_check=True)
        shape = [d.dim_value or 1 for d in stage.graph.input[0].type.tensor_type.shape.dim]
        found = Explainer(stage, layout="NCHW", providers="cpu").explain(normal(*shape), 0)[0]
        assert abs(found.residual) < 1e-3 * max(1, abs(found.meta["seed_value"]))
