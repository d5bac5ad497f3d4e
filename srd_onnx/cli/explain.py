"""`srd-onnx explain MODEL IMAGE...`."""

import contextlib
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srd_onnx.cli.console import error, note, write_json
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import (
    OUT,
    ContrastOption,
    ImagesArgument,
    JsonOption,
    MapOptions,
    MaxMemoryOption,
    MethodOption,
    ModelArgument,
    OutOption,
    TargetOption,
    contrasts_of,
    size_of,
    targets_of,
)
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption, expanded, progress
from srd_onnx.errors import SrdOnnxError
from srd_onnx.threads import usable

if TYPE_CHECKING:
    from srd_onnx.cli.record import Record
    from srd_onnx.explainer import Explainer
    from srd_onnx.report.single import Collected
    from srd_onnx.targets import Target


def explain(
    *,
    model: ModelArgument,
    images: ImagesArgument,
    target: TargetOption = None,
    contrast: ContrastOption = None,
    out: OutOption = OUT,
    method: MethodOption = None,
    engine: MapOptions,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    max_memory: MaxMemoryOption = None,
    json: JsonOption = False,
    open_page: Annotated[
        bool, typer.Option("--open", help="Show all of it as a page, report.html, in the browser.")
    ] = False,
) -> None:
    """Explain what MODEL sees in each IMAGE: a picture, the numbers, and explanations.json.

    Exit code 2 if an image could not be explained; the others are, and the JSON lists both.
    """
    from srd_onnx.cli.record import Record
    from srd_onnx.report.single import Collected

    images = expanded(images)
    wanted = [*(targets_of(target) or ()), *contrasts_of(contrast)] or None
    explainer, said = opened(
        model,
        images,
        out,
        photo,
        method=method,
        **vars(engine),
        labels=labels,
        providers=provider,
        max_memory=size_of(max_memory),
    )
    record = Record(out, sys.argv)
    for text in said:
        record.note(text, announced=True)
    shown = Collected(explainer) if open_page else None
    _explain_all(explainer, images, wanted, record, shown)
    if shown is not None and shown.explained:
        _open(shown, record)
    _report(record, len(images), json=json)


def _open(shown: "Collected", record: "Record") -> None:
    """Write the page of what was explained, and open it."""
    import webbrowser

    from srd_onnx.report.html import write_html

    path = record.folder / "report.html"
    write_html(shown.report(record.command, record.notes), path)
    if not webbrowser.open(path.resolve().as_uri()):
        note(f"no browser opens here; the page is {path}")


def _explain_all(
    explainer: "Explainer",
    images: Sequence[Path],
    targets: "Sequence[Target] | None",
    record: "Record",
    shown: "Collected | None",
) -> None:
    from srd_onnx.cli.record import FILE, unique_names
    from srd_onnx.cli.summary import notes_after
    from srd_onnx.inputs.stream import Failure
    from srd_onnx.lanes import AT_ONCE

    names = unique_names(images, record.folder)
    at, at_once = 0, max(1, min(len(images), usable(), AT_ONCE))
    try:
        with (
            progress("explaining", len(images)) as advance,
            closing(explainer.explain_numbered(images, targets, batch_size=at_once)) as found,
        ):
            for index, one in found:
                for _ in range(at, index):
                    advance()
                at = index
                if isinstance(one, Failure):
                    record.fail(images[index], one.error)
                    if shown is not None:
                        shown.failed.append((images[index], str(one.error)))
                    continue
                record.save(one, images[index], names[index])
                if shown is not None:
                    shown.add(images[index], names[index], one)
                for text in notes_after(one, explainer.labels):
                    record.note(text)
    except KeyboardInterrupt:
        if not record.entries:
            raise
        record.write(complete=False)
        where = record.folder / FILE
        raise KeyboardInterrupt(f"{len(record.entries)} explanations are done, see {where}") from None
    except SrdOnnxError as problem:
        # What was written must not lie beside the list of an earlier run.
        if record.entries:
            record.fail(images[at], problem)
            with contextlib.suppress(SrdOnnxError):
                record.write(complete=False)
        raise


def _report(record: "Record", count: int, *, json: bool) -> None:
    if record.entries:
        text = record.write()
        if json:
            write_json(text)
        else:
            from srd_onnx.cli.summary import show

            show(record)
    for said in record.notes:
        if said not in record.announced:
            note(said)
    for failed in record.errors:
        error(failed["message"])
    if record.errors:
        if count > 1:
            note(f"{len(record.errors)} of {count} images could not be explained")
        raise typer.Exit(2)
