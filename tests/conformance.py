"""The conformance cases of ONNX as tests of our rules: the tangent VJP against central differences, in float64, and
the pattern VJP as the adjoint of the frozen map.

A case is tried with all its real inputs varying, and with each of them varying alone and the others constant. What a
rule refuses is tried under other layouts, then with fewer varying inputs; what is left out is a limit of the case.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from onnx import NodeProto
from onnx.backend.test.case.node import collect_testcases

from graph_rules.registry import carries
from srd_onnx.engine.rule import RuleTable
from srd_onnx.errors import LayoutError, OpsetError, UnsupportedCaseError
from srd_onnx.graph.roles import Axes, Role
from tests.conformance_checks import NoRule, Wrong, check
from tests.conformance_models import Folded, Prepared, base_name, evaluate, folded, is_real, prepared
from tests.conformance_reasons import why_not

Status = Literal["passed", "not applicable", "refused", "no rule", "failed"]
STATUSES: tuple[Status, ...] = ("passed", "not applicable", "refused", "no rule", "failed")
_REFUSALS = (UnsupportedCaseError, LayoutError)
N, P, C = Role.BATCH, Role.POSITION, Role.CHANNEL
EXPECTED = Path(__file__).parent / "golden" / "conformance.txt"


# Cases whose recorded outputs the runtime, and so our reference, does not give: rules are held against the runtime.
_FRACTIONAL = (
    "recorded with a fractional size in align_corners; ONNX Runtime, and we, use the size of the output"
)
_OTHER_SIZE = (
    "recorded with indices into the usual size and another one given; ONNX Runtime, and we, index the latter"
)
DISPUTED: Mapping[str, str] = {
    **{f"test_resize_downsample_scales_{kind}_align_corners": _FRACTIONAL for kind in ("linear", "cubic")},
    "test_maxunpool_export_with_output_shape": _OTHER_SIZE,
}


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes:
        name: of the case.
        operator: what it tests, with " (expanded)" if written out in other operators.
        reason: why it is not passed; empty if it is.
        limits: what had to be held constant or left out for it to pass.
        precision: that it was checked in, if it was.
    """

    name: str
    operator: str
    status: Status
    reason: str = ""
    limits: tuple[str, ...] = ()
    precision: str = ""


@cache
def cases() -> tuple[Any, ...]:
    """Every recorded case of onnx; a second call of its collector would give each twice."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tuple(collect_testcases(None))


def expected_lines(outcomes: Sequence[Outcome]) -> list[str]:
    """The cases that are refused, have no rule or fail, one line each."""
    return [f"{o.status}: {o.name}" for o in outcomes if o.status not in ("passed", "not applicable")]


@cache
def _operators() -> dict[str, NodeProto]:
    """What each case that is not an expansion tests: its only node, or the one that is no helper."""
    return {case.name: _tested(case) for case in cases() if base_name(case.name) == case.name}


def _tested(case: Any) -> NodeProto:
    nodes: Sequence[NodeProto] = case.model.graph.node
    named = [n for n in nodes if n.op_type.lower() in case.name.replace("_", "")]
    return named[0] if named else next(iter(nodes))


def judge(case: Any, rules: RuleTable) -> Outcome:
    """Try one case."""
    operator = _operators()[base_name(case.name)]
    expanded = base_name(case.name) != case.name
    label = f"{operator.domain}::{operator.op_type}" if operator.domain else operator.op_type
    blank = Outcome(case.name, label + " (expanded)" * expanded, "not applicable")
    if (reason := why_not(case, operator)) is not None:
        return replace(blank, reason=reason)
    try:
        ready = prepared(case, rules)
    except OpsetError as error:
        return replace(blank, status="refused", reason=str(error))
    blank = replace(blank, precision=str(ready.dtype))
    try:
        return _tried(case, ready, rules, blank)
    except Exception as error:  # noqa: BLE001 - what the reference cannot run has not passed, and is listed
        return replace(blank, status="failed", reason=f"{type(error).__name__}: {error}")


def _tried(case: Any, ready: Prepared, rules: RuleTable, blank: Outcome) -> Outcome:
    difference = _from_recorded(case, ready)
    if (difference is not None) != (case.name in DISPUTED):
        return replace(
            blank, status="failed", reason=difference or "it gives what is recorded, yet is disputed"
        )
    names = [name for name, array in ready.feeds.items() if is_real(array) and np.size(array)]
    names = [name for i, name in enumerate(names) if i == 0 or np.isfinite(ready.feeds[name]).all()]
    whole = _verdict(case.name, ready, names, rules)
    single = {name: _verdict(case.name, ready, [name], rules) for name in names} if len(names) > 1 else {}
    every = {"+".join(names): whole, **single}
    for which, (status, reason) in every.items():
        if status == "failed":
            return replace(blank, status=status, reason=f"with {which} varying: {reason}")
    if whole[0] == "passed":
        limits = [
            f"{name} alone: {reason}" for name, (status, reason) in single.items() if status != "passed"
        ]
        limits = [whole[1]] * bool(whole[1]) + limits
    elif single and single[names[0]][0] == "passed":
        limits = [f"{', '.join(names[1:])} constant: {whole[1]}"]
    else:
        status, reason = single.get(names[0], whole)
        return replace(blank, status=status, reason=reason)
    limits += [DISPUTED[case.name]] if case.name in DISPUTED else []
    return replace(blank, status="passed", limits=tuple(limits))


def _from_recorded(case: Any, ready: Prepared) -> str | None:
    """How the model, converted and in the reference's hands, differs from the recorded outputs."""
    known = evaluate(ready.model, ready.feeds)
    for info, want in zip(case.model.graph.output, case.data_sets[0][1], strict=True):
        got = known[info.name]
        if np.shape(got) != np.shape(want):
            return f"the reference gives {info.name} {np.shape(got)}, recorded is {np.shape(want)}"
        if is_real(want):
            exact, recorded = np.asarray(got, float), np.asarray(want).astype(float)
            narrow = np.asarray(want).dtype.itemsize < 4
            with np.errstate(invalid="ignore"):
                error = np.nan_to_num(np.abs(exact - recorded), nan=0.0, posinf=0.0)
            scale = float(np.max(np.abs(recorded), initial=0.0, where=np.isfinite(recorded)))
            if np.any(error > (3e-2 if narrow else 1e-3) * scale + 1e-6):
                return f"the reference differs from the recorded {info.name} by {np.max(error):.1e}"
    return None


