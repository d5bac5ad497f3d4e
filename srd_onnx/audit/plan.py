"""What an audit is of: model, images, targets, methods, metrics; and whether a state is that of the same audit."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from srd_onnx.audit.config import USUAL_METRICS, Config
from srd_onnx.audit.images import ImageFile, images_in, read_truth
from srd_onnx.audit.state import ImageRow, State
from srd_onnx.errors import AuditError, OptionError
from srd_onnx.evaluation.contenders import Contender, contender_named
from srd_onnx.evaluation.masks import Masks, read_ids, read_masks
from srd_onnx.explainer import Explainer
from srd_onnx.files import sha256_of, to_json
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.metrics import metric_named
from srd_onnx.metrics.metric import Metric
from srd_onnx.ort.runtime import versions
from srd_onnx.targets import Contrast, Target, split_targets
from srd_onnx.text import printable

SANITY_METRICS = ("mprt-last-layer", "mprt", "random-logit", "completeness")
_SOME = 5  # differences that a message names
_WORDS = {
    "model": "the model has another sha256",
    "versions": "other versions of libraries are installed",
    "provider": "it would run on another provider",
    "preprocess": "the preprocessing is another",
    "masks": "the masks are others",
    "truth": "the true classes are others",
    "labels": "the class names are others",
    "image": "the images are others",
}


@dataclass(frozen=True, eq=False)
class Audit:
    """All that is to be done.

    Attributes:
        base: the model.
        folder: of the images.
        files: the images, in order; `rows` what the state says of each.
        targets: of every image; at most `slots` of them.
        metrics: by name, of every class that is explained; `sanity` those of the sample alone.
        optional: the metrics that nobody named, which may not be for the model.
    """

    base: Explainer
    folder: Path
    files: tuple[ImageFile, ...]
    rows: tuple[ImageRow, ...]
    config: Config
    targets: tuple[Target, ...]
    slots: int
    contenders: tuple[Contender, ...]
    metrics: Mapping[str, Metric]
    sanity: Mapping[str, Metric]
    optional: frozenset[str]
    masks: Masks | None

    @property
    def map_rows(self) -> int:
        """How many maps there are at most."""
        return len(self.files) * len(self.contenders) * self.slots

    def map_row(self, image: int, contender: int, place: int) -> int:
        """The row of a map; the same in every run."""
        return (image * len(self.contenders) + contender) * self.slots + place

    def setup(self) -> dict[str, Any]:
        """Everything that decides the rows, as plain data."""
        base, asked = self.base, self.config.explain
        preprocess = base.preprocess
        return {
            "kind": "audit",
            "model": base.model.sha256,
            "layout": {port.name: port.layout for port in base.ports},
            "fixed": base.fixed,
            "provider": base.provider,
            "versions": versions(),
            "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
            "labels": base.labels,
            "targets": [
                str(one) if not isinstance(one, Contrast) else [one.of, one.over] for one in self.targets
            ],
            "methods": {one.name: one.to_dict(base) for one in self.contenders},
            "metrics": {name: dict(one.parameters) for name, one in {**self.metrics, **self.sanity}.items()},
            "sanity_images": asked.sanity_images,
            "seed": asked.seed,
            "truth": {one.name: one.truth for one in self.rows if one.truth is not None},
            "masks": _digests(self.masks),
        }


def prepare(
    base: Explainer,
    folder: Path,
    config: Config,
    *,
    without: Sequence[Path] = (),
    advance: Callable[[], None] = lambda: None,
) -> Audit:
    """Find the images, and everything that is named, before any work.

    Args:
        base: the model, with its preprocessing settled.
        folder: of images.
        config: what is asked.
        without: folders in it that are no images (the report).
        advance: called after each image that was hashed.

    Raises:
        ImageError: there are no images.
        OptionError: something that is named does not exist.
    """
    asked = config.explain
    contenders = tuple(contender_named(name, seed=asked.seed) for name in asked.methods)
    if len({one.name for one in contenders}) < len(contenders):
        raise OptionError("a method is named twice")
    for contender in contenders:
        contender.explainer(base)  # an option that means nothing is said before any work
    masks = _masks(base, config)
    metrics, optional = _metrics(asked.metrics, masks)
    sanity = {
        name: metric_named(name) for name in SANITY_METRICS if asked.sanity_images and name not in metrics
    }
    targets: tuple[Target, ...] = (*asked.targets, *(Contrast(of, over) for of, over in asked.contrasts))
    wanted = split_targets(targets)
    files = tuple(images_in(folder, without=without, advance=advance))
    rows = _rows(files, config, base)
    slots = wanted.class_count + len(wanted.contrasts) + len(wanted.selections)
    return Audit(
        base,
        folder,
        files,
        rows,
        config,
        targets,
        slots,
        contenders,
        metrics,
        sanity,
        optional | set(sanity),
        masks,
    )


def begin_or_go_on(setup: Mapping[str, Any], images: Sequence[ImageRow], state: State) -> None:
    """Write down what the work is of, or make sure that the state is of the same.

    Args:
        setup: everything that decides the rows, as plain data.
        images: all of them.
        state: of this work, or empty.

    Raises:
        AuditError: something is not what it was, saying what.
    """
    before, now = state.setup(), _plain(setup)
    if not before:
        state.begin(now, images)
        return
    changed = [key for key in now if before.get(key) != now[key]]
    said = [_WORDS.get(key, f"{key} is another") + _how(before.get(key), now[key]) for key in changed]
    said += _image_changes(state.images(), images)
    if said:
        lines = "\n".join(f"  {one}" for one in said)
        raise AuditError(
            f"{state.path} is of another audit, which cannot be gone on with:\n{lines}\n"
            "Put that back as it was, choose another --out, or delete that folder to begin anew."
        )


def _plain(setup: Mapping[str, Any]) -> dict[str, Any]:
    """As it comes back from JSON."""
    return dict(json.loads(to_json(setup)))


def _how(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
        some = ", ".join(f"{key} {before.get(key)} is now {now.get(key)}" for key in keys[:_SOME])
        return f": {some}" + (", ..." if len(keys) > _SOME else "")
    if isinstance(before, list) and isinstance(now, list) and len(before) > _SOME:
        return ""
    return f": {before} is now {now}"


def _image_changes(before: Sequence[ImageRow], now: Sequence[ImageRow]) -> list[str]:
    old, new = ({one.name: one.sha256 for one in rows} for rows in (before, now))
    groups = {
        "changed": [name for name in old if name in new and old[name] != new[name]],
        "no longer there": [name for name in old if name not in new],
        "new": [name for name in new if name not in old],
    }
    return [
        f"{len(names)} image{'s are' if len(names) > 1 else ' is'} {what}: {', '.join(names[:_SOME])}"
        + (", ..." if len(names) > _SOME else "")
        for what, names in groups.items()
        if names
    ]


def _rows(files: Sequence[ImageFile], config: Config, base: Explainer) -> tuple[ImageRow, ...]:
    truth = {}
    if config.data.truth is not None:
        truth = read_truth(config.data.truth, [one.name for one in files], base.labels)
    drawn = np.random.default_rng(config.explain.seed).permutation(len(files))
    sample = set(drawn[: config.explain.sanity_images].tolist())
    return tuple(
        ImageRow(index, one.name, one.sha256, truth.get(one.name), index in sample)
        for index, one in enumerate(files)
    )


def _metrics(given: Sequence[str] | None, masks: Masks | None) -> tuple[dict[str, Metric], frozenset[str]]:
    """Those that are named, or the usual ones, which may be left out."""
    chosen = {name: metric_named(name) for name in given or USUAL_METRICS}
    for name, metric in chosen.items():
        if "grid" in metric.needs:
            raise OptionError(
                f"{name}: it needs grids of images, which `srd-onnx evaluate` makes, not an audit"
            )
        if "mask" in metric.needs and masks is None:
            raise OptionError(f"{name}: it needs to know where the objects are: give masks")
    return chosen, frozenset() if given else frozenset(chosen)


def _masks(base: Explainer, config: Config) -> Masks | None:
    data = config.data
    if data.masks is None:
        if data.mask_classes is not None:
            raise OptionError("mask_classes goes with masks")
        return None
    if not isinstance(base.preprocess, Preprocess):
        raise OptionError("masks cannot follow a preprocessing that is a function: give a Preprocess")
    return read_masks(data.masks, read_ids(data.mask_classes, base.labels) if data.mask_classes else None)


def _digests(masks: Masks | None) -> Any:
    """What the masks are, as one digest; None if there are none."""
    if masks is None:
        return None
    found = hashlib.sha256(to_json(masks.ids).encode())
    for paths in masks.files.values():
        for path in paths:
            try:
                found.update(f"{printable(path.name)} {sha256_of(path)}\n".encode())
            except OSError as error:
                raise OptionError(f"masks: {path} cannot be read: {error.strerror or error}") from error
    return found.hexdigest()
