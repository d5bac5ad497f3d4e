"""The focus of one pass by others, and smoothing: against the formulas, for every way that a map is computed."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from srd_onnx import Explainer
from srd_onnx.engine.focus import BOOKED, finish_model
from srd_onnx.engine.options import PRESETS, Options, options_of
from srd_onnx.errors import OptionError
from srd_onnx.graph.ir import Value
from srd_onnx.ort.runtime import CPU, make_session, run

Array = NDArray[np.float32]
SHAPE = (2, 9, 12)
RNG = np.random.default_rng(0)
COARSE, FINE, FINEST = (RNG.standard_normal(SHAPE).astype(np.float32) for _ in range(3))


def finish(options: Options, coarse: Array, *fine: Array) -> dict[str, Array]:
    value = Value("", (1, *coarse.shape[1:]), np.dtype(np.float32))
    session = make_session(finish_model(options, value, 17, len(fine)).SerializeToString(), [CPU])
    names = [output.name for output in session.get_outputs()]
    feeds = dict(zip((one.name for one in session.get_inputs()), (coarse, *fine), strict=True))
    return dict(zip(names, run(session, names, feeds), strict=True))


def by_definition(coarse: Array, *fine: Array) -> NDArray[np.float64]:
    """m_i = c (r_i⁺ f_i⁺ ...)^(2/n), position by position, in float64."""
    found = np.zeros(coarse.shape)
    for n in range(len(coarse)):
        for i in np.ndindex(coarse.shape[1:]):
            found[n][i] = math.prod(max(float(r[n][i]), 0) for r in (coarse, *fine)) ** (2 / (1 + len(fine)))
        found[n] *= np.maximum(coarse[n].astype(float), 0).sum() / found[n].sum()
    return found


@pytest.mark.parametrize("fine", [(FINE,), (FINE, FINEST)])
def test_focus_is_the_squared_geometric_mean_with_the_sum_of_the_positive_part(
    fine: tuple[Array, ...],
) -> None:
    found = finish(Options(), COARSE, *fine)
    np.testing.assert_allclose(found["map"], by_definition(COARSE, *fine), rtol=1e-5)
    negative = np.minimum(COARSE, 0).sum(axis=(1, 2))
    np.testing.assert_allclose(found["booked"], negative, rtol=1e-5)


def test_the_check_notices_maps_in_the_wrong_order() -> None:
    found = finish(Options(), FINE, COARSE)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(found["map"], by_definition(COARSE, FINE), rtol=1e-5)


def test_what_no_position_shares_is_booked() -> None:
    apart = np.where(COARSE > 0, -1, 1).astype(np.float32)
    found = finish(Options(), COARSE, apart)
    assert not found["map"].any()
    np.testing.assert_allclose(found["booked"], COARSE.sum(axis=(1, 2)), rtol=1e-4)


def test_where_there_is_no_relevance_there_is_no_map() -> None:
    found = finish(Options(), np.zeros(SHAPE, np.float32), FINE)
    assert not found["map"].any()
    assert not found["booked"].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_so(bad: float) -> None:
    spoilt = FINE.copy()
    spoilt[0, 2, 3] = bad
    assert not np.isfinite(finish(Options(), COARSE, spoilt)["map"][0]).all()


def test_smoothing_is_the_adjoint_of_a_gaussian_mean_within_the_picture() -> None:
    smoothed = finish(Options(smooth=2.0), COARSE)["map"]
    inside = COARSE.astype(np.float64)
    for axis in (1, 2):
        inside /= gaussian_filter1d(np.ones(SHAPE), 2.0, axis=axis, mode="constant", truncate=3)
        inside = gaussian_filter1d(inside, 2.0, axis=axis, mode="constant", truncate=3)
    np.testing.assert_allclose(smoothed, inside, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(smoothed.sum(axis=(1, 2)), COARSE.sum(axis=(1, 2)), rtol=1e-4, atol=1e-4)


def test_a_sequence_is_not_smoothed() -> None:
    sequence = COARSE[:, 0]
    np.testing.assert_array_equal(finish(Options(smooth=2.0), sequence)["map"], sequence)


@pytest.fixture(scope="module")
def joint() -> Explainer:
    return Explainer("squeezenet11", preset="joint", providers="cpu")


def test_the_joint_map_is_that_of_its_passes(joint: Explainer) -> None:
    (found,) = joint.explain("models/chelsea.png")
    (coarse,) = Explainer("squeezenet11", preset="paper", seed="logodds", providers="cpu").explain(
        "models/chelsea.png"
    )
    fine = []
    for plan in joint.plan.focus:
        single = Explainer(
            "squeezenet11",
            preset="paper",
            seed="logodds",
            boundary=plan.boundary[0],
            sign="positive",
            providers="cpu",
        )
        fine.append(single.explain("models/chelsea.png")[0].relevance[None])
    assert fine
    wanted = finish(joint.options, coarse.relevance[None], *fine)
    np.testing.assert_allclose(found.relevance, wanted["map"][0], rtol=1e-3, atol=1e-7)
    assert found.ledger[BOOKED] == pytest.approx(float(wanted["booked"][0]), rel=1e-4)
    assert abs(found.residual) < 1e-4 * abs(found.meta["seed_value"])


@pytest.mark.parametrize("way", ["several targets", "forward"])
def test_every_way_gives_the_same_map(joint: Explainer, way: str) -> None:
    one = joint.explain("models/chelsea.png", ["top2"])
    others = (
        joint.explain_forward("models/chelsea.png", ["top2"])
        if way == "forward"
        else joint.explain("models/chelsea.png", ["top5"])
    )
    for mine, other in zip(one, others, strict=False):
        assert mine.target == other.target
        atol = 1e-5 * float(mine.relevance.max())
        np.testing.assert_allclose(other.relevance, mine.relevance, rtol=1e-3, atol=atol)
        assert other.ledger[BOOKED] == pytest.approx(mine.ledger[BOOKED], rel=1e-3)
        assert abs(other.residual) < 1e-3 * abs(other.meta["seed_value"])


def test_the_scales_lie_between_input_and_boundary(joint: Explainer) -> None:
    plan = joint.plan
    found = [plan.graph.values[name].shape for one in plan.focus for name in one.boundary]
    # Behind all branches of the last block of stride 8; the last of stride 4 is the pool of stride 2 before it.
    assert found == [(1, 256, 27, 27), (1, 128, 56, 56)]
    assert str(plan).count("focus") == len(found)


def test_a_focus_may_be_a_tensor_and_is_none_at_the_boundary_itself(joint: Explainer) -> None:
    (one,) = joint.with_changed(focus=joint.plan.focus[0].boundary[0]).plan.focus
    assert one.boundary == joint.plan.focus[0].boundary
    assert joint.with_changed(focus=joint.plan.boundary[0]).plan.focus == ()


def test_another_boundary_takes_the_focus_of_the_preset_away() -> None:
    assert options_of("joint", boundary="x").focus == "none"
    assert options_of("joint", boundary="x", focus="scales").focus == "scales"
    assert PRESETS["joint"].focus == "scales"


@pytest.mark.parametrize("smooth", [-1.0, 65.0, float("nan")])
def test_a_smoothing_that_means_nothing_is_refused(smooth: float) -> None:
    with pytest.raises(OptionError, match="must be between 0 and 64 pixels"):
        Options(smooth=smooth)
