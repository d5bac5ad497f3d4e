"""`srd-onnx evaluate MODEL IMAGE...`."""

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from srd_onnx.cli.console import cell, error, note, stderr, stdout, write_json
from srd_onnx.cli.interrupt import uninterrupted
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import OUT, ImagesArgument, JsonOption, MaxMemoryOption, ModelArgument, size_of
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption, expanded, progress
from srd_onnx.errors import OptionError, SrdOnnxError

if TYPE_CHECKING:
    from srd_onnx.cli.pace import Pace
    from srd_onnx.evaluation.contenders import Contender
    from srd_onnx.evaluation.masks import Masks
    from srd_onnx.evaluation.numbers import Evaluation, Row
    from srd_onnx.evaluation.store import Store
    from srd_onnx.explainer import Explainer
    from srd_onnx.metrics import Metric

CSV, JSON, PICTURE, STORE = (f"evaluation.{ending}" for ending in ("csv", "json", "png", "sqlite"))
EVERY = "all"
# What is measured if nothing is said: methods of a few passes, and controls; metrics of some dozen runs at most.
USUAL_METHODS = (
    "srd", "saliency", "gradient-x-input", "guided-backprop", "lrp-composite", "gradcam", "layercam",
    "random", "sobel", "centre",
)  # fmt: skip
USUAL_METRICS = (
    "pointing-game", "relevance-mass-accuracy", "relevance-rank-accuracy", "grid-pointing-game", "sparseness",
    "insertion-minus-deletion",
)  # fmt: skip
_SHOWN = 6  # photos of the sheet


def evaluate(
    *,
    model: ModelArgument,
    images: ImagesArgument,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            metavar="NAMES|all",
            help="With commas, each as NAME[:PARAMETER=VALUE,...]; `srd-onnx methods` lists them. Quick ones and "
            "controls if left out.",
            show_default=False,
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="NAMES|all",
            help="With commas, each as NAME[:PARAMETER=VALUE,...]; `srd-onnx metrics` lists them. Quick ones if "
            "left out.",
            show_default=False,
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            metavar="DIR",
            help="Where the objects are: NAME.png for NAME.jpg, white on black, or as in ImageNet-S.",
            show_default=False,
        ),
    ] = None,
    mask_classes: Annotated[
        Path | None,
        typer.Option(
            "--mask-classes",
            metavar="FILE",
            help="Line n names the class of id n in ImageNet-S masks. Needed where a mask has several ids.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--target",
            "-t",
            metavar="INDEX|LABEL",
            help="The class to explain in every image. Each image's prediction if left out.",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of everything random.")] = 0,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="DIR", help="Where the results go; a rerun goes on from there."),
    ] = OUT,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    max_memory: MaxMemoryOption = None,
    json: JsonOption = False,
) -> None:
    """Measure how well methods explain MODEL on the IMAGES: every method by every metric.

    Writes evaluation.csv, .json and .png, and keeps each number in evaluation.sqlite as soon as it is there: the same
    command goes on where it was stopped. Exit code 2 if an image could not be used; the others are.
    """
    images = list(dict.fromkeys(expanded(images)))
    contenders = contenders_of(methods, seed)
    explainer, said = opened(
        model,
        images,
        out,
        photo,
        labels=labels,
        providers=provider,
        max_memory=size_of(max_memory),
    )
    where = _masks(explainer, masks, mask_classes)
    chosen, optional = metrics_of(metrics, masked=where is not None, images=len(images))
    _evaluate(explainer, images, contenders, chosen, optional, where, target, seed, out, said, json=json)


def contenders_of(given: Sequence[str] | None, seed: int) -> "list[Contender]":
    """The methods that take part; those that nobody named may be left out.

    Raises: OptionError if one does not exist.
    """
    from srd_onnx.evaluation.contenders import contender_named
    from srd_onnx.methods import METHODS, SRD

    names = several(given)
    if names == [EVERY]:
        return [contender_named(name, seed=seed, required=False) for name in (SRD, *METHODS)]
    usual = [contender_named(name, seed=seed, required=False) for name in USUAL_METHODS]
    return [contender_named(name, seed=seed) for name in names] or usual


def metrics_of(
    given: Sequence[str] | None, *, masked: bool, images: int
) -> "tuple[dict[str, Metric], frozenset[str]]":
    """The metrics, of the usual ones those that these images allow; and which may be left out: those nobody named.

    Raises: OptionError if one does not exist.
    """
    from srd_onnx.evaluation.grids import CELLS
    from srd_onnx.metrics import METRICS, metric_named

    names = several(given)
    chosen = {name: metric_named(name) for name in names if name != EVERY}
    if chosen:
        return chosen, frozenset()
    if names:
        return {name: metric_named(name) for name in METRICS}, frozenset(METRICS)
    usual = {name: metric_named(name) for name in USUAL_METRICS}
    there = {"mask": masked, "grid": images >= CELLS}
    possible = {name: one for name, one in usual.items() if all(there[need] for need in one.needs)}
    return possible, frozenset(possible)


