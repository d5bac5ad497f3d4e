"""Preprocessing on the command line: what is read from its options, what they replace, what stays a guess."""

from pathlib import Path
from typing import Any

import pytest

from srd_onnx.cli.preprocessing import as_options, completed, guessed, parsed
from srd_onnx.errors import OptionError
from srd_onnx.inputs.preprocess import Preprocess, torchvision_default
from tests.cli_tools import document, photo, run, small

NAMES = ("resize", "crop", "scale", "mean", "std", "channel_order")
USUAL = torchvision_default(224, 224)
ALL = ("scale", "mean", "std", "resize", "crop", "channel-order")


def read(**given: str) -> dict[str, Any]:
    texts: dict[str, str | None] = {**dict.fromkeys(NAMES), **given}
    return parsed(**texts)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"resize": "256"}, 256),
        ({"resize": "256x320"}, (256, 320)),
        ({"resize": "256 X 320"}, (256, 320)),
        ({"resize": "none"}, None),
        ({"crop": "224"}, (224, 224)),
        ({"crop": "224x200"}, (224, 200)),
        ({"crop": "None"}, None),
        ({"scale": "1/255"}, 1 / 255),
        ({"scale": "0.5"}, 0.5),
        ({"mean": "1,2.5,-3e0"}, (1.0, 2.5, -3.0)),
        ({"std": "1/4"}, (0.25,)),
        ({"channel_order": "bgr"}, "BGR"),
    ],
)
def test_text_becomes_a_field(given: dict[str, str], field: object) -> None:
    assert read(**given) == {next(iter(given)): field}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resize": "2x"}, "--resize '2x': give pixels as 256, height x width as 224x224, or none"),
        ({"crop": "-3"}, "--crop '-3': give pixels as 256, height x width as 224x224, or none"),
        ({"crop": "1x2x3"}, "--crop '1x2x3': give pixels as 256, height x width as 224x224, or none"),
        ({"scale": "1/0"}, "--scale '1/0': not a number; write 0.485 or 1/255"),
        ({"mean": "1,,2"}, "--mean '': not a number; write 0.485 or 1/255"),
        ({"std": "x"}, "--std 'x': not a number; write 0.485 or 1/255"),
    ],
)
def test_what_is_no_number_is_refused_by_the_name_of_its_option(given: dict[str, str], message: str) -> None:
    with pytest.raises(OptionError) as error:
        read(**given)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"std": (0.0,)}, "std divides"),
        ({"scale": float("nan")}, "scale must be a finite number"),
        ({"resize": 0}, "resize must be"),
        ({"channel_order": "XYZ"}, "channel_order must be RGB, BGR or GRAY"),
        ({"mean": (1.0, 2.0)}, "mean must have 1 or 3 values"),
    ],
)
def test_a_value_that_means_nothing_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=f"^preprocessing: {message}"):
        completed(USUAL, given)


@pytest.mark.parametrize(
    ("given", "made", "assumed"),
    [
        ({}, USUAL, ALL),
        (  # not mixed with the mean of ImageNet
            {"scale": 1 / 127.5},
            Preprocess(256, (224, 224), 1 / 127.5),
            ("resize", "crop", "channel-order"),
        ),
        (
            {"mean": (127.0,), "std": (128.0,), "resize": 250, "channel_order": "RGB"},
            Preprocess(250, (224, 224), 1.0, (127.0,), (128.0,)),
            (),
        ),
        (  # an exact size needs no crop
            {"resize": (99, 98), "scale": 1.0, "channel_order": "RGB"},
            Preprocess((99, 98)),
            (),
        ),
        (
            {"channel_order": "GRAY"},
            Preprocess(256, (224, 224), 1 / 255, channel_order="GRAY"),
            ("scale", "mean", "std", "resize", "crop"),
        ),
        (  # the mean follows the channels
            {"channel_order": "BGR", "crop": (200, 200)},
            Preprocess(256, (200, 200), 1 / 255, USUAL.mean[::-1], USUAL.std[::-1], "BGR"),
            ("scale", "mean", "std"),
        ),
    ],
)
def test_a_guess_says_what_it_guessed(
    given: dict[str, Any], made: Preprocess, assumed: tuple[str, ...]
) -> None:
    assert guessed(USUAL, given) == (made, assumed)


@pytest.mark.parametrize(
    "preprocess",
    [
        USUAL,
        Preprocess(),
        Preprocess((20, 30), None, 1 / 127.5, (1.0,), (0.25,), "GRAY"),
        Preprocess(scale=0.017),
    ],
)
def test_the_options_that_are_shown_say_the_same_again(preprocess: Preprocess) -> None:
    words = as_options(preprocess).split()
    given = {
        name.removeprefix("--").replace("-", "_"): text
        for name, text in zip(words[::2], words[1::2], strict=True)
    }
    assert completed(Preprocess(), read(**given)) == preprocess


def test_single_options_replace_those_of_the_zoo(tmp_path: Path) -> None:
    found = document(
        run(
            "explain",
            "squeezenet11",
            photo(tmp_path / "a.png"),
            "-o",
            tmp_path,
            "--std",
            "2",
            "--resize",
            "227",
            "--json",
        )
    )
    assert found["preprocess"]["std"] == [2.0]
    assert found["preprocess"]["resize"] == 227
    assert found["preprocess"]["mean"] == [103.939, 116.779, 123.68]
    assert found["preprocess_assumed"] is False


def test_single_options_replace_those_of_the_file(tmp_path: Path) -> None:
    table = tmp_path / "p.toml"
    table.write_text('resize = [32, 32]\nmean = 127\nstd = 128\nchannel_order = "BGR"\n')
    result = run(
        "explain", small(tmp_path), photo(tmp_path / "a.png"), "-o", tmp_path / "o", "--preprocess", table,
        "--std", "64", "--json", "--layout", "NCHW",
    )  # fmt: skip
    found = document(result)
    (one,) = found["explanations"]  # nothing is assumed: what is said is what the result itself shows
    assert result.stderr.splitlines() == [f"a, class {one['target']}: {text}" for text in one["warnings"]]
    assert found["preprocess"] == Preprocess((32, 32), None, 1.0, (127,), (64.0,), "BGR").to_dict()
    assert found["preprocess_assumed"] is False
