"""`srd-onnx models`."""

from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from srd_onnx.cli.console import cell, stdout, write_json
from srd_onnx.cli.options import JsonOption

if TYPE_CHECKING:
    from srd_onnx.zoo import ZooModel


def models(*, json: JsonOption = False) -> None:
    """List the models that ship with srd-onnx; their names stand for their files in every command."""
    from srd_onnx.files import to_json
    from srd_onnx.zoo import sample_photo, zoo

    rows = list(zoo().values())
    if json:
        write_json(to_json([_plain(row) for row in rows], indent=2))
        return
    console = stdout()
    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False, show_lines=True)
    for name in ("name", "input", "licence", "source", "file"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(cell, (row.name, _input(row), row.licence, row.source, row.path)))
    console.print(table)
    console.print(cell(f"a photo to try them on: {sample_photo()}"), soft_wrap=True)


def _plain(row: "ZooModel") -> dict[str, Any]:
    return {
        "name": row.name,
        "path": row.path,
        "note": row.note,
        "source": row.source,
        "licence": row.licence,
        "sha256": row.sha256,
        "layout": row.layout,
        "preprocess": row.preprocess.to_dict(),
        "labels": row.labels_path,
    }


def _input(row: "ZooModel") -> str:
    crop, order = row.preprocess.crop, row.preprocess.channel_order
    return f"{row.layout} {order}" + (f" {crop[0]}x{crop[1]}" if crop else "")
