"""Looking inside: sharing ratios, effective receptive fields and layers of a model, for the inputs of a user."""

import functools
from collections.abc import Iterator, Sequence

import onnxruntime

from srd_onnx.engine.exposing import exposing_session, values_named
from srd_onnx.graph.ir import Array, Value
from srd_onnx.inputs.sources import Sources
from srd_onnx.inside.erf import Erf, Positions, fields, places
from srd_onnx.inside.layers import Layer, layers_of, selected
from srd_onnx.ort import runtime
from srd_onnx.sharing.ratios import LayerRatios, RatioSession, compile_ratios, run_ratios
from srd_onnx.subject import Subject

Shapes = dict[str, tuple[int, ...]]


def each_ratios(subject: Subject, inputs: Sources) -> Iterator[dict[str, LayerRatios]]:
    """For each run the ratios of every layer that mixes positions, by its original name; see `Explainer.ratios`."""
    for chunk, size in subject.chunks(inputs, 1):
        ready = _ready(subject, subject.shapes(chunk[0], size), None)
        layers, _ = run_ratios(ready, subject.feeds(chunk, size))
        yield _by_name(layers)


def _by_name(layers: tuple[LayerRatios, ...]) -> dict[str, LayerRatios]:
    found: dict[str, LayerRatios] = {}
    for layer in reversed(layers):
        if layer.mixes:
            # Several nodes may stand for one of the file, and a node may have several outputs.
            found[layer.tensor if layer.layer in found else layer.layer] = layer
    return found


def each_erf(subject: Subject, inputs: Sources, layer: str, positions: Positions) -> Iterator[Iterator[Erf]]:
    """For each input and layer the fields, some positions at a time; see `Explainer.erf_each`."""
    for chunk, size in subject.chunks(inputs, 1):
        shapes = subject.shapes(chunk[0], size)
        for tensor in layers_named(subject, shapes, layer):
            ready = _ready(subject, shapes, tensor)
            at = places(ready.plan, tensor, positions)
            ratios, _ = run_ratios(ready, subject.feeds(chunk, size))
            for row, item in enumerate(chunk):
                yield fields(ready.plan, ratios, tensor, at, row, item.name)


def each_preactivations(
    subject: Subject, inputs: Sources, names: Sequence[str] | None
) -> Iterator[dict[str, Array]]:
    """For each run the tensors by name; see `Explainer.preactivations`."""
    for chunk, size in subject.chunks(inputs, 1):
        shapes = subject.shapes(chunk[0], size)
        key = ("exposing", tuple(sorted(shapes.items())), None if names is None else tuple(names))
        values, session = subject.kept(key, functools.partial(_exposing, subject, shapes, names))
        arrays = runtime.run(session, None, subject.feeds(chunk, size))
        by_value = dict(zip(dict.fromkeys(values.values()), arrays, strict=True))
        yield {name: by_value[value][: len(chunk)] for name, value in values.items()}


def _exposing(
    subject: Subject, shapes: Shapes, names: Sequence[str] | None
) -> tuple[dict[str, Value], onnxruntime.InferenceSession]:
    forward, plan = subject.planned(subject.case(shapes))
    usual = {value.name: value for value in plan.preactivations}
    values = usual if names is None else values_named(plan.graph, names)
    return values, exposing_session(forward, list(dict.fromkeys(values.values())), subject.providers)


def layers_named(subject: Subject, shapes: Shapes, layer: str) -> list[str]:
    """The tensors that the name of a layer means; see `srd_onnx.inside.layers.selected`."""
    key = ("named", tuple(sorted(shapes.items())), layer)
    return subject.kept(key, lambda: selected(subject.planned(subject.case(shapes))[1], layer))


def listed(subject: Subject) -> list[Layer]:
    """All layers for the shapes that the model is shown for; see `Explainer.layers`."""
    shapes = subject.shown_shapes()
    _, plan = subject.planned(subject.case(shapes))
    return layers_of(subject.planned(subject.case(shapes, boundary=plan.target.name))[1])


def _ready(subject: Subject, shapes: Shapes, tensor: str | None) -> RatioSession:
    """A session for the ratios down from the boundary, or from a tensor."""
    make = functools.partial(_compiled, subject, shapes, tensor)
    return subject.kept(("ratios", tuple(sorted(shapes.items())), tensor), make)


def _compiled(subject: Subject, shapes: Shapes, tensor: str | None) -> RatioSession:
    forward, plan = subject.planned(subject.case(shapes, tensor, tensor))
    return compile_ratios(plan, forward, subject.providers, subject.threads)
