"""A compiled model from the disk, or onto it."""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import helper

from srd_onnx.cache.store import Entry, Store
from srd_onnx.engine.compiling import Array, Compiled, Reading, weightless
from srd_onnx.engine.outline import Outline
from srd_onnx.errors import SrdOnnxError
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Axes, Gate, Role
from srd_onnx.ort.runtime import CPU, make_session
from srd_onnx.ort.weights import packing_pays
from srd_onnx.runs import Single

_MODEL = "model.onnx"


def kept_single(
    store: Store | None,
    key: Callable[[], str],
    about: Mapping[str, Any],
    compiled: Callable[[], Compiled],
    providers: Sequence[str],
    threads: int | None,
) -> Single:
    """What explains one target after the other: from the store, or compiled and put there.

    Only what runs on the CPU is kept: the optimised graph, with its weights, as ONNX Runtime writes it.

    Args:
        store: None to keep nothing.
        key: of what is compiled.
        about: plain data for the list of what is kept.
        compiled: compiles it.
        providers: of the session.
        threads: of the session.

    Raises:
        SrdOnnxError: as compiling and opening a session do.
    """
    began = time.perf_counter()
    if store is None or list(providers) != [CPU]:
        reading, model, weights, packed = _ready(compiled())
        session = make_session(model, providers, threads, packed=packed, weights=weights)
        return Single(reading, session, time.perf_counter() - began, compiled)
    name = key()
    entry = store.find(name)
    found = _opened(store, entry, providers, threads, compiled, began) if entry is not None else None
    return found or _made(store, name, about, compiled, providers, threads, began)


def _opened(
    store: Store,
    entry: Entry,
    providers: Sequence[str],
    threads: int | None,
    compiled: Callable[[], Compiled],
    began: float,
) -> Single | None:
    try:
        packed = entry.facts["packed"]
        session = make_session(entry.folder / _MODEL, providers, threads, optimise=False, packed=packed)
    except SrdOnnxError:  # another process removed it meanwhile
        store.discard(entry.key)
        return None
    return Single(read_back(entry.facts["reading"]), session, time.perf_counter() - began, compiled)


def _made(
    store: Store,
    key: str,
    about: Mapping[str, Any],
    compiled: Callable[[], Compiled],
    providers: Sequence[str],
    threads: int | None,
    began: float,
) -> Single:
    reading, model, weights, packed = _ready(compiled())
    open_it = functools.partial(make_session, model, providers, threads, packed=packed, weights=weights)
    pending = store.pending(sum(array.nbytes for array in weights.values()))
    if pending is None:
        session = open_it()
    else:
        try:
            session = open_it(keep=pending / _MODEL)
        except SrdOnnxError:  # the model is at fault, or the disk
            store.drop(pending)
            session = open_it()
        else:
            store.keep(key, pending, {"reading": plain(reading), "packed": packed, "about": dict(about)})
    return Single(reading, session, time.perf_counter() - began, compiled)


def _ready(made: Compiled) -> tuple[Reading, bytes, dict[str, Array], bool]:
    """All that is needed of a compiled model; the rest, and with it copies of all weights, may go."""
    model, weights = weightless(made)
    return made.reading, model.SerializeToString(), weights, packing_pays(made.plan.graph)


def plain(reading: Reading) -> dict[str, Any]:
    """As JSON has it; see `read_back`."""
    outline = reading.outline
    return {
        "sources": [_plain_value(value) for value in outline.sources],
        "target": _plain_value(outline.target),
        "boundary": [_plain_value(value) for value in outline.boundary],
        "roles": {n: [str(a), int(a.gate), a.inert] for n, a in outline.roles.items()},
        "batch": outline.batch,
        "approximate": dict(outline.approximate),
        "outputs": list(reading.outputs),
        "booked": list(reading.booked),
    }


def read_back(found: Mapping[str, Any]) -> Reading:
    """The opposite of `plain`."""
    outline = Outline(
        tuple(_value(one) for one in found["sources"]),
        _value(found["target"]),
        tuple(_value(one) for one in found["boundary"]),
        {n: Axes(tuple(map(Role, letters)), Gate(g), i) for n, (letters, g, i) in found["roles"].items()},
        found["batch"],
        found["approximate"],
    )
    return Reading(outline, tuple(found["outputs"]), tuple(found["booked"]))


def _plain_value(value: Value) -> list[Any]:
    return [value.name, list(value.shape), helper.np_dtype_to_tensor_dtype(value.dtype)]


def _value(found: Sequence[Any]) -> Value:
    name, shape, dtype = found
    return Value(name, tuple(shape), helper.tensor_dtype_to_np_dtype(dtype))
