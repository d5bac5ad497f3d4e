"""Words of a report: text from elsewhere, with nothing hidden in it, and where in a picture something lies."""

import unicodedata

import numpy as np

from srd_onnx.graph.ir import Array

_CONTROL_PICTURES = 0x2400  # the characters that show those below U+0020
_KEPT = "\t\n"


def honest(text: str) -> str:
    """``text`` with every character that hides or turns others written out: U+0000 as ␀, U+202E as ⟨U+202E⟩.

    What is left can be read as it stands, in its own order; white space stays, of line ends the line feed.
    """
    return "".join(_shown(c) for c in text.replace("\r\n", "\n"))


def _shown(character: str) -> str:
    if character in _KEPT:
        return character
    number = ord(character)
    if number < 0x20:
        return chr(_CONTROL_PICTURES + number)
    # A joiner belongs to the spelling of some scripts and to emoji; all else that is not seen is written out.
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") and number != 0x200D:
        return f"⟨U+{number:04X}⟩"
    return character


_ROWS, _COLUMNS = ("top", "middle", "bottom"), ("left", "centre", "right")


def whereabouts(relevance: Array) -> str:
    """Where in a map [H, W] what speaks for the target lies, in words, by the nine fields of a 3 × 3 grid."""
    positive = np.maximum(np.asarray(relevance, np.float64), 0)
    total = float(positive.sum())
    if not total > 0 or not np.isfinite(total):
        return "nothing in it speaks for the target"
    if relevance.shape[0] < 3:
        shares = [part.sum() / total for part in np.array_split(positive, 3, axis=1)]
        best = int(np.argmax(shares))
        return f"{shares[best]:.0%} of what speaks for the target lies in the {('first', 'middle', 'last')[best]} third"
    cells = [
        (part.sum() / total, _field(row, column))
        for row, band in enumerate(np.array_split(positive, 3, axis=0))
        for column, part in enumerate(np.array_split(band, 3, axis=1))
    ]
    first, second = sorted(cells, key=lambda cell: -cell[0])[:2]
    return (
        f"of what speaks for the target, {first[0]:.0%} lies in the {first[1]} ninth of the picture "
        f"and {second[0]:.0%} in the {second[1]} ninth"
    )


def _field(row: int, column: int) -> str:
    return "central" if (row, column) == (1, 1) else f"{_ROWS[row]} {_COLUMNS[column]}"
