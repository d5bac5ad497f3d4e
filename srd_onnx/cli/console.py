"""What is printed: results on stdout, everything else on stderr; no text from elsewhere is taken as markup."""

import os
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from srd_onnx.text import readable, shorten, visible

if TYPE_CHECKING:
    from rich.table import Table

_PIPED_WIDTH = 120  # of a table that goes to a file or another program, unless COLUMNS says otherwise
_LONGEST = 160  # characters of a name in a table; the JSON has all of them


def stdout() -> Console:
    """For results."""
    return _console(stderr=False)


def stderr() -> Console:
    """For notes, errors and progress."""
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    console = Console(stderr=stderr, markup=False, emoji=False, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = _PIPED_WIDTH
    return console


def table_of(*columns: str) -> "Table":
    """An empty table; names in the columns named here are folded, further columns can be added."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table


def cell(text: object, style: str = "") -> Text:
    """A foreign name as one line of a table: no markup, no control characters, not endless."""
    return Text(shorten(readable(str(text)), lambda part: len(part) <= _LONGEST), style)


def lines(text: str) -> str:
    """A message as it may be printed: its lines and spaces, but no control characters."""
    return "\n".join(map(visible, text.split("\n")))


def error(message: str) -> None:
    """One message on stderr."""
    _say("error: ", message, "bold red")


def warning(message: str) -> None:
    """What may well make the result wrong."""
    _say("warning: ", message, "bold yellow")


def note(message: str) -> None:
    """What the user should know."""
    _say("", message, "")


def _say(head: str, message: str, style: str) -> None:
    stderr().print(Text.assemble((head, style), lines(message)), soft_wrap=True)


def write_json(text: str) -> None:
    """A JSON document and nothing else on stdout; see `write_text`."""
    write_text(text + "\n")


def write_text(text: str) -> None:
    """A document and nothing else on stdout, in UTF-8 whatever the terminal's encoding.

    A file name that is no valid text comes as lone surrogates; "backslashreplace" writes them as JSON does.
    """
    data = text.encode("utf-8", "backslashreplace")
    buffer: Any = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(data.decode())
    else:
        sys.stdout.flush()
        buffer.write(data)
    sys.stdout.flush()
