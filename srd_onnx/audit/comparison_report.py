"""The report of a comparison: the same kind of pages as an audit's."""

import csv
import io
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from srd_onnx.audit.compared import Compared
from srd_onnx.audit.comparing import CORRELATION, DISTANCE, RANKS, SCORE, A, B
from srd_onnx.audit.findings import Finding
from srd_onnx.audit.images import listed
from srd_onnx.audit.items import shortened
from srd_onnx.audit.maps import Maps
from srd_onnx.audit.model_section import model_section, named_in
from srd_onnx.audit.output import how_to_remake, images_digest, images_table
from srd_onnx.audit.state import ExplanationRow, ImageRow, State
from srd_onnx.audit.work import read_item
from srd_onnx.errors import InputError, OutputError
from srd_onnx.explanation import as_picture
from srd_onnx.files import to_json
from srd_onnx.ort.runtime import versions
from srd_onnx.report.content import Item, Report, Section, Shown, Table
from srd_onnx.text import harmless

_LONGEST = 50


@dataclass(frozen=True, eq=False)
class ComparedItems:
    """Iterates over the images that are shown, each by both models; nothing but one image is in memory."""

    found: Compared
    maps: Maps
    state: State
    count: int

    def __iter__(self) -> Iterator[Item]:
        for image in sorted(self.found.selected(self.count), key=lambda one: one.id):
            yield self._item(image)

    def _item(self, image: ImageRow) -> Item:
        found = self.found
        keys, flags = found.keys(image), found.flags(image)
        if image.id in found.errors:
            return Item(image.name, image.sha256, None, keys=keys, flags=flags, error=found.errors[image.id])
        file = found.comparison.files[image.id]
        try:
            photo = read_item(found.comparison.first, file).image
        except InputError as error:  # it was there when it was explained
            raise OutputError(f"{file.path} cannot be read any more: {error}") from error
        tops = tuple((str(index) if label is None else label, score) for index, label, score in image.top5)
        facts = (("predictions", "the models differ" if found.flipped(image) else "the models agree"),)
        shown = tuple(self._shown(row) for row in self.state.explanations(image.id))
        return Item(image.name, image.sha256, photo, tops, facts, keys, flags, shown)

    def _shown(self, row: ExplanationRow) -> Shown:
        relevance = self.maps.read(row.row, row.shape, row.digest)
        if relevance is None:
            raise OutputError(f"{self.maps.path}: a map is not what was written. Run the same command again.")
        numbers = self.found.numbers[row.image] if row.method == B else {}
        own = {name: numbers[name] for name in (CORRELATION, RANKS, DISTANCE, SCORE) if name in numbers}
        return Shown(
            str(row.target), row.label, row.method, row.seed,
            relevance if relevance.ndim == 1 else as_picture(relevance)[0], row.residual, shortened(row.ledger), own,
            row.warnings,
        )  # fmt: skip


def comparison_report(found: Compared, items: ComparedItems, command: Sequence[str], made: str) -> Report:
    """All of it."""
    first, second = found.comparison.models.values()
    return Report(
        kind="comparison",
        title=f"{named_in(first)} against {named_in(second)} on {len(found.images)} images",
        answer=comparison_answer(found),
        before=(
            _asked(found),
            _predictions(found),
            _maps_section(found),
            _layers(found),
            model_section(first, id="model-a", title=f"{A}: {named_in(first)}"),
            model_section(second, id="model-b", title=f"{B}: {named_in(second)}"),
            _data(found),
        ),
        items=items,
        after=(_environment(found, command),),
        made=made,
    )


def comparison_answer(found: Compared) -> tuple[str, ...]:
    """A few sentences."""
    count, flips = len(found.usable), len(found.flips)
    failed = len(found.images) - count
    said = [f"The two models predict different classes in {flips} of {count} images."]
    drift, distance = found.mean(CORRELATION), found.mean(DISTANCE)
    if drift is not None and distance is not None:
        said.append(
            f"Their maps of the class that {A} predicts correlate by {drift.mean:.3f} on average; the distance "
            f"of the maps is {distance.mean:.1%} of the length of {A}'s."
        )
    if found.changed_most:
        least = found.changed_most[0]
        said.append(
            f"They differ most on {least.name}, where the correlation is {1 - found.drift(least):.3f}."
        )
    if found.layers:
        name, _, most, _ = max(found.layers, key=lambda one: one[2].mean)
        said.append(
            f"Of {len(found.layers)} layers that both have, {name} differs most: by {most.mean:.1%} of its length."
        )
    if failed:
        said.append(f"{failed} images could not be compared; each says why.")
    return tuple(said)


def _asked(found: Compared) -> Section:
    first, second = found.comparison.models.values()
    said = (
        f"Do {named_in(first)} ({A}) and {named_in(second)} ({B}) decide alike, and for the same reasons?",
        f"Each image was predicted by both. Both explain the class that {A} predicts, so that the maps answer "
        "one question.",
    )
    options = ", ".join(f"{key} {value}" for key, value in first.options.to_dict().items())
    facts = (
        ("images", str(len(found.images))),
        ("method", f"sharing ratio decomposition, preset {first.preset}: {options}"),
        ("seed", str(found.comparison.seed)),
    )
    return Section("asked", "What was asked", said, facts)


