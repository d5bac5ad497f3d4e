"""`srd-onnx apop MODEL IMAGE...`."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srd_onnx.cli.console import cell, error, note, stdout, table_of, write_json
from srd_onnx.cli.interrupt import uninterrupted
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import JsonOption, ModelArgument
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption, expanded, progress

if TYPE_CHECKING:
    from rich.table import Table

    from srd_onnx.apop.table import ApopTable
    from srd_onnx.explainer import Explainer

JSON_FILE, PICTURE = "apop.json", "apop.png"


def apop(
    *,
    model: ModelArgument,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE", help="Photos, or folders of them.", show_default=False),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Where the picture and the numbers go.")
    ] = Path("srd-onnx-out"),
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the noise.")] = 0,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    json: JsonOption = False,
) -> None:
    """Keep the activation pattern of each IMAGE, run MODEL on other inputs, and count how often its prediction stays.

    Writes apop.json and apop.png. Exit code 2 if an image could not be used; the others are, and the JSON lists both.
    """
    from srd_onnx.apop.picture import picture
    from srd_onnx.apop.table import apop_table
    from srd_onnx.files import atomic_write_all, to_json

    images = expanded(images)
    explainer, notes = opened(model, images, out, photo, labels=labels, providers=provider)
    with progress("photos", len(images)) as advance:
        table = apop_table(explainer, images, seed=seed, advance=advance)
    if table.names:
        document = to_json(_document(explainer, table, notes), indent=2)
        contents = {
            out / JSON_FILE: (document + "\n").encode("utf-8", "backslashreplace"),
            out / PICTURE: picture(explainer, table),
        }
        with uninterrupted():
            atomic_write_all(contents)
        if json:
            write_json(document)
        else:
            _show(table, out)
    for _, problem in table.errors:
        error(str(problem))
    if table.errors:
        if len(images) > 1:
            note(f"{len(table.errors)} of {len(images)} images could not be used")
        raise typer.Exit(2)


def _document(explainer: "Explainer", table: "ApopTable", notes: list[str]) -> dict[str, Any]:
    from srd_onnx.inputs.preprocess import Preprocess
    from srd_onnx.ort.runtime import versions

    loaded, preprocess = explainer.model, explainer.preprocess
    return {
        "command": list(sys.argv),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": {"path": str(loaded.path) if loaded.path else None, "sha256": loaded.sha256},
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
        "preprocess_assumed": explainer.preprocess_assumed,
        "layout": explainer.layout,
        "provider": explainer.provider,
        "versions": versions(),
        "notes": notes,
        **table.to_dict(),
        "errors": [
            {"image": str(image), "error": type(problem).__name__, "message": str(problem)}
            for image, problem in table.errors
        ],
    }


def _show(table: "ApopTable", out: Path) -> None:
    console = stdout()
    console.print(as_table(table))
    console.print(
        cell(
            f"top class kept / among the top five, of {len(table.names)} photos; 'itself' is a check; "
            f"'none' is the network alone on the other input"
        ),
        soft_wrap=True,
    )
    folder = f"{out}".rstrip("/\\")
    console.print(cell(f"{PICTURE} and {JSON_FILE} are in {folder}/"), soft_wrap=True)


def as_table(table: "ApopTable") -> "Table":
    """Rows: kinds of input; columns: kinds of pattern; cells: top-1 / top-5 agreement in percent."""
    found = table_of()
    found.add_column("run on", no_wrap=True)
    for pattern in table.patterns:
        count, total = table.layers[pattern]
        found.add_column(f"{pattern}\n{count} of {total} layers", justify="right", no_wrap=True)
    for kind in table.inputs:
        cells = [table.cells[kind, pattern] for pattern in table.patterns]
        found.add_row(
            kind, *(f"{100 * c.top1 / c.count:.0f} / {100 * c.top5 / c.count:.0f} %" for c in cells)
        )
    return found
