"""What every command that reads photos does first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srd_onnx.cli.options import explainer_for
from srd_onnx.cli.photos import settle_preprocessing
from srd_onnx.cli.preprocessing import Given

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer


def opened(
    model: str,
    images: Sequence[Path],
    out: Path,
    preprocess: Path | None,
    given: Given,
    *,
    photos: bool = False,
    **options: Any,
) -> tuple["Explainer", list[str]]:
    """An explainer that reads these photos as the options say, and the notes about it that the user has read.

    Args:
        model: a file or a name.
        images: must be there.
        out: the folder for the results.
        preprocess: a file that says how a photo becomes the input.
        given: single options of it, see `preprocessing.parsed`.
        photos: whether there are photos, whatever `images` says.
        options: of `Explainer`.
    """
    from srd_onnx.cli.record import existing, usable
    from srd_onnx.cli.summary import announce
    from srd_onnx.inputs.sources import ARRAY_FILES

    existing(images)
    usable(out)
    explainer = explainer_for(model, **options)
    assumed = settle_preprocessing(explainer, preprocess, given)
    photos = photos or any(image.suffix.lower() not in ARRAY_FILES for image in images)
    return explainer, announce(explainer, assumed if photos else ())
