"""Which fonts a picture may use, and which characters they have: a missing one is never a warning."""

from functools import cache

# Beside the font that comes with matplotlib, those commonly installed for the scripts that it lacks.
_WIDE = (
    "Noto Sans CJK JP",
    "Noto Sans CJK SC",
    "Noto Sans JP",
    "Noto Sans SC",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "Unifont",
    "Hiragino Sans",
    "Arial Unicode MS",
    "Yu Gothic",
    "Microsoft YaHei",
    "Malgun Gothic",
)
_MISSING = "\N{REPLACEMENT CHARACTER}"


@cache
def families() -> list[str]:
    """Return the font families to draw with, in the order in which they are asked for a character."""
    from matplotlib import font_manager

    installed = set(font_manager.fontManager.get_font_names())
    return ["DejaVu Sans", *(family for family in _WIDE if family in installed)]


def drawable(text: str) -> str:
    """Return ``text`` with every character that no font of `families` has replaced by U+FFFD."""
    return "".join(c if ord(c) in _characters() else _MISSING for c in text)


@cache
def _characters() -> frozenset[int]:
    from matplotlib import font_manager

    found: set[int] = set()
    for family in families():
        # The bold face of a family may have fewer characters than the regular one: what both have counts.
        faces = [font_manager.FontProperties(family=[family], weight=weight) for weight in ("normal", "bold")]
        paths = [font_manager.findfont(face, fallback_to_default=False) for face in faces]
        found |= set.intersection(*(set(font_manager.get_font(path).get_charmap()) for path in paths))
    return frozenset(found)
