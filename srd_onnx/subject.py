"""`Subject`: a model and how its inputs are read; what every analysis of it needs."""

import copy
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Self, TypedDict, TypeVar

import numpy as np
import onnx
from numpy.typing import ArrayLike, NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import zoo
from srd_onnx.cache import place
from srd_onnx.cache.keys import identity
from srd_onnx.engine.compiling import Case, Compiled, compile_model, plan_for
from srd_onnx.engine.options import DEFAULT_PRESET, NO_FOCUS, Options, options_of
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import OptionError, UnknownTargetError
from srd_onnx.graph.fixed import with_fixed
from srd_onnx.graph.load import load_model
from srd_onnx.graph.widen import widened
from srd_onnx.inputs.ports import ports_of
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.inputs.sources import Item, Sources, Transform, read_items, stacked, usual_preprocess
from srd_onnx.ort import runtime

Array = NDArray[Any]
T = TypeVar("T")
_KEPT = 4


class Settings(TypedDict, total=False):
    """What `Subject` takes besides the model."""

    preprocess: Transform | None
    layout: str | Mapping[str, str] | None
    preset: str
    boundary: str | None
    seed: str | None
    sign: str | None
    bias: str | None
    focus: str | None
    smooth: float | None
    labels: Sequence[str] | str | Path | None
    providers: str
    threads: int | None
    fixed: Mapping[str, ArrayLike] | None
    compare: bool
    max_memory: int | None


