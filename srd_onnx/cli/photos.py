"""What the commands that read photos share: their options, folders of photos, and a bar of progress."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srd_onnx.cli import preprocessing
from srd_onnx.cli.console import stderr
from srd_onnx.cli.options import LayoutOption
from srd_onnx.errors import ImageError

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.inputs.preprocess import Preprocess

# What a folder is searched for; a single file may have any name.
SUFFIXES = (".avif", ".bmp", ".gif", ".jp2", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_PHOTO = "How a photo becomes the model's input: x = (pixel · scale − mean) / std"


def _photo(name: str, metavar: str, help_text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=help_text, show_default=False, rich_help_panel=_PHOTO)


LabelsOption = Annotated[
    Path | None,
    typer.Option("--labels", metavar="FILE", help="Class names: one per line, or JSON.", show_default=False),
]
ProviderOption = Annotated[
    str, typer.Option("--provider", metavar="auto|cuda|cpu", help="auto: CUDA where it works.")
]


@dataclass(frozen=True)
class PhotoOptions:
    """How a photo becomes the model's input; None where nothing is said."""

    layout: LayoutOption = None
    preprocess: Annotated[
        Path | None,
        _photo("--preprocess", "FILE.toml", "All of it from a file; single options replace its values."),
    ] = None
    resize: Annotated[str | None, _photo("--resize", "N|HxW|none", "The short side, or the exact size.")] = (
        None
    )
    crop: Annotated[str | None, _photo("--crop", "N|HxW|none", "The centre that is kept.")] = None
    scale: Annotated[str | None, _photo("--scale", "S", "Such as 1/255.")] = None
    mean: Annotated[str | None, _photo("--mean", "A[,B,C]", "One value, or one per channel.")] = None
    std: Annotated[str | None, _photo("--std", "A[,B,C]", "One value, or one per channel.")] = None
    channel_order: Annotated[
        str | None, _photo("--channel-order", "RGB|BGR|GRAY", "Of the model's input.")
    ] = None

    @property
    def single(self) -> dict[str, Any]:
        """The single options that were given, see `preprocessing.parsed`."""
        return preprocessing.parsed(
            resize=self.resize,
            crop=self.crop,
            scale=self.scale,
            mean=self.mean,
            std=self.std,
            channel_order=self.channel_order,
        )


def settle_preprocessing(
    explainer: "Explainer",
    file: Path | None,
    given: preprocessing.Given,
    known: "Preprocess | None" = None,
) -> tuple[str, ...]:
    """Give the explainer what the file, `known`, the zoo or a guess says, under single options; what is a guess."""
    from srd_onnx.inputs.preprocess import Preprocess, preprocess_from_toml

    said = preprocess_from_toml(file) if file is not None else known
    base = said or explainer.preprocess
    if not isinstance(base, Preprocess):
        raise TypeError("the explainer has a preprocessing of its own")
    if said is None and explainer.preprocess_assumed:
        explainer.preprocess, assumed = preprocessing.guessed(base, given)
    else:
        explainer.preprocess, assumed = preprocessing.completed(base, given), ()
    explainer.preprocess_assumed = bool(assumed)
    return assumed


def expanded(paths: Sequence[Path]) -> list[Path]:
    """The paths with the photos of a folder, by name, in place of the folder.

    Raises: ImageError for a folder without photos, or one that cannot be read.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        try:
            inside = sorted(p for p in path.iterdir() if p.suffix.lower() in SUFFIXES and p.is_file())
        except OSError as error:
            raise ImageError(f"{path}: the folder cannot be read: {error.strerror or error}") from error
        if not inside:
            raise ImageError(f"{path} is a folder without photos ({', '.join(s[1:] for s in SUFFIXES)}).")
        found += inside
    return found


@contextlib.contextmanager
def progress(what: str, count: int) -> Iterator[Any]:
    """A bar on the terminal, if there is one; gives what is to be called after each of `count` photos."""
    console = stderr()
    if count < 2 or not console.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=count)
        yield lambda: bar.advance(task)
