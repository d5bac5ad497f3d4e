"""What keeps an explanation within a given memory: nothing, layers that are computed twice, or parts of the picture."""

import time
from collections.abc import Sequence

from onnx import ModelProto

from srd_onnx.bounded.cuts import fitting, peak_of
from srd_onnx.bounded.pieces import cut
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.sizes import bytes_of, given_of, kept_of
from srd_onnx.bounded.tape import tape_of
from srd_onnx.bounded.tiles import Tiled, make_tiled
from srd_onnx.engine.compiling import Case, Compiled, compile_model, compile_plan, plan_for
from srd_onnx.engine.rule import RuleTable
from srd_onnx.errors import OptionError, UnsupportedCaseError
from srd_onnx.graph.expand import ExpansionTable


def make_bounded(
    model: ModelProto,
    case: Case,
    rules: RuleTable,
    expansions: ExpansionTable,
    providers: Sequence[str],
    threads: int | None,
    most: int,
) -> Recomputed | Tiled | None:
    """What explains in about `most` bytes besides the weights; None where the whole at once takes no more than that.

    Layers are computed twice where that is enough: it costs one more forward pass. Parts of the picture overlap, and
    take longer.

    Raises:
        OptionError: it takes more than that either way.
        SrdOnnxError: as `compile_model` does.
    """
    began = time.perf_counter()
    forward, plan = plan_for(model, case, rules, expansions)
    plan.require_complete()
    if kept_of(plan) + bytes_of(plan) <= most:
        return None
    compiled, given = compile_plan(forward, plan, case), given_of(plan)
    tape = tape_of(compiled)
    pieces, least = fitting(tape, given, most)
    if pieces is not None and len(pieces) == 1:
        return None
    if pieces is not None:
        seconds = time.perf_counter() - began
        return Recomputed(plan, compiled.reading, tuple(pieces), seconds, providers, threads)

    def of_part(one: Case) -> Compiled:
        return compile_model(model, one, rules, expansions)

    try:
        return make_tiled(forward, plan, case, of_part, providers, threads, most, began)
    except (OptionError, UnsupportedCaseError) as error:
        raise OptionError(
            f"max_memory={most}: at once the explanation takes about {given + peak_of(cut(tape, [0])):.0f} bytes, and "
            f"with layers computed twice {least:.0f} at the least (what skips over many layers must be kept). In parts "
            f"of the picture: {error}"
        ) from error
