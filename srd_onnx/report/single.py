"""The report of single explanations: what `srd-onnx explain --open` shows."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from srd_onnx.explanation import Explanation, as_picture
from srd_onnx.files import sha256_of
from srd_onnx.methods.method import SRD, title_of
from srd_onnx.report.content import Item, Layer, Report, Section, Shown
from srd_onnx.report.inside import LookInside
from srd_onnx.report.words import whereabouts

if TYPE_CHECKING:
    from srd_onnx.explainer import Explainer

LOOKED_INTO = 4  # so many images are looked into: it takes seconds for each
_ANSWERED = 3  # so many explanations are put into words first of all
_SRD = (
    "Sharing ratio decomposition (SRD): every layer shares the relevance of each of its positions among the positions "
    "that it was computed from, by the part that each contributed to its vector. Biases and what else belongs to no "
    "position are booked in the ledger, so that map, ledger and residual together are the explained number."
)


@dataclass
class Collected:
    """Explanations as they come, image by image, until the report is made.

    Attributes:
        failed: (image, why) of those that could not be explained.
    """

    explainer: "Explainer"
    explained: list[tuple[Path, list[Explanation]]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)

    def add(self, image: Path, name: str, explanation: Explanation) -> None:
        """Remember an explanation of this image, which goes by this name."""
        if not self.explained or self.explained[-1][1][0].name != name:
            self.explained.append((image, []))
        self.explained[-1][1].append(replace(explanation, name=name))

    def report(self, command: Sequence[str], notes: Sequence[str] = ()) -> Report:
        """The report, of at least one explanation; it is looked into the images while they are taken from it.

        Args:
            command: what was typed, word by word.
            notes: what the user was told.
        """
        first = self.explained[0][1][0]
        images = len(self.explained) + len(self.failed)
        return Report(
            kind="explanation",
            title=f"{first.title} in {first.name}" if images == 1 else f"{images} images explained",
            answer=tuple(self._answer(notes)),
            before=(),
            items=self._items(),
            after=tuple(_sections(first.meta, command)),
            made=datetime.now(UTC).isoformat(timespec="seconds"),
        )

    def _answer(self, notes: Sequence[str]) -> Iterator[str]:
        every = [one for _, found in self.explained for one in found]
        for one in every[:_ANSWERED]:
            where = whereabouts(as_picture(one.relevance)[0])
            yield f"{one.name} as {one.title}: {where}."
        if len(every) > _ANSWERED:
            yield f"{len(every) - _ANSWERED} more explanations stand below."
        warned = sum(bool(one.warnings) for one in every)
        if warned:
            yield f"{warned} of {len(every)} explanations carry a warning: read it before the map."
        if self.failed:
            yield f"{len(self.failed)} images could not be explained; each says why."
        # A warning stands at its explanation.
        warnings = tuple(text for one in every for text in one.warnings)
        yield from (note for note in notes if not note.endswith(warnings))

    def _items(self) -> Iterator[Item]:
        for number, (path, found) in enumerate(self.explained):
            looked = number < LOOKED_INTO and self.explainer.method is None and not self.explainer.max_memory
            yield _item(path, found, self._layers(path, found) if looked else {})
        for path, why in self.failed:
            yield Item(str(path), "", None, error=why)

    def _layers(self, path: Path, found: list[Explanation]) -> dict[int | str, tuple[Layer, ...]]:
        """By target; of classes alone, which can be asked for by what an explanation says of itself."""
        classes = [one.target for one in found if isinstance(one.target, int)]
        if not classes:
            return {}
        look = LookInside(self.explainer, path)
        return {one.explanation.target: look.layers(one) for one in self.explainer.inside(path, classes)}


def _item(path: Path, found: list[Explanation], layers: Mapping[int | str, tuple[Layer, ...]]) -> Item:
    first = found[0]
    return Item(
        name=first.name,
        sha256=first.meta["input"].get("sha256") or sha256_of(path),
        photo=first.image,
        predictions=tuple((_named(top), float(top["logit"])) for top in first.meta["top5"]),
        facts=(("file", str(path)),),
        flags=("warning",) if any(one.warnings for one in found) else (),
        shown=tuple(_shown(one, layers.get(one.target, ())) for one in found),
    )


def _shown(one: Explanation, layers: tuple[Layer, ...]) -> Shown:
    return Shown(
        target=str(one.target),
        label=one.label,
        method=one.meta["method"]["name"],
        score=one.score,
        relevance=one.relevance,
        residual=one.residual,
        ledger=tuple(sorted(one.ledger.items(), key=lambda pair: -abs(pair[1]))),
        warnings=one.warnings,
        layers=layers,
        complete=bool(one.meta["method"].get("complete", True)),
    )


def _named(top: Mapping[str, Any]) -> str:
    return f"class {top['index']}" if top["label"] is None else f"{top['label']} ({top['index']})"


def _sections(meta: Mapping[str, Any], command: Sequence[str]) -> Iterator[Section]:
    model, given = meta["model"], meta["input"]
    yield Section(
        "model",
        "The model",
        facts=(
            ("file", str(model["path"])),
            ("sha256", model["sha256"]),
            ("producer", model["producer"]),
            ("opset", str(model["opset"])),
            ("parameters", f"{model['parameters']:,}"),
            ("input", f"{given['name']}, {' × '.join(map(str, given['shape']))}, {meta['layout']}"),
            *((("precision", meta["precision"]),) if meta["precision"] else ()),
            ("explained output", meta["target_tensor"]),
            ("preprocessing", _words(meta["preprocess"])),
        ),
        paragraphs=("The preprocessing was assumed: nobody gave it.",) if meta["preprocess_assumed"] else (),
    )
    srd = meta["method"]["name"] == SRD
    yield Section(
        "method",
        "The method",
        paragraphs=(_SRD,) if srd else (title_of(meta["method"]),),
        facts=(
            ("preset", meta["preset"]),
            ("options", _words(meta["options"])),
            ("boundary", ", ".join(meta["boundary"])),
            ("approximate nodes", str(len(meta["approximate"]))),
            *((("memory", meta["bounded"]),) if meta["bounded"] else ()),
        ),
    )
    yield Section(
        "again",
        "How to make it again",
        paragraphs=("The same model, image and command give the same map.",),
        facts=(
            ("command", shlex.join(command)),
            ("provider", meta["provider"]),
            ("versions", _words(meta["versions"])),
        ),
    )


def _words(value: Any) -> str:
    """`resize 256, crop [227, 227]`."""
    return (
        ", ".join(f"{key} {one}" for key, one in value.items()) if isinstance(value, Mapping) else str(value)
    )
