"""Methods that average the derivative over several inputs: Integrated Gradients and SmoothGrad."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from srd_onnx.engine.compiling import Case
from srd_onnx.engine.cotangents import CotangentSession
from srd_onnx.engine.options import Seed
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.seed import elements
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.graph.roles import Role
from srd_onnx.methods.entrance import Entrance, entrance_of
from srd_onnx.methods.gradients import arriving, by_position
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.methods.scoring import directions
from srd_onnx.subject import Subject, at_least_one


@dataclass(frozen=True, eq=False)
class _Averaged:
    """What both share: a session that takes directions, and the explained number at an input."""

    session: CotangentSession
    entrance: Entrance
    kind: Seed

    @property
    def plan(self) -> Plan:
        return self.session.plan

    def at(self, feeds: Mapping[str, Array], seed: Array) -> tuple[Array, Array]:
        """Scores and direction, [N, K] each, at the input itself."""
        scores = self.session(feeds, self._nowhere()).scores
        # At the others it stays the same, so that all derivatives are of one number.
        return scores, np.asarray(directions(scores, seed, self.kind), scores.dtype)

    def _nowhere(self) -> Array:
        batch, target = self.plan.batch, self.plan.target
        return np.zeros((batch, elements(target, batch)), target.dtype)

    def gradients(self, feeds: Mapping[str, Array], direction: Array) -> Mapping[str, Array]:
        return self.session(feeds, direction).cotangents


def _for_directions(subject: Subject, case: Case) -> CotangentSession:
    session = arriving(subject, replace(case, free=True))
    for source in session.plan.sources:
        if not source.is_float:
            raise UnsupportedCaseError(
                f"the input '{source.name}' holds integers ({source.dtype}), between which there are no others: "
                "this method needs an input of real numbers"
            )
    return session


@dataclass(frozen=True, eq=False)
class _Integrated(_Averaged):
    steps: int
    baseline: float

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        scores, direction = self.at(feeds, seed)
        sources = self.plan.sources
        start = {**feeds, **{s.name: np.full_like(feeds[s.name], self.baseline) for s in sources}}
        means = {s.name: np.zeros(feeds[s.name].shape) for s in sources}
        places, weights = np.polynomial.legendre.leggauss(self.steps)
        for place, weight in zip((places + 1) / 2, weights / 2, strict=True):
            between = {s.name: _between(start[s.name], feeds[s.name], float(place)) for s in sources}
            for name, gradient in self.gradients({**feeds, **between}, direction).items():
                means[name] += weight * gradient
        maps = {
            s.name: by_position(self.plan, s.name, (feeds[s.name] - start[s.name]) * means[s.name], "sum")
            for s in sources
        }
        before = (self.session(start, self._nowhere()).scores * direction).sum(axis=1)
        booked = {f"baseline {self.baseline:g}": before}
        return Attributed(self.entrance(maps), (scores * direction).sum(axis=1), scores, booked)


def _between(start: Array, end: Array, place: float) -> Array:
    return np.asarray(start + place * (end - start), end.dtype)


@dataclass(frozen=True, eq=False)
class _Smooth(_Averaged):
    samples: int
    noise: float
    seed: int

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        scores, direction = self.at(feeds, seed)
        sources = self.plan.sources
        means = {s.name: np.zeros(feeds[s.name].shape) for s in sources}
        for sample in range(self.samples):
            noisy = {
                s.name: self._noisy(feeds[s.name], s, sample, number) for number, s in enumerate(sources)
            }
            for name, gradient in self.gradients({**feeds, **noisy}, direction).items():
                means[name] += gradient / self.samples
        maps = {s.name: by_position(self.plan, s.name, means[s.name], "greatest") for s in sources}
        return Attributed(self.entrance(maps), (scores * direction).sum(axis=1), scores)

    def _noisy(self, x: Array, source: Value, sample: int, number: int) -> Array:
        """With normal noise, of a width that is a part of the range of the item; the same noise for each item."""
        roles = self.plan.roles[source.name].roles
        items = tuple(axis for axis, role in enumerate(roles) if role is Role.BATCH)
        others = tuple(axis for axis in range(x.ndim) if axis not in items)
        width = self.noise * (x.max(axis=others, keepdims=True) - x.min(axis=others, keepdims=True))
        shape = [1 if axis in items else size for axis, size in enumerate(x.shape)]
        normal = np.random.default_rng([self.seed, sample, number]).standard_normal(shape)
        return np.asarray(x + width * normal, x.dtype)


def _integrated(steps: int, baseline: float, subject: Subject, case: Case) -> _Integrated:
    session = _for_directions(subject, case)
    return _Integrated(session, entrance_of(session.plan), case.options.seed, steps, baseline)


def _smooth(samples: int, noise: float, seed: int, subject: Subject, case: Case) -> _Smooth:
    session = _for_directions(subject, case)
    return _Smooth(session, entrance_of(session.plan), case.options.seed, samples, noise, seed)


def integrated_gradients(steps: int = 50, baseline: float = 0.0) -> Method:
    """``Σ over channels of (x - b) ∫ dz/dx(b + t (x - b)) dt``, the integral from 0 to 1 (Sundararajan et al. 2017).

    The score of the baseline is booked, so that map and ledger sum to the explained number up to the error of the
    quadrature, which is Gauss-Legendre's as in captum.

    Args:
        steps: points of the quadrature; each is a pass forward and back.
        baseline: b, the same number everywhere, in the units of the model's input (behind the preprocessing).

    Raises:
        OptionError: a value means nothing.
    """
    at_least_one("steps", steps)
    if not np.isfinite(baseline):
        raise OptionError(f"baseline={baseline}: it must be a finite number")
    return Method(
        "integrated-gradients",
        "Integrated Gradients",
        "gradient",
        "Sundararajan, Taly, Yan 2017, arXiv 1703.01365",
        partial(_integrated, steps, baseline),
        {"steps": steps, "baseline": baseline},
        complete=True,
    )


def smoothgrad(samples: int = 25, noise: float = 0.15, seed: int = 0) -> Method:
    """``max over channels of |mean of dz/dx(x + noise)|`` (Smilkov et al. 2017).

    Args:
        samples: how many noisy inputs.
        noise: standard deviation of the normal noise, as a part of the range (max - min) of the input.
        seed: of the noise, which is otherwise decided by the number of the sample alone.

    Raises:
        OptionError: a value means nothing.
    """
    at_least_one("samples", samples)
    if not (np.isfinite(noise) and noise >= 0):
        raise OptionError(f"noise={noise}: it must be a part of the range of the input, such as 0.15")
    if seed < 0:
        raise OptionError(f"seed={seed}: it must not be negative")
    return Method(
        "smoothgrad",
        "SmoothGrad",
        "gradient",
        "Smilkov, Thorat, Kim, Viégas, Wattenberg 2017, arXiv 1706.03825",
        partial(_smooth, samples, noise, seed),
        {"samples": samples, "noise": noise, "seed": seed},
    )
