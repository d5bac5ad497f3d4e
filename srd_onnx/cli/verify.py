"""`srd-onnx verify REPORT_DIR`."""

from pathlib import Path
from typing import Annotated

import typer

from srd_onnx.cli.console import cell, error, stdout, write_json
from srd_onnx.cli.options import JsonOption
from srd_onnx.cli.photos import progress


def verify(
    *,
    folder: Annotated[
        Path,
        typer.Argument(metavar="REPORT_DIR", help="What `audit` or `compare` wrote.", show_default=False),
    ],
    model: Annotated[
        list[Path] | None,
        typer.Option(
            "--model",
            metavar="FILE",
            help="Where the model lies now; twice for a comparison.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", metavar="DIR", help="Where the images lie now.", show_default=False),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", metavar="N", min=1, help="So many maps are computed again.")
    ] = 5,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the sample.")] = 0,
    tolerance: Annotated[
        float,
        typer.Option(
            "--tolerance", metavar="T", min=0, help="How far a map may be off, as a part of its largest |R|."
        ),
    ] = 1e-3,
    files_only: Annotated[
        bool, typer.Option("--files-only", help="Compute nothing again; look at neither model nor images.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check a report: that no file was changed, that the model is the same, and that its maps can be computed again.

    Exit code 0 if all is as it was, 1 if something is not, 2 if there is no report to check.
    """
    from srd_onnx.audit.verify import verify as check
    from srd_onnx.files import to_json

    count = 0 if files_only else sample
    with progress("computing maps again", count) as advance:
        found = check(
            folder,
            models=model or (),
            images=images,
            sample=count,
            seed=seed,
            tolerance=tolerance,
            advance=advance,
        )
    if json:
        write_json(to_json({"verified": not found.problems, **vars(found)}, indent=2))
    for problem in found.problems:
        error(problem)
    if found.problems:
        raise typer.Exit(1)
    if not json:
        again = (
            "no map was computed again"
            if files_only
            else f"{found.maps} maps computed again differ by {found.deviation:.1e} at most"
        )
        stdout().print(
            cell(f"{folder}: {found.files} files are as they were written; {again}"), soft_wrap=True
        )
