"""Cases of ConvTranspose, the power-mean pools and TopK."""

from collections.abc import Iterator
from typing import Any

from tests.case_types import IMAGE, TOKENS, Case, Rand, Var, ints, rows


def _transposed_convolutions() -> Iterator[Case]:
    image = Var("NCHW", (2, 4, 3, 2))

    def up(how: str, x: Var, weights: tuple[int, ...], *, bias: bool = False, **attrs: Any) -> Iterator[Case]:
        added = (Rand((weights[1] * attrs.get("group", 1),)),) if bias else ()
        yield from rows("ConvTranspose", (11, 22), how, x, Rand(weights), *added, **attrs)

    yield from up("plain", image, (4, 3, 3, 3))
    yield from up("bias", image, (4, 3, 2, 3), bias=True)
    yield from up("u_net", image, (4, 3, 2, 2), bias=True, strides=[2, 2])
    yield from up("pads", image, (4, 3, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1])
    yield from up("asymmetric_pads", image, (4, 3, 3, 3), strides=[1, 2], pads=[2, 0, 0, 1], bias=True)
    yield from up(
        "output_padding", image, (4, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    )
    yield from up("output_padding_beyond", image, (4, 3, 2, 2), strides=[3, 3], output_padding=[2, 1])
    yield from up("stride_past_kernel", image, (4, 3, 2, 1), strides=[3, 2], bias=True)
    yield from up("groups", image, (4, 3, 3, 2), group=2, strides=[2, 1], bias=True)
    yield from up("depthwise", image, (4, 1, 4, 4), group=4, strides=[2, 2], pads=[1, 1, 1, 1])
    yield from up("dilations", image, (4, 2, 2, 3), dilations=[2, 2], strides=[1, 2], pads=[1, 0, 0, 1])
    yield from up("pointwise", image, (4, 3, 1, 1))
    yield from up("output_shape", image, (4, 3, 3, 3), strides=[2, 2], output_shape=[6, 4])
    yield from up("output_shape_upper", image, (4, 3, 3, 2), strides=[2, 2], output_shape=[6, 3],
                  auto_pad="SAME_UPPER")  # fmt: skip
    yield from up("output_shape_beyond", image, (4, 3, 2, 3), strides=[3, 2], output_shape=[9, 6], bias=True)
    yield from up("output_shape_far_beyond", image, (4, 3, 1, 3), strides=[3, 2], output_shape=[9, 5],
                  auto_pad="SAME_UPPER")  # fmt: skip
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"):
        yield from up(mode.lower(), image, (4, 2, 3, 3), auto_pad=mode, strides=[2, 2])
    yield from up("1d", Var("NCT", (2, 3, 4)), (3, 2, 4), strides=[2], pads=[1, 1], bias=True)
    yield from up(
        "3d", Var("NCDHW", (1, 2, 2, 2, 1)), (2, 2, 2, 3, 2), strides=[2, 1, 2], pads=[0, 1, 0, 0, 1, 1]
    )


def _power_means() -> Iterator[Case]:
    image = Var("NCHW", (2, 2, 5, 4))
    for p in (1, 2, 3):
        yield from rows("LpPool", (18, 22), f"p{p}", image, kernel_shape=[2, 2], strides=[2, 2], p=p)
        yield from rows("GlobalLpPool", (2,), f"p{p}", IMAGE, p=p)
    yield from rows("LpPool", (18, 22), "default", image, kernel_shape=[3, 2], pads=[1, 0, 1, 1])
    yield from rows("LpPool", (18, 22), "ceil", image, kernel_shape=[2, 3], strides=[2, 2], ceil_mode=1)
    yield from rows("LpPool", (18, 22), "dilations", image, kernel_shape=[2, 2], dilations=[2, 3])
    yield from rows("LpPool", (18, 22), "same_upper", image, kernel_shape=[3, 2], strides=[2, 1],
                    auto_pad="SAME_UPPER")  # fmt: skip
    yield from rows(
        "LpPool", (18, 22), "1d", Var("NCT", (2, 3, 7)), kernel_shape=[3], strides=[2], pads=[1, 0]
    )
    yield from rows("GlobalLpPool", (2,), "default_1d", Var("NCT", (2, 3, 5)))


def _top() -> Iterator[Case]:
    yield from rows("TopK", (11, 24), "default_channels", TOKENS, ints(2), masks=1)
    yield from rows("TopK", (11, 24), "tokens", TOKENS, ints(3), axis=1, masks=1)
    yield from rows("TopK", (11, 24), "smallest", IMAGE, ints(2), axis=-2, largest=0, masks=1)
    yield from rows("TopK", (11, 24), "unsorted_all", TOKENS, ints(4), axis=1, sorted=1, masks=1)


def cases() -> Iterator[Case]:
    """Every row of this family."""
    yield from _transposed_convolutions()
    yield from _power_means()
    yield from _top()