def several(given: Sequence[str] | None) -> list[str]:
    """Names with commas between them; what is behind a comma and has a value belongs to the name before.

    Raises: OptionError if "all" is not alone.
    """
    found: list[str] = []
    for part in (part.strip() for text in given or () for part in text.split(",")):
        name, _, _ = part.partition(":")
        if "=" in name and found:
            found[-1] += f",{part}"
        elif part:
            found.append(part)
    if EVERY in found and len(found) > 1:
        raise OptionError(f"'{EVERY}' stands alone: leave out the other names")
    return list(dict.fromkeys(found))


def _masks(explainer: "Explainer", folder: Path | None, classes: Path | None) -> "Masks | None":
    from srd_onnx.evaluation.masks import read_ids, read_masks

    if folder is None:
        if classes is not None:
            raise OptionError("--mask-classes goes with --masks DIR")
        return None
    return read_masks(folder, read_ids(classes, explainer.labels) if classes else None)


def _evaluate(
    explainer: "Explainer",
    images: Sequence[Path],
    contenders: "Sequence[Contender]",
    metrics: "Mapping[str, Metric]",
    optional: frozenset[str],
    masks: "Masks | None",
    target: str | None,
    seed: int,
    out: Path,
    said: list[str],
    *,
    json: bool,
) -> None:
    from srd_onnx.evaluation.numbers import prepare
    from srd_onnx.evaluation.report import in_order
    from srd_onnx.evaluation.store import open_store

    left_out: dict[str, str] = {}
    with open_store(out / STORE) as store:
        with progress("predicting", len(images)) as advance:
            evaluation = prepare(
                explainer,
                images,
                contenders,
                metrics,
                target=target,
                masks=masks,
                seed=seed,
                shown=_SHOWN,
                optional=optional,
                advance=advance,
            )
        numbers = _numbers(evaluation, store, left_out)
        evaluation = evaluation.without(left_out)
        rows = in_order(evaluation, [row for row in numbers if row.metric in evaluation.metrics])
        document = _written(evaluation, rows, store, left_out, said, out)
    if json:
        write_json(document)
    else:
        from srd_onnx.cli.evaluation_tables import show

        show(evaluation, rows)
        folder = f"{out}".rstrip("/\\")
        stdout().print(cell(f"{CSV}, {JSON}, {PICTURE} and {STORE} are in {folder}/"), soft_wrap=True)
    _complain(rows, left_out)


def _numbers(evaluation: "Evaluation", store: "Store", left_out: dict[str, str]) -> "list[Row]":
    from srd_onnx.cli.pace import pace_of
    from srd_onnx.evaluation.numbers import numbers

    pace, rows = pace_of(evaluation), []

    def without(name: str, problem: SrdOnnxError) -> None:
        left_out[name] = str(problem)
        pace.drop(name)

    try:
        with _bar(evaluation, pace) as advance:
            for row in numbers(evaluation, store, without):
                rows.append(row)
                pace.add(row)
                advance()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"{store.count()} of {len(evaluation)} numbers are in {store.path}; the same command goes on from there"
        ) from None
    return rows


@contextlib.contextmanager
def _bar(evaluation: "Evaluation", pace: "Pace") -> Iterator[Any]:
    """A bar on the terminal, if there is one, with what the pace so far says about the rest."""
    console = stderr()
    if not console.is_terminal:
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[left]}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(evaluation), left="")
        yield lambda: bar.update(
            task, completed=pace.done, total=pace.done + pace.left.total(), left=pace.in_words()
        )


def _written(
    evaluation: "Evaluation",
    rows: "Sequence[Row]",
    store: "Store",
    left_out: Mapping[str, str],
    said: Sequence[str],
    out: Path,
) -> str:
    """Write everything; the JSON."""
    from srd_onnx.evaluation.report import to_csv, to_document, to_sheet
    from srd_onnx.files import atomic_write_all, to_json

    document = to_json(
        to_document(evaluation, rows, command=sys.argv, left_out=left_out, notes=said), indent=2
    )
    contents = {
        out / CSV: to_csv(evaluation, rows).encode("utf-8", "backslashreplace"),
        out / JSON: (document + "\n").encode("utf-8", "backslashreplace"),
    }
    if picture := to_sheet(evaluation, store, left_out):
        contents[out / PICTURE] = picture
    with uninterrupted():
        atomic_write_all(contents)
    return document


def _complain(rows: "Sequence[Row]", left_out: Mapping[str, str]) -> None:
    """Say what there is no number of, each reason once; exit with 2 if something is wrong with an image."""
    from srd_onnx.evaluation.inputs import IN_NO_GRID
    from srd_onnx.evaluation.numbers import UNDEFINED

    for name, why in left_out.items():
        note(f"{name} is left out: {why}")
    undefined = [row for row in rows if row.error == UNDEFINED]
    if undefined:
        names = ", ".join(dict.fromkeys(f"{row.metric} of {row.method}" for row in undefined))
        note(f"{len(undefined)} numbers are not defined for their maps: {names}")
    ungridded = {row.image: row.error for row in rows if row.error and row.error.startswith(IN_NO_GRID)}
    for image, reason in ungridded.items():
        note(f"{image} is {reason}")
    quiet = {UNDEFINED, *ungridded.values()}
    reasons = dict.fromkeys(row.error for row in rows if row.error and row.error not in quiet)
    for reason in reasons:
        error(reason)
    if reasons:
        raise typer.Exit(2)
