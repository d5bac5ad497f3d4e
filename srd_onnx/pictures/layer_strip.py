"""The picture of a decision layer by layer: a strip of maps from the input to the boundary, and what neurons carry."""

import numpy as np

from srd_onnx.explanation import as_picture
from srd_onnx.inside.decision import Decision, LayerShare
from srd_onnx.pictures.render import clip_value
from srd_onnx.pictures.sheet import Cell, Chart, sheet

MOST = 23  # maps that are still readable: with the photo four rows


def strip(decision: Decision) -> bytes:
    """A PNG: the photo, then the map of every layer that mixes, the inputs and the boundary, each by its own scale.

    Of more than `MOST` layers a selection is shown, evenly from the first to the last, and the subtitle says so.
    """
    explanation = decision.explanation
    every = decision.shown
    shares = [every[i] for i in np.unique(np.linspace(0, len(every) - 1, MOST).round().astype(int))]
    cells = [_cell(decision, number, share) for number, share in enumerate(shares)]
    if explanation.image is not None:
        height, width, _ = explanation.image.shape
        cells.insert(0, Cell(explanation.image, "Photo", (f"as the model sees it, {width} × {height}",)))
    carrying = tuple(
        (str(number), (share.active, share.inactive, share.bias))
        for number, share in enumerate(shares)
        if share.active is not None and share.inactive is not None and share.bias is not None
    )
    number = f"{len(shares)}" if len(shares) == len(every) else f"{len(shares)} of {len(every)}"
    subtitle = (
        f"{explanation.name}  ·  logit {explanation.score:.4g}  ·  relevance in {number} layers from the input to the "
        "boundary, raw; red for, blue against; the colours of each end at the ±1 above it"
    )
    chart = Chart("Who carries ⟨v̂, v⟩, by the number of the layer", ("active", "inactive", "bias"), carrying)
    return sheet(cells, explanation.title, subtitle, chart if carrying else None)


def _cell(decision: Decision, number: int, share: LayerShare) -> Cell:
    flat, remark = as_picture(np.asarray(decision.relevance[share.name], np.float32))
    unit = clip_value(flat)
    places = "×".join(map(str, decision.relevance[share.name].shape))
    stride = "" if share.stride is None else f"  ·  stride {sizes(share.stride)}"
    carried = "" if share.inactive is None else f"inactive neurons {share.inactive:.0%}"
    if share.name in decision.boundary:
        carried = f"boundary  ·  {carried}".removesuffix("  ·  ")
    return Cell(
        np.clip(flat / unit, -1, 1),
        f"{number}  {share.name}",
        (f"{share.op}  ·  {places}{stride}", f"±1 = {unit:.3g}  ·  Σ {share.relevance:.4g}{remark}", carried),
    )


def sizes(numbers: tuple[float, ...]) -> str:
    """`2×2`; one number where all are the same."""
    several = numbers if len(set(numbers)) > 1 else numbers[:1]
    return "×".join(f"{number:g}" for number in several)