def _verdict(name: str, ready: Prepared, varying: Sequence[str], rules: RuleTable) -> tuple[Status, str]:
    """Try one choice of varying inputs: all layouts, all outputs and then the first alone."""
    part = folded(ready, varying)
    refusal = ""
    for outputs in _output_choices(part):
        for axes in _layouts(part):
            try:
                check(name, part, axes, outputs, rules)
            except NoRule as error:
                return "no rule", str(error)
            except _REFUSALS as error:
                refusal = refusal or _without_names(str(error))
            except Wrong as error:
                return "failed", str(error)
            except Exception as error:  # noqa: BLE001 - a rule that crashes has failed, and the others go on
                return "failed", f"{type(error).__name__}: {error}"
            else:
                whole = len(outputs) == len(_output_choices(part)[0])
                return "passed", "" if whole else f"only the first output: {refusal}"
    return "refused", refusal


def _without_names(message: str) -> str:
    return " ".join(message.split())


def _output_choices(part: Folded) -> list[list[str]]:
    real = [v.name for v in part.graph.outputs if carries(v) and v.is_float and 0 not in v.shape]
    return [real, real[:1]] if len(real) > 1 else [real]


def _layouts(part: Folded) -> Iterator[dict[str, Axes]]:
    """Ways to name the axes, the usual one first; the rules decide which of them make sense."""
    shapes = {v.name: v.shape for v in part.graph.inputs}
    widest = max(len(s) for s in shapes.values())

    def usual(rank: int) -> tuple[Role, ...]:
        return {0: (), 1: (C,), 2: (N, C)}.get(rank, (N, C, *(P,) * (rank - 2)))

    def tokens(rank: int) -> tuple[Role, ...]:
        return (N, *(P,) * (rank - 2), C) if rank > 1 else (C,) * rank

    def heads(rank: int) -> tuple[Role, ...]:
        return (N, C, P, C) if rank == 4 else tokens(rank)

    kinds: list[Callable[[int], tuple[Role, ...]]] = [
        usual,
        tokens,
        lambda rank: usual(widest)[widest - rank :],
        lambda rank: tokens(widest)[widest - rank :],
        heads,
        lambda rank: (P, N, C) if rank == 3 else usual(rank),
        lambda rank: (*(P,) * (rank - 1), C)[-rank:] if rank else (),
        lambda rank: (C, *(P,) * (rank - 1))[:rank],
        lambda rank: (P,) * rank,
        lambda rank: (C,) * rank,
    ]
    seen = set()
    for kind in kinds:
        made = tuple((name, kind(len(shape))) for name, shape in shapes.items())
        if made not in seen:
            seen.add(made)
            yield {name: Axes(roles) for name, roles in made}
