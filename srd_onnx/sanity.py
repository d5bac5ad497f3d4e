"""Warnings that protect the user: what an explanation itself shows to be wrong with it."""

from collections.abc import Iterator, Mapping
from typing import Any

RESIDUAL = 1e-3  # of the explained number: so much rounding may cost (issue 2); more is an error
LIKENESS = (
    0.95  # Pearson's: nine tenths of what varies at the boundary (r² = 0.90) are the same for both classes
)


def warnings_of(
    seed: float,
    total: float,
    booked: float,
    *,
    complete: bool = True,
    rival: Mapping[str, Any] | None = None,
) -> Iterator[str]:
    """What the numbers of one explanation warn of.

    Args:
        seed: the explained number.
        total: the sum of the maps.
        booked: the sum of the ledger.
        complete: map and ledger are to add up to the seed, as the method has it.
        rival: the strongest other class: its index and label, and the likeness, the correlation of what enters at the
            boundary for it with what enters for the target (None if that is not defined). None for no such class.
    """
    if rival is not None and (rival["likeness"] or 0.0) > LIKENESS:
        name = f"class {rival['index']}" if rival["label"] is None else f"{rival['label']} ({rival['index']})"
        yield (
            f"the map barely changes with the class: for {name} it starts from nearly the same (correlation "
            f"{rival['likeness']:.3f}, more than {LIKENESS:g}), so it shows what speaks for both. What tells them "
            "apart is the contrast of the two"
        )
    if not complete:
        return
    residual = seed - total - booked
    if abs(residual) > RESIDUAL * abs(seed):
        yield (
            f"relevance and ledger miss the seed by {residual:.3g} (more than {RESIDUAL:g} of it): do not rely on this "
            "map alone"
        )
    # More than half of the two: what the map leaves out weighs more than what it shows.
    if abs(booked) > abs(total):
        yield (
            f"most of the relevance is not in the map: it sums to {total:.3g}, and {booked:.3g} sits in the ledger, "
            "which says where"
        )
