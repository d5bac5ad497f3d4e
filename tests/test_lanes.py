"""Several inputs at once on the CPU: side by side, on threads of their own, with the maps of one after the other."""

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer, Explanation
from srd_onnx.errors import NonFiniteError
from srd_onnx.explaining import Explaining
from srd_onnx.lanes import lanes_of
from srd_onnx.ort.runtime import CPU, CUDA
from srd_onnx.targets import Contrast
from tests.nets import small_cnn

X = np.random.default_rng(0).standard_normal((7, 3, 32, 32)).astype(np.float32)


def explainer(batch: int | None = None, **options: Any) -> Explainer:
    model = small_cnn() if batch is None else small_cnn(batch=batch)
    options = {"threads": 3} | options
    return Explainer(model, providers="cpu", **options)


@pytest.mark.parametrize("targets", [None, 3, ["top2", 1, Contrast(2, 5)], list(range(6))], ids=str)
@pytest.mark.parametrize("preset", ["paper", "joint"])
def test_side_by_side_is_one_after_the_other(preset: str, targets: Any) -> None:
    found = explainer(preset=preset).explain(X, targets, batch_size=5)
    wanted = explainer(preset=preset).explain(X, targets)
    assert [(a.name, a.target) for a in found] == [(b.name, b.target) for b in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a.relevance, b.relevance, strict=True)
        assert a.ledger == b.ledger


@pytest.mark.parametrize(
    ("batch_size", "threads", "count", "each"),
    [(1, 8, 1, 8), (2, 8, 2, 4), (3, 8, 3, 2), (16, 8, 8, 1), (16, 1, 1, 1)],
)
def test_runs_share_the_threads(batch_size: int, threads: int, count: int, each: int) -> None:
    lanes = lanes_of(explainer(threads=threads), batch_size)
    assert (lanes.count, lanes.size, lanes.explaining.threads) == (count, 1, each)


def test_a_model_of_a_fixed_batch_runs_several_of_them_side_by_side() -> None:
    subject = explainer(batch=2)
    lanes = lanes_of(subject, 6)
    assert (lanes.size, lanes.count, lanes.chunk) == (2, 3, 6)
    for a, b in zip(subject.explain(X, 1, batch_size=6), subject.explain(X, 1), strict=True):
        np.testing.assert_array_equal(a.relevance, b.relevance)


def test_bounded_memory_takes_one_after_the_other_and_other_methods_one_run() -> None:
    assert lanes_of(explainer(max_memory=10**9, preset="paper"), 4).count == 1
    lanes = lanes_of(explainer(method="saliency"), 4)
    assert (lanes.size, lanes.count) == (4, 1)


def test_a_gpu_takes_all_in_one_run() -> None:
    subject = explainer()
    subject.providers = [CUDA, CPU]
    lanes = lanes_of(subject, 4)
    assert (lanes.explaining, lanes.size, lanes.count, lanes.chunk) == (subject, 4, 1, 4)


Explained = Callable[..., Any]


def watched(monkeypatch: pytest.MonkeyPatch, before: Callable[[], object]) -> None:
    real: Explained = Explaining.explained

    def explained(self: Explaining, *given: Any) -> Any:
        before()
        return real(self, *given)

    monkeypatch.setattr(Explaining, "explained", explained)


def test_they_really_run_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # The barrier opens for three at once, and for fewer breaks after its time.
    barrier = threading.Barrier(3, timeout=30)
    watched(monkeypatch, barrier.wait)
    assert len(explainer().explain(X[:6], 1, batch_size=6)) == 6


def test_compiled_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    real: Explained = Explaining._compiled

    def compiled(self: Explaining, *given: Any, **options: Any) -> Any:
        made.append(given)
        return real(self, *given, **options)

    monkeypatch.setattr(Explaining, "_compiled", compiled)
    subject = explainer()
    subject.explain(X, 1, batch_size=6)
    subject.explain(X[:3], 2, batch_size=3)  # the same number of threads each
    assert len(made) == 1


def test_what_is_wrong_with_one_comes_out_and_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[float] = []

    def begin() -> None:
        begun.append(time.perf_counter())
        time.sleep(0.2 if len(begun) > 1 else 0)  # the first is the wrong one

    watched(monkeypatch, begin)
    wrong = X.repeat(6, axis=0)
    wrong[0] *= np.float32(1e30)
    with pytest.raises(NonFiniteError, match="activation"):
        explainer().explain(wrong, 1, batch_size=len(wrong))
    assert len(begun) < len(wrong)
    assert not [one for one in threading.enumerate() if one.name.startswith("srd-onnx-explaining")]


def test_a_stream_side_by_side_keeps_its_order() -> None:
    found = list(explainer().explain_many(iter(X), [2, 3], batch_size=4))
    wanted = explainer().explain(list(X), [2, 3])
    for a, b in zip(found, wanted, strict=True):
        assert isinstance(a, Explanation)
        assert (a.target, a.name) == (b.target, b.name)
        np.testing.assert_array_equal(a.relevance, b.relevance)
