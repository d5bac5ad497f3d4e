"""Checking a report: its files against the manifest, its model against what was audited, a sample of its maps anew."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from srd_onnx.audit.manifest import differences, files_in, read_manifest
from srd_onnx.audit.maps import Maps, open_maps
from srd_onnx.audit.output import JSON, MAPS, STATE
from srd_onnx.audit.state import ExplanationRow, ImageRow, State
from srd_onnx.errors import AuditError, LayoutError, ModelError, SrdOnnxError
from srd_onnx.evaluation.contenders import contender_named
from srd_onnx.explainer import Explainer
from srd_onnx.files import sha256_of
from srd_onnx.inputs.preprocess import preprocess_from_dict
from srd_onnx.targets import Contrast, Target

SAMPLE, TOLERANCE = 5, 1e-3
_CONTRAST = re.compile(r"(\d+)-over-(\d+)")


@dataclass(frozen=True)
class Checked:
    """What was checked, and what is wrong.

    Attributes:
        files: how many files the manifest lists.
        maps: how many maps were computed again.
        deviation: the largest difference from a map that is kept, as a part of its largest |R|.
        problems: a sentence each; empty if all is as it was.
    """

    files: int
    maps: int
    deviation: float
    problems: tuple[str, ...]


def verify(
    folder: Path,
    *,
    models: Sequence[Path] = (),
    images: Path | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    advance: Callable[[], None] = lambda: None,
) -> Checked:
    """Check a report of an audit or a comparison.

    Args:
        folder: of the report.
        models: where the models lie now, if not where they were.
        images: likewise, the folder of images.
        sample: how many maps are computed again; with 0 neither the model nor the images are looked at.
        seed: of the sample.
        tolerance: how far a map may be from the one that is kept, as a part of its largest |R|.
        advance: called after each map.

    Raises:
        AuditError: there is no manifest, or it was changed.
    """
    manifest = read_manifest(folder)
    problems = list(differences(folder, manifest))
    maps, deviation = 0, 0.0
    # What was changed is not asked about anything.
    if sample and not problems:
        try:
            for problem, off in _recomputed(folder, models, images, sample, seed, tolerance):
                maps, deviation = maps + 1, max(deviation, off)
                problems += [problem] if problem else []
                advance()
        except SrdOnnxError as error:
            problems.append(str(error))
    return Checked(len(manifest.files), maps, deviation, tuple(problems))


def _recomputed(
    folder: Path, models: Sequence[Path], images: Path | None, sample: int, seed: int, tolerance: float
) -> Iterator[tuple[str | None, float]]:
    """Of each map of the sample: what is wrong with it, and how far it is from the one that is kept."""
    document = json.loads((folder / JSON).read_text(encoding="utf-8"))
    place = images or Path(document["images"]["folder"])
    files = files_in(place)
    remade = _Remade(document["remake"], models)
    with _read_only(folder / STATE) as state:
        rows, pictures = state.explanations(), state.images()
        chosen = np.random.default_rng(seed).permutation(len(rows))[:sample]
        maps = open_maps(folder / MAPS, 0, read_only=True)
        for index in sorted(chosen.tolist()):
            row = rows[index]
            yield _one(remade.explainer(row.method), row, pictures[row.image], place, files, maps, tolerance)


@dataclass(eq=False)
class _Remade:
    """The explainers of a report, made when they are needed."""

    remake: Mapping[str, Any]
    given: Sequence[Path]
    _made: dict[str, Explainer] = field(default_factory=dict)

    def explainer(self, name: str) -> Explainer:
        """The model by a method.

        Raises:
            AuditError: the model is not there, or is another.
        """
        if name not in self._made:
            about = self.remake[name]
            base = self._opened(about, [Path(about["model"] or "")])
            self._made[name] = contender_named(about["method"], seed=about["seed"]).explainer(base)
        return self._made[name]

    def _opened(self, about: Mapping[str, Any], recorded: Sequence[Path]) -> Explainer:
        """The first of the files that is the model."""
        if about["preprocess"] is None:
            raise AuditError(
                "the preprocessing was a function of Python, so that no map can be computed again; check the "
                "files alone with --files-only"
            )
        others = []
        for path in self.given or recorded:
            if not path.is_file():
                raise AuditError(
                    f"the model is not at {path}: no map was computed again. Say where it is with --model, or "
                    "check the files alone with --files-only."
                )
            try:
                found = Explainer(
                    path,
                    preprocess=preprocess_from_dict(about["preprocess"]),
                    layout=about["layout"],
                    fixed=about["fixed"],
                    preset=about["preset"],
                    providers="cuda" if about["provider"].startswith("CUDA") else "cpu",
                    **about["options"],
                )
            except (ModelError, LayoutError) as error:
                raise AuditError(f"the model cannot be read: it was changed. {error}") from error
            if found.model.sha256 == about["sha256"]:
                return found
            others.append(f"that of {path} is {found.model.sha256}")
        raise AuditError(f"the model was changed: its sha256 was {about['sha256']}, {', '.join(others)}")


def _one(
    explainer: Explainer,
    row: ExplanationRow,
    image: ImageRow,
    folder: Path,
    files: Mapping[str, Path],
    maps: Maps,
    tolerance: float,
) -> tuple[str | None, float]:
    path = files.get(image.name)
    if path is None or not path.is_file():
        return f"image {image.name} is not in {folder}: say where the images are with --images", 0.0
    if (digest := sha256_of(path)) != image.sha256:
        return f"image {image.name} was changed: its sha256 is {digest}, not {image.sha256}", 0.0
    kept = maps.read(row.row, row.shape, row.digest)
    if kept is None:
        return f"the map of {image.name} is not what its row in {STATE} says", 0.0
    (again,) = explainer.explain(str(path), _target(row.target))
    largest = float(np.abs(kept).max())
    off = float(np.abs(again.relevance - kept).max()) / largest if largest > 0 else 0.0
    if again.relevance.shape != kept.shape or off > tolerance:
        return (
            f"the map of {image.name} for {row.label or row.target} by {row.method} is another when it is computed "
            f"again: it differs by {off:.1e} of its largest value, more than {tolerance:g}"
        ), off
    return None, off


def _target(kept: int | str) -> Target:
    contrast = _CONTRAST.fullmatch(kept) if isinstance(kept, str) else None
    return kept if contrast is None else Contrast(int(contrast[1]), int(contrast[2]))


def _read_only(path: Path) -> State:
    """A state that may lie where nothing can be written."""
    return State(path, sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1", uri=True))