class Subject:
    """One ONNX model, ready to be looked into.

    Args:
        model: a path, a name from the zoo, the bytes of a model, or a ModelProto.
        preprocess: makes the model's input from a photo. Left out: what the zoo knows, else the torchvision
            convention, and `meta["preprocess_assumed"]` says so.
        layout: the axes of the first input, such as "NCHW" or "NHWC", or of any input by name; guessed if left out.
        preset: a named set of options.
        boundary, seed, sign, bias, focus, smooth: single options that differ from the preset, see `Options`.
        labels: class names, or a file of them.
        providers: "auto" (CUDA where it works, else CPU), "cuda" or "cpu".
        threads: of the CPU provider; its own choice if left out.
        fixed: values of inputs that are settings (a sampling rate), by name; they are inputs no more, and an If that
            they decide becomes the branch that it takes.
        compare: also compute what enters at the boundary for the strongest other class, to warn where the map barely
            changes with the class (SRD only). It costs 2 % at the "encoder", 15 to 25 % at a boundary halfway down.
        max_memory: bytes that an explanation by SRD may take, about, besides the weights. What takes more is explained
            piece by piece: its layers are computed twice; or, if that is not enough, a picture in parts (without focus
            only). See `srd_onnx.bounded` and docs/speed.md.

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
        layout: str | Mapping[str, str] | None = None,
        preset: str = DEFAULT_PRESET,
        boundary: str | None = None,
        seed: str | None = None,
        sign: str | None = None,
        bias: str | None = None,
        focus: str | None = None,
        smooth: float | None = None,
        labels: Sequence[str] | str | Path | None = None,
        providers: str = "auto",
        threads: int | None = None,
        fixed: Mapping[str, ArrayLike] | None = None,
        compare: bool = True,
        max_memory: int | None = None,
    ) -> None:
        entry = zoo.find(model) if isinstance(model, str) else None
        self.providers, self.provider_note = runtime.choose_providers(providers)
        loaded = load_model(entry.path if entry else model, place.digests(identity()))
        self.model = widened(loaded, self.provider)
        entry = entry or zoo.find_by_sha256(self.model.sha256)
        self.fixed = {name: np.asarray(value).tolist() for name, value in (fixed or {}).items()}
        if fixed:
            self.model = with_fixed(self.model, fixed)
        self.preset = preset
        self.options: Options = options_of(
            preset, boundary=boundary, seed=seed, sign=sign, bias=bias, focus=focus, smooth=smooth
        )
        self.threads = threads
        self.compare = compare
        self.max_memory = None if max_memory is None else at_least_one("max_memory", max_memory)
        self.ports = ports_of(self.model.proto, layout, entry.layout if entry else None)
        self.preprocess_assumed = preprocess is None and entry is None
        self.preprocess: Transform = preprocess or (
            entry.preprocess if entry else usual_preprocess(self.ports[0])
        )
        self.labels = _labels(labels, entry)
        self.store = place.store()
        self._sessions: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = threading.RLock()  # what is made may ask for what it is made of

    # Looking at the model

    @property
    def layout(self) -> str:
        """One letter for each axis of the first input."""
        return self.ports[0].layout

    @property
    def layout_guessed(self) -> bool:
        """Whether nobody said the layout."""
        return any(port.guessed for port in self.ports)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of the first input for which `plan` and `graph` are shown: open sizes filled in, batch 1."""
        return self.shown_shapes()[self.ports[0].name]

    @property
    def plan(self) -> Plan:
        """What would be done for `input_shape`, node by node; `print` it."""
        return self.planned(self.case(self.shown_shapes()))[1]

    @property
    def graph(self) -> Any:
        """The simplified graph as a networkx.MultiDiGraph; see `srd_onnx.graph.ir.Graph.dag`."""
        return self.plan.graph.dag

    @property
    def provider(self) -> str:
        """The execution provider that sessions really run on."""
        return self.providers[0]

    def label(self, target: int) -> str | None:
        """The class name of an index, where it is known."""
        return self.labels[target] if self.labels and target < len(self.labels) else None

    # For the analyses

    def chunks(self, inputs: Sources, batch_size: int) -> Iterator[tuple[list[Item], int]]:
        """Items of the same shapes, and how many the model takes at once."""
        size = self.at_once(batch_size)
        for chunk in self.alike(inputs, size):
            yield chunk, size

    def alike(self, inputs: Sources, most: int) -> Iterator[list[Item]]:
        """Items of the same shapes that follow each other, up to `most` of them."""
        for _, alike in groupby(
            read_items(inputs, self.ports, self.preprocess), key=lambda item: item.shapes
        ):
            while chunk := list(islice(alike, most)):
                yield chunk

    def at_once(self, batch_size: int = 1) -> int:
        """How many inputs the model takes per run, where it leaves that open `batch_size`."""
        fixed = [port.declared[0] for port in self.ports if port.has_batch and port.declared[0]]
        if not all(port.has_batch for port in self.ports):
            return 1
        return fixed[0] if fixed else batch_size

    def case(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        explained: str | None = None,
        boundary: str | None = None,
        *,
        free: bool = False,
    ) -> Case:
        """What to compile for inputs of these shapes: see `engine.compiling.Case`; `boundary` replaces the option."""
        start = {port.name: port.axes for port in self.ports}
        options = replace(self.options, boundary=boundary, focus=NO_FOCUS) if boundary else self.options
        blocks = self.provider == runtime.CPU
        return Case(shapes, start, options, explained, free=free, blocks=blocks, rival=self.compare)

    def with_changed(self, **changes: Any) -> Self:
        """The same model with some options changed."""
        return self._other(options=replace(self.options, **changes))

    def with_options(self, preset: str, **changes: Any) -> Self:
        """The same model with the options of a preset, but for those given."""
        return self._other(preset=preset, options=options_of(preset, **changes))

    def with_threads(self, threads: int) -> Self:
        """The same, with sessions of so many threads each; made once, so that they stay."""
        return self.kept(("threads", threads), lambda: self._other(threads=threads))

    def with_model(self, proto: onnx.ModelProto) -> Self:
        """The same, of another model with the same inputs and outputs (other weights), kept on no disk."""
        return self._other(model=load_model(proto), store=None)

    def _other(self, **attributes: Any) -> Self:
        """A copy with other attributes, and sessions of its own."""
        other = copy.copy(self)
        vars(other).update(attributes, _sessions=OrderedDict(), _lock=threading.RLock())
        return other

    def planned(self, case: Case) -> tuple[onnx.ModelProto, Plan]:
        """The simplified model and its plan; raises as `srd_onnx.engine.compiling.plan_for` does."""
        with runtime.enough_memory():
            return plan_for(self.model.proto, case, RULES, EXPANSIONS)

    def compiled(self, case: Case) -> Compiled:
        """The model with its backward pass; raises as `srd_onnx.engine.compiling.compile_model` does."""
        with runtime.enough_memory():
            return compile_model(self.model.proto, case, RULES, EXPANSIONS)

    def shapes(self, item: Item, size: int) -> dict[str, tuple[int, ...]]:
        """The shape of every input for `size` items like this one."""
        given = item.shapes
        return {p.name: (size, *given[p.name]) if p.has_batch else given[p.name] for p in self.ports}

    def shown_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes for which the model is shown: open sizes filled in, batch 1."""
        crop = self.preprocess.crop if isinstance(self.preprocess, Preprocess) else None
        return {port.name: port.shape(crop or ()) for port in self.ports}

    def kept(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` gives, made once; of all that is kept, the last few used stay (compiled sessions are large)."""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = make()
                while len(self._sessions) > _KEPT:
                    self._sessions.popitem(last=False)
            self._sessions.move_to_end(key)
            found: T = self._sessions[key]
        return found

    def feeds(self, items: list[Item], size: int) -> dict[str, Array]:
        """What a session takes for these items, filled up to `size`."""
        return {port.name: stacked(items, size, port) for port in self.ports}


def at_least_one(name: str, number: int) -> int:
    """The number.

    Raises:
        OptionError: if it is less than 1.
    """
    if number < 1:
        raise OptionError(f"{name}={number}: it must be at least 1")
    return number


def _labels(given: Sequence[str] | str | Path | None, entry: zoo.ZooModel | None) -> tuple[str, ...] | None:
    if isinstance(given, str | Path):
        return zoo.read_labels(given)
    if given is not None:
        if not all(isinstance(name, str) for name in given):
            raise UnknownTargetError("labels must be a list of class names, or the path of a file of them")
        return tuple(given)
    return zoo.read_labels(entry.labels_path) if entry else None
