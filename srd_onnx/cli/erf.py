"""`srd-onnx erf MODEL IMAGE --layer NAME`."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from srd_onnx.cli.console import cell, stdout, table_of, write_json
from srd_onnx.cli.opening import opened
from srd_onnx.cli.options import (
    OUT,
    ContrastOption,
    JsonOption,
    ModelArgument,
    OutOption,
    SharingOptions,
    TargetOption,
    contrasts_of,
    targets_of,
)
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption
from srd_onnx.errors import OptionError

if TYPE_CHECKING:
    from srd_onnx.inside.contact import Choice, Contacts

_PFVS = "Which PFVs of the layer"


def erf(
    *,
    model: ModelArgument,
    image: Annotated[
        Path, typer.Argument(metavar="IMAGE", help="A photo.", dir_okay=False, show_default=False)
    ],
    layer: Annotated[
        str,
        typer.Option(
            "--layer",
            "-l",
            metavar="NAME",
            help="A node or tensor of the model, a wildcard ('*/Concat'), or 'encoder'. `srd-onnx layers` lists them.",
        ),
    ] = "encoder",
    position: Annotated[
        list[str] | None,
        typer.Option(
            "--position",
            metavar="Y,X",
            help="One of them. Repeatable.",
            show_default=False,
            rich_help_panel=_PFVS,
        ),
    ] = None,
    grid: Annotated[
        int | None,
        typer.Option(
            "--grid",
            metavar="N",
            min=1,
            help="N along each axis, evenly.",
            show_default=False,
            rich_help_panel=_PFVS,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option(
            "--top",
            metavar="K",
            min=1,
            help="The K that matter most to the target; 12 if nothing is said.",
            show_default=False,
            rich_help_panel=_PFVS,
        ),
    ] = None,
    target: TargetOption = None,
    contrast: ContrastOption = None,
    out: OutOption = OUT,
    engine: SharingOptions,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    json: JsonOption = False,
) -> None:
    """Show the PFVs of a layer that matter most to the target: each as its ERF on the photo, with its share.

    A PFV is the vector of all channels at one position, its ERF (effective receptive field) what of the photo it is
    made of. A contact sheet, numbers and fields for each layer.
    """
    from srd_onnx.cli.record import unique_names
    from srd_onnx.cli.summary import announce_after, as_folder
    from srd_onnx.files import to_json
    from srd_onnx.inside.contact import contacts, stem_of

    choice = chosen(position, grid, top)
    wanted = [*(targets_of(target) or ()), *contrasts_of(contrast)]
    if len(wanted) > 1:
        raise OptionError(f"fields are shown for one target, but {len(wanted)} were given")
    explainer, said = opened(
        model,
        [image],
        out,
        photo,
        **vars(engine),
        labels=labels,
        providers=provider,
    )
    (name,) = unique_names([image], out)
    rows, files = [], list[str]()
    for one in contacts(explainer, str(image), layer, choice, wanted[0] if wanted else None):
        if not files:
            said += announce_after([one.explanation], explainer.labels)
        paths = one.save(out, stem_of(name, one.layer, [Path(file).stem for file in files]))
        files += [path.name for path in paths.values()]
        rows.append(
            one.to_dict() | {"image": str(image), "files": {k: path.name for k, path in paths.items()}}
        )
        if not json:
            _show(one)
    if json:
        write_json(to_json({"command": sys.argv, "folder": out, "notes": said, "sheets": rows}, indent=2))
    else:
        stdout().print(cell(f"{len(files)} files are in {as_folder(out)}"), soft_wrap=True)


def chosen(position: Sequence[str] | None, grid: int | None, top: int | None) -> "Choice":
    """What the options choose.

    Raises: OptionError if they are several, or a position is none.
    """
    from srd_onnx.inside.contact import Choice

    given = [name for name, one in (("--position", position), ("--grid", grid), ("--top", top)) if one]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)}: give one of them")
    places = []
    for text in position or ():
        if not re.fullmatch(r"\s*\d{1,9}\s*(,\s*\d{1,9}\s*)*", text):
            raise OptionError(f"--position '{text}': give whole numbers, row and column, as 3,4")
        places.append(tuple(int(part) for part in text.split(",")))
    return Choice(tuple(places), grid, top or Choice.top)


def _show(found: "Contacts") -> None:
    from srd_onnx.inside.contact import WITHIN

    explanation, console = found.explanation, stdout()
    console.print(cell(f"{found.layer}: {explanation.title}, logit {explanation.score:.4f}", "bold"))
    table = table_of()
    for name in ("", "position", "relevance", "of the decision", f"{WITHIN:.0%} of |ERF| in"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(found.to_dict()["pfvs"], start=1):
        table.add_row(
            str(number),
            ",".join(map(str, row["position"])),
            f"{row['relevance']:.4g}",
            f"{row['share']:.1%}",
            "x".join(map(str, row["extent"])),
        )
    console.print(table)
