"""Products of computed tensors under a fixed pattern: what is held is a constant, k equals have 1/k each. Loops."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.oracle_types import Array, Attrs, Freeze, Oracle, Replay, as_stored

Product = Callable[[Attrs, list[Array]], Array]


def frozen_product(product: Product, factors: int | None = None) -> Freeze:
    """Each factor that varies in turn moves while the others keep their values; the mean of these."""

    def freeze(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        count = len(operands) if factors is None else factors
        moving = [i for i in range(count) if i not in held]

        def replay(z: Sequence[Any]) -> list[Array]:
            fixed = list(operands[:count])
            parts = [product(attrs, [*fixed[:i], z[i], *fixed[i + 1 :]]) for i in moving]
            if not parts:
                return [product(attrs, fixed)]
            return [np.asarray(sum(parts) / len(parts))]

        return replay

    return freeze


def _matmul(_attrs: Attrs, operands: list[Array]) -> Array:
    a, b = operands
    left, right = (a[None] if a.ndim == 1 else a), (b[:, None] if b.ndim == 1 else b)
    lead = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    left = np.broadcast_to(left, (*lead, *left.shape[-2:]))
    right = np.broadcast_to(right, (*lead, *right.shape[-2:]))
    y = np.zeros((*lead, left.shape[-2], right.shape[-1]))
    for at in np.ndindex(y.shape):
        *front, m, n = at
        y[at] = sum(left[(*front, m, k)] * right[(*front, k, n)] for k in range(left.shape[-1]))
    if b.ndim == 1:
        y = y[..., 0]
    return y[..., 0, :] if a.ndim == 1 and b.ndim > 1 else y[..., 0] if a.ndim == 1 else y


def _gemm_product(attrs: Attrs, operands: list[Array]) -> Array:
    a, b = operands
    a, b = (a.T if attrs.get("transA") else a), (b.T if attrs.get("transB") else b)
    return as_stored(attrs.get("alpha", 1.0)) * _matmul({}, [a, b])


def gemm(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
    product = frozen_product(_gemm_product, 2)(attrs, operands, held)
    beta = as_stored(attrs.get("beta", 1.0))

    def replay(z: Sequence[Any]) -> list[Array]:
        (y,) = product(z)
        if len(operands) > 2 and operands[2] is not None:
            y = y + beta * (operands[2] if 2 in held else z[2])
        return [y]

    return replay


def _spelled(equation: str, operands: list[Array]) -> tuple[list[str], str]:
    """Terms and result without ellipsis: hidden axes are capital letters, counted from the right."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms, most = [], 0
    for term, x in zip(left.split(","), operands, strict=True):
        if "..." in term:
            hidden = x.ndim - len(term) + 3
            most = max(most, hidden)
            term = term.replace("...", "".join(chr(ord("Z") - k) for k in range(hidden - 1, -1, -1)))
        terms.append(term)
    names = "".join(chr(ord("Z") - k) for k in range(most - 1, -1, -1))
    if not arrow:
        letters = left.replace(",", "").replace("...", "")
        right = names + "".join(sorted(c for c in set(letters) if letters.count(c) == 1))
    return terms, right.replace("...", names)


def _einsum(attrs: Attrs, operands: list[Array]) -> Array:
    terms, out = _spelled(attrs["equation"], operands)
    sizes: dict[str, int] = {}
    for term, x in zip(terms, operands, strict=True):
        for label, size in zip(term, x.shape, strict=True):
            sizes[label] = max(size, sizes.get(label, 1))
    labels = list(sizes)
    y = np.zeros([sizes[label] for label in out])
    for index in itertools.product(*(range(sizes[label]) for label in labels)):
        at = dict(zip(labels, index, strict=True))
        values = []
        for term, x in zip(terms, operands, strict=True):
            place = [at[label] if size > 1 else 0 for label, size in zip(term, x.shape, strict=True)]
            values.append(x[tuple(place)])
        y[tuple(at[label] for label in out)] += math.prod(values)
    return y


def _positive(freeze: Freeze) -> Freeze:
    """The same with positive numbers everywhere, so that no response cancels."""

    def structure(attrs: Attrs, operands: Sequence[Any], held: frozenset[int]) -> Replay:
        ones = [np.ones_like(o) if o is not None else o for o in operands]
        return freeze(dict(attrs) | {k: 1.0 for k in ("alpha", "beta") if k in attrs}, ones, held)

    return structure


def _oracle(freeze: Freeze) -> Oracle:
    return Oracle(freeze, _positive(freeze))


CONTRACTIONS: dict[str, Oracle] = {
    "MatMul": _oracle(frozen_product(_matmul)),
    "Gemm": _oracle(gemm),
    "Einsum": _oracle(frozen_product(_einsum)),
}
