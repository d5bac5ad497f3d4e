"""Explaining a deep network piece by piece, in bounded memory: what lies between two cuts is computed twice.

    1  forward, segment after segment; the tensors that cross a cut are kept
    2  from the last segment to the first: forward again, from what is kept, and backward

Nothing else is ever held at once than what is kept and one segment (Chen et al., "Training deep nets with sublinear
memory cost", 2016, arXiv 1604.06174). The numbers are those of the whole but for rounding: the nodes are the same ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from srd_onnx.bounded.pieces import Piece, done_after
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.reading import Reading, Result, is_finite, not_finite, read_outputs
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import make_session, run


@dataclass(frozen=True, eq=False)
class Recomputed:
    """Explains one target at a time; see `srd_onnx.runs.Passing`.

    Attributes:
        plan: of the whole.
        reading: how to read what the pieces give.
        pieces: in the order in which they run.
        seconds: that it took to compile.
        providers: see `make_session`.
        threads: see `make_session`.
    """

    plan: Plan
    reading: Reading
    pieces: tuple[Piece, ...]
    seconds: float
    providers: Sequence[str]
    threads: int | None

    @property
    def outline(self) -> Outline:
        """What it does."""
        return self.reading.outline

    @property
    def bounded(self) -> str:
        """How memory is kept."""
        return f"layers computed twice, in {sum(piece.back for piece in self.pieces)} segments"

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Result:
        """Explain one batch.

        Raises:
            NonFiniteError: if an activation or the relevance is not finite.
        """
        held = {**feeds, TARGET if seed.ndim == 1 else DIRECTION: seed}
        for piece, done in zip(self.pieces, done_after(self.pieces), strict=True):
            held |= self._run(piece, held)
            for name in done:
                del held[name]
        result = read_outputs(self.reading, held)
        if not is_finite(result):
            raise not_finite(self.plan, self._activations(feeds))
        return result

    def _activations(self, feeds: Mapping[str, Array]) -> Iterator[tuple[str, Array]]:
        """Every tensor of real numbers that the forward pass computes, segment after segment."""
        held, values = dict(feeds), self.plan.graph.values
        back = [piece for piece in reversed(self.pieces) if piece.back]
        kept = [piece for piece in self.pieces if not piece.back]
        for piece in kept:
            held |= self._run(piece, held)
        for piece in back:
            names = [name for name in piece.computed if values[name].is_float]
            if names:
                yield from self._run(piece.exposing(names), held).items()

    def _run(self, piece: Piece, held: Mapping[str, Array]) -> dict[str, Array]:
        session = make_session(
            piece.model().SerializeToString(),
            self.providers,
            self.threads,
            weights=piece.weights,
            arena=False,
        )
        found = run(session, piece.gives, {name: held[name] for name in piece.takes})
        return dict(zip(piece.gives, found, strict=True))
