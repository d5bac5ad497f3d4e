"""What must hold in whatever way a network is looked at: our own errors, or what `explain` says."""

from collections.abc import Callable
from typing import Any

import numpy as np

from srd_onnx import Explainer, Explanation
from srd_onnx.errors import SrdOnnxError
from srd_onnx.methods import METHODS
from tests.fuzz_checks import maps_agree, options_of, require, says_something, single
from tests.fuzz_graphs import Grown

# Methods of many passes, with few.
_QUICK = {
    "rise": "rise:masks=4",
    "smoothgrad": "smoothgrad:samples=2",
    "integrated-gradients": "integrated-gradients:steps=2",
}


def every_way(case: Grown) -> SrdOnnxError | None:
    """Explain a grown graph, and look at it in every other way; our error, if it cannot be explained.

    Raises:
        PropertyError: what does not hold.
        Exception: anything that is not our own; a note says in which way.
    """
    feeds = single(case.feeds)
    try:
        wanted = _explainer(case).explain(feeds, case.target)
    except SrdOnnxError as error:
        says_something(error)
        return error
    for name, way in _ways(case, feeds, wanted).items():
        try:
            way()
        except SrdOnnxError as error:
            says_something(error)
        except Exception as error:
            error.add_note(f"in the way: {name}")
            raise
    return None


def _ways(case: Grown, feeds: Any, wanted: list[Explanation]) -> dict[str, Callable[[], object]]:
    explainer, plain = _explainer(case), _explainer(case, preset="paper")

    def inside() -> None:
        found = [one.explanation for one in plain.inside(feeds, case.target)]
        maps_agree(found, plain.explain(feeds, case.target), "inside")

    def forward() -> None:
        maps_agree(explainer.explain_forward(feeds, case.target), wanted, "forward")

    found: dict[str, Callable[[], object]] = {
        "inside": inside,
        "forward": forward,
        "layers": explainer.layers,
        "ratios": lambda: explainer.ratios(feeds),
        "fields": lambda: explainer.erf(feeds),
        "apop": lambda: explainer.apop(feeds, feeds),
        "preactivations": lambda: explainer.preactivations(feeds),
    }
    return found | {name: _by(name, case, feeds, wanted) for name in METHODS}


def _explainer(case: Grown, **more: Any) -> Explainer:
    return Explainer(case.model, **options_of(case), **more)


def _by(name: str, case: Grown, feeds: Any, wanted: list[Explanation]) -> Callable[[], None]:
    """One map by a method for each by SRD, of the same shape."""

    def explained() -> None:
        seed = {"seed": case.options["seed"]} if name not in ("rise", "reciprocam") else {}
        options = {key: value for key, value in options_of(case).items() if key not in case.options} | seed
        found = Explainer(case.model, method=_QUICK.get(name, name), **options).explain(feeds, case.target)
        require(len(found) == len(wanted), f"{name}: {len(found)} maps, not {len(wanted)}")
        for one, other in zip(found, wanted, strict=True):
            require(one.relevances.keys() == other.relevances.keys(), f"{name}: maps of other inputs")
            for key, array in one.relevances.items():
                require(array.shape == other.relevances[key].shape, f"{name}: a map of another shape")
                require(bool(np.isfinite(array).all()), f"{name}: a map that is not finite")

    return explained
