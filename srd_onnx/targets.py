"""What the user wants explained: a class by index, label or "top3", any elements of a tensor, or several of these."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import UnknownTargetError

_INDEX = r"(?:[+-]?\d+|(?:[+-]?\d+)?:(?:[+-]?\d+)?(?::[+-]?\d+)?|\.\.\.)"
_SELECTION = re.compile(rf"(?P<tensor>.+)\[\s*(?P<index>(?:{_INDEX}\s*(?:,\s*{_INDEX}\s*)*)?)\]", re.DOTALL)


@dataclass(frozen=True)
class At:
    """The sum of some elements of a tensor: one box's class score, one pixel, a region, one token's logit.

    Attributes:
        tensor: an output, an inner tensor, or the original node that computes it.
        index: over the axes behind the batch, as numpy indexes: integers, slices, ...; or a mask (bool), or weights
            (float) of the tensor's shape without the batch, such as another input's embedding.
    """

    tensor: str
    index: Any = ()

    @staticmethod
    def parse(text: str) -> "At | None":
        """`OUTPUT[3, 4:, ...]`; None if the text is not of this form."""
        found = _SELECTION.fullmatch(text.strip())
        if found is None:
            return None
        parts = [part.strip() for part in found["index"].split(",")] if found["index"].strip() else []
        return At(found["tensor"], tuple(_part(part) for part in parts))

    def direction(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Weights of the elements of a tensor of `shape` (without the batch), flattened.

        Raises:
            UnknownTargetError: if the index does not fit.
        """
        weights = np.zeros(shape, np.float32)
        if isinstance(self.index, np.ndarray) and self.index.dtype.kind in "bf":
            if self.index.shape != shape:
                raise UnknownTargetError(
                    f"the mask or weights for '{self.tensor}' have shape {list(self.index.shape)}, but behind the "
                    f"batch it has {list(shape)}"
                )
            return self.index.astype(np.float32).reshape(-1)
        try:
            weights[self.index] = 1
        except (IndexError, TypeError) as error:
            raise UnknownTargetError(
                f"target {self}: {error}; behind the batch it has {list(shape)}"
            ) from error
        if not weights.any():
            raise UnknownTargetError(f"target {self} selects nothing; behind the batch it has {list(shape)}")
        return weights.reshape(-1)

    def __str__(self) -> str:
        if isinstance(self.index, np.ndarray):
            return f"{self.tensor}[{'mask' if self.index.dtype.kind == 'b' else 'weights'}]"
        parts = self.index if isinstance(self.index, tuple) else (self.index,)
        return f"{self.tensor}[{', '.join(map(_shown, parts))}]"


@dataclass(frozen=True)
class Contrast:
    """What speaks for one class rather than another: the difference of their scores.

    Attributes:
        of: a class by index or label.
        over: the other one.
    """

    of: int | str
    over: int | str


def _part(text: str) -> Any:
    if text == "...":
        return ...
    if ":" in text:
        return slice(*(int(bound) if bound else None for bound in text.split(":")))
    return int(text)


def _shown(part: Any) -> str:
    if isinstance(part, slice):
        bounds = [part.start, part.stop] + ([part.step] if part.step is not None else [])
        return ":".join("" if b is None else str(b) for b in bounds)
    return "..." if part is ... else str(part)


Target = int | str | At | Contrast


@dataclass(frozen=True)
class Wanted:
    """Targets by kind: classes of the default target, pairs of these, selections of tensors."""

    classes: tuple[int | str, ...]
    contrasts: tuple[Contrast, ...]
    selections: tuple[At, ...]

    @property
    def class_count(self) -> int:
        """How many classes that is at most for one input."""
        found = (re.fullmatch(r"top(\d+)", str(one).strip().lower()) for one in self.classes)
        return sum(int(top[1]) if top else 1 for top in found)


def split_targets(wanted: Target | Sequence[Target] | None) -> Wanted:
    """Targets by kind; without any the top class.

    Raises:
        UnknownTargetError: if there is none in the list.
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
    classes: list[int | str] = []
    contrasts: list[Contrast] = []
    selections: list[At] = []
    for one in several:
        if isinstance(one, Contrast):
            contrasts.append(one)
        elif isinstance(one, At):
            selections.append(one)
        elif isinstance(one, str) and (at := At.parse(one)) is not None:
            selections.append(at)
        else:
            classes.append(one)
    return Wanted(tuple(classes), tuple(contrasts), tuple(selections))


def resolve_contrast(
    wanted: Contrast, scores: NDArray[np.floating], labels: Sequence[str] | None
) -> tuple[int, int]:
    """The two indices; see `resolve_classes`.

    Raises:
        UnknownTargetError: if one of them does not exist, is several, or both are the same.
    """
    found = [_resolved(one, scores, labels) for one in (wanted.of, wanted.over)]
    if any(len(indices) != 1 for indices in found):
        raise UnknownTargetError(
            f"a contrast is between two classes: {wanted.of!r} and {wanted.over!r} are more"
        )
    (of,), (over,) = found
    if of == over:
        raise UnknownTargetError(f"a contrast is between two classes, but both are class {of}")
    return of, over


def resolve_classes(
    wanted: Sequence[int | str], scores: NDArray[np.floating], labels: Sequence[str] | None
) -> list[int]:
    """Class indices for one input, in the order asked for, each once.

    Args:
        wanted: indices (also as text); labels, or parts of one that fit a single class; "top3" for the three highest.
        scores: [K] logits of this input.
        labels: K class names, if they are known.

    Raises:
        UnknownTargetError: naming what does not exist and what is near it.
    """
    found = [index for one in wanted for index in _resolved(one, scores, labels)]
    return list(dict.fromkeys(found))


def _resolved(wanted: int | str, scores: NDArray[np.floating], labels: Sequence[str] | None) -> list[int]:
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
