"""`srd-onnx cache`."""

import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from srd_onnx.cli.console import cell, note, stdout, table_of, write_json
from srd_onnx.cli.options import JsonOption

if TYPE_CHECKING:
    from srd_onnx.cache.store import Entry


class Action(StrEnum):
    """What is done."""

    LIST = "list"
    CLEAR = "clear"


def cache(
    action: Annotated[Action, typer.Argument(help="Show what is there, or remove all of it.")] = Action.LIST,
    *,
    json: JsonOption = False,
) -> None:
    """Compiled models on the disk: where they are, which, and how large; or remove them.

    The variable SRD_ONNX_CACHE names another folder for them, or is "off".
    """
    from srd_onnx.cache import place

    store = place.store()
    if store is None:
        note(f"nothing is kept: {place.VARIABLE}={place.OFF}")
    entries = [] if store is None else store.entries()
    if action is Action.CLEAR and store is not None:
        store.clear()
    where = None if store is None else store.root
    total = sum(entry.size for entry in entries)
    if json:
        from srd_onnx.files import to_json

        rows = [_plain(entry) for entry in entries]
        found = {"folder": where, "limit": store and store.limit, "bytes": total, "entries": rows}
        write_json(to_json(found | {"cleared": action is Action.CLEAR}, indent=2))
        return
    if action is Action.LIST and entries:
        _show(entries)
    what = "removed" if action is Action.CLEAR else "kept"
    count = f"{len(entries)} compiled model{'s' * (len(entries) != 1)}"
    stdout().print(Text(f"{count}, {total / 1e6:.1f} MB, {what}; in ") + cell(where or "-"), soft_wrap=True)


def _show(entries: "list[Entry]") -> None:
    table = table_of("model", "preset", "input")
    table.add_column("MB", justify="right")
    table.add_column("last used")
    for entry in entries:
        about = entry.facts["about"]
        shapes = ", ".join(f"{name} {'x'.join(map(str, s))}" for name, s in about["shapes"].items())
        size, used = f"{entry.size / 1e6:.1f}", time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
        table.add_row(cell(about["model"] or "(no file)"), cell(about["preset"]), cell(shapes), size, used)
    stdout().print(table)


def _plain(entry: "Entry") -> dict[str, Any]:
    used = datetime.fromtimestamp(entry.used, UTC).isoformat(timespec="seconds")
    return {"key": entry.key, "bytes": entry.size, "used": used, **entry.facts["about"]}
