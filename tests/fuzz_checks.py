"""What must hold for any model at all: our own errors, or a finite explanation that adds up."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from srd_onnx import Explainer, Explanation
from srd_onnx.errors import SrdOnnxError
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.fused_nets import optimised
from tests.fuzz_graphs import Grown

Array = NDArray[Any]
RESIDUAL = 1e-3
# Numbers inside a network are of order one, known to float32 to 1e-7 each: sums below this cannot be judged.
SMALL = 1e-3


class PropertyError(AssertionError):
    """An explanation that is not what was promised."""


def explain_grown(grown: Grown) -> SrdOnnxError | None:
    """Explain a grown graph in the way that its options ask for; our error, if it cannot be.

    Raises:
        PropertyError: what does not hold.
        Exception: anything that is not our own.
    """
    onnx.checker.check_model(grown.model, full_check=True)
    settings: dict[str, Any] = {
        "layout": grown.layouts,
        "providers": "cpu",
        "threads": 1,
        "preprocess": np.asarray,
        **grown.options,
    }
    try:
        make_session(grown.model.SerializeToString(), [CPU], 1)  # itself it may refuse, too
        model = as_saved(grown.model) if grown.fused else grown.model
        explainer = Explainer(model, **settings)
        if grown.place >= 0:
            crossed = [s.node.input(i).name for s in explainer.plan.steps for i in s.carriers]
            crossed = [name for name in dict.fromkeys(crossed) if explainer.plan.graph.values[name].is_float]
            if crossed:
                boundary = crossed[grown.place % len(crossed)]
                explainer = Explainer(model, **settings, boundary=boundary)
        batch = next(iter(grown.feeds.values())).shape[0]
        found = explainer.explain(_single(grown.feeds), grown.target, batch_size=batch)
    except SrdOnnxError as error:
        says_something(error)
        return error
    require(len(found) == batch, f"{len(found)} explanations of {batch} inputs")
    for explanation in found:
        adds_up(explanation)
    if batch > 1 and grown.open_batch and not grown.quantised:
        maps_agree(explainer.explain(_single(grown.feeds), grown.target, batch_size=1), found)
    if isinstance(grown.target, int) and not grown.quantised and not grown.fused:
        compiled_is_the_same(grown, explainer.compile(batch=batch), found)
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


def maps_agree(alone: list[Explanation], batch: list[Explanation]) -> None:
    """An input is explained alike without the others of its batch."""
    for one, other in zip(alone, batch, strict=True):
        for name, relevance in other.relevances.items():
            near(one.relevances[name], relevance, RESIDUAL, "map without its batch")


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


def _single(feeds: Mapping[str, Array]) -> Any:
    return dict(feeds) if len(feeds) > 1 else next(iter(feeds.values()))
