"""`srd-onnx compare MODEL_A MODEL_B IMAGES_DIR`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from srd_onnx.cli.audit import JunitOption, SarifOption, for_systems, outside, report_files, watched
from srd_onnx.cli.console import cell, error, lines, note, stdout, write_json
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import JsonOption, explainer_for, layout_of
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption

if TYPE_CHECKING:
    from srd_onnx.audit.compare import ComparisonOutcome
    from srd_onnx.explainer import Explainer

OUT = Path("srd-onnx-comparison")
_PASSED = 3  # the exit code where a threshold is passed


def _model(name: str) -> Any:
    return typer.Argument(
        metavar=name, help="An .onnx file, or a name from `srd-onnx models`.", show_default=False
    )


def compare(
    *,
    model_a: Annotated[str, _model("MODEL_A")],
    model_b: Annotated[str, _model("MODEL_B")],
    images: Annotated[
        Path, typer.Argument(metavar="IMAGES_DIR", help="A folder of images.", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="DIR", help="Of the report; a rerun goes on from there.")
    ] = OUT,
    max_drift: Annotated[
        float | None,
        typer.Option(
            "--max-drift",
            metavar="D",
            min=0,
            help="Of the mean of 1 - correlation of maps.",
            show_default=False,
        ),
    ] = None,
    max_flips: Annotated[
        int | None,
        typer.Option(
            "--max-flips", metavar="N", min=0, help="So many predictions may change.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the sample of layers.")] = 0,
    shown: Annotated[int, typer.Option("--shown", metavar="N", min=0, help="Images in the report.")] = 100,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Also write report.pdf.")] = True,
    junit: JunitOption = None,
    sarif: SarifOption = None,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    json: JsonOption = False,
) -> None:
    """Compare two versions of a model on all images of IMAGES_DIR: predictions, maps, layers, a report.

    Exit code 3 if --max-drift or --max-flips is passed, 1 if an image could not be compared, 2 for an error. Kill it
    whenever you like: the same command goes on where it was.
    """
    from srd_onnx.audit.compare import Wanted, run_comparison

    outside(out, junit, sarif)
    options: dict[str, Any] = {"labels": labels, "providers": provider}
    first, _ = opened(model_a, [], out, photo, photos=True, **options)
    second = _second(model_b, first, photo, options)
    wanted = Wanted(max_drift, max_flips, shown, pdf, seed)
    with watched() as watch:
        outcome = run_comparison(
            first, second, images, out, wanted, command=("srd-onnx", *sys.argv[1:]), watch=watch
        )
    for_systems(junit, sarif, outcome.title, outcome.names, outcome.findings, model=Path(model_b).name)
    _show(outcome, json=json)
    if not outcome.passed:
        raise typer.Exit(_PASSED)
    if outcome.usable < outcome.images:
        raise typer.Exit(1)


def _second(model: str, first: "Explainer", photo: PhotoOptions, options: dict[str, Any]) -> "Explainer":
    """The other model; what nobody says of it is as the first one's."""
    from srd_onnx.cli.photos import settle_preprocessing

    found, single = explainer_for(model, layout=layout_of(photo.layout), **options), photo.single
    if found.preprocess_assumed:
        found.preprocess, found.preprocess_assumed = first.preprocess, first.preprocess_assumed
        if photo.preprocess is None and not single:
            note("the second model's photos are preprocessed as the first one's")
    else:
        settle_preprocessing(found, photo.preprocess, single)
    found.labels = found.labels or first.labels
    return found


def _show(outcome: "ComparisonOutcome", *, json: bool) -> None:
    from srd_onnx.files import to_json

    passed = [one.message for one in outcome.findings if one.image is None and one.level == "error"]
    if json:
        write_json(to_json({**vars(outcome), "findings": list(map(vars, outcome.findings))}))
    else:
        for sentence in outcome.answer:
            stdout().print(Text(lines(sentence)), soft_wrap=True)
        stdout().print(cell(report_files(outcome.folder)), soft_wrap=True)
    for message in passed:
        error(message)
