"""Random networks, real models damaged at random, and what they have found."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import event, given, settings
from numpy.typing import NDArray
from onnx import TensorProto, helper

from srd_onnx import Explainer, zoo
from srd_onnx.errors import ModelError, ProviderError, ShapeError, UnsupportedCaseError
from srd_onnx.explanation import Explanation
from tests.fuzz_checks import (
    QUICK,
    PropertyError,
    adds_up,
    compiled_is_the_same,
    explain_grown,
    maps_agree,
    says_something,
)
from tests.fuzz_graphs import Grown, grown
from tests.fuzz_mutations import MUTATIONS, explain_mutated, limited_memory, mutated
from tests.fuzz_ways import every_way
from tests.nets import model_of, small_cnn, two_nodes

make = helper.make_node
Array = NDArray[Any]


def test_grown_graphs_are_explained_and_add_up() -> None:
    """All but a few; where one is not, it is our own error that says so."""
    outcomes: list[str] = []

    @settings(QUICK, max_examples=80)
    @given(grown())
    def one(case: Grown) -> None:
        error = explain_grown(case)
        outcomes.append("explained" if error is None else type(error).__name__)
        event(outcomes[-1])

    one()
    assert len(outcomes) >= 60
    assert outcomes.count("explained") >= 0.8 * len(outcomes)


def test_grown_graphs_are_looked_at_in_every_way() -> None:
    outcomes: list[bool] = []

    @settings(QUICK, max_examples=20)
    @given(grown())
    def one(case: Grown) -> None:
        outcomes.append(every_way(case) is None)

    one()
    assert sum(outcomes) >= 0.8 * len(outcomes)


@pytest.mark.parametrize("model", ["small_cnn", "two_nodes", "squeezenet11", "efficientnet_lite0"])
def test_damaged_models_are_refused_or_explained(model: str) -> None:
    entry = zoo.find(model)
    if entry is None:
        base, seeds = small_cnn(channels=4) if model == "small_cnn" else two_nodes(), range(150)
    else:
        base, seeds = onnx.load(entry.path), range(20)
    outcomes = set()
    with limited_memory():
        for seed in seeds:
            damaged, done = mutated(base, seed)
            try:
                outcomes.add(type(explain_mutated(damaged, seed)).__name__)
            except Exception as error:
                raise AssertionError(f"{model}, seed {seed}: {done}") from error
    assert {"NoneType", "InvalidModelError"} <= outcomes


def test_every_mutation_changes_some_model() -> None:
    base = small_cnn(channels=4)
    before = base.SerializeToString(deterministic=True)
    for change in MUTATIONS:
        changed = False
        for seed in range(20):
            copy = onnx.ModelProto()
            copy.CopyFrom(base)
            change(copy, np.random.default_rng(seed))
            changed |= copy.SerializeToString(deterministic=True) != before
        assert changed, change.__name__


def explained_batch() -> tuple[Grown, list[Explanation]]:
    """Two inputs of a network that could have been grown, and their explanations."""
    data = np.random.default_rng(0).standard_normal((2, 1, 4, 4)).astype(np.float32)
    model = two_nodes()
    layouts, options = {"input": "NCHW"}, {"bias": "ledger"}
    case = Grown(model, {"input": data}, layouts, 0, options, -1, (), True, False, False)
    return case, Explainer(model, providers="cpu", bias="ledger").explain(data, 0)


def spoilt(right: Explanation, wrong: str) -> Explanation:
    relevance, ledger = right.relevance.copy(), dict(right.ledger)
    if wrong.startswith("ledger"):
        ledger["conv"] = np.nan if wrong.endswith("nan") else ledger.get("conv", 0.0) + 0.1
    else:
        relevance[1, 1] = np.nan if wrong.endswith("nan") else relevance[1, 1] + 0.1
    return replace(right, relevance=relevance, ledger=ledger, relevances={"input": relevance})


@pytest.mark.parametrize("wrong", ["map", "map nan", "ledger", "ledger nan"])
def test_the_checks_notice_what_does_not_add_up(wrong: str) -> None:
    right = explained_batch()[1][0]
    adds_up(right)
    with pytest.raises(PropertyError, match="not finite" if wrong.endswith("nan") else "residual"):
        adds_up(spoilt(right, wrong))


@pytest.mark.parametrize("wrong", ["map", "map nan"])
def test_the_checks_notice_maps_that_differ(wrong: str) -> None:
    case, (one, two) = explained_batch()
    compiled = Explainer(case.model, providers="cpu", bias="ledger").compile(batch=2)
    maps_agree([one, two], [one, two])
    compiled_is_the_same(case, compiled, [one, two])
    with pytest.raises(PropertyError, match="map without its batch: off by"):
        maps_agree([one, spoilt(two, wrong)], [one, two])
    with pytest.raises(PropertyError, match="map relevance: off by"):
        compiled_is_the_same(case, compiled, [spoilt(one, wrong), two])
    with pytest.raises(PropertyError, match="map relevance: shape"):
        compiled_is_the_same(case, compiled, [replace(one, relevances={"input": one.relevance[:, None]})] * 2)


def test_the_checks_notice_a_compiled_model_that_computes_something_else() -> None:
    case, found = explained_batch()
    compiled = Explainer(case.model, providers="cpu", bias="ledger").compile(batch=2)
    with pytest.raises(PropertyError, match="output output: off by"):
        compiled_is_the_same(replace(case, model=two_nodes(seed=1)), compiled, found)


def test_the_checks_notice_an_error_that_says_nothing() -> None:
    with pytest.raises(PropertyError, match="says nothing"):
        says_something(ModelError("no"))


# What they have found


def explain_damaged(model: onnx.ModelProto, data: Array | None = None) -> None:
    Explainer(model, providers="cpu").explain(np.ones((1, 1, 4, 4), np.float32) if data is None else data)


def test_weights_of_another_rank_than_the_input() -> None:
    model = two_nodes()
    model.graph.initializer[0].dims[:] = [18]
    with pytest.raises((ModelError, UnsupportedCaseError), match="weight"):
        explain_damaged(model)


def test_a_summand_of_another_rank_than_the_product() -> None:
    model = small_cnn(channels=4)
    model.graph.node[-1].input[2] = "bn3"
    with pytest.raises(UnsupportedCaseError, match="C must not have more than two axes"):
        explain_damaged(model, np.ones((1, 3, 32, 32), np.float32))


def test_an_axis_that_is_no_list() -> None:
    """ONNX wants a list, ONNX Runtime takes a number in Unsqueeze, and ONNX's own expansions write one."""
    nodes = [
        make("Unsqueeze", ["input", "axis"], ["apart"]),
        make("Relu", ["apart"], ["positive"]),
        make("Squeeze", ["positive", "axes"], ["again"]),
        make("ReduceMean", ["again"], ["output"], axes=[1], keepdims=0),
    ]
    model = model_of(nodes, {"axis": np.array(1), "axes": np.array([1])}, (["N", 5, 3], ["N", 3]))
    data = np.random.default_rng(0).standard_normal((1, 5, 3)).astype(np.float32)
    (found,) = Explainer(model, layout="NTC", providers="cpu").explain(data, 0)
    assert found.relevance.shape == (5,)
    adds_up(found)


