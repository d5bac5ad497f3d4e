"""Preprocessing from the command line: its options as text, what they replace, and what stays assumed."""

import re
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from srd_onnx.errors import OptionError

if TYPE_CHECKING:
    from srd_onnx.inputs.preprocess import Preprocess

Given = Mapping[str, Any]
_VALUES = ("scale", "mean", "std")
_PLACE = ("resize", "crop")


def parsed(
    *,
    resize: str | None,
    crop: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channel_order: str | None,
) -> dict[str, Any]:
    """The options that were given, as fields of `Preprocess`.

    Raises: OptionError naming the option whose text cannot be understood.
    """
    found: dict[str, Any] = {}
    if resize is not None:
        size = _size("--resize", resize)
        found["resize"] = size[0] if size and len(size) == 1 else size
    if crop is not None:
        size = _size("--crop", crop)
        found["crop"] = size * 2 if size and len(size) == 1 else size
    if scale is not None:
        found["scale"] = _number("--scale", scale)
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            found[name] = tuple(_number(f"--{name}", part) for part in text.split(","))
    if channel_order is not None:
        found["channel_order"] = channel_order.upper()
    return found


def completed(base: "Preprocess", given: Given) -> "Preprocess":
    """`base` with the given fields in place of its own.

    Raises: OptionError if the result means nothing.
    """
    try:
        return replace(base, **given)
    except OptionError as error:
        raise OptionError(f"preprocessing: {error}") from None


def guessed(base: "Preprocess", given: Given) -> tuple["Preprocess", tuple[str, ...]]:
    """The preprocessing for a model of which nothing is known, and which fields of it are a guess.

    Fields come in two groups. Whoever gives one of scale, mean and std means x = (pixel · scale − mean) / std
    with the others left out (1, 0, 1), not mixed with those of ImageNet.
    """
    assumed: list[str] = []
    order = given.get("channel_order", base.channel_order)
    if any(name in given for name in _VALUES):
        base = replace(base, scale=1.0, mean=(0.0,), std=(1.0,))
    else:
        assumed += _VALUES
        if order == "GRAY":
            base = replace(base, mean=(0.0,), std=(1.0,))
        elif order == "BGR":
            base = replace(base, mean=base.mean[::-1], std=base.std[::-1])
    if not any(name in given for name in _PLACE):
        assumed += _PLACE
    elif "crop" not in given and not isinstance(given["resize"], int):
        base = replace(base, crop=None)  # an exact size, or none: nothing is left to cut off
    if "channel_order" not in given:
        assumed.append("channel-order")
    return completed(base, given), tuple(assumed)


def as_options(preprocess: "Preprocess") -> str:
    """The options that say this preprocessing, to be copied into a command."""

    def size(value: int | tuple[int, int] | None) -> str:
        return (
            "none" if value is None else "x".join(map(str, value if isinstance(value, tuple) else (value,)))
        )

    parts = {
        "resize": size(preprocess.resize),
        "crop": size(preprocess.crop),
        "scale": _fraction(preprocess.scale),
        "mean": ",".join(f"{value:g}" for value in preprocess.mean),
        "std": ",".join(f"{value:g}" for value in preprocess.std),
        "channel-order": preprocess.channel_order,
    }
    return " ".join(f"--{name} {value}" for name, value in parts.items())


def _fraction(value: float) -> str:
    near = Fraction(value).limit_denominator(65536)
    return f"{near}" if near.denominator > 1 and near.numerator / near.denominator == value else f"{value:g}"


def _size(option: str, text: str) -> tuple[int, ...] | None:
    if text.strip().lower() == "none":
        return None
    if not re.fullmatch(r"\s*\d{1,9}(\s*[xX×]\s*\d{1,9})?\s*", text):
        raise OptionError(f"{option} '{text}': give pixels as 256, height x width as 224x224, or none")
    return tuple(int(part) for part in re.split("[xX×]", text))


def _number(option: str, text: str) -> float:
    upper, slash, lower = text.partition("/")
    try:
        return float(upper) / float(lower) if slash else float(upper)
    except (ValueError, ZeroDivisionError):
        raise OptionError(f"{option} '{text}': not a number; write 0.485 or 1/255") from None
