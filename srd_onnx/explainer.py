"""`Explainer`: the library's front door. It joins the engine to the rules, the zoo and the photos."""

import functools
import itertools
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from srd_onnx.apop.pattern_run import Kind, Pattern
from srd_onnx.apop.results import ApopResult, pattern_results
from srd_onnx.engine.compiling import standalone
from srd_onnx.engine.options import NO_FOCUS
from srd_onnx.explaining import Explaining
from srd_onnx.explanation import Explanation
from srd_onnx.files import atomic_write
from srd_onnx.inputs.sources import Source, Sources
from srd_onnx.inputs.stream import Failure
from srd_onnx.inside.decision import Decision, decisions
from srd_onnx.inside.erf import Erf, Positions, whole
from srd_onnx.inside.layers import Layer
from srd_onnx.inside.looking import each_erf, each_preactivations, each_ratios, listed
from srd_onnx.lanes import lanes_of
from srd_onnx.ort import runtime
from srd_onnx.ort.deployed import with_weights_of
from srd_onnx.sharing.ratios import LayerRatios
from srd_onnx.sharing.several import Passed, carried, raised
from srd_onnx.streaming import stream
from srd_onnx.subject import at_least_one
from srd_onnx.targets import (
    Target,
    split_targets,
)

Array = NDArray[Any]