def _predictions(found: Compared) -> Section:
    rows = [(image.name, *_top(image), found.numbers[image.id].get(SCORE)) for image in found.flips]
    table = Table(
        "Predictions that changed",
        ("file", f"{A} predicts", f"score by {A}", f"{B}'s score of that class, less {A}'s"),
        tuple(rows[:_LONGEST]),
        f"{len(rows) - _LONGEST} more are in report.csv." if len(rows) > _LONGEST else "",
    )
    said = f"{len(rows)} of {len(found.usable)} predictions changed."
    return Section("predictions", "Predictions", (said,), (), (table,) if rows else ())


def _top(image: ImageRow) -> tuple[str, float]:
    index, label, score = image.top5[0]
    return (f"class {index}" if label is None else label), score


def _maps_section(found: Compared) -> Section:
    rows = []
    for name in (CORRELATION, RANKS, DISTANCE, SCORE):
        one = found.mean(name)
        if one is not None:
            rows.append((name, one.mean, one.low, one.high, one.count))
    means = Table(
        "The maps, means over images",
        ("", "mean", "low", "high", "images"),
        tuple(rows),
        "Low and high: a 95 % bootstrap interval over images. Correlation: Pearson's, and of ranks "
        f"|Spearman|'s, 1 for equal maps. Distance: ‖{A} − {B}‖ / ‖{A}‖, 0 for equal maps. Score change: of the "
        "explained class.",
    )
    most = [(image.name, found.drift(image), found.flipped(image)) for image in found.changed_most[:_LONGEST]]
    listed = Table(
        "The images that changed most",
        ("file", "drift, 1 − correlation", "prediction"),
        tuple((name, drift, "changed" if flipped else "the same") for name, drift, flipped in most),
        folded=len(most) > 10,
    )
    return Section("maps", "Maps", (), (), (means, listed))


def _layers(found: Compared) -> Section:
    rows = tuple(
        (name, op, distance.mean, distance.low, distance.high, None if relevance is None else relevance.mean)
        for name, op, distance, relevance in found.layers
    )
    said = (
        "Layers are matched by the names of their nodes in the two files, without what a quantiser appends to "
        "a name; the operator and the shape must be the same. What cannot be matched is not compared.",
    )
    table = Table(
        f"{len(rows)} layers that both have, from the input on",
        ("layer", "operator", "distance", "low", "high", "correlation of relevance"),
        rows,
        f"Distance: ‖{A} − {B}‖ / ‖{A}‖ of what the layer computes, a mean over images. Relevance: of a sample "
        "of 8 images, a single pass down from the boundary.",
        folded=len(rows) > 20,
    )
    return Section("layers", "Layer by layer", said, (), (table,) if rows else ())


def _data(found: Compared) -> Section:
    rows = tuple((image.name, image.sha256 or None, found.errors.get(image.id)) for image in found.images)
    assumed = (
        ("The preprocessing is ASSUMED: nobody said it. With another one scores and maps are others.",)
        if any(one.preprocess_assumed for one in found.comparison.models.values())
        else ()
    )
    preprocess = found.comparison.setup()["preprocess"]
    facts = (
        images_digest(listed((image.name, image.sha256) for image in found.images)),
        *((f"preprocessing of {name}", str(preprocess[name])) for name in (A, B)),
    )
    return Section("data", "The data", assumed, facts, (images_table(("file", "sha256", "error"), rows),))


def _environment(found: Compared, command: Sequence[str]) -> Section:
    facts = (
        ("command", shlex.join(command)),
        ("provider", found.comparison.first.provider),
        *versions().items(),
    )
    said = (
        "The command srd-onnx verify with the folder of this report checks its files and computes a sample of "
        "the maps again."
    )
    return Section("environment", "Environment and files", (said,), facts)


def comparison_csv(found: Compared) -> bytes:
    """A row for each image and number."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("image", "sha256", "predicted_by_a", "number", "value", "error"))
    for image in found.images:
        head = (harmless(image.name), image.sha256, image.top5[0][0] if image.top5 else "")
        if image.id in found.errors:
            writer.writerow((*head, "", "", harmless(found.errors[image.id])))
        for name, value in found.numbers.get(image.id, {}).items():
            writer.writerow((*head, harmless(name), "" if value is None else repr(value), ""))
    return buffer.getvalue().encode("utf-8", "backslashreplace")


def comparison_document(
    found: Compared, findings: Sequence[Finding], answer: Sequence[str], command: Sequence[str], made: str
) -> bytes:
    """Everything that decided the rows, and what they say, as JSON."""
    comparison = found.comparison
    named = (CORRELATION, RANKS, DISTANCE, SCORE)
    document = {
        "kind": "comparison",
        "made": made,
        "command": list(command),
        "images": {
            "folder": str(comparison.folder.resolve()),
            "count": len(found.images),
            "usable": len(found.usable),
        },
        "answer": list(answer),
        "remake": {
            name: how_to_remake(one, "srd", comparison.seed) for name, one in comparison.models.items()
        },
        "setup": comparison.setup(),
        "flips": len(found.flips),
        "mean_drift": found.mean_drift,
        "means": {name: vars(one) for name in named if (one := found.mean(name)) is not None},
        "layers": [
            {
                "name": name,
                "op": op,
                "distance": vars(one),
                "relevance": None if other is None else vars(other),
            }
            for name, op, one, other in found.layers
        ],
        "findings": [asdict(one) for one in findings],
    }
    return (to_json(document, indent=2) + "\n").encode("utf-8", "backslashreplace")
