"""`srd-onnx preactivations MODEL IMAGE...`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from srd_onnx.cli.console import cell, error, note, stdout, table_of, write_json
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import OUT, ImagesArgument, JsonOption, ModelArgument, OutOption
from srd_onnx.cli.photos import PhotoOptions, ProviderOption, expanded, progress
from srd_onnx.errors import InputError

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer


def preactivations(
    *,
    model: ModelArgument,
    images: ImagesArgument,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            "--layer",
            "-l",
            metavar="NAME",
            help="A tensor or node of the model, or a wildcard ('*/Relu*'). Repeatable. The inputs of all "
            "nonlinearities that relevance crosses if left out.",
            show_default=False,
        ),
    ] = None,
    out: OutOption = OUT,
    photo: PhotoOptions,
    provider: ProviderOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write the preactivations of MODEL on each IMAGE, or any inner tensors, as NAME.preactivations.npz.

    Exit code 2 if an image could not be read; the others are, and the JSON lists both.
    """
    from srd_onnx.cli.record import unique_names
    from srd_onnx.cli.summary import as_folder
    from srd_onnx.files import to_json

    images = expanded(images)
    explainer, said = opened(model, images, out, photo, providers=provider)
    rows: list[dict[str, Any]] = []
    errors: list[dict[str, str]] = []
    with progress("running", len(images)) as advance:
        for image, name in zip(images, unique_names(images, out), strict=True):
            try:
                rows.append({"image": str(image)} | _written(explainer, image, layer, out, name))
            except (
                InputError
            ) as problem:  # of this image; what is wrong with the model or an option ends the run
                message = str(problem)
                errors.append({"image": str(image), "error": type(problem).__name__, "message": message})
            advance()
    if json:
        document = {"command": sys.argv, "folder": out, "notes": said, "archives": rows, "errors": errors}
        write_json(to_json(document, indent=2))
    elif rows:
        stdout().print(_table(rows[0]["arrays"]))
        stdout().print(
            cell(f"NAME.preactivations.npz for {len(rows)} of {len(images)} images in {as_folder(out)}"),
            soft_wrap=True,
        )
    for failed in errors:
        error(failed["message"])
    if errors:
        if len(images) > 1:
            note(f"{len(errors)} of {len(images)} images could not be read")
        raise typer.Exit(2)


def _written(
    explainer: "Explainer", image: Path, layers: list[str] | None, out: Path, name: str
) -> dict[str, Any]:
    """Write the archive of one image; its file, and the shape of each array."""
    from srd_onnx.files import atomic_write, to_npz
    from srd_onnx.text import safe_file_name

    found = explainer.preactivations(str(image), layers)
    path = out / f"{safe_file_name(name)}.preactivations.npz"
    atomic_write(path, to_npz(found))
    arrays = {
        tensor: {"shape": list(array.shape), "dtype": str(array.dtype)} for tensor, array in found.items()
    }
    return {"file": path.name, "arrays": arrays}


def _table(arrays: dict[str, Any]) -> Table:
    table = table_of("array")
    table.add_column("shape", justify="right", no_wrap=True)
    table.add_column("dtype", no_wrap=True)
    for name, about in arrays.items():
        table.add_row(cell(name), "x".join(map(str, about["shape"])), about["dtype"])
    return table
