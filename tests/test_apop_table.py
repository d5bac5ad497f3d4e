"""APOP over a folder: the kinds of input, what is counted, and what is left out."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from srd_onnx import Explainer
from srd_onnx.apop.picture import picture
from srd_onnx.apop.table import INPUTS, NEED_OTHERS, PATTERNS, ApopTable, apop_table
from srd_onnx.errors import InputError, OptionError, ShapeError
from srd_onnx.ort.runtime import CPU, make_session, run
from tests.cli_tools import photo
from tests.nets import model_of, small_cnn

Array = NDArray[np.float32]
COUNT = 4


def arrays(count: int = COUNT) -> list[Array]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal((3, 32, 32)).astype(np.float32) + number for number in range(count)]


def table_of(photos: list[Array] | None = None, *, seed: int = 0, layout: str = "NCHW") -> ApopTable:
    return apop_table(
        Explainer(small_cnn(), providers="cpu", layout=layout), photos or arrays(), seed=seed, examples=COUNT
    )


def data_of(table: ApopTable, kind: str, number: int) -> Array:
    return np.asarray(table.examples[number].runs[kind][0].data["input"], np.float32)


def test_every_photo_is_counted_for_every_kind_of_input_and_pattern() -> None:
    calls: list[int] = []
    table = apop_table(Explainer(small_cnn(), providers="cpu"), arrays(), advance=lambda: calls.append(1))
    assert len(calls) == COUNT
    assert table.inputs == list(INPUTS)
    assert table.patterns == list(PATTERNS)
    assert {cell.count for cell in table.cells.values()} == {COUNT}
    assert all(0 <= cell.top1 <= cell.top5 <= COUNT for cell in table.cells.values())
    for pattern in PATTERNS:
        assert table.cells["itself", pattern].top1 == COUNT
    assert table.layers == {
        **dict.fromkeys(("exact", "active"), (6, 6)),
        "first 75 %": (4, 6),
        "first 50 %": (3, 6),
        "first 25 %": (2, 6),
        "none": (0, 6),
    }
    assert not table.errors
    assert len(table.examples) == 3


def test_the_inputs_are_what_they_are_called() -> None:
    photos, table = arrays(), table_of()
    for number, own in enumerate(photos):
        others = [one for index, one in enumerate(photos) if index != number]
        colour = np.broadcast_to(own.mean(axis=(1, 2), keepdims=True), own.shape)
        wanted = {
            "itself": own,
            "colour": colour,
            "mean": np.mean(others, axis=0),
            "zeros": np.zeros_like(own),
            "another": photos[(number + 1) % COUNT],
        }
        for kind, data in wanted.items():
            np.testing.assert_allclose(data_of(table, kind, number), data, atol=1e-5)
        noise = data_of(table, "noise", number)
        np.testing.assert_allclose(noise.mean(axis=(1, 2)), np.mean(photos, axis=(0, 2, 3)), atol=0.2)
        np.testing.assert_allclose(noise.std(axis=(1, 2)), np.std(photos, axis=(0, 2, 3)), rtol=0.1)


def test_colour_is_that_of_each_channel_in_any_layout() -> None:
    nodes = [
        helper.make_node("Relu", ["input"], ["r"]),
        helper.make_node("ReduceMean", ["r"], ["output"], axes=[1, 2], keepdims=0),
    ]
    model = model_of(nodes, {}, (["N", 8, 8, 3], ["N", 3]))
    photos = [np.moveaxis(one[:, :8, :8], 0, -1) for one in arrays()]
    table = apop_table(Explainer(model, providers="cpu", layout="NHWC"), photos)
    np.testing.assert_allclose(
        data_of(table, "colour", 1), np.broadcast_to(photos[1].mean(axis=(0, 1)), (8, 8, 3)), atol=1e-5
    )


def test_noise_is_made_from_the_seed() -> None:
    first, again, other = table_of(), table_of(), table_of(seed=1)
    np.testing.assert_array_equal(data_of(first, "noise", 1), data_of(again, "noise", 1))
    assert (data_of(first, "noise", 1) != data_of(other, "noise", 1)).any()
    assert (data_of(first, "noise", 1) != data_of(first, "noise", 2)).any()


def test_without_any_pattern_the_counts_are_those_of_the_network() -> None:
    table, session = table_of(), make_session(small_cnn().SerializeToString(), [CPU])
    for kind in INPUTS:
        kept = 0
        for number, own in enumerate(arrays()):
            rows = np.stack([own, data_of(table, kind, number)])
            (scores,) = run(session, None, {"input": rows})
            kept += int(scores[0].argmax() == scores[1].argmax())
        assert table.cells[kind, "none"].top1 == kept


def test_a_single_photo_has_no_others() -> None:
    table = table_of(arrays(1))
    assert table.inputs == [kind for kind in INPUTS if kind not in NEED_OTHERS]


def test_what_cannot_be_read_is_left_out_and_named(tmp_path: Path) -> None:
    good = [photo(tmp_path / f"{number}.png", number) for number in (1, 2)]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    table = apop_table(Explainer(small_cnn(), providers="cpu"), [good[0], bad, good[1]])
    assert table.names == ["1", "2"]
    assert [source for source, _ in table.errors] == [bad]
    assert picture(Explainer(small_cnn(), providers="cpu"), table).startswith(b"\x89PNG")


def test_an_overflow_is_named() -> None:
    """Here of all three, as the noise has the deviation of all."""
    table = table_of([*arrays(2), np.full((3, 32, 32), 1e38, np.float32)])
    assert not table.names
    assert len(table.errors) == 3
    assert all("NaN or infinity in the scores" in str(problem) for _, problem in table.errors)


def test_photos_of_different_sizes_are_refused() -> None:
    model = model_of(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["p"]),
            helper.make_node("Flatten", ["p"], ["output"]),
        ],
        {},
        (["N", 3, "H", "W"], ["N", 3]),
    )
    with pytest.raises(InputError, match=r"image0 .*they must have one size, by a crop or an exact resize"):
        apop_table(
            Explainer(model, providers="cpu", preprocess=lambda image: image.astype(np.float32)),
            [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)],
        )


def test_a_model_that_reads_no_photos_is_refused() -> None:
    model = model_of([helper.make_node("Cast", ["input"], ["output"], to=1)], {}, (["N", 4], ["N", 4]))
    model.graph.input[0].type.tensor_type.elem_type = 7
    with pytest.raises(OptionError, match="models with one input, of real numbers"):
        apop_table(Explainer(model, providers="cpu", layout="NC"), [np.zeros(4, np.int64)])


def test_photos_that_do_not_fit_the_model_end_the_run() -> None:
    with pytest.raises(ShapeError):
        table_of([np.zeros((3, 31, 32), np.float32)])


def test_the_picture_of_arrays_has_the_bars_alone() -> None:
    table = table_of()
    assert picture(Explainer(small_cnn(), providers="cpu"), table).startswith(b"\x89PNG")
    assert all(example.item.image is None for example in table.examples)
