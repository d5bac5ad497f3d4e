"""The PFVs that matter to a decision: which they are, their shares, their fields."""

from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer
from srd_onnx.errors import InputError, OptionError, UnknownTensorError
from srd_onnx.inside.contact import Choice, Contacts, contacts, extent, stem_of
from srd_onnx.targets import Contrast
from tests.attention_nets import multihead
from tests.nets import small_cnn
from tests.small_nets import in_single

DATA = np.random.default_rng(3).standard_normal((1, 3, 32, 32)).astype(np.float32)
EVERY = Choice(top=10**6)


def explainer(**options: Any) -> Explainer:
    return Explainer(small_cnn(), providers="cpu", **options)


def only(found: Any) -> Contacts:
    (one,) = found
    assert isinstance(one, Contacts)
    return one


@pytest.mark.parametrize("layer", ["relu1", "conv2", "add", "encoder", "relu5"])
def test_relevance_and_shares_are_those_of_the_decision_and_fields_those_of_erf(layer: str) -> None:
    subject = explainer()
    found = only(contacts(subject, DATA, layer, EVERY, 4))
    (decision,) = subject.inside(DATA, 4)
    name = "relu5" if layer == "encoder" else layer
    np.testing.assert_array_equal(found.relevance, decision.relevance[name])
    assert len(found.chosen) == found.relevance.size
    assert (np.diff(np.abs(found.chosen)) <= 0).all()
    np.testing.assert_allclose(
        found.shares * decision.explanation.meta["seed_value"], found.chosen, rtol=1e-5
    )
    (erf,) = subject.erf(DATA, layer, found.erf.positions.tolist())
    np.testing.assert_allclose(found.erf.maps, erf.maps, rtol=0, atol=1e-6)
    assert found.erf.layer == ("bn2" if layer == "conv2" else name)
    if layer != "conv2":  # a branch; every path leads through the others
        together = np.tensordot(found.chosen, found.erf.maps, 1)
        np.testing.assert_allclose(together, decision.explanation.relevance, rtol=0, atol=1e-5)


def test_above_the_boundary_relevance_is_collapsed_at_the_layer() -> None:
    found = only(contacts(explainer(boundary="pool1"), DATA, "relu5", Choice(top=3), Contrast(1, 2)))
    (right,) = explainer(boundary="relu5").inside(DATA, Contrast(1, 2))
    np.testing.assert_allclose(found.relevance, right.relevance["relu5"], rtol=1e-5, atol=1e-7)
    assert found.explanation.target == "1-over-2"


def test_choices() -> None:
    relevance = np.array([[0.5, -2.0, 0.0], [1.0, 3.0, -0.25]])
    assert Choice(top=3).of(relevance) == [(1, 1), (0, 1), (1, 0)]
    assert Choice(positions=((1, 2),), top=3).of(relevance) == [(1, 2)]
    assert Choice(grid=1).of(relevance) == [(1, 1)]
    assert Choice(grid=2).of(np.zeros((8, 9))) == [(2, 2), (2, 6), (6, 2), (6, 6)]
    assert Choice(grid=50).of(relevance) == [tuple(map(int, one)) for one in np.argwhere(relevance < 9)]
    assert Choice(grid=3).of(np.zeros(9)) == [(1,), (4,), (7,)]


def test_the_extent_holds_most_of_the_field() -> None:
    field = np.zeros((20, 30))
    field[4:8, 10:11] = -1
    assert extent(field) == (4, 1)
    assert extent(np.ones(100)) == (91,)
    assert extent(np.zeros((3, 4))) == (0, 0)
    spread = np.full(100, 1e-6)
    spread[50] = 1
    assert extent(spread) == (1,)


def test_a_wildcard_gives_one_sheet_per_layer() -> None:
    found = list(contacts(explainer(), DATA, "bn*", Choice(top=2), 4))
    assert [one.erf.layer for one in found] == ["bn1", "bn2", "bn3", "bn4", "bn5"]
    assert [one.layer for one in found] == ["conv1", "conv2", "conv3", "depthwise", "pointwise"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"layer": "nope"}, UnknownTensorError, "'nope' is no layer that relevance crosses"),
        ({"choice": Choice(positions=((8, 0),))}, OptionError, "position (8, 0) lies outside 'relu5'"),
        ({"choice": Choice(positions=((8,),))}, OptionError, "has 2 coordinates (8 × 8), not 1"),
        ({"target": "top2"}, OptionError, "fields are shown for one target, but 'top2' is 2"),
        (
            {"source": np.concatenate([DATA, DATA])},
            InputError,
            "fields are shown for one input, but there are 2",
        ),
        ({"target": "relu2[0]", "layer": "add"}, UnknownTensorError, "that relevance does not cross"),
    ],
    ids=str,
)
def test_what_has_no_fields_is_said(given: dict[str, Any], error: type[Exception], message: str) -> None:
    usual: dict[str, Any] = {"source": DATA, "layer": "encoder", "choice": Choice(), "target": 4}
    with pytest.raises(error) as caught:
        list(contacts(explainer(), **usual | given))
    assert message in str(caught.value)


def test_tokens_have_sheets_too(tmp_path: Any) -> None:
    net = multihead()
    subject = Explainer(in_single(net), layout={"x": net.layout}, providers="cpu", preprocess=np.asarray)
    x = np.random.default_rng(1).standard_normal((1, *net.shape[1:])).astype(np.float32)
    found = only(contacts(subject, x, "encoder", Choice(top=2), 0))
    paths = found.save(tmp_path, "a.b.erf")
    assert all(path.stat().st_size > 0 for path in paths.values())


def test_stems_are_safe_and_differ() -> None:
    assert stem_of("a", "/fires.7/Concat", []) == "a.fires.7_Concat.erf"
    assert stem_of("a", "../x", []) == "a._x.erf"
    assert stem_of("a", "B", ["a.b.erf"]) == "a.B-2.erf"
