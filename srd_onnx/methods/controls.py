"""Controls: maps that know nothing of the model. Whatever a metric says of them, it says of nothing."""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array
from srd_onnx.graph.roles import Axes, Role
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.methods.scoring import Scorer, compile_scorer, directions

Draw = Callable[[Axes, Array], Array]  # of one input, without the batch: its axes and its data


@dataclass(frozen=True, eq=False)
class _Control:
    scorer: Scorer
    draw: Draw

    @property
    def plan(self) -> Plan:
        return self.scorer.plan

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        plan, scores = self.plan, self.scorer(feeds).scores
        wanted = directions(scores, seed, plan.options.seed)
        maps = {}
        for source in plan.sources:
            axes, data = plan.roles[source.name], feeds[source.name]
            items = data if source.name in self.scorer.batched else data[None]
            behind = Axes(tuple(role for role in axes.roles if role is not Role.BATCH))
            maps[source.name] = np.stack([self.draw(behind, x) for x in items]).astype(np.float32)
        return Attributed(maps, (wanted * scores).sum(axis=1), scores)


def _control(name: str, title: str, source: str, draw: Draw, **parameters: int) -> Method:
    return Method(
        name,
        title,
        "control",
        source,
        lambda subject, case: _Control(compile_scorer(subject, case, rows=1), draw),
        parameters,
    )


def random(seed: int = 0) -> Method:
    """Uniform noise in [0, 1) at every position, another for every input, the same for the same input."""

    def draw(axes: Axes, x: Array) -> Array:
        rng = np.random.default_rng([seed, zlib.crc32(np.ascontiguousarray(x).tobytes())])
        return rng.random(_sizes(axes, x))

    return _control("random", "Random", "a control", draw, seed=seed)


def sobel() -> Method:
    """``√ Σ over the axes of (Sobel derivative of the mean over the channels)²``: the edges of the input."""

    def draw(axes: Axes, x: Array) -> Array:
        grey = np.asarray(x, np.float64).mean(axis=axes.channels)
        slopes = [ndimage.sobel(grey, axis=axis) ** 2 for axis in range(grey.ndim)]
        return np.sqrt(np.sum(slopes, axis=0)) if slopes else np.zeros(())

    return _control("sobel", "Sobel edges", "a control; Adebayo et al. 2018, arXiv 1810.03292", draw)


def centre() -> Method:
    """``exp(-Σ over the axes of d² / 2σ²)``, d from the middle, σ a sixth of the side: a blob."""

    def draw(axes: Axes, x: Array) -> Array:
        sizes = _sizes(axes, x)
        places = np.indices(sizes, np.float64)
        scaled = [(p - (size - 1) / 2) / (size / 6) for p, size in zip(places, sizes, strict=True)]
        return np.exp(-np.sum(np.square(scaled), axis=0) / 2) if sizes else np.ones(())

    return _control("centre", "Centre blob", "a control", draw)


def _sizes(axes: Axes, x: Array) -> tuple[int, ...]:
    return tuple(x.shape[axis] for axis in axes.positions)
