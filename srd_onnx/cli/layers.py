"""`srd-onnx layers MODEL`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from srd_onnx.cli.console import cell, note, stdout, write_json
from srd_onnx.cli.options import (
    DEFAULT,
    BoundaryOption,
    JsonOption,
    LayoutOption,
    ModelArgument,
    PresetOption,
    explainer_for,
    layout_of,
)

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer
    from srd_onnx.layers import Layer


def layers(
    *,
    model: ModelArgument,
    every: Annotated[
        bool,
        typer.Option("--all", help="Also layers that act on each position alone or only move relevance."),
    ] = False,
    preset: PresetOption = DEFAULT,
    boundary: BoundaryOption = None,
    layout: LayoutOption = None,
    json: JsonOption = False,
) -> None:
    """List the layers of MODEL: names for `srd-onnx erf --layer`, shape, stride, theoretical receptive field."""
    explainer = explainer_for(
        model, preset=preset, boundary=boundary, layout=layout_of(layout), providers="cpu"
    )
    show_layers(explainer, every=every, json=json)


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
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("layer", "tensor"):
        table.add_column(name, overflow="fold")
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


def _sizes(sizes: Sequence[Any] | None) -> str:
    return "-" if sizes is None else "x".join(f"{size:g}" for size in sizes)
