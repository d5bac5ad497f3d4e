"""Robustness and randomisation: the numbers of Quantus, on the same maps of the same perturbed inputs."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import quantus
import torch
from numpy.typing import NDArray

from srd_onnx.metrics import randomisation, robustness
from srd_onnx.metrics.metric import Metric
from srd_onnx.metrics.robustness import Noise, perturbed
from tests.fake_probes import explained

Real = NDArray[np.float64]
X = np.random.default_rng(0).uniform(-2, 2, (3, 12, 12)).astype(np.float32)
WEIGHT = np.random.default_rng(1).standard_normal((5, 3)).astype(np.float32)
TARGET, SEED, SAMPLES, SIZE = 2, 4, 8, 0.04
# Only x, by the target class and the redrawn layers, decides these maps; they have zeros and both signs.
SHIFTS = np.random.default_rng(2).standard_normal((40, 12, 12))


class Net(torch.nn.Module):
    """The mean of each channel, and a matrix; two layers, so that Quantus has two to redraw."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.last = torch.nn.Linear(3, 5, bias=False)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(3)[..., None, None])
            self.last.weight.copy_(torch.from_numpy(WEIGHT))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(x).mean(dim=(2, 3)))


def logits(x: Real) -> Real:
    return WEIGHT.astype(np.float64) @ x.mean(axis=(1, 2))


def method(x: Real, target: int, redrawn: Any) -> Real:
    code = {None: 0, 1: 10, 2: 20, "last": 10, "first": 30}[redrawn and redrawn[0]]
    relevance = np.sin(2 * x).sum(axis=0) + SHIFTS[target] + SHIFTS[5 + code] * bool(code)
    return np.where(relevance > 0.8, relevance, np.where(relevance < -0.2, relevance, 0))


def explain(*, model: Any, inputs: Any, targets: Any, **_: Any) -> Real:
    return np.stack([method(np.float64(x), int(t), None) for x, t in zip(inputs, targets, strict=True)])


def of_quantus(metric: Any, explain_func: Callable[..., Any] = explain, **more: Any) -> Any:
    return metric(
        model=Net().eval(),
        x_batch=X[None].astype(np.float64).astype(np.float32),
        y_batch=np.array([TARGET]),
        a_batch=explain(model=None, inputs=X[None], targets=[TARGET])[:, None],
        explain_func=explain_func,
        device="cpu",
        softmax=False,
        **more,
    )


def replayed(kind: Any) -> Callable[..., Any]:
    """A perturbation for Quantus that gives our perturbed inputs one after the other."""
    one = explained(method, X, target=TARGET, seed=SEED, logits=logits)
    stream: Iterator[Any] = iter(perturbed(one, Noise(kind, SIZE, SAMPLES)))
    return lambda arr, **_: next(stream).reshape(arr.shape)


def ours(metric: Metric) -> float:
    return metric.score(
        explained(method, X, target=TARGET, seed=SEED, logits=logits, names=("last", "first"))
    )


CASES = [
    (robustness.local_lipschitz_estimate, quantus.LocalLipschitzEstimate, "gaussian", {}),
    (robustness.max_sensitivity, quantus.MaxSensitivity, "uniform", {}),
    (robustness.avg_sensitivity, quantus.AvgSensitivity, "uniform", {}),
    (robustness.relative_input_stability, quantus.RelativeInputStability, "uniform", {"normalise": True}),
    (robustness.relative_output_stability, quantus.RelativeOutputStability, "uniform", {"normalise": True}),
]


@pytest.mark.parametrize(("make", "theirs", "kind", "options"), CASES)
def test_robustness(make: Any, theirs: Any, kind: str, options: dict[str, Any]) -> None:
    metric = theirs(
        nr_samples=SAMPLES,
        perturb_func=replayed(kind),
        disable_warnings=True,
        return_aggregate=False,
        **options,
    )
    expected = of_quantus(metric)[0]
    assert np.isfinite(expected)
    assert expected > 0
    np.testing.assert_allclose(ours(make(samples=SAMPLES, size=SIZE)), expected, rtol=2e-5)


@pytest.mark.parametrize(("make", "theirs", "kind", "options"), CASES)
def test_other_noise_is_noticed(make: Any, theirs: Any, kind: str, options: dict[str, Any]) -> None:
    metric = theirs(
        nr_samples=SAMPLES,
        perturb_func=replayed(kind),
        disable_warnings=True,
        return_aggregate=False,
        **options,
    )
    expected = of_quantus(metric)[0]
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        np.testing.assert_allclose(ours(make(samples=SAMPLES, size=SIZE * 1.1)), expected, rtol=2e-5)


@pytest.mark.parametrize(
    ("order", "stages", "make"),
    [
        ("top_down", [1, 2], randomisation.mprt),
        ("independent", ["last", "first"], randomisation.mprt_independent),
    ],
)
def test_parameter_randomisation(order: str, stages: list[Any], make: Any) -> None:
    """Quantus redraws its own weights; the maps of each stage are given, so the order of calls stands for them."""
    given = iter([None, *stages] if order == "top_down" else [None, *reversed(stages)])

    def by_stage(*, model: Any, inputs: Any, targets: Any, **_: Any) -> Real:
        stage = next(given)
        redrawn = None if stage is None else (stage, SEED)
        return np.stack(
            [method(np.float64(x), int(t), redrawn) for x, t in zip(inputs, targets, strict=True)]
        )

    metric = quantus.MPRT(
        similarity_func=quantus.similarity_func.correlation_spearman,
        layer_order=order,
        abs=False,
        normalise=False,
        disable_warnings=True,
    )
    found = of_quantus(metric, by_stage)
    assert found.pop("original") == pytest.approx([1.0])
    assert list(found) == (["last", "first"] if order == "top_down" else ["first", "last"])
    expected = np.mean([abs(one[0]) for one in found.values()])
    np.testing.assert_allclose(ours(make(0)), expected, rtol=1e-9)
    if order == "top_down":
        np.testing.assert_allclose(ours(randomisation.mprt_last_layer()), abs(found["last"][0]), rtol=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_random_logit(seed: int) -> None:
    """Quantus draws one other class by its own generator; ours is asked about that class."""
    drawn: list[int] = []

    def remembered(*, model: Any, inputs: Any, targets: Any, **_: Any) -> Real:
        drawn.extend(int(t) for t in targets)
        return explain(model=model, inputs=inputs, targets=targets)

    metric = quantus.RandomLogit(
        similarity_func=quantus.similarity_func.correlation_spearman,
        num_classes=5,
        seed=seed,
        normalise=False,
        disable_warnings=True,
    )
    expected = abs(of_quantus(metric, remembered)[0])
    (other,) = drawn
    assert other != TARGET
    one, two = (method(np.float64(X), t, None) for t in (TARGET, other))
    np.testing.assert_allclose(randomisation.rank_correlation(one, two), expected, rtol=1e-9)


def test_random_logit_of_every_class_is_the_mean_of_quantus() -> None:
    pairs = [(method(np.float64(X), TARGET, None), method(np.float64(X), t, None)) for t in (0, 1, 3, 4)]
    theirs = [
        abs(float(quantus.similarity_func.correlation_spearman(a.ravel(), b.ravel()))) for a, b in pairs
    ]
    np.testing.assert_allclose(ours(randomisation.random_logit(classes=4)), np.mean(theirs), rtol=1e-9)
