"""What must hold for any model at all: our own errors, or a finite explanation that adds up."""

import math
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, given, settings
from numpy.typing import NDArray

from srd_onnx import Explainer, Explanation
from srd_onnx.errors import SrdOnnxError
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.fused_nets import optimised
from tests.fuzz_graphs import Grown, grown

Array = NDArray[Any]
RESIDUAL = 1e-3
# Numbers inside a network are of order one, known to float32 to 1e-7 each: sums below this cannot be judged.
SMALL = 1e-3


# Options of a test of random networks; how many it says itself.
QUICK = settings(
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


class PropertyError(AssertionError):
    """An explanation that is not what was promised."""


def of_random_networks(
    check: Callable[[Explainer, Any, Grown, list[Explanation]], None], examples: int
) -> None:
    """Hold something against what `explain` gives of random networks, nearly all of which can be explained.

    Args:
        check: given an explainer that has explained nothing yet, the inputs, the network, and the explanations.
        examples: networks.
    """
    outcomes: list[bool] = []

    @settings(QUICK, max_examples=examples)
    @given(grown())
    def one(case: Grown) -> None:
        options, feeds = {"preset": "paper", **options_of(case)}, single(case.feeds)
        try:
            wanted = Explainer(case.model, **options).explain(feeds, case.target)
        except SrdOnnxError:
            outcomes.append(False)  # the fuzzer judges what may be refused
            return
        outcomes.append(True)
        check(Explainer(case.model, **options), feeds, case, wanted)

    one()
    assert sum(outcomes) >= 0.8 * len(outcomes)


def explain_grown(case: Grown) -> SrdOnnxError | None:
    """Explain a grown graph in the way that its options ask for; our error, if it cannot be.

    Raises:
        PropertyError: what does not hold.
        Exception: anything that is not our own.
    """
    onnx.checker.check_model(case.model, full_check=True)
    options = options_of(case)
    try:
        make_session(case.model.SerializeToString(), [CPU], 1)  # itself it may refuse, too
        model = as_saved(case.model) if case.fused else case.model
        explainer = Explainer(model, **options)
        if case.place >= 0:
            crossed = [s.node.input(i).name for s in explainer.plan.steps for i in s.carriers]
            crossed = [name for name in dict.fromkeys(crossed) if explainer.plan.graph.values[name].is_float]
            if crossed:
                boundary = crossed[case.place % len(crossed)]
                explainer = Explainer(model, **options, boundary=boundary)
        batch = next(iter(case.feeds.values())).shape[0]
        found = explainer.explain(single(case.feeds), case.target, batch_size=batch)
    except SrdOnnxError as error:
        says_something(error)
        return error
    require(len(found) == batch, f"{len(found)} explanations of {batch} inputs")
    for explanation in found:
        adds_up(explanation)
    if batch > 1 and case.open_batch and not case.quantised:
        maps_agree(explainer.explain(single(case.feeds), case.target, batch_size=1), found)
    if isinstance(case.target, int) and not case.quantised and not case.fused:
        compiled_is_the_same(case, explainer.compile(batch=batch), found)
    return None


def says_something(error: SrdOnnxError) -> None:
    require(len(str(error)) > 20, f"an error that says nothing: {error!r}")


def as_saved(model: onnx.ModelProto) -> onnx.ModelProto:
    """With the fused operators that ONNX Runtime's optimiser finds a place for."""
    with tempfile.TemporaryDirectory(prefix="srd-onnx-") as folder:
        return optimised(model, Path(folder))


def adds_up(explanation: Explanation) -> None:
    """Finite, and the seed is what relevance and ledger come to."""
    maps = [np.asarray(m, np.float64) for m in explanation.relevances.values()]
    booked = list(explanation.ledger.values())
    require(all(np.isfinite(m).all() for m in maps), "relevance that is not finite")
    require(all(map(math.isfinite, booked)), "a ledger that is not finite")
    seed = float(explanation.meta["seed_value"])
    residual = abs(seed - sum(float(m.sum()) for m in maps) - sum(booked))
    terms = sum(float(np.abs(m).sum()) for m in maps) + sum(map(abs, booked))
    scale = max(abs(seed), terms, SMALL)
    require(residual <= RESIDUAL * scale, f"residual {residual:.3g} of {scale:.3g}, seed {seed:.3g}")


def maps_agree(found: list[Explanation], wanted: list[Explanation], how: str = "without its batch") -> None:
    """An input is explained alike in another way."""
    for one, other in zip(found, wanted, strict=True):
        for name, relevance in other.relevances.items():
            near(one.relevances[name], relevance, RESIDUAL, f"map {how}")


def compiled_is_the_same(grown: Grown, compiled: onnx.ModelProto, found: list[Explanation]) -> None:
    """The standalone model is valid; it computes what the original does, and the same maps."""
    onnx.checker.check_model(compiled, full_check=True)
    batch = len(found)
    session = make_session(compiled.SerializeToString(), [CPU], 1)
    feeds = {**grown.feeds, "target": np.full(batch, grown.target, np.int64)}
    names = [value.name for value in session.get_outputs()]
    outputs = dict(zip(names, run(session, names, feeds), strict=True))
    original = run(make_session(grown.model.SerializeToString(), [CPU], 1), None, grown.feeds)
    for value, array in zip(grown.model.graph.output, original, strict=True):
        near(outputs[value.name], array, 1e-4, f"output {value.name}")
    explained = list(found[0].relevances)
    for name in explained:
        key = "relevance" if len(explained) == 1 else f"relevance/{name}"
        near(outputs[key], np.stack([e.relevances[name] for e in found]), RESIDUAL, f"map {key}")


def near(found: Array, wanted: Array, tolerance: float, what: str) -> None:
    require(found.shape == wanted.shape, f"{what}: shape {found.shape}, not {wanted.shape}")
    with np.errstate(invalid="ignore"):
        error = np.abs(found.astype(np.float64) - wanted).max(initial=0)
    scale = max(np.abs(wanted).max(initial=0), SMALL)
    require(bool(error <= tolerance * scale), f"{what}: off by {error:.3g} of {scale:.3g}")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise PropertyError(message)


def options_of(case: Grown) -> dict[str, Any]:
    """Of the explainer of a random network."""
    return {
        "layout": case.layouts,
        "providers": "cpu",
        "threads": 1,
        "preprocess": np.asarray,
        **case.options,
    }


def single(feeds: Mapping[str, Array]) -> Any:
    return dict(feeds) if len(feeds) > 1 else next(iter(feeds.values()))
