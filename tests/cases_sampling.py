"""Cases of operators that read a picture between its pixels, or put pixels back where they came from."""

import itertools
from collections.abc import Iterator
from typing import Any

from tests.case_types import Case, Operand, Rand, Var, rows

PICTURE = Var("NCHW", (2, 3, 3, 4))
VOLUME = Var("NCDHW", (1, 3, 2, 3, 2))
GRID = Var("NHWC", (2, 2, 3, 2))
MODES = ("linear", "cubic", "nearest")
OLD_NAMES = {"linear": "bilinear", "cubic": "bicubic"}


def _grid(how: str, x: Var, grid: Operand, mode: str, padding: str, aligned: int = 0) -> Iterator[Case]:
    held = [1] if isinstance(grid, Var) else []
    attrs: dict[str, Any] = {"padding_mode": padding, "align_corners": aligned}
    if x.shape[2:] == PICTURE.shape[2:]:
        yield from rows("GridSample", (16,), how, x, grid, held=held, mode=OLD_NAMES.get(mode, mode), **attrs)
    yield from rows("GridSample", (20, 22), how, x, grid, held=held, mode=mode, **attrs)


def _grids() -> Iterator[Case]:
    for mode, padding, aligned in itertools.product(MODES, ("border", "reflection", "zeros"), (0, 1)):
        how = f"{mode}_{padding}_{aligned}"
        yield from _grid(how, PICTURE, GRID, mode, padding, aligned)
        if mode != "cubic":
            yield from _grid(f"volume_{how}", VOLUME, Var("NDHWC", (1, 1, 2, 2, 3)), mode, padding, aligned)
    flat, places = Var("NCHW", (1, 2, 1, 3)), Var("NHWC", (1, 3, 2, 2))
    for mode in MODES:
        yield from _grid(f"{mode}_constant", PICTURE, Rand((2, 2, 3, 2)), mode, "border")
        yield from _grid(f"{mode}_one_row", flat, places, mode, "reflection", aligned=1)
    yield from rows("GridSample", (16, 20, 22), "default", PICTURE, GRID, held=[1])


def cases() -> Iterator[Case]:
    """Every row of this family."""
    yield from _grids()
