"""Cases of operators that read a picture between its pixels, or put pixels back where they came from."""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from srd_onnx.graph.roles import Gate
from tests.case_types import Case, Const, Operand, Rand, Var, ints, rows

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


def _unpools() -> Iterator[Case]:
    x, shape, versions = Var("NCHW", (2, 2, 2, 3)), (2, 2, 4, 6), (11, 22)
    twos: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2]}
    # One element of each window of two by two, in row-major order.
    corner = np.arange(math.prod(shape)).reshape(shape)[:, :, ::2, ::2]
    moved = corner + np.array([0, 1, 6, 7])[np.arange(corner.size).reshape(corner.shape) * 5 % 4]
    wide = np.arange(24).reshape(2, 2, 2, 3) * 6 + 3
    yield from rows("MaxUnpool", versions, "overlapping", x, Const(wide - 3, "int64"), kernel_shape=[3, 3],
                    strides=[2, 2])  # fmt: skip
    yield from rows("MaxUnpool", versions, "twos", x, Const(moved, "int64"), **twos)
    twice = np.where(np.arange(corner.size).reshape(corner.shape) % 3 == 1, moved - moved % 2, 7)
    yield from rows("MaxUnpool", versions, "one_place", x, Const(twice, "int64"), **twos)
    yield from rows("MaxUnpool", versions, "given_size", x, Const(wide, "int64"), ints(2, 2, 5, 8), **twos)
    line = Var("NCT", (2, 2, 4))
    places = np.arange(16).reshape(2, 2, 4) * 2
    yield from rows("MaxUnpool", versions, "pads", line, Const(places, "int64"), kernel_shape=[3], strides=[2],
                    pads=[1, 0])  # fmt: skip
    yield from rows("MaxUnpool", versions, "default_stride", line, Const(places, "int64"), kernel_shape=[5])


def _images() -> Iterator[Case]:
    def col2im(
        how: str, x: tuple[int, ...], image: Const, block: Const, out: str = "NCHW", **attrs: Any
    ) -> Any:
        return rows("Col2Im", (18,), how, Var("NCL", x), image, block, out=out, **attrs)

    yield from col2im("overlapping", (2, 8, 6), ints(3, 4), ints(2, 2))
    yield from col2im("apart", (2, 12, 4), ints(4, 6), ints(2, 3), strides=[2, 3])
    yield from col2im("gaps", (1, 4, 4), ints(5, 6), ints(2, 1), strides=[3, 4])
    yield from col2im("pads", (2, 8, 9), ints(3, 4), ints(2, 2), pads=[0, 1, 1, 0], dilations=[1, 2])
    yield from col2im(
        "strides_and_pads", (1, 18, 6), ints(4, 3), ints(3, 3), pads=[1, 2, 1, 2], strides=[2, 2]
    )
    yield from col2im("volume", (1, 16, 12), ints(2, 3, 4), ints(1, 2, 4), "NCDHW", pads=[0, 0, 1, 0, 0, 1])


def _deformed() -> Iterator[Case]:
    def deform(how: str, x: Var, *inputs: Operand, **attrs: Any) -> Any:
        held = [i for i, spec in enumerate(inputs, start=1) if isinstance(spec, Var)]
        return rows("DeformConv", (19, 22), how, x, *inputs, out="NCHW", held=held, **attrs)

    x = Var("NCHW", (2, 4, 4, 3))
    padded = Var("NCHW", (2, 12, 5, 3))
    yield from deform("pads", x, Rand((2, 4, 2, 3)), padded, pads=[1, 1, 1, 1])
    yield from deform("constant_offsets", x, Rand((3, 4, 2, 2)), Rand((2, 8, 3, 2)), Rand((3,)))
    gates = Var("NCHW", (2, 4, 3, 2), gate=Gate.SATURATING)
    yield from deform("mask", x, Rand((3, 4, 2, 2)), Var("NCHW", (2, 8, 3, 2)), Rand((3,)), gates)
    yield from deform(
        "constant_mask", x, Rand((3, 4, 2, 2)), Var("NCHW", (2, 8, 3, 2)), None, Rand((2, 4, 3, 2))
    )
    two_parts = Var("NCHW", (2, 16, 2, 2)), None, Var("NCHW", (2, 8, 2, 2))
    yield from deform("groups", x, Rand((6, 2, 2, 2)), *two_parts, group=2, offset_group=2, strides=[2, 1])
    four = Var("NCHW", (2, 32, 2, 1))
    yield from deform("dilations", x, Rand((2, 4, 2, 2)), four, offset_group=4, dilations=[2, 2])
    yield from deform("beyond", x, Rand((1, 4, 1, 1)), Var("NCHW", (2, 2, 7, 3)), pads=[2, 0, 1, 0])


def _cut_out() -> Iterator[Case]:
    def regions(how: str, x: Var, rois: Operand, items: Const, **attrs: Any) -> Any:
        return rows("RoiAlign", (16, 22), how, x, rois, items, out="RCHW", **attrs)

    x = Var("NCHW", (1, 3, 5, 6))
    inside = Const([[0.5, 1.0, 4.5, 3.5], [1.25, 0.25, 3.0, 4.75], [2.0, 1.0, 3.5, 4.0]])
    beyond = Const(
        [[-3.0, 2.0, 4.0, 12.0], [4.0, 3.0, 2.0, 2.5], [2.0, 2.0, 2.5, 2.25], [9.0, 9.0, 12.0, 14.0]]
    )
    size: dict[str, Any] = {"output_height": 2, "output_width": 3}
    for mode in ("avg", "max"):
        yield from regions(f"{mode}", x, inside, ints(0, 0, 0), mode=mode, sampling_ratio=2, **size)
        for how in ("half_pixel", "output_half_pixel"):
            yield from regions(f"{mode}_{how}", x, beyond, ints(0, 0, 0, 0), mode=mode, sampling_ratio=2,
                               coordinate_transformation_mode=how, **size)  # fmt: skip
        frames = Var("TCHW", (3, 3, 4, 4))
        yield from regions(f"{mode}_of_frames", frames, inside, ints(2, 0, 2), mode=mode, sampling_ratio=1,
                           spatial_scale=0.7, **size)  # fmt: skip
    for how in ("half_pixel", "output_half_pixel"):
        yield from regions(
            f"adaptive_{how}", x, beyond, ints(0, 0, 0, 0), coordinate_transformation_mode=how, **size
        )
    yield from regions("default", x, inside, ints(0, 0, 0))


def cases() -> Iterator[Case]:
    """Every row of this family."""
    yield from _grids()
    yield from _unpools()
    yield from _images()
    yield from _deformed()
    yield from _cut_out()
