"""Warnings that protect the user: what an explanation itself shows to be wrong with it."""

from collections.abc import Iterator, Mapping
from typing import Any

RESIDUAL = 1e-3  # of the explained number: so much rounding may cost (issue 2); more is an error
_ROUNDINGS = 4  # of a score; more is an error whatever the precision
LIKENESS = (
    0.95  # Pearson's: nine tenths of what varies at the boundary (r² = 0.90) are the same for both classes
)


def warnings_of(
    seed: float,
    total: float,
    booked: float,
    *,
    complete: bool = True,
    rounding: float = 0.0,
    rival: Mapping[str, Any] | None = None,
    deployed: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """What the numbers of one explanation warn of.

    Args:
        seed: the explained number.
        total: the sum of the maps.
        booked: the sum of the ledger.
        complete: map and ledger are to add up to the seed, as the method has it.
        rounding: what the model's precision rounds off numbers as large as its scores.
        rival: the strongest other class: its index and label, and the likeness, the correlation of what enters at the
            boundary for it with what enters for the target (None if that is not defined). None for no such class.
        deployed: the class that the deployed model predicts, its index and label, where that is not the one that the
            explained numbers predict; else None.
    """
    if deployed is not None:
        yield (
            f"the prediction hangs on rounding: run alone, in integer kernels, the model predicts {_named(deployed)}. "
            "What is explained is the network as the file has it, in floating point"
        )
    if rival is not None and (rival["likeness"] or 0.0) > LIKENESS:
        yield (
            f"the map barely changes with the class: for {_named(rival)} it starts from nearly the same (correlation "
            f"{rival['likeness']:.3f}, more than {LIKENESS:g}), so it shows what speaks for both. What tells them "
            "apart is the contrast of the two"
        )
    if not complete:
        return
    residual = seed - total - booked
    most = max(RESIDUAL * abs(seed), _ROUNDINGS * rounding)
    if abs(residual) > most:
        yield (
            f"relevance and ledger miss the seed by {residual:.3g} (more than {most:.2g}): do not rely on this "
            "map alone"
        )
    # More than half of the two: what the map leaves out weighs more than what it shows.
    if abs(booked) > abs(total):
        yield (
            f"most of the relevance is not in the map: it sums to {total:.3g}, and {booked:.3g} sits in the ledger, "
            "which says where"
        )


def _named(one: Mapping[str, Any]) -> str:
    return f"class {one['index']}" if one["label"] is None else f"{one['label']} ({one['index']})"
