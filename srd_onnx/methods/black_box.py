"""Black boxes: methods that change the input and look at the scores. They need no rules."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import is_quantised
from srd_onnx.methods.grid import linear, over_items, positions_of
from srd_onnx.methods.method import Attribute, Method
from srd_onnx.methods.perturbing import Perturbing, Probed
from srd_onnx.methods.scoring import Scored, Scorer, compile_scorer, joined
from srd_onnx.subject import Subject, at_least_one

Sizes = tuple[int, ...]


def occlusion(window: int = 16, stride: int = 8, value: float = 0.0) -> Method:
    """``mean over the windows at p of f(x) - f(x with the window set to value)``.

    Zeiler, Fergus 2014, section 4.2, as captum.attr.Occlusion has it; f is the explained number.

    Args:
        window: its side in positions, along every axis; at most the side of the input.
        stride: from one window to the next; what is left at the end is a smaller window.
        value: of the occluded positions, all channels, as the model takes them (after preprocessing).

    Raises:
        OptionError: if there are positions that no window covers.
    """
    at_least_one("window", window)
    if at_least_one("stride", stride) > window:
        raise OptionError(f"stride={stride}: positions would be left out between windows of {window}")

    def probe(scorer: Scorer, source: Value, item: Mapping[str, Array]) -> tuple[Scored, None]:
        hidden = np.asarray(value, source.dtype)

        def change(x: Array, masks: Array) -> Array:
            return np.where(masks, hidden, x)

        sizes = positions_of(source, scorer.plan.roles[source.name])
        boxes = _boxes(_windows(sizes, window, stride), sizes, scorer.size)
        return _masked(scorer, source, item, boxes, change), None

    def combine(plan: Plan, probed: Probed) -> Array:
        sizes = positions_of(probed.source, plan.roles[probed.source.name])
        lost = (probed.unchanged.scores - probed.changed.scores) @ probed.direction
        total, count = np.zeros(sizes), np.zeros(sizes)
        for box, amount in zip(_windows(sizes, window, stride), lost, strict=True):
            total[box] += amount
            count[box] += 1
        return np.asarray(total / count)

    return Method(
        "occlusion",
        "Occlusion",
        "black box",
        "Zeiler, Fergus 2014, arXiv 1311.2901",
        lambda subject, case: Perturbing(compile_scorer(subject, case), probe, combine),
        {"window": window, "stride": stride, "value": value},
    )


def _windows(sizes: Sizes, window: int, stride: int) -> list[tuple[slice, ...]]:
    starts = [range(0, max(size - window, 0) + stride, stride) for size in sizes]
    return [tuple(slice(first, first + window) for first in corner) for corner in itertools.product(*starts)]


def _boxes(windows: list[tuple[slice, ...]], sizes: Sizes, at_once: int) -> Iterator[Array]:
    for start in range(0, len(windows), at_once):
        part = windows[start : start + at_once]
        masks = np.zeros((len(part), *sizes), bool)
        for row, box in enumerate(part):
            masks[(slice(row, row + 1), *box)] = True
        yield masks


@dataclass(frozen=True)
class RiseMasks:
    """The masks of RISE; they depend on the size of the input and the seed alone.

    Coarse ones of `cells` along each axis, each kept with probability `keep`, are enlarged linearly and shifted at
    random by less than a cell.
    """

    count: int
    cells: int
    keep: float
    seed: int

    def __call__(self, sizes: Sizes, at_once: int) -> Iterator[Array]:
        """Masks float32 [up to at_once, *sizes], one chunk after the other."""
        rng = np.random.default_rng(self.seed)
        cell = [math.ceil(size / self.cells) for size in sizes]
        coarse = rng.random((self.count, *(self.cells for _ in sizes))) < self.keep
        shifts = [rng.integers(0, width, self.count) for width in cell]
        # As the authors' code enlarges: by skimage.transform.resize, to one cell more than the input needs.
        large = [linear(self.cells, (self.cells + 1) * width, "mirror").astype(np.float32) for width in cell]
        for start in range(0, self.count, at_once):
            rows = slice(start, min(start + at_once, self.count))
            found = coarse[rows].astype(np.float32)
            for axis, (size, matrix, shift) in enumerate(zip(sizes, large, shifts, strict=True), start=1):
                taken = matrix[shift[rows][:, None] + np.arange(size)]  # [chunk, size, cells]
                last = np.moveaxis(found, axis, -1)
                lead = last.reshape(len(last), -1, last.shape[-1])
                grown = lead @ taken.transpose(0, 2, 1)
                found = np.moveaxis(grown.reshape(*last.shape[:-1], size), -1, axis)
            yield found


def rise(masks: int = 4000, cells: int = 7, keep: float = 0.5, seed: int = 0) -> Method:
    """``1 / (masks keep) Σ p(class | x · M) M`` over random masks M.

    Petsiuk, Das, Saenko 2018, equation 6 (4000 to 8000 masks of 7 × 7 cells). p is the probability of the class, or a
    difference of two for a `Contrast`; of elements of another tensor it is their sum. The masks are the same for all
    inputs of a size.

    Raises:
        OptionError: if a number is out of its range.
    """
    at_least_one("masks", masks)
    at_least_one("cells", cells)
    if not 0 < keep < 1:
        raise OptionError(f"keep={keep}: the probability that a cell is kept lies between 0 and 1")
    made = RiseMasks(masks, cells, keep, seed)

    def make(subject: Subject, case: Case) -> Attribute:
        require_logit("rise", case)
        scorer = compile_scorer(subject, case)
        for source in scorer.plan.sources:
            _require_real(source)
        return Perturbing(scorer, probe, combine)

    def probe(scorer: Scorer, source: Value, item: Mapping[str, Array]) -> tuple[Scored, None]:
        def change(x: Array, chunk: Array) -> Array:
            return np.asarray(x * chunk, source.dtype)

        sizes = positions_of(source, scorer.plan.roles[source.name])
        return _masked(scorer, source, item, made(sizes, scorer.size), change), None

    def combine(plan: Plan, probed: Probed) -> Array:
        weights = probed.changed.probabilities @ probed.direction
        sizes = positions_of(probed.source, plan.roles[probed.source.name])
        total, first = np.zeros(sizes), 0
        for chunk in made(sizes, 64):
            total += np.tensordot(weights[first : first + len(chunk)], chunk, axes=1)
            first += len(chunk)
        return np.asarray(total / (masks * keep))

    return Method(
        "rise",
        "RISE",
        "black box",
        "Petsiuk, Das, Saenko 2018, arXiv 1806.07421",
        make,
        {"masks": masks, "cells": cells, "keep": keep, "seed": seed},
    )


def _masked(
    scorer: Scorer,
    source: Value,
    item: Mapping[str, Array],
    masks: Iterable[Array],
    change: Callable[[Array, Array], Array],
) -> Scored:
    """The scores of an item under masks [M, *positions], chunk by chunk."""
    axes, own = scorer.plan.roles[source.name], item[source.name]
    x = own if source.name in scorer.batched else own[None]
    return joined(scorer.changed(item, source.name, change(x, over_items(chunk, axes))) for chunk in masks)


def require_logit(name: str, case: Case) -> None:
    """Refuse another seed for a method that explains a probability.

    Raises:
        OptionError: naming the method.
    """
    if case.options.seed != "logit":
        raise OptionError(
            f"{name} explains the probability of a class: seed='{case.options.seed}' means nothing"
        )


def _require_real(source: Value) -> None:
    if not source.is_float and not is_quantised(source):
        raise UnsupportedCaseError(
            f"the input '{source.name}' holds integers ({source.dtype}), which cannot be dimmed by a mask; occlusion "
            "replaces them"
        )
