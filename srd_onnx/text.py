"""Text from elsewhere (labels, file names) made fit for a line, a picture and a file name."""

import os
import unicodedata
from collections.abc import Callable

_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
_FORMULA = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "＝",
    "＋",
    "－",
    "＠",
)  # what a spreadsheet may take for a formula
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")


def visible(text: str) -> str:
    """Return ``text`` with a space for each control or direction character, line ends included."""
    return "".join(" " if unicodedata.category(c) in _HIDDEN else c for c in text)


def readable(text: str) -> str:
    """Return ``text`` on one line: white space, control and direction characters become single spaces."""
    return " ".join(visible(text).split())


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Return ``text``, or its longest beginning that fits with an ellipsis after it; "" if nothing does.

    ``fits`` must hold for every shorter text too.
    """
    if not text or fits(text):
        return text
    low, high = (
        0,
        len(text),
    )  # a beginning of `low` characters fits (or is the empty last resort), `high` does not
    while high - low > 1:
        middle = (low + high) // 2
        if fits(text[:middle].rstrip() + "…"):
            low = middle
        else:
            high = middle
    return text[:low].rstrip() + "…" if low else ""


def safe_file_name(text: str, limit: int = 80) -> str:
    """Return a file name of at most ``limit`` bytes, without separators, leading dots, control characters.

    Letters and digits of every script stay; all else but ``-_+ .`` becomes an underscore; never empty.
    """
    kept = "".join(c if c.isalnum() or c in "-_+. " else "_" for c in unicodedata.normalize("NFC", text))
    name = kept.encode("utf-8", "ignore")[:limit].decode("utf-8", "ignore").strip(". ")
    if name.split(".")[0].lower() in _RESERVED:
        name = f"_{name}"
    return name or "image"


def harmless(text: str) -> str:
    """Return ``text`` for a cell of a table, with an apostrophe where a spreadsheet would run it as a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text


def printable(name: str) -> str:
    """Return a file's name as text that any file can hold: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
