"""The PFVs of a layer that matter to a decision, each with its effective receptive field and its share."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from srd_onnx.errors import InputError, OptionError
from srd_onnx.explanation import Explanation, as_picture
from srd_onnx.files import atomic_write_all, to_json, to_npz
from srd_onnx.graph.ir import Array
from srd_onnx.inputs.sources import Source
from srd_onnx.inside.decision import Decision
from srd_onnx.inside.erf import Erf
from srd_onnx.inside.looking import layers_named
from srd_onnx.pictures.render import clip_value, overlay
from srd_onnx.pictures.sheet import Cell, sheet
from srd_onnx.targets import Target
from srd_onnx.text import safe_file_name

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer

WITHIN = 0.9  # the part of |ERF| that its extent holds


@dataclass(frozen=True)
class Choice:
    """Which PFVs are shown: some positions, a grid of so many along each axis, or the `top` by |relevance|."""

    positions: tuple[tuple[int, ...], ...] = ()
    grid: int | None = None
    top: int = 12

    def of(self, relevance: Array) -> list[tuple[int, ...]]:
        """The positions, of a layer with this relevance [*positions]."""
        if self.positions:
            return list(self.positions)
        if self.grid is not None:
            axes = [np.unique((np.arange(self.grid) + 0.5) * size // self.grid) for size in relevance.shape]
            return [tuple(map(int, one)) for one in itertools.product(*axes)]
        order = np.argsort(-np.abs(relevance), axis=None, kind="stable")[: self.top]
        return [tuple(map(int, one)) for one in zip(*np.unravel_index(order, relevance.shape), strict=True)]

    def __str__(self) -> str:
        if self.positions:
            return "those asked for"
        return "those with the largest |relevance|" if self.grid is None else "on a grid"


@dataclass(frozen=True, eq=False)
class Contacts:
    """Some PFVs of one layer.

    Attributes:
        layer: its original name.
        choice: why these.
        erf: their positions [P, D] and fields [P, *positions of the input].
        relevance: of every position of the layer, [*positions].
        explanation: of the target.
    """

    layer: str
    choice: Choice
    erf: Erf
    relevance: Array
    explanation: Explanation

    @property
    def chosen(self) -> Array:
        """The relevance of each of the PFVs, [P]."""
        found: Array = self.relevance[tuple(self.erf.positions.T)]
        return found

    @property
    def shares(self) -> Array:
        """Their shares of the decision, R_j / seed, [P]; NaN where the seed is 0."""
        seed = float(self.explanation.meta["seed_value"])
        return self.chosen / seed if seed else np.full(len(self.chosen), np.nan)

    def to_dict(self) -> dict[str, Any]:
        """All but the fields, as plain data."""
        explanation = self.explanation
        rows = zip(self.erf.positions, self.chosen, self.shares, self.erf.maps, strict=True)
        return {
            "name": explanation.name,
            "layer": self.layer,
            "tensor": self.erf.layer,
            "target": explanation.target,
            "label": explanation.label,
            "logit": explanation.score,
            "of": self.relevance.size,
            "pfvs": [
                {"position": place, "relevance": r, "share": share, "extent": extent(field)}
                for place, r, share, field in rows
            ],
            "meta": explanation.meta,
        }

    def save(self, directory: str | Path, stem: str) -> dict[str, Path]:
        """Write the sheet, numbers and fields as `STEM.png`, `.json` and `.npz`, all or none; the paths by ending.

        Arrays of the archive: positions, maps, relevance, shares (of these PFVs), layer (relevance of all).

        Raises: OutputError if they cannot be written.
        """
        paths = {kind: Path(directory) / f"{stem}.{kind}" for kind in ("png", "json", "npz")}
        arrays = {
            "positions": self.erf.positions,
            "maps": self.erf.maps,
            "relevance": self.chosen,
            "shares": self.shares,
            "layer": self.relevance,
        }
        text = to_json(self.to_dict(), indent=2) + "\n"
        atomic_write_all(
            {
                paths["png"]: picture(self),
                paths["json"]: text.encode("utf-8", "backslashreplace"),
                paths["npz"]: to_npz(arrays),
            }
        )
        return paths


def contacts(
    explainer: "Explainer", source: Source, layer: str, choice: Choice, target: Target | None = None
) -> Iterator[Contacts]:
    """The chosen PFVs of each layer that the name means, for one input and one target.

    At the boundary and below, relevance is what sharing ratios bring there; above it, the true cotangent is carried on
    to the layer and collapsed there, as if it were the boundary.

    Raises:
        InputError: there are several inputs.
        OptionError: there are several targets, or a position lies outside.
        UnknownTensorError: there is no such layer, or no relevance for this target crosses it.
    """
    inside = functools.partial(_inside, source, target)
    decision = inside(explainer)
    chunk, size = next(iter(explainer.chunks(source, 1)))
    for tensor in layers_named(explainer, explainer.shapes(chunk[0], size), layer):
        there = decision if tensor in decision.names else inside(explainer.with_changed(boundary=tensor))
        name = there.names[tensor]
        relevance = there.relevance[name]
        (erf,) = explainer.erf(source, tensor, choice.of(relevance))
        yield Contacts(name, choice, erf, relevance, there.explanation)


def _inside(source: Source, target: Target | None, explainer: "Explainer") -> Decision:
    found = explainer.inside(source, target)
    if len({one.explanation.name for one in found}) > 1:
        raise InputError(f"fields are shown for one input, but there are {len(found)}")
    if len(found) > 1:
        raise OptionError(f"fields are shown for one target, but '{target}' is {len(found)}")
    return found[0]


def extent(field: Array) -> tuple[int, ...]:
    """Along each axis, how many positions hold `WITHIN` of |ERF|, with as much cut off at either end."""
    sizes = []
    for axis in range(field.ndim):
        weights = np.abs(field, dtype=np.float64).sum(axis=tuple(a for a in range(field.ndim) if a != axis))
        reached = np.cumsum(weights) / max(float(weights.sum()), np.finfo(np.float64).tiny)
        first, last = np.searchsorted(reached, [(1 - WITHIN) / 2, (1 + WITHIN) / 2])
        sizes.append(int(min(last, len(weights) - 1) - first + 1))
    return tuple(sizes)


def picture(found: Contacts) -> bytes:
    """A contact sheet: the photo with the chosen positions, then the field of each over it."""
    explanation, shares = found.explanation, found.shares
    rows = list(zip(found.erf.positions, found.chosen, shares, found.erf.maps, strict=True))
    cells = [_cell(explanation, number, *row) for number, row in enumerate(rows, start=1)]
    if explanation.image is not None:
        height, width, _ = explanation.image.shape
        remark = f"as the model sees it, {width} × {height}"
        cells.insert(0, Cell(explanation.image, "Photo", (remark,), _marks(found)))
    together = f", together {np.sum(shares):.1%} of the decision" if np.isfinite(shares).all() else ""
    subtitle = (
        f"{explanation.name}  ·  logit {explanation.score:.4g}  ·  {len(rows)} of {found.relevance.size} PFVs, "
        f"{found.choice}{together}  ·  field: red is for the PFV, blue against it"
    )
    return sheet(cells, f"{found.layer}  ·  {explanation.title}", subtitle)


def _cell(
    explanation: Explanation, number: int, place: Array, relevance: float, share: float, field: Array
) -> Cell:
    flat, remark = as_picture(np.asarray(field, np.float32))
    fits = explanation.image is not None and explanation.image.shape[:2] == flat.shape
    image = overlay(explanation.image, flat) if explanation.image is not None and fits else None
    part = f"  ·  {share:.1%}" if np.isfinite(share) else ""
    return Cell(
        np.clip(flat / clip_value(flat), -1, 1) if image is None else image,
        f"{number}  at ({', '.join(map(str, place))}){part}",
        (
            f"relevance {relevance:.3g}{remark}",
            f"{WITHIN:.0%} of |ERF| in {'×'.join(map(str, extent(field)))}",
        ),
    )


def _marks(found: Contacts) -> tuple[tuple[float, float, str], ...]:
    """Where the middle of each position lies in the photo, if the layer has rows and columns as the photo has."""
    image = found.explanation.image
    if image is None or found.relevance.ndim != 2:
        return ()
    scale = np.array(image.shape[:2]) / found.relevance.shape
    middles = (found.erf.positions + 0.5) * scale - 0.5
    return tuple((float(x), float(y), str(number)) for number, (y, x) in enumerate(middles, start=1))


def stem_of(name: str, layer: str, taken: Sequence[str]) -> str:
    """`NAME.LAYER.erf`, which is none of those taken."""
    base = f"{safe_file_name(name)}.{safe_file_name(layer.strip('/'))}"
    number, stem = 1, f"{base}.erf"
    while stem.casefold() in {one.casefold() for one in taken}:
        number += 1
        stem = f"{base}-{number}.erf"
    return stem
