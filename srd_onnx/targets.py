"""What the user wants explained: an index, a label, "top3", or several of these."""

import difflib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import UnknownTargetError

Target = int | str


def resolve_targets(
    wanted: Target | Sequence[Target] | None, scores: NDArray[np.floating], labels: Sequence[str] | None
) -> list[int]:
    """Class indices for one input, in the order asked for, each once.

    Args:
        wanted: None for the top class; an index (also as text); a label, or a part of one that fits a single
            class; "top3" for the three highest; or several of these.
        scores: [K] logits of this input.
        labels: K class names, if they are known.

    Raises:
        UnknownTargetError: naming what does not exist and what is near it.
    """
    if wanted is None:
        wanted = "top1"
    several = (
        list(wanted)
        if isinstance(wanted, Sequence | np.ndarray) and not isinstance(wanted, str)
        else [wanted]
    )
    if not several:
        raise UnknownTargetError("no target was given: leave it out for the top class, or name at least one")
    found = [index for one in several for index in _resolved(one, scores, labels)]
    return list(dict.fromkeys(found))


def _resolved(wanted: Target, scores: NDArray[np.floating], labels: Sequence[str] | None) -> list[int]:
    count = len(scores)
    if isinstance(wanted, str):
        if top := re.fullmatch(r"top(\d+)", wanted.strip().lower()):
            size = int(top[1])
            if not 1 <= size <= count:
                raise UnknownTargetError(f"target '{wanted}': the model has {count} scores")
            return [int(i) for i in np.argsort(-scores, kind="stable")[:size]]
        if not re.fullmatch(r"[+-]?\d+", wanted.strip()):
            wanted = _labelled(wanted, labels)
    elif isinstance(wanted, bool) or not isinstance(wanted, int | np.integer):
        raise UnknownTargetError(f"a target is an index, a label or 'top3', not {wanted!r}")
    index = int(wanted)
    if not 0 <= index < count:
        raise UnknownTargetError(
            f"target {index} does not exist: the model has {count} scores, 0 to {count - 1}"
        )
    return [index]


def _labelled(wanted: str, labels: Sequence[str] | None) -> int:
    if not labels:
        raise UnknownTargetError(
            f"target '{wanted}' is a label, but the model's labels are not known; "
            "give an index, or the labels with --labels FILE / labels="
        )
    text = wanted.casefold().strip()
    folded = [label.casefold() for label in labels]
    exact = [i for i, label in enumerate(folded) if text in (label, *re.split(r",\s*", label))]
    hits = exact or [i for i, label in enumerate(folded) if text in label]
    if len(hits) == 1:
        return hits[0]
    if hits:
        some = ", ".join(f"{i} ({labels[i]})" for i in hits[:5])
        raise UnknownTargetError(f"target '{wanted}' fits {len(hits)} classes: {some}; give the index")
    close = difflib.get_close_matches(text, folded, n=3, cutoff=0.6)
    hint = (
        "; did you mean " + " or ".join(f"'{labels[folded.index(c)]}'" for c in close) + "?" if close else ""
    )
    raise UnknownTargetError(f"no class is called '{wanted}'{hint}")
