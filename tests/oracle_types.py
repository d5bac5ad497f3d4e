"""The types of the oracles: what an operator does under a fixed activation pattern."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Attrs = Mapping[str, Any]
Replay = Callable[[Sequence[Any]], list[Array]]
Freeze = Callable[[Attrs, Sequence[Any], frozenset[int]], Replay]


@dataclass(frozen=True)
class Oracle:
    """`freeze` gives the replay: the affine map from operands to outputs that their activation pattern fixes.

    Operands that are held fixed (constants, gates) are ignored by the replay. `structure` gives a replay with
    positive weights, whose nonzero responses say which input positions feed which output positions.
    """

    freeze: Freeze
    structure: Freeze


def as_stored(number: float) -> float:
    """A float attribute as ONNX stores it: single precision."""
    return float(np.float32(number))


def weighed(number: Array, weight: Array) -> Array:
    """Their product, and 0 where the weight is 0, even if the number is infinite: a score under a mask."""
    return np.asarray(np.where(weight == 0, 0.0, number) * weight)


def here(*index: Any) -> Any:
    """An index from parts; numpy's types know no tuple with an ellipsis and unpacked integers."""
    return index
