"""Comparing two versions of a model, image by image: predictions, maps of one class, layers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.audit.images import ImageFile, images_in
from srd_onnx.audit.maps import Maps
from srd_onnx.audit.pairing import LayerPair, layer_pairs
from srd_onnx.audit.places import places_of
from srd_onnx.audit.state import ExplanationRow, ImageRow, NumberRow, State
from srd_onnx.audit.work import read_item, sorted_ledger, source_of
from srd_onnx.correlation import pearson
from srd_onnx.errors import AuditError, InputError, OptionError, OutputError, SrdOnnxError
from srd_onnx.evaluation.numbers import UNDEFINED
from srd_onnx.explainer import Explainer
from srd_onnx.explanation import Explanation
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.metrics.randomisation import rank_correlation
from srd_onnx.ort.runtime import versions

A, B = "A", "B"
FLIPPED, CORRELATION, RANKS, DISTANCE, SCORE = (
    "flipped", "map correlation", "map rank correlation", "map distance", "score change",
)  # fmt: skip
LAYER, RELEVANCE = "layer: ", "relevance: "  # begin the metrics of single layers
_LOOKED_INTO = 8  # images of which relevance is compared layer by layer, which takes seconds for each


@dataclass(frozen=True, eq=False)
class Comparison:
    """All that is to be done.

    Attributes:
        first, second: the models, with their preprocessing settled.
        folder: of the images.
        files: the images, in order; `rows` what the state says of each.
        layers: what both models have.
        seed: of the sample of images of which relevance is compared layer by layer.
    """

    first: Explainer
    second: Explainer
    folder: Path
    files: tuple[ImageFile, ...]
    rows: tuple[ImageRow, ...]
    layers: tuple[LayerPair, ...]
    seed: int

    @property
    def models(self) -> Mapping[str, Explainer]:
        """By the name of their rows."""
        return {A: self.first, B: self.second}

    def setup(self) -> dict[str, Any]:
        """Everything that decides the rows, as plain data."""
        return {
            "kind": "comparison",
            "model": {name: one.model.sha256 for name, one in self.models.items()},
            "layout": {name: [port.layout for port in one.ports] for name, one in self.models.items()},
            "provider": self.first.provider,
            "versions": versions(),
            "preprocess": {name: _plain(one) for name, one in self.models.items()},
            "labels": self.first.labels,
            "preset": self.first.preset,
            "options": self.first.options.to_dict(),
            "seed": self.seed,
        }


def prepare_comparison(
    first: Explainer,
    second: Explainer,
    folder: Path,
    *,
    seed: int = 0,
    without: Sequence[Path] = (),
    advance: Callable[[], None] = lambda: None,
) -> Comparison:
    """Find the images, and the layers that both models have.

    Raises:
        ImageError: there are no images.
        OptionError: the models do not have as many scores.
        UnsupportedOpError: one of them cannot be explained.
    """
    counts = [int(np.prod(one.plan.target.shape)) for one in (first, second)]
    if counts[0] != counts[1]:
        raise OptionError(
            f"the models have {counts[0]} and {counts[1]} scores: they are not versions of one model"
        )
    files = tuple(images_in(folder, without=without, advance=advance))
    sample = set(np.random.default_rng(seed).permutation(len(files))[:_LOOKED_INTO].tolist())
    rows = tuple(ImageRow(i, one.name, one.sha256, None, i in sample) for i, one in enumerate(files))
    return Comparison(first, second, folder, files, rows, layer_pairs(first, second), seed)


def compare_images(
    comparison: Comparison, state: State, maps: Maps, advance: Callable[[ImageRow], None] = lambda _: None
) -> None:
    """Do what is not done yet: each image as a whole, or not at all; raises as `srd_onnx.audit.work.work`."""
    for row in state.explanations():
        if maps.read(row.row, row.shape, row.digest) is None:
            for name in (A, B):
                state.forget_work(row.image, name)
    done = state.work()
    worked = any(error is None for error in done.values())
    for file, image in zip(comparison.files, comparison.rows, strict=True):
        if (image.id, B) not in done:
            worked = _compare(comparison, state, maps, file, image, worked=worked) or worked
        advance(image)


def _compare(
    comparison: Comparison, state: State, maps: Maps, file: ImageFile, image: ImageRow, *, worked: bool
) -> bool:
    """Whether it went well; what goes wrong is the fault of the image once it has `worked` for another."""
    state.forget_work(image.id, A)  # of an image that was begun
    began, numbers, rows, found = time.perf_counter(), list[NumberRow](), [], list[Explanation]()
    problem = None
    try:
        sources = [source_of(one, read_item(one, file)) for one in comparison.models.values()]
        (one,) = comparison.first.explain(sources[0])
        (other,) = comparison.second.explain(sources[1], one.target)
        found = [one, other]
        rows = [_row(image.id, index, each, maps) for index, each in enumerate(found)]
        numbers = list(_numbers(comparison, image, one, other, sources))
    except (AuditError, OutputError):
        raise
    except SrdOnnxError as error:
        if not (worked or isinstance(error, InputError)):
            raise
        problem, found, rows = str(error), [], []
    seconds = time.perf_counter() - began
    tops = [[(top["index"], top["label"], top["logit"]) for top in each.meta["top5"]] for each in found] or [
        [],
        [],
    ]
    state.add_work(image.id, A, rows[:1], tops[0], problem, seconds)
    state.add_work(image.id, B, rows[1:], (), problem, 0.0, numbers)
    return problem is None


def _row(image: int, index: int, one: Explanation, maps: Maps) -> ExplanationRow:
    at = 2 * image + index
    return ExplanationRow(
        image, (A, B)[index], one.target, 0, one.label, one.score, float(one.meta["seed_value"]),
        float(one.meta["sum_relevance"]), one.residual, sorted_ledger(one.ledger), one.warnings,
        places_of(one.relevance), None, one.relevance.shape, at, maps.write(at, one.relevance),
    )  # fmt: skip


def _numbers(
    comparison: Comparison,
    image: ImageRow,
    one: Explanation,
    other: Explanation,
    sources: Sequence[Mapping[str, Array]],
) -> Iterator[NumberRow]:
    a, b = one.relevance.astype(np.float64), other.relevance.astype(np.float64)
    alike = a.shape == b.shape
    values = {
        FLIPPED: float(int(other.logits.argmax()) != one.target),
        CORRELATION: pearson(a, b) if alike else np.nan,
        RANKS: rank_correlation(a, b) if alike else np.nan,
        DISTANCE: relative_distance(a, b) if alike else np.nan,
        SCORE: other.score - one.score,
    }
    values |= _layers(comparison, sources)
    if image.sanity:
        values |= _relevance(comparison, one, sources)
    for name, value in values.items():
        known = bool(np.isfinite(value))
        yield NumberRow(
            image.id, B, one.target, name, float(value) if known else None, None if known else UNDEFINED
        )


def relative_distance(a: Array, b: Array) -> float:
    """``‖a − b‖₂ / ‖a‖₂``; NaN where a is zero."""
    size = float(np.linalg.norm(a.astype(np.float64)))
    return float(np.linalg.norm(a.astype(np.float64) - b.astype(np.float64))) / size if size > 0 else np.nan


def _layers(comparison: Comparison, sources: Sequence[Mapping[str, Array]]) -> dict[str, float]:
    """How far what each layer computes is from the first model's."""
    pairs = comparison.layers
    if not pairs:
        return {}
    first = comparison.first.preactivations(sources[0], [one.first for one in pairs])
    second = comparison.second.preactivations(sources[1], [one.second for one in pairs])
    return {LAYER + one.name: relative_distance(first[one.first], second[one.second]) for one in pairs}


def _relevance(
    comparison: Comparison, explained: Explanation, sources: Sequence[Mapping[str, Array]]
) -> dict[str, float]:
    """The correlation of relevance in each layer, of a single pass."""
    target = explained.target
    assert isinstance(target, int)
    models = comparison.models.values()
    a, b = ({one.tensor: found.relevance[one.name] for one in found.layers} for found in (
        model.inside(source, target)[0] for model, source in zip(models, sources, strict=True)
    ))  # fmt: skip
    return {
        RELEVANCE + one.name: pearson(a[one.first].astype(np.float64), b[one.second].astype(np.float64))
        for one in comparison.layers
        if one.first in a and one.second in b and a[one.first].shape == b[one.second].shape
    }


def _plain(one: Explainer) -> Any:
    return one.preprocess.to_dict() if isinstance(one.preprocess, Preprocess) else "custom"