class Explainer(Explaining):
    """Explains one ONNX model by sharing ratio decomposition.

    Made with what `Subject` takes:

    `Explainer(model, *, preprocess, layout, preset, boundary, seed, sign, bias, labels, providers, threads, fixed,
    compare)`

    and with `method`: "srd", or another one by its name or as a `Method` (`srd_onnx.methods`), to compare with.
    """

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
            inputs: paths of photos; photos, uint8 [H, W, 3]; or preprocessed data, N×... or a list of them; for a
                model with several inputs a dictionary from their names to arrays.
            targets: a class by index, label or "top3"; what speaks for one class rather than another as
                `Contrast(285, 282)`; any elements as `At("output", index)` or "output[3, 4:]"; or several, in that
                order; the prediction if left out.
            batch_size: inputs at once: side by side on the threads of the CPU, in one run on a GPU; the maps do not
                depend on it.

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
        wanted = split_targets(targets)
        lanes = lanes_of(self, at_least_one("batch_size", batch_size))
        for chunk in self.alike(inputs, lanes.chunk):
            with runtime.enough_memory():
                found = list(lanes.explained(chunk, wanted))
            for explained in found:
                yield from explained

    def explain_many(
        self,
        inputs: Source | Iterable[Source],
        targets: Target | Sequence[Target] | None = None,
        *,
        ahead: int = 4,
        batch_size: int = 1,
    ) -> Generator[Explanation | Failure, None, None]:
        """A stream: as `explain_each`, of any iterable, while a thread reads the next inputs.

        In order. What is wrong with one input (`InputError`) is a `Failure` in its place and does not stop the stream;
        what is wrong with the model, an option or the iterable does. When the iterator is closed, or Ctrl-C interrupts
        it, the thread finishes the input it is at and takes no other.

        Args:
            inputs: paths, photos or arrays, one by one; taken and read by the thread alone.
            targets: as for `explain`.
            ahead: how many inputs may wait, read, to be explained.
            batch_size: as for `explain`; of inputs of the same shape that follow each other.

        Raises:
            as `explain`, but no InputError.
        """
        with closing(self.explain_numbered(inputs, targets, ahead=ahead, batch_size=batch_size)) as found:
            yield from (one for _, one in found)

    def explain_numbered(
        self,
        inputs: Source | Iterable[Source],
        targets: Target | Sequence[Target] | None = None,
        *,
        ahead: int = 4,
        batch_size: int = 1,
    ) -> Generator[tuple[int, Explanation | Failure], None, None]:
        """As `explain_many`, each with the number of the input that it is of, from 0: one may hold several rows."""
        lanes = lanes_of(self, at_least_one("batch_size", batch_size))
        return stream(lanes, inputs, split_targets(targets), at_least_one("ahead", ahead))

    def explain_forward(
        self, inputs: Sources, targets: Target | Sequence[Target] | None = None
    ) -> list[Explanation]:
        """As `explain`, by the forward pass of the paper: the sum over the PFVs of the boundary of R · ERF.

        The fields are built from the input upward, layer by layer. The maps are those of `explain` but for rounding;
        the ledger books in one what no field holds.
        """
        wanted = split_targets(targets)
        found = []
        for chunk, size in self.chunks(inputs, 1):
            with runtime.enough_memory():
                explained = list(self.explained(chunk, size, wanted, raised))
            found += [one for row in range(len(chunk)) for by_row in explained for one in by_row[row]]
        return found

    # Inside a decision

    def inside(self, inputs: Sources, targets: Target | Sequence[Target] | None = None) -> list[Decision]:
        """As `explain`, with the relevance of every layer from the input to the boundary, and what neurons carry.

        Of a single pass, without focus and smoothing.
        """
        wanted, single = split_targets(targets), self.with_changed(focus=NO_FOCUS, smooth=0.0)
        found = []
        for chunk, size in self.chunks(inputs, 1):
            passes: list[Passed] = []
            with runtime.enough_memory():
                way = functools.partial(carried, watch=passes.append)
                explained = list(single.explained(chunk, size, wanted, way))
                found += list(decisions(single, chunk, self.feeds(chunk, size), explained, passes))
        return found

    def ratios(self, inputs: Sources) -> list[dict[str, LayerRatios]]:
        """The sharing ratios of every layer below the boundary that mixes positions, by its original name.

        They depend on the input alone, not on a target. One dictionary for each run, from the input to the boundary.
        """
        return list(each_ratios(self, inputs))

    def erf(self, inputs: Sources, layer: str = "encoder", positions: Positions = "all") -> list[Erf]:
        """The effective receptive fields of PFVs of a layer, for each input and each layer that the name means.

        Args:
            inputs: as for `explain`.
            layer: a tensor, an original node, a wildcard over these, or "encoder" (the boundary).
            positions: "all", or coordinates along the position axes of the layer, such as [(3, 4), (7, 7)].

        Raises:
            UnknownTensorError: there is no such layer.
            OptionError: a position lies outside.
        """
        with runtime.enough_memory():
            return [whole(parts) for parts in each_erf(self, inputs, layer, positions)]

    def erf_each(
        self, inputs: Sources, layer: str = "encoder", positions: Positions = "all"
    ) -> Iterator[Erf]:
        """As `erf`, a few hundred positions at a time, so that the largest layer needs little memory."""
        yield from itertools.chain.from_iterable(each_erf(self, inputs, layer, positions))

    def layers(self) -> list[Layer]:
        """The layers that relevance crosses, from the input to the target, for `input_shape`."""
        return listed(self)

    def apop(
        self,
        pattern_from: Sources,
        run_on: Sources,
        *,
        pattern: Kind = "exact",
        layers: int | float | None = None,
    ) -> list[ApopResult]:
        """Activation-pattern-only prediction: `run_on` under the activation pattern of `pattern_from`.

        Args:
            pattern_from: inputs, as for `explain`, of which the patterns are.
            run_on: one input for each of them, or one for all.
            pattern: what of it is held fixed, "exact" or "active", see `Pattern`.
            layers: the first so many nonlinear layers alone (a float: this part of them).

        Raises:
            InputError: the data does not fit the model, or the two do not fit each other.
            OptionError: there is no such pattern.
            UnsupportedOpError, UnsupportedCaseError: what lies between input and scores has no rule.
        """
        return list(pattern_results(self, pattern_from, run_on, Pattern(pattern, layers)))

    def preactivations(self, inputs: Sources, names: str | Sequence[str] | None = None) -> dict[str, Array]:
        """Inner tensors of the graph, by name: the augmented outputs.

        Args:
            inputs: as for `explain`.
            names: tensors, original names of nodes, or wildcards over both; the preactivations that relevance crosses
                (the inputs of its nonlinearities) if left out.

        Returns:
            arrays N×..., keyed by the names given; what no name was given for by the tensors' names.

        Raises:
            UnknownTensorError: naming what is not in the simplified graph.
        """
        found: dict[str, list[Array]] = {}
        for exposed in self.preactivations_each(inputs, names):
            for name, array in exposed.items():
                found.setdefault(name, []).append(array)
        return {name: np.concatenate(parts) for name, parts in found.items()}

    def preactivations_each(
        self, inputs: Sources, names: str | Sequence[str] | None = None
    ) -> Iterator[dict[str, Array]]:
        """As `preactivations`, one run after the other, so that thousands of inputs need no memory."""
        yield from each_preactivations(self, inputs, [names] if isinstance(names, str) else names)

    def compile(self, path: str | Path | None = None, *, batch: int | None = None) -> onnx.ModelProto:
        """The explained model as one ordinary ONNX model: the original outputs plus `relevance`.

        Its extra input `target` (int64 [batch], -1 for the top class) is optional. Written to `path` if given. The
        batch is 1 where neither it nor the model says otherwise. With several explained inputs there is one output
        `relevance/NAME` for each.

        Raises:
            OutputError: the file cannot be written.
        """
        shapes = self.shown_shapes()
        if batch is not None:
            at_least_one("batch", batch)
            shapes |= {p.name: (batch, *shapes[p.name][1:]) for p in self.ports if p.has_batch}
        compiled = self.compiled(self.case(shapes))
        with runtime.enough_memory():
            model = with_weights_of(self.model.proto, standalone(compiled))
        onnx.checker.check_model(model)
        if path is not None:
            atomic_write(path, model.SerializeToString())
        return model
