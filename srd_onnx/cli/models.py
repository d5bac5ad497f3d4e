"""`srd-onnx models`."""

from typing import TYPE_CHECKING, Any

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
        write_json(to_json({"models": [_plain(row) for row in rows], "photo": sample_photo()}, indent=2))
        return
    console = stdout()
    for row in rows:
        table = Table.grid(padding=(0, 2))
        table.add_column(style="dim")
        table.add_column(overflow="fold")
        facts = {"input": _input(row), "about": row.note, "licence": row.licence, "source": row.source}
        for name, value in (facts | {"file": row.path}).items():
            table.add_row(f"  {name}", cell(value))
        console.print(cell(row.name, "bold"))
        console.print(table)
        console.print()
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
