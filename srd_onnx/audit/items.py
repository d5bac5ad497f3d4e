"""The images of a report, one after the other."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from srd_onnx.audit.found import Found
from srd_onnx.audit.images import ImageFile
from srd_onnx.audit.maps import Maps
from srd_onnx.audit.state import ExplanationRow, ImageRow, State
from srd_onnx.audit.work import read_item
from srd_onnx.errors import InputError, OutputError
from srd_onnx.explanation import as_picture
from srd_onnx.report.content import Item, Layer, Shown

_MOST = 12  # rows of a ledger that are shown


@dataclass(frozen=True, eq=False)
class Items:
    """Iterates over the items; nothing but one image is in memory.

    Attributes:
        found: what there is.
        maps: where the maps are.
        state: where the ledgers are; it is open.
        explored: whether the first ones can be looked into.
    """

    found: Found
    maps: Maps
    state: State
    explored: bool

    def __iter__(self) -> Iterator[Item]:
        shown = self.found.audit.config.report
        selected = self.found.selected(shown.images)
        inside = set(selected[: shown.explored]) if self.explored else set()
        files = self.found.audit.files
        for image in sorted(selected, key=lambda one: one.id):
            yield self._item(image, files[image.id], inside=image in inside)

    def _item(self, image: ImageRow, file: ImageFile, *, inside: bool) -> Item:
        error = self.found.image_error(image)
        if error is not None:
            return Item(
                image.name, image.sha256, None, keys=self.found.keys(image), flags=("error",), error=error
            )
        photo = self._photo(file)
        main = self.found.main.get(image.id)
        layers = self._layers(file, main) if inside else ()
        ledgers = {(row.method, row.target): row.ledger for row in self.state.explanations(image.id)}
        return Item(
            image.name,
            image.sha256,
            photo,
            tuple((str(index) if label is None else label, score) for index, label, score in image.top5),
            tuple(self._facts(image)),
            self.found.keys(image),
            self.found.flags(image),
            tuple(
                self._shown(row, ledgers[row.method, row.target], layers if row is main else ())
                for row in self.found.explanations[image.id]
            ),
        )

    def _photo(self, file: ImageFile) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]] | None":
        try:
            return read_item(self.found.audit.base, file).image
        except InputError as error:  # it was there when it was explained
            raise OutputError(f"{file.path} cannot be read any more: {error}") from error

    def _facts(self, image: ImageRow) -> Iterator[tuple[str, str]]:
        if image.truth is not None:
            label = self.found.audit.base.label(image.truth)
            right = {True: ", as predicted", False: ", not as predicted", None: ""}[self.found.right(image)]
            yield "true class", (str(image.truth) if label is None else f"{label} ({image.truth})") + right
        row = self.found.main.get(image.id)
        if row is not None and row.no_mask:
            yield "mask", row.no_mask
        if image.id in self.found.outliers:
            yield "outlier by", ", ".join(self.found.outliers[image.id])
        for contender in self.found.audit.contenders:
            if failed := self.found.errors.get((image.id, contender.name)):
                yield f"no map by {contender.name}", failed

    def _shown(
        self, row: ExplanationRow, ledger: tuple[tuple[str, float], ...], layers: tuple[Layer, ...]
    ) -> Shown:
        contender = next(one for one in self.found.audit.contenders if one.name == row.method)
        relevance = self.maps.read(row.row, row.shape, row.digest)
        if relevance is None:
            raise OutputError(
                f"{self.maps.path}: the map of row {row.row} is not what was written. Run the same command again: it "
                "is then computed anew."
            )
        return Shown(
            target=str(row.target),
            label=row.label,
            method=row.method,
            score=row.seed,
            relevance=relevance if relevance.ndim == 1 else as_picture(relevance)[0],
            residual=row.residual,
            ledger=shortened(ledger),
            numbers=self._numbers(row),
            warnings=row.warnings,
            layers=layers,
            complete=contender.method is None or contender.method.complete,
        )

    def _numbers(self, row: ExplanationRow) -> Mapping[str, float | None]:
        measured = self.found.numbers.get((row.image, row.method, row.target), {})
        where = {"border": row.places.border, "centre": row.places.centre}
        if row.places.inside is not None:
            where["on the object"] = row.places.inside
        return {**measured, **where}

    def _layers(self, file: ImageFile, row: ExplanationRow | None) -> tuple[Layer, ...]:
        """Of a class that SRD explains, at once."""
        base = self.found.leading.explainer(self.found.audit.base)
        if row is None or not isinstance(row.target, int) or base.method is not None or base.max_memory:
            return ()
        from srd_onnx.report.inside import LookInside

        (decision,) = base.inside(str(file.path), row.target)
        return LookInside(base, file.path).layers(decision)


def shortened(ledger: tuple[tuple[str, float], ...]) -> tuple[tuple[str, float], ...]:
    """The largest amounts of a ledger, and all others together."""
    if len(ledger) <= _MOST:
        return ledger
    rest = ledger[_MOST:]
    return (*ledger[:_MOST], (f"{len(rest)} others together", sum(amount for _, amount in rest)))
