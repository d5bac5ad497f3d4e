"""`srd-onnx layers MODEL [IMAGE --relevance]`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from srd_onnx.cli.console import cell, note, stdout, table_of, write_json
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
    explainer_for,
    layout_of,
    targets_of,
)
from srd_onnx.cli.photos import LabelsOption, PhotoOptions, ProviderOption
from srd_onnx.errors import OptionError

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.inside.decision import Decision
    from srd_onnx.inside.layers import Layer


def layers(
    *,
    model: ModelArgument,
    image: Annotated[
        Path | None,
        typer.Argument(metavar="IMAGE", help="A photo, for --relevance.", dir_okay=False, show_default=False),
    ] = None,
    relevance: Annotated[
        bool,
        typer.Option("--relevance", help="Explain IMAGE layer by layer: what each carries of the decision."),
    ] = False,
    target: TargetOption = None,
    contrast: ContrastOption = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also layers that act on each position alone or only move relevance."),
    ] = False,
    out: OutOption = OUT,
    engine: SharingOptions,
    photo: PhotoOptions,
    labels: LabelsOption = None,
    provider: ProviderOption = "auto",
    json: JsonOption = False,
) -> None:
    """List the layers of MODEL: names for `srd-onnx erf --layer`, shape, stride, theoretical receptive field.

    With IMAGE and --relevance: where relevance lies in every layer from the input to the encoder, how much of it
    active and inactive neurons carry, and what is booked; as a picture, numbers and maps.
    """
    from srd_onnx.cli.record import unique_names
    from srd_onnx.cli.summary import announce_after, as_folder
    from srd_onnx.files import to_json

    if image is None or not relevance:
        if image is not None or relevance or target or contrast:
            raise OptionError(
                "--relevance explains an IMAGE layer by layer: give both, or neither and no target"
            )
        about = {"preset": engine.preset, "boundary": engine.boundary, "layout": layout_of(photo.layout)}
        show_layers(explainer_for(model, providers="cpu", **about), every=every, json=json)
        return
    explainer, said = opened(model, [image], out, photo, labels=labels, providers=provider, **vars(engine))
    wanted = [*(targets_of(target) or ()), *contrasts_of(contrast)] or None
    found = explainer.inside(str(image), wanted)
    (name,) = unique_names([image], out)
    files = [one.save(out, name + one.explanation.name.removeprefix(image.stem)) for one in found]
    said += announce_after([one.explanation for one in found], explainer.labels)
    if json:
        rows = [
            {"image": str(image), **one.to_dict(), "files": {kind: path.name for kind, path in paths.items()}}
            for one, paths in zip(found, files, strict=True)
        ]
        write_json(to_json({"command": sys.argv, "folder": out, "notes": said, "decisions": rows}, indent=2))
        return
    for one in found:
        show_decision(one, every=every)
    stdout().print(cell(f"{sum(map(len, files))} files are in {as_folder(out)}"), soft_wrap=True)


def show_layers(explainer: "Explainer", *, every: bool, json: bool) -> None:
    """Print the layers that mix positions or operands and the boundary, or every layer."""
    from srd_onnx.files import to_json

    encoder = explainer.plan.boundary
    found = explainer.layers()
    shown = [layer for layer in found if every or layer.mixes or layer.tensor in encoder]
    if json:
        rows = [asdict(layer) | {"encoder": layer.tensor in encoder} for layer in shown]
        about = {"input_shape": explainer.input_shape, "layout": explainer.layout}
        write_json(to_json(about | {"layers": rows}, indent=2))
        return
    console = stdout()
    console.print(_table(shown, encoder))
    size = _sizes(explainer.input_shape)
    console.print(cell(f"{len(shown)} of {len(found)} layers, for an input of {size} ({explainer.layout})"))
    if explainer.layout_guessed:
        note(f"layout {explainer.layout} is guessed; --layout says another")


def _table(shown: "Sequence[Layer]", encoder: Sequence[str]) -> Table:
    table = table_of("layer", "tensor")
    table.add_column("operator", no_wrap=True)
    for name in ("positions", "channels", "stride", "receptive field"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for layer in shown:
        remarks = ["mixes"] if layer.mixes else []
        table.add_row(
            cell(layer.name),
            cell(layer.tensor if layer.tensor != layer.name else ""),
            cell(layer.op),
            _sizes(layer.positions),
            str(layer.channels),
            _sizes(layer.stride),
            _sizes(layer.field),
            ", ".join([*remarks, *(["encoder"] if layer.tensor in encoder else [])]),
        )
    return table


def show_decision(decision: "Decision", *, every: bool) -> None:
    """Print what each layer carries, from the input to the boundary, and what is booked above that."""
    explanation, console = decision.explanation, stdout()
    console.print(cell(f"{explanation.name}: {explanation.title}, logit {explanation.score:.4f}", "bold"))
    table = table_of("layer")
    table.add_column("operator", no_wrap=True)
    for name in ("positions", "stride", "Σ relevance", "active", "inactive", "bias", "ledger"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    shown = decision.layers if every else decision.shown
    for one in shown:
        table.add_row(
            cell(one.name),
            cell(one.op),
            _sizes(decision.relevance[one.name].shape),
            _sizes(one.stride),
            f"{one.relevance:.4f}",
            *("-" if part is None else f"{part:.1%}" for part in (one.active, one.inactive, one.bias)),
            f"{one.booked:.4f}" if one.booked else "-",
            "boundary" if one.name in decision.boundary else "",
        )
    console.print(table)
    above = {name: amount for name, amount in decision.ledger.items() if name not in decision.relevance}
    for name, amount in above.items():
        console.print(cell(f"booked besides: {amount:.4f} at {name}"), soft_wrap=True)


def _sizes(sizes: Sequence[Any] | None) -> str:
    return "-" if sizes is None else "x".join(f"{size:g}" for size in sizes)