def test_a_target_of_unknown_shape_is_called_so() -> None:
    nodes = [
        make("NonZero", ["input"], ["places"]),
        make("Cast", ["places"], ["real"], to=TensorProto.FLOAT),
        make("ReduceMean", ["input"], ["output"], axes=[1, 2], keepdims=0),
    ]
    model = model_of(nodes, {}, (["N", 5, 3], ["N"]))
    model.graph.output.append(helper.make_tensor_value_info("real", TensorProto.FLOAT, [3, "places"]))
    with pytest.raises(UnsupportedCaseError, match="the shape of 'real' is not known before the model runs"):
        Explainer(model, layout="NTC", providers="cpu").explain(np.ones((1, 5, 3), np.float32), "real[0]")


def test_a_stride_that_is_never_taken() -> None:
    model = two_nodes()
    model.graph.node[0].attribute.append(helper.make_attribute("strides", [1, 2**62]))
    data = np.random.default_rng(0).standard_normal((1, 1, 4, 4)).astype(np.float32)
    (found,) = Explainer(model, providers="cpu").explain(data, "c[0, 1, 0]")
    adds_up(found)
    model.graph.node[0].attribute[-1].ints[1] = 4
    np.testing.assert_allclose(
        found.relevance, Explainer(model, providers="cpu").explain(data, "c[0, 1, 0]")[0].relevance, atol=1e-6
    )


