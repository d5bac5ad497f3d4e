"""What a compiled model says: its outputs by name, read as a result, and refused where they are not finite."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx.engine.exposing import expose
from srd_onnx.engine.outline import Outline
from srd_onnx.engine.plan import Plan
from srd_onnx.engine.rival import Rival, likeness
from srd_onnx.engine.seed import DIRECTION, TARGET
from srd_onnx.errors import NonFiniteError
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import run

RELEVANCE = "relevance"
SEED, SCORES, CHOSEN, LEDGER = "srd.seed", "srd.scores", "srd.chosen", "srd.ledger"
RIVAL, ENTERED, BESIDE = "srd.rival", "srd.entered/", "srd.rival/"
_SQUARABLE = 1e17  # the squared norm of a vector of greater numbers may overflow float32


@dataclass(frozen=True, eq=False)
class Reading:
    """What it takes to read the outputs of a compiled model. Plain data, which can be kept on the disk.

    Attributes:
        outline: of its plan.
        outputs: what the engine asks the session for, `relevance` among them.
        booked: what each column of the ledger is booked against.
    """

    outline: Outline
    outputs: tuple[str, ...]
    booked: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """One run, for N inputs.

    Shapes: relevance of each explained input, by its name, [N, *positions]; totals [N], the sum of all maps; seed [N],
    scores [N, K], ledger [N, len(booked)], chosen [N] int64 or None where a free direction was explained. `booked`
    says what each column of the ledger is booked against. `rival` is None where no class was explained, or none beside
    another.
    """

    relevance: Mapping[str, Array]
    totals: Array
    seed: Array
    scores: Array
    ledger: Array
    booked: tuple[str, ...]
    chosen: Array | None = None
    rival: Rival | None = None


def run_reading(
    session: onnxruntime.InferenceSession, reading: Reading, feeds: Mapping[str, Array], seed: Array
) -> Result:
    """Explain one batch, see `compiling.run_explanation`; whether the result is finite or not."""
    seed_input = TARGET if CHOSEN in reading.outputs else DIRECTION
    names = list(reading.outputs)
    return read_outputs(
        reading, dict(zip(names, run(session, names, {**feeds, seed_input: seed}), strict=True))
    )


def read_outputs(reading: Reading, found: Mapping[str, Array]) -> Result:
    """What the outputs of a compiled model say, by name."""
    outline = reading.outline
    maps = [found[name] for name in reading.outputs if name.startswith(RELEVANCE)]
    batch = outline.batch
    ledger = found.get(LEDGER, np.zeros((batch, 0), np.float32))
    relevance = dict(zip((s.name for s in outline.sources), maps, strict=True))
    totals: Array = sum(one.reshape(batch, -1).sum(axis=1, dtype=np.float64) for one in maps)
    rival = None
    if RIVAL in found:
        names = [value.name for value in outline.boundary]
        own, other = ({n: found[kind + n] for n in names} for kind in (ENTERED, BESIDE))
        rival = Rival(found[RIVAL], likeness(outline, own, other))
    return Result(
        relevance,
        totals,
        found[SEED],
        found[SCORES],
        ledger,
        reading.booked,
        found.get(CHOSEN),
        rival,
    )


def is_finite(result: Result) -> bool:
    """Whether a result holds neither NaN nor infinity, but for scores of -inf: those under a mask."""
    # A sum in double precision is finite exactly where all that it adds up is.
    numbers = all(np.isfinite(a).all() for a in (result.totals, result.seed, result.ledger))
    return numbers and bool((result.scores < np.inf).all())


def require_finite(
    result: Result, plan: Plan, forward: ModelProto, feeds: Mapping[str, Array], providers: Sequence[str]
) -> None:
    """Refuse a result that holds NaN or infinity.

    Raises:
        NonFiniteError: naming the first activation that is not finite, or else saying what overflows.
    """
    if is_finite(result):
        return
    producers = plan.graph.producers
    values = [v for v in plan.graph.values.values() if v.known and v.is_float and v.name in producers]
    arrays = expose(forward, values, feeds, providers)
    raise not_finite(plan, zip((value.name for value in values), arrays, strict=True))


def not_finite(plan: Plan, activations: Iterable[tuple[str, Array]]) -> NonFiniteError:
    """Why a result is not finite.

    Args:
        plan: of what was explained.
        activations: by name, of real numbers, from the input on; taken up to the first that is not finite.
    """
    largest = 0.0
    for name, array in activations:
        if not np.isfinite(array).all():
            kind = "NaN" if np.isnan(array).any() else "infinity"
            return NonFiniteError(
                f"{kind} in the activation '{name}', computed by {plan.graph.producers[name]}; "
                "check the preprocessing (a wrong scale overflows) and the weights"
            )
        largest = max(largest, float(np.abs(array).max(initial=0)))
    return NonFiniteError(
        "every activation is finite but the relevance is not: "
        + (
            f"activations as large as {largest:.0e} overflow when squared; check the preprocessing and the weights"
            if largest > _SQUARABLE
            else "it overflowed on the way back; please report this with the model"
        )
    )
