"""Explaining a stream of inputs, of which some may be wrong."""

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import groupby, islice
from pathlib import Path

import numpy as np

from srd_onnx.errors import InputError
from srd_onnx.explaining import Explaining
from srd_onnx.explanation import Explanation
from srd_onnx.inputs.sources import Item, Source, read_items
from srd_onnx.inputs.stream import Failure, read_ahead
from srd_onnx.lanes import Lanes
from srd_onnx.ort import runtime
from srd_onnx.targets import Wanted

Numbered = tuple[int, Item]


def stream(
    lanes: Lanes[Explaining], inputs: Source | Iterable[Source], wanted: Wanted, ahead: int
) -> Generator[tuple[int, Explanation | Failure], None, None]:
    """Explanations and failures, each with the number of its source; see `Explainer.explain_many`."""
    explaining = lanes.explaining
    sources = [inputs] if isinstance(inputs, str | Path | np.ndarray | Mapping) else inputs

    def read(index: int, source: Source) -> Iterator[Item]:
        return read_items([source], explaining.ports, explaining.preprocess, first=index)

    with closing(read_ahead(sources, read, ahead)) as entries:
        for _, alike in groupby(entries, key=lambda one: None if isinstance(one, Failure) else one[1].shapes):
            while chunk := list(islice(alike, lanes.chunk)):
                items = [one for one in chunk if not isinstance(one, Failure)]
                yield from _explained(lanes, items, wanted)
                yield from ((one.index, one) for one in chunk if isinstance(one, Failure))


def _explained(
    lanes: Lanes[Explaining], chunk: Sequence[Numbered], wanted: Wanted
) -> Iterator[tuple[int, Explanation | Failure]]:
    """Items of the same shapes, one by one where something is wrong with one of them."""
    if not chunk:
        return
    try:
        with runtime.enough_memory():
            found = list(lanes.explained([item for _, item in chunk], wanted))
    except InputError as error:
        if len(chunk) > 1:
            for one in chunk:
                yield from _explained(lanes, [one], wanted)
        else:
            ((index, item),) = chunk
            yield index, Failure(item.name, error, index)
        return
    for (index, _), explained in zip(chunk, found, strict=True):
        yield from ((index, one) for one in explained)