def test_a_batch_of_one_is_no_harder_than_one_of_two() -> None:
    """Where ONNX Runtime's optimiser moves the split of queries, keys and values, axes of size 1 stand side by side."""
    nodes = [
        make("Reshape", ["input", "shape"], ["heads"]),
        make("Transpose", ["heads"], ["moved"], perm=[2, 0, 1, 3]),
        make("Squeeze", ["moved", "first"], ["tokens"]),
        make("Concat", ["tokens", "input"], ["twice"], axis=1),
        make("ReduceMean", ["twice"], ["mean"], axes=[1], keepdims=0),
        make("Gemm", ["mean", "w"], ["output"]),
    ]
    weights: dict[str, Array] = {
        "shape": np.array([0, 5, 1, 3]),
        "first": np.array([0]),
        "w": np.ones((3, 2), np.float32),
    }
    model = model_of(nodes, weights, (["N", 5, 3], ["N", 2]))
    data = np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    together = Explainer(model, layout="NTC", providers="cpu").explain(data, 0)
    maps_agree(Explainer(model, layout="NTC", providers="cpu").explain(data, 0, batch_size=1), together)


@pytest.mark.parametrize("kind", [0, 99])
def test_an_element_type_that_onnx_does_not_know(kind: int) -> None:
    model = two_nodes()
    model.graph.input[0].type.tensor_type.elem_type = kind
    with pytest.raises((ModelError, ShapeError)):
        explain_damaged(model)


@pytest.mark.parametrize(("size", "error"), [(2**31, ProviderError), (2**62, UnsupportedCaseError)])
def test_padding_that_no_memory_holds(size: int, error: type[Exception]) -> None:
    model = two_nodes()
    (pads,) = (a for a in model.graph.node[0].attribute if a.name == "pads")
    pads.ints[2] = size
    with limited_memory(), pytest.raises(error, match=r"not enough memory|larger than any memory"):
        explain_damaged(model)


def test_bytes_that_are_no_picture_are_not_taken_for_a_photo() -> None:
    nodes = [
        make("Cast", ["input"], ["real"], to=TensorProto.FLOAT),
        make("MatMul", ["real", "w"], ["h"]),
        make("ReduceMean", ["h"], ["output"], axes=[1], keepdims=0),
    ]
    model = model_of(nodes, {"w": np.ones((3, 2), np.float32)}, ([1, 7, 3], [1, 2]))
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    (explained,) = Explainer(model, layout="NTC", providers="cpu").explain(np.ones((1, 7, 3), np.uint8), 0)
    assert explained.relevance.shape == (7,)


def test_the_boundary_of_a_recurrent_layer_is_the_same_in_a_batch() -> None:
    """Its batch is the third axis: items of the batch are no positions that the target sees."""
    nodes = [
        make("Transpose", ["input"], ["turned"], perm=[1, 0, 2]),
        make("GRU", ["turned", "w", "r"], ["steps"], name="gru", hidden_size=2, direction="reverse"),
        make("Slice", ["steps", "first", "second", "axes"], ["step"]),
        make("Squeeze", ["step", "gone"], ["flat"]),
        make("Gemm", ["flat", "last"], ["output"], name="gemm"),
    ]
    numbers = np.random.default_rng(0).standard_normal
    weights: dict[str, Any] = {
        "w": numbers((1, 6, 3)).astype(np.float32),
        "r": numbers((1, 6, 2)).astype(np.float32),
        "last": numbers((2, 4)).astype(np.float32),
        "first": np.array([0], np.int64),
        "second": np.array([1], np.int64),
        "axes": np.array([0], np.int64),
        "gone": np.array([0, 1], np.int64),
    }
    explainer = Explainer(
        model_of(nodes, weights, (["N", 5, 3], ["N", 4])),
        layout="NTC",
        providers="cpu",
        preprocess=np.asarray,
    )
    plans = [explainer.planned(explainer.case({"input": (batch, 5, 3)}))[1] for batch in (1, 2)]
    assert [plan.boundary for plan in plans] == [("turned",), ("turned",)]
    data = numbers((2, 5, 3)).astype(np.float32)
    for one, other in zip(explainer.explain(data, 1), explainer.explain(data, 1, batch_size=2), strict=True):
        np.testing.assert_allclose(one.relevance, other.relevance, rtol=0, atol=1e-6)
