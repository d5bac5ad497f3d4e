"""The options that several commands share, and how their text is understood."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from typer.core import TyperCommand

from srd_onnx.engine.options import DEFAULT_PRESET, PRESETS, Bias, Seed, Sign
from srd_onnx.errors import OptionError

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.targets import Contrast

CONTRAST = "--contrast"
_SEPARATOR = "\x1f"  # of the two classes of a contrast; no label holds it
_SIZE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:(?:([kmgt])(i?))?b)?", re.IGNORECASE | re.ASCII)
_ENGINE = "How it is explained"


def _choice(name: str, kind: Any, help_text: str) -> Any:
    return typer.Option(
        name, metavar="|".join(get_args(kind)), help=help_text, show_default=False, rich_help_panel=_ENGINE
    )


ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="An .onnx file, or a name from `srd-onnx models`.", show_default=False
    ),
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        "--method",
        metavar="NAME[:PARAMETER=VALUE,...]",
        help="Another method than SRD, to compare with: `srd-onnx methods` lists them.",
        show_default=False,
        rich_help_panel=_ENGINE,
    ),
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        "--max-memory",
        metavar="SIZE",
        help="About what an explanation by SRD may take besides the weights, such as 500MB, 2GB or 1.5GiB: what takes "
        "more is explained piece by piece, with the same map, in more time.",
        show_default=False,
        rich_help_panel=_ENGINE,
    ),
]
LayoutOption = Annotated[
    str | None,
    typer.Option(
        "--layout",
        metavar="NCHW|NHWC|...",
        help="The axes of the model's input; of several inputs NAME=NT, repeated with commas. Guessed if left out.",
        show_default=False,
        rich_help_panel=_ENGINE,
    ),
]
ImagesArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="IMAGE", help="Photos: PNG, JPEG, WebP, ...; or folders of them.", show_default=False
    ),
]
OutOption = Annotated[
    Path, typer.Option("--out", "-o", metavar="DIR", help="Where the pictures and numbers go.")
]
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        "-t",
        metavar="INDEX|LABEL|topN",
        help="The class to explain: 281, 'tabby, tabby cat', top3, or 281,285. Repeat it for several. "
        "The prediction if left out.",
        show_default=False,
    ),
]
ContrastOption = Annotated[
    list[str] | None,
    typer.Option(
        CONTRAST, metavar="A B", help="What speaks for class A rather than B. Repeatable.", show_default=False
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]

OUT = Path("srd-onnx-out")


@dataclass(frozen=True)
class SharingOptions:
    """How SRD carries relevance back, as an `Explainer` takes it; None where nothing is said."""

    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="|".join(PRESETS),
            help=f"A named set of options; {DEFAULT_PRESET} if left out.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    boundary: Annotated[
        str | None,
        typer.Option(
            "--boundary",
            metavar="TENSOR",
            help="Where sharing ratios take over, or the layer that Grad-CAM and its kin read: 'encoder', a tensor, or "
            "a node that computes one.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    seed: Annotated[str | None, _choice("--seed", Seed, "What is explained.")] = None
    sign: Annotated[str | None, _choice("--sign", Sign, "What enters at the boundary.")] = None
    bias: Annotated[str | None, _choice("--bias", Bias, "Where the share of the biases goes.")] = None


@dataclass(frozen=True)
class MapOptions(SharingOptions):
    """With what is done to the map."""

    focus: Annotated[
        str | None,
        typer.Option(
            "--focus",
            metavar="scales|none|TENSOR",
            help="Where more passes take over that sharpen the map of the first: at every finer scale, or at a tensor.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None
    smooth: Annotated[
        float | None,
        typer.Option(
            "--smooth",
            metavar="PIXELS",
            help="Spread relevance over neighbouring pixels, by a Gaussian of this standard deviation.",
            show_default=False,
            rich_help_panel=_ENGINE,
        ),
    ] = None


def explainer_for(model: str, **options: Any) -> "Explainer":
    """An `Explainer` with the options that are given; what it would log is left to the caller to print, once."""
    import logging

    # Without a handler Python prints the warnings of the library; `provider_note` has the same text.
    logging.getLogger("srd_onnx").addHandler(logging.NullHandler())
    from srd_onnx.explainer import Explainer

    return Explainer(model, **{name: value for name, value in options.items() if value is not None})


def size_of(text: str | None) -> int | None:
    """Bytes: a number, with B, kB, MB, GB or TB behind it (powers of 1000), or KiB, MiB, ... (of 1024), in any case.

    Raises: OptionError if it is no such size.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise OptionError(f"'{text}' is no size: give a number of bytes, or one such as 500MB, 2GB or 1.5GiB")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** (" kmgt".index(prefix.lower()) if prefix else 0))


def layout_of(text: str | None) -> str | dict[str, str] | None:
    """`NCHW`, or `ids=NT,mask=NT` for inputs by name."""
    if text is None or "=" not in text:
        return text and text.upper()
    pairs = (part.rpartition("=") for part in text.split(","))
    return {name.strip(): letters.strip().upper() for name, _, letters in pairs}


class Contrasting(TyperCommand):
    """A command with `ContrastOption`: typer knows no repeatable option of two values, so that both are made one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """With `A<separator>B` for each pair behind --contrast; an option is no value."""
        rest, joined = list(args), []
        while rest:
            word = rest.pop(0)
            if word == "--":
                joined += [word, *rest]
                break
            joined.append(word)
            if word == CONTRAST:
                pair = [one for one in rest[:2] if not re.match("-(?![0-9])", one)]
                joined += [_SEPARATOR.join(pair)] if pair else []
                del rest[: len(pair)]
        return super().parse_args(ctx, joined)


def contrasts_of(given: Sequence[str] | None) -> "list[Contrast]":
    """The pairs of a `ContrastOption`.

    Raises: OptionError where there is only one.
    """
    from srd_onnx.targets import Contrast

    pairs = [one.split(_SEPARATOR) for one in given or ()]
    for pair in pairs:
        if len(pair) != 2:
            raise OptionError(
                f"{CONTRAST} takes two classes: what speaks for A rather than B; got {pair[0]!r}"
            )
    return [Contrast(of, over) for of, over in pairs]


def targets_of(given: Sequence[str] | None) -> list[str] | None:
    """The targets of a repeatable option. A comma parts indices and topN only: labels may contain one."""
    found: list[str] = []
    for one in given or ():
        parts = one.split(",")
        several = all(re.fullmatch(r"\s*(\d+|top\d+)\s*", part, re.IGNORECASE) for part in parts)
        found += [part.strip() for part in parts] if several else [one]
    return found or None
