"""`Explainer`: the library's front door. It joins the engine to the rules, the zoo and the photos."""

import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from graph_rules import RULES
from srd_onnx import runtime, zoo
from srd_onnx.engine import (
    Compiled,
    compile_model,
    explanation_session,
    expose,
    plan_for,
    run_explanation,
    standalone,
    values_named,
)
from srd_onnx.errors import LayoutError, NonFiniteError, OptionError, ShapeError, UnknownTargetError
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write
from srd_onnx.inputs import Item, Sources, Transform, read_items, require_channels
from srd_onnx.load import load_model
from srd_onnx.options import DEFAULT_PRESET, Options, options_of
from srd_onnx.plan import Plan
from srd_onnx.preprocess import Preprocess, torchvision_default
from srd_onnx.roles import Role, guess_layout, parse_layout
from srd_onnx.targets import Target, resolve_targets

Array = NDArray[Any]
_KEPT_SHAPES = 4  # compiled sessions that are kept, the last used ones
_ASSUMED_SIZE = 224  # of a position axis that the model leaves open, where nothing else says


@dataclass(frozen=True, eq=False)
class _Ready:
    """A session for one input shape, and the seconds it took to compile and load."""

    compiled: Compiled
    session: onnxruntime.InferenceSession
    seconds: float


