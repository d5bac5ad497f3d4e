"""A compiled model from the disk, or onto it."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from onnx import helper

from srd_onnx.cache.store import Entry, Store
from srd_onnx.engine.compiling import Compiled, runnable
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.reading import Reading
from srd_onnx.errors import SrdOnnxError
from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Axes, Gate, Role
from srd_onnx.ort.runtime import CPU, make_session
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
        ready = runnable(compiled())
        session = ready.session(providers, threads)
        return Single(ready.reading, session, time.perf_counter() - began, compiled)
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
    ready = runnable(compiled())
    pending = store.pending(sum(array.nbytes for array in ready.weights.values()))
    if pending is None:
        session = ready.session(providers, threads)
    else:
        try:
            session = ready.session(providers, threads, keep=pending / _MODEL)
        except SrdOnnxError:  # the model is at fault, or the disk
            store.drop(pending)
            session = ready.session(providers, threads)
        else:
            facts = {"reading": plain(ready.reading), "packed": ready.packed, "about": dict(about)}
            store.keep(key, pending, facts)
    return Single(ready.reading, session, time.perf_counter() - began, compiled)


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
