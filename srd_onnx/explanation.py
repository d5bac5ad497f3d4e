"""The result of explaining one target on one image."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import InputError
from srd_onnx.files import atomic_write_all, to_json
from srd_onnx.text import safe_file_name


@dataclass(frozen=True, eq=False)
class Explanation:
    """How much each position speaks for (positive) or against (negative) the target.

    Shapes: relevance [H, W] float32; logits [K] float32; image [H, W, 3] uint8, RGB, as the model saw it.
    Units: relevance, ledger and residual in those of the seed (logits, if a logit was seeded).
    Conserves: ``sum(relevance) + sum(ledger) + residual`` is the seed; the ledger is by original node name.
    ``target`` is a class index, or what is explained in words; then ``logits`` [1] is its value.
    ``relevances`` holds the map of each explained input by its name; ``relevance`` is the first of them.
    ``meta`` says how to make it again (model, options, versions) and holds the warnings.
    """

    relevance: NDArray[np.float32]
    target: int | str
    logits: NDArray[np.float32]
    ledger: Mapping[str, float]
    residual: float
    meta: Mapping[str, Any]
    image: NDArray[np.uint8] | None = None
    label: str | None = None
    name: str = "image"
    relevances: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The class by its label, or by its index where there is none; else what is explained, in words."""
        if isinstance(self.target, str):
            return self.label or self.target
        return f"class {self.target}" if self.label is None else f"{self.label} (class {self.target})"

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the explanation itself shows to be wrong with it, in words; see `srd_onnx.sanity`."""
        return tuple(self.meta.get("warnings", ()))

    @property
    def score(self) -> float:
        """The target's logit."""
        return float(self.logits[0 if isinstance(self.target, str) else self.target])

    def overlay(self) -> NDArray[np.uint8]:
        """Return the image in grey with the relevance over it, uint8 [H, W, 3], RGB.

        Raises: InputError if there is no image.
        """
        from srd_onnx.pictures.render import overlay

        if self.image is None:
            raise InputError(
                f"{self.name}: there is no image to lay the relevance over: it was computed from an array. "
                "Use render.overlay(photo, explanation.relevance) with a photo of the same size."
            )
        return overlay(self.image, self.relevance)

    def png(self) -> bytes:
        """Return the picture that `save` writes."""
        from srd_onnx.methods.method import title_of
        from srd_onnx.pictures.render import panel

        title = title_of(self.meta["method"]) if "method" in self.meta else ""
        by = f"{title}  ·  " if title else ""
        total = float(np.sum(self.relevance, dtype=np.float64))
        facts = f"{self.name}  ·  {by}logit {self.score:.4g}  ·  Σ relevance {total:.4g}"
        if self.warnings:
            facts += f"  ·  {len(self.warnings)} warning{'s' * (len(self.warnings) > 1)}"
        flat, remark = as_picture(self.relevance)
        return panel(self.image, flat, self.title, facts + remark)

    def npz(self) -> bytes:
        """Return the archive that `save` writes; it loads with ``allow_pickle=False``.

        Arrays: relevance, logits (float32), target (int64), residual (float64), and as text: name, label
        ("" for none), ledger and meta (both JSON); with several explained inputs relevance/NAME for each.
        """
        buffer = io.BytesIO()
        named = self.relevances if len(self.relevances) > 1 else {}
        arrays: dict[str, Any] = {
            "relevance": np.asarray(self.relevance, np.float32),
            "target": np.str_(self.target) if isinstance(self.target, str) else np.int64(self.target),
            "logits": np.asarray(self.logits, np.float32),
            "residual": np.float64(self.residual),
            "name": np.str_(self.name),
            "label": np.str_(self.label or ""),
            "ledger": np.str_(to_json(self.ledger)),
            "meta": np.str_(to_json(self.meta)),
        }
        np.savez_compressed(buffer, **arrays | {f"relevance/{name}": found for name, found in named.items()})
        return buffer.getvalue()

    def save(self, directory: str | Path) -> dict[str, Path]:
        """Write ``NAME.TARGET.png`` and ``NAME.TARGET.npz``, both or neither; return the paths by ending.

        The name is made safe for a file; what is there under it is replaced.

        Raises: OutputError if they cannot be written.
        """
        stem = f"{safe_file_name(self.name)}.{safe_file_name(str(self.target))}"
        paths = {kind: Path(directory) / f"{stem}.{kind}" for kind in ("png", "npz")}
        atomic_write_all({paths["png"]: self.png(), paths["npz"]: self.npz()})
        return paths


def as_picture(relevance: NDArray[np.float32]) -> tuple[NDArray[np.float32], str]:
    """A map [H, W] of any relevance, and what was done: a sequence is one row, of a volume the slices are summed."""
    if relevance.ndim == 2:
        return relevance, ""
    if relevance.ndim < 2:
        return relevance.reshape(1, -1), "  ·  one column per position"
    summed = relevance.sum(axis=tuple(range(relevance.ndim - 2)))
    return summed, f"  ·  summed over {relevance.shape[:-2]}"


def load_meta(path: str | Path) -> dict[str, Any]:
    """Return the ``meta`` of a saved archive, as it was given."""
    with np.load(path, allow_pickle=False) as archive:
        return dict(json.loads(str(archive["meta"])))