class Explainer:
    """Explains one ONNX model by sharing ratio decomposition.

    Args:
        model: a path, a name from the zoo, the bytes of a model, or a ModelProto.
        preprocess: makes the model's input from a photo. Left out: what the zoo knows, else the torchvision
            convention, and `meta["preprocess_assumed"]` says so.
        layout: the axes of the input, such as "NCHW" or "NHWC"; guessed if left out.
        preset: a named set of options.
        boundary, seed, sign, bias: single options that differ from the preset, see `Options`.
        labels: class names, or a file of them.
        providers: "auto" (CUDA where it works, else CPU), "cuda" or "cpu".
        threads: of the CPU provider; its own choice if left out.

    Raises:
        ModelError: the model cannot be used.
        LayoutError: the layout cannot be guessed or does not fit.
        OptionError: an option means nothing.
        ProviderError: CUDA was asked for and does not work.
    """

    def __init__(
        self,
        model: str | Path | bytes | onnx.ModelProto,
        *,
        preprocess: Transform | None = None,
        layout: str | None = None,
        preset: str = DEFAULT_PRESET,
        boundary: str | None = None,
        seed: str | None = None,
        sign: str | None = None,
        bias: str | None = None,
        labels: Sequence[str] | str | Path | None = None,
        providers: str = "auto",
        threads: int | None = None,
    ) -> None:
        entry = zoo.find(model) if isinstance(model, str) else None
        self.model = load_model(entry.path if entry else model)
        entry = entry or zoo.find_by_sha256(self.model.sha256)
        self.preset = preset
        self.options: Options = options_of(preset, boundary=boundary, seed=seed, sign=sign, bias=bias)
        self.providers, self.provider_note = runtime.choose_providers(providers)
        self._threads = threads
        self._input = _only_input(self.model.proto)
        self._declared = _declared_shape(self._input)
        self.layout_guessed = layout is None and entry is None
        self.layout = layout or (entry.layout if entry else guess_layout(self._declared, self._input.name))
        self.axes = parse_layout(self.layout, self._input.name, self._declared)
        self.preprocess_assumed = preprocess is None and entry is None
        self.preprocess: Transform = preprocess or (entry.preprocess if entry else self._usual_preprocess())
        self.labels = _labels(labels, entry)
        self._sessions: OrderedDict[tuple[int, ...], _Ready] = OrderedDict()

    # Looking at the model

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape for which `plan` and `graph` are shown: as declared, open sizes filled in, batch 1."""
        sizes = iter(self._picture_size())
        shape = []
        for size, role in zip(self._declared, self.axes.roles, strict=True):
            given = (
                next(sizes, _ASSUMED_SIZE)
                if role is Role.POSITION
                else {Role.BATCH: 1, Role.CHANNEL: 3}[role]
            )
            shape.append(size if size is not None else given)
        return tuple(shape)

    @property
    def plan(self) -> Plan:
        """What would be done for `input_shape`, node by node; `print` it."""
        return plan_for(
            self.model.proto, {self._input.name: self.input_shape}, self.axes, RULES, self.options
        )[1]

    @property
    def graph(self) -> Any:
        """The simplified graph as a networkx.MultiDiGraph; see `srd_onnx.ir.Graph.dag`."""
        return self.plan.graph.dag

    @property
    def provider(self) -> str:
        """The execution provider that sessions really run on."""
        return self.providers[0]

    # Explaining

    def explain(
        self,
        inputs: Sources,
        targets: Target | Sequence[Target] | None = None,
        *,
        batch_size: int = 1,
    ) -> list[Explanation]:
        """Explanations, input by input, and for each in the order of its targets.

        Args:
            inputs: paths of photos; photos, uint8 [H, W, 3]; or preprocessed data, N×... or a list of them.
            targets: an index, a label, "top3", or several; the prediction if left out.
            batch_size: inputs per run; the maps do not depend on it.

        Raises:
            InputError: the data does not fit the model, or leads to NaN.
            UnknownTargetError: a target does not exist.
            UnsupportedOpError, UnsupportedCaseError: relevance would reach what no rule covers.
        """
        return list(self.explain_each(inputs, targets, batch_size=batch_size))

    def explain_each(
        self,
        inputs: Sources,
        targets: Target | Sequence[Target] | None = None,
        *,
        batch_size: int = 1,
    ) -> Iterator[Explanation]:
        """As `explain`, one after the other, so that thousands need no memory."""
        items = read_items(inputs, self.axes, self.preprocess)
        size = self._declared[0] or _at_least_one("batch_size", batch_size)
        for _, alike in groupby(items, key=lambda item: item.data.shape):
            while chunk := list(islice(alike, size)):
                yield from self._explain_chunk(chunk, targets, size)

    def preactivations(self, inputs: Sources, names: str | Sequence[str] | None = None) -> dict[str, Array]:
        """Inner tensors of the graph, by name: the augmented outputs.

        Args:
            inputs: as for `explain`.
            names: tensors, or original names of nodes; the preactivations that relevance crosses (the inputs of
                its nonlinearities) if left out.

        Returns:
            arrays N×..., keyed by the names given (or the tensors' names).

        Raises:
            UnknownTensorError: naming what is not in the simplified graph.
        """
        found: dict[str, list[Array]] = {}
        names = [names] if isinstance(names, str) else names
        for item in read_items(inputs, self.axes, self.preprocess):
            compiled = self._ready((self._declared[0] or 1, *item.data.shape)).compiled
            plan = compiled.plan
            values = list(plan.preactivations) if names is None else values_named(plan.graph, names)
            data = self._stacked([item], plan.source.shape[0], plan.source.dtype)
            unique = list(dict.fromkeys(values))
            arrays = dict(zip(unique, expose(compiled.forward, unique, data, self.providers), strict=True))
            for name, value in zip(names or [v.name for v in values], values, strict=True):
                found.setdefault(name, []).append(arrays[value][:1])
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def compile(self, path: str | Path | None = None, *, batch: int | None = None) -> onnx.ModelProto:
        """The explained model as one ordinary ONNX model: the original outputs plus `relevance`.

        Its extra input `target` (int64 [batch], -1 for the top class) is optional. Written to `path` if given. The
        batch is 1 where neither it nor the model says otherwise.

        Raises:
            OutputError: the file cannot be written.
        """
        size = self.input_shape[0] if batch is None else _at_least_one("batch", batch)
        shape = (size, *self.input_shape[1:])
        model = standalone(self._compiled(shape))
        onnx.checker.check_model(model)
        if path is not None:
            atomic_write(path, model.SerializeToString())
        return model

    # Inside

    def _explain_chunk(
        self, items: list[Item], targets: Target | Sequence[Target] | None, size: int
    ) -> Iterator[Explanation]:
        ready = self._ready((size, *items[0].data.shape))
        compiled, session = ready.compiled, ready.session
        data = self._stacked(items, size, compiled.plan.source.dtype)
        began = time.perf_counter()
        top = run_explanation(session, compiled, data, np.full(size, -1, np.int64))
        wanted = [resolve_targets(targets, top.scores[i], self.labels) for i in range(len(items))]
        results = {}
        for column in range(max(map(len, wanted))):
            indices = [row[min(column, len(row) - 1)] for row in wanted]
            asked = np.array(indices + [indices[-1]] * (size - len(items)), np.int64)
            same = (asked[: len(items)] == top.chosen[: len(items)]).all()
            results[column] = top if same else run_explanation(session, compiled, data, asked)
        seconds = time.perf_counter() - began
        for i, item in enumerate(items):
            for column, target in enumerate(wanted[i]):
                yield self._explanation(
                    compiled, results[column], i, item, target, {"compile": ready.seconds, "run": seconds}
                )

    def _explanation(
        self, compiled: Compiled, result: Any, row: int, item: Item, target: int, seconds: dict[str, float]
    ) -> Explanation:
        ledger: dict[str, float] = {}
        for name, amount in zip(compiled.booked, result.ledger[row], strict=True):
            ledger[name] = ledger.get(name, 0.0) + float(amount)
        relevance = np.asarray(result.relevance[row], np.float32)
        seed, total = float(result.seed[row]), float(relevance.sum(dtype=np.float64))
        meta = self._meta(compiled, item, result.scores[row]) | {
            "seed_value": seed,
            "sum_relevance": total,
            "sum_ledger": sum(ledger.values()),
            "seconds": seconds,
        }
        return Explanation(
            relevance=relevance,
            target=target,
            logits=np.asarray(result.scores[row], np.float32),
            ledger=ledger,
            residual=seed - total - sum(ledger.values()),
            meta=meta,
            image=item.image,
            label=self.label(target),
            name=item.name,
        )

    def label(self, target: int) -> str | None:
        """The class name of an index, where it is known."""
        return self.labels[target] if self.labels and target < len(self.labels) else None

    def _meta(self, compiled: Compiled, item: Item, scores: Array) -> dict[str, Any]:
        plan, loaded = compiled.plan, self.model
        top = [int(i) for i in np.argsort(-scores, kind="stable")[:5]]
        return {
            "model": {
                "path": str(loaded.path) if loaded.path else None,
                "sha256": loaded.sha256,
                "opset": loaded.opset,
                "producer": loaded.producer,
                "parameters": loaded.parameters,
            },
            "input": {"name": plan.source.name, "shape": list(plan.source.shape), **(item.origin or {})},
            "layout": self.layout,
            "layout_guessed": self.layout_guessed,
            "preprocess": self.preprocess.to_dict() if isinstance(self.preprocess, Preprocess) else "custom",
            "preprocess_assumed": self.preprocess_assumed,
            "preset": self.preset,
            "options": self.options.to_dict(),
            "target_tensor": plan.target.name,
            "boundary": list(plan.boundary),
            "approximate": {s.node.origins[0]: s.approximate for s in plan.steps if s.approximate},
            "top5": [{"index": i, "label": self.label(i), "logit": float(scores[i])} for i in top],
            "provider": self.provider,
            "versions": runtime.versions(),
        }

    def _ready(self, shape: tuple[int, ...]) -> _Ready:
        if shape not in self._sessions:
            require_channels(shape, self._declared, self.axes, self._input.name)
            began = time.perf_counter()
            compiled = self._compiled(shape)
            session = explanation_session(compiled, self.providers, self._threads)
            self._sessions[shape] = _Ready(compiled, session, time.perf_counter() - began)
            while len(self._sessions) > _KEPT_SHAPES:
                self._sessions.popitem(last=False)
        self._sessions.move_to_end(shape)
        return self._sessions[shape]

    def _compiled(self, shape: tuple[int, ...]) -> Compiled:
        return compile_model(self.model.proto, {self._input.name: shape}, self.axes, RULES, self.options)

    def _stacked(self, items: list[Item], size: int, dtype: np.dtype[Any]) -> Array:
        """A full batch; a short one is filled up with its last item, so that no other shape is compiled."""
        rows = [item.data for item in items] + [items[-1].data] * (size - len(items))
        with np.errstate(over="ignore"):
            data = np.stack(rows).astype(dtype)
        if dtype.kind == "f" and not np.isfinite(data).all():
            raise NonFiniteError(
                f"{items[0].name}: its values are too large for the {dtype} that the model takes; "
                "check the preprocessing"
            )
        return data

    def _picture_size(self) -> tuple[int, ...]:
        preprocess = getattr(self, "preprocess", None)
        crop = preprocess.crop if isinstance(preprocess, Preprocess) else None
        return crop or ()

    def _usual_preprocess(self) -> Preprocess:
        if len(self.axes.positions) != 2:
            return Preprocess()  # no picture: a photo is refused where it is given
        sizes = [self.input_shape[axis] for axis in self.axes.positions]
        usual = torchvision_default(sizes[0], sizes[-1])
        grey = [self.input_shape[axis] for axis in self.axes.channels] == [1]
        return replace(usual, mean=(0.0,), std=(1.0,), channel_order="GRAY") if grey else usual


def _at_least_one(name: str, number: int) -> int:
    if number < 1:
        raise OptionError(f"{name}={number}: it must be at least 1")
    return number


def _only_input(model: onnx.ModelProto) -> onnx.ValueInfoProto:
    inputs: list[onnx.ValueInfoProto] = list(model.graph.input)
    if len(inputs) > 1:
        raise LayoutError(
            f"the model has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}); "
            "only models with one input can be explained so far"
        )
    return inputs[0]


def _declared_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    tensor = value.type.tensor_type
    if value.type.WhichOneof("value") != "tensor_type":
        raise ShapeError(f"input '{value.name}' is no tensor but a {value.type.WhichOneof('value')}")
    if not tensor.HasField("shape"):
        raise ShapeError(
            f"input '{value.name}' declares no shape at all; set one, e.g. with onnx.tools.update_model_dims"
        )
    return tuple(
        d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim
    )


def _labels(given: Sequence[str] | str | Path | None, entry: zoo.ZooModel | None) -> tuple[str, ...] | None:
    if isinstance(given, str | Path):
        return zoo.read_labels(given)
    if given is not None:
        if not all(isinstance(name, str) for name in given):
            raise UnknownTargetError("labels must be a list of class names, or the path of a file of them")
        return tuple(given)
    return zoo.read_labels(entry.labels_path) if entry else None
