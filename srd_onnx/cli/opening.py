"""What every command that reads photos does first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srd_onnx.cli.options import explainer_for, layout_of
from srd_onnx.cli.photos import PhotoOptions, settle_preprocessing

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.inputs.preprocess import Preprocess


def opened(
    model: str,
    images: Sequence[Path],
    out: Path,
    photo: PhotoOptions,
    *,
    photos: bool = False,
    known: "Preprocess | None" = None,
    **options: Any,
) -> tuple["Explainer", list[str]]:
    """An explainer that reads these photos as the options say, and the notes about it that the user has read.

    Args:
        model: a file or a name.
        images: must be there.
        out: the folder for the results.
        photo: how a photo becomes the input.
        photos: whether there are photos, whatever `images` says.
        known: how a photo becomes the input where `photo` does not say it.
        options: others of `Explainer`.
    """
    from srd_onnx.cli.record import existing, usable
    from srd_onnx.cli.summary import announce
    from srd_onnx.inputs.sources import ARRAY_FILES

    single = photo.single  # what cannot be understood is said before a large model is read
    existing(images)
    usable(out)
    explainer = explainer_for(model, layout=layout_of(photo.layout), **options)
    assumed = settle_preprocessing(explainer, photo.preprocess, single, known)
    photos = photos or any(image.suffix.lower() not in ARRAY_FILES for image in images)
    return explainer, announce(explainer, assumed if photos else ())
