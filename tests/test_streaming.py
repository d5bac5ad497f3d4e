"""`explain_many`: in order, ahead but not far, over failures, and at rest when it is closed."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srd_onnx import Explainer, Explanation, Failure
from srd_onnx.errors import ImageError, InputError, NonFiniteError, OptionError, UnknownTargetError
from srd_onnx.inputs.stream import read_ahead
from tests.cli_tools import document, photo, run, small
from tests.nets import small_cnn

X = np.random.default_rng(0).standard_normal((7, 3, 32, 32)).astype(np.float32)


def explainer(**options: Any) -> Explainer:
    return Explainer(small_cnn(), providers="cpu", threads=1, preset="paper", **options)


def reading() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name.startswith("srd-onnx-reading")]


def same(a: Explanation | Failure, b: Explanation) -> None:
    assert isinstance(a, Explanation)
    assert (a.name, a.target) == (b.name, b.target)
    np.testing.assert_array_equal(a.relevance, b.relevance, strict=True)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_stream_is_what_explain_gives(batch_size: int) -> None:
    found = list(explainer().explain_many(iter(X), [3, 4], batch_size=batch_size))
    wanted = explainer().explain(list(X), [3, 4], batch_size=batch_size)
    assert len(found) == len(wanted) == 14
    for one, other in zip(found, wanted, strict=True):
        same(one, other)
    assert reading() == []


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_failures_stand_in_their_places(tmp_path: Path, batch_size: int) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    rows: list[Any] = [X[0], broken, X[1], X[2] * np.float32(1e30), np.full_like(X[0], np.nan), X[3], X[4, 0]]
    found = list(explainer().explain_many(iter(rows), 3, batch_size=batch_size))
    good = explainer().explain(X[:4], 3)
    assert [type(one).__name__ for one in found] == [
        *("Explanation", "Failure", "Explanation", "Failure", "Failure", "Explanation", "Failure")
    ]
    for place, row in ((0, 0), (2, 1), (5, 3)):
        one = found[place]
        assert isinstance(one, Explanation)
        assert one.name == f"input{place}"
        np.testing.assert_allclose(one.relevance, good[row].relevance, rtol=1e-5, atol=1e-7)
    failures = [one for one in found if isinstance(one, Failure)]
    assert [(one.name, one.index) for one in failures] == [
        ("broken", 1),
        ("input3", 3),
        ("input4", 4),
        ("input6", 6),
    ]
    assert [type(one.error) for one in failures[:3]] == [ImageError, NonFiniteError, NonFiniteError]


def test_several_rows_of_one_source_have_its_number() -> None:
    found = list(explainer().explain_numbered([X[:2], X[2]], [0, 1]))
    assert [index for index, _ in found] == [0, 0, 0, 0, 1, 1]


def test_one_input_is_a_stream_of_one(tmp_path: Path) -> None:
    (one,) = explainer().explain_many(str(photo(tmp_path / "a.png")), 3)
    assert isinstance(one, Explanation)
    assert one.name == "a"


def test_what_is_wrong_with_a_target_or_an_option_stops_the_stream() -> None:
    with pytest.raises(UnknownTargetError):
        list(explainer().explain_many(iter(X), 1000))
    with pytest.raises(OptionError, match="ahead=0"):
        list(explainer().explain_many(iter(X), 1, ahead=0))
    assert reading() == []


def test_what_the_iterable_raises_comes_out_where_its_turn_is() -> None:
    def rows() -> Iterator[np.ndarray]:
        yield X[0]
        raise RuntimeError("the camera is gone")

    found = explainer().explain_many(rows(), 3)
    assert isinstance(next(found), Explanation)
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(found)
    assert reading() == []


def test_it_reads_ahead_and_no_farther() -> None:
    taken: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    found = read_ahead(rows(), lambda index, source: [source], 3)
    assert next(found) == (0, 0)
    until = time.monotonic() + 10
    while len(taken) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.05)
    assert taken == [0, 1, 2, 3]  # the one that was given, and three
    found.close()
    assert len(taken) == 4
    assert reading() == []


def test_reading_and_explaining_overlap() -> None:
    """Each waits for the other to have begun the next step: alone, one after the other, they would wait for ever."""
    begun = [threading.Event() for _ in range(4)]

    def read(index: int, source: int) -> list[int]:
        begun[index].set()
        return [source]

    found = read_ahead(range(3), read, 1)
    for index in range(3):
        assert next(found) == (index, index)
        assert index == 2 or begun[index + 1].wait(10)  # while this one is being "explained"
    assert list(found) == []


def test_closing_early_and_ctrl_c_end_the_thread() -> None:
    taken: list[int] = []

    def rows() -> Iterator[np.ndarray]:
        for number in range(1000):
            taken.append(number)
            yield X[0]

    found = explainer().explain_many(rows(), 3, ahead=2)
    next(found)
    found.close()
    assert reading() == []
    count = len(taken)
    time.sleep(0.05)
    assert len(taken) == count <= 4
    found = explainer().explain_many(rows(), 3, ahead=2)
    next(found)
    with pytest.raises(KeyboardInterrupt):
        found.throw(KeyboardInterrupt)
    assert reading() == []


def test_a_bug_in_the_users_transform_is_not_swallowed(tmp_path: Path) -> None:
    def transform(_: np.ndarray) -> np.ndarray:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(explainer(preprocess=transform).explain_many([photo(tmp_path / "a.png")], 3))


def test_the_command_goes_on_over_a_broken_photo(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a", "b", "d"):
        photo(folder / f"{name}.png", seed=ord(name))
    (folder / "c.png").write_bytes(b"no picture")
    result = run("explain", small(tmp_path), folder, "--preset", "paper", "-o", tmp_path / "out", "--json")
    assert result.exit_code == 2
    found = document(result)
    assert [one["name"] for one in found["explanations"]] == ["a", "b", "d"]
    assert [(Path(one["image"]).name, one["error"]) for one in found["errors"]] == [("c.png", "ImageError")]


def test_a_failure_is_plain_data() -> None:
    failure = Failure("a", InputError("b"), 3)
    assert (failure.name, str(failure.error), failure.index) == ("a", "b", 3)
