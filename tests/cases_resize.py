"""Cases of Resize: every mode, coordinate transformation and way of saying the size."""

from collections.abc import Iterator
from typing import Any

from tests.case_types import Case, Const, Operand, Var, ints, rows

SMALL = Var("NCHW", (2, 2, 3, 4))
LARGE = Var("NCHW", (1, 2, 5, 7))
COORDINATES = ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "half_pixel_symmetric")


def floats(*data: float) -> Const:
    return Const(data, "float32")


def cases() -> Iterator[Case]:
    """Every row of this family."""

    def resize(
        how: str, x: Var, *operands: Operand, versions: tuple[int, ...] = (18, 19), **attrs: Any
    ) -> Any:
        return rows("Resize", versions, how, x, *operands, **attrs)

    doubled, odd = floats(1, 1, 2, 2), ints(1, 2, 4, 3)
    yield from resize("default", SMALL, None, doubled)
    yield from resize("nearest_floor_asymmetric", SMALL, None, doubled, mode="nearest", nearest_mode="floor",
                      coordinate_transformation_mode="asymmetric")  # fmt: skip
    for mode in ("nearest", "linear", "cubic"):
        for how in COORDINATES:
            versions = (19,) if how == "half_pixel_symmetric" else (18, 19)
            attrs = {"mode": mode, "coordinate_transformation_mode": how}
            yield from resize(f"{mode}_{how}_doubled", SMALL, None, doubled, versions=versions, **attrs)
            yield from resize(f"{mode}_{how}_down", LARGE, None, None, odd, versions=versions, **attrs)
    for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
        yield from resize(f"nearest_{nearest}", LARGE, None, None, ints(1, 2, 8, 5), nearest_mode=nearest)
        yield from resize(f"nearest_{nearest}_uneven", SMALL, None, floats(1, 1, 2.5, 0.5), nearest_mode=nearest,
                          coordinate_transformation_mode="asymmetric")  # fmt: skip
    yield from resize("cubic_a", SMALL, None, doubled, mode="cubic", cubic_coeff_a=-0.5)
    yield from resize("cubic_exclude_outside", SMALL, None, doubled, mode="cubic", exclude_outside=1)
    yield from resize("linear_one_axis", SMALL, None, floats(1, 1, 1, 3), mode="linear")
    yield from resize("linear_to_one", LARGE, None, None, ints(1, 2, 1, 1), mode="linear",
                      coordinate_transformation_mode="pytorch_half_pixel")  # fmt: skip
    yield from resize("nearest_1d", Var("NCT", (2, 3, 4)), None, floats(1, 1, 3))
    yield from resize(
        "linear_3d", Var("NCDHW", (1, 2, 2, 3, 2)), None, floats(1, 1, 2, 1.5, 2), mode="linear"
    )
    yield from resize("nearest_last", Var("NHWC", (2, 2, 3, 2)), None, floats(1, 2, 2, 1))
    yield from resize("axes", SMALL, None, floats(2, 1.5), axes=[3, 2], mode="linear")
    yield from resize("negative_axes", SMALL, None, None, ints(7, 2), axes=[-2, -1])
    for policy in ("not_larger", "not_smaller"):
        yield from resize(policy, SMALL, None, None, ints(7, 6), axes=[2, 3], keep_aspect_ratio_policy=policy)
    yield from resize("fractional_scale", SMALL, None, floats(1, 1, 1.5, 0.8), mode="linear")
    yield from resize("symmetric_fractional", LARGE, None, floats(1, 1, 0.7, 0.9), mode="linear", versions=(19,),
                      coordinate_transformation_mode="half_pixel_symmetric")  # fmt: skip
    region = floats(0, 0, 0.1, -0.4, 1, 1, 0.7, 1.3)
    for mode in ("nearest", "linear"):
        yield from resize(f"crop_{mode}", LARGE, region, None, ints(1, 2, 4, 6), mode=mode, extrapolation_value=2.5,
                          coordinate_transformation_mode="tf_crop_and_resize")  # fmt: skip
    for mode in ("linear", "cubic"):
        yield from resize(f"antialias_{mode}", LARGE, None, floats(1, 1, 0.6, 0.5), mode=mode, antialias=1)
        yield from resize(f"antialias_{mode}_up", SMALL, None, doubled, mode=mode, antialias=1)
    yield from resize("antialias_exclude_outside", LARGE, None, floats(1, 1, 0.6, 0.5), mode="cubic", antialias=1,
                      exclude_outside=1)  # fmt: skip
    yield from resize("nothing", SMALL, None, floats(1, 1, 1, 1))
