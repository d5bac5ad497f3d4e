"""The checks that the replay of every rule must pass; each takes the rule table, so that it may be wrong."""

import numpy as np
import onnx

from srd_onnx.apop.replay import Replayer
from srd_onnx.engine.emit import FORWARD_NODE, RULE
from srd_onnx.engine.rule import RuleTable
from tests.case_types import Case
from tests.checks import close, close_single, given, inner, on_runtime, real_operands, real_outputs, replay_of
from tests.harness import Bench, Emitted, assembled, bench, emitted_vjp, real
from tests.oracle_types import Array


def emitted_replay(b: Bench, rules: RuleTable) -> Emitted:
    """The outputs of the node for new operands, which are graph inputs u0, u1, ..."""
    emit = b.emitter()
    wanted = frozenset(value.name for value in b.outputs)
    news = [f"u{i}" if b.case.layout(i) else None for i in range(len(b.case.inputs))]
    with emit.origin(b.node.name, b.rule.name):
        made = Replayer(emit, rules, wanted, b.dtype)(b.rule, b.node, news)
    pairs = list(zip(made, b.node.outputs, strict=True))[: len(b.case.out)]
    return assembled(b, emit, given(new_operands(b)), [None if v is None else (f, v) for f, v in pairs])


def new_operands(b: Bench, what: str | None = None, times: float = 1.0) -> list[Array | None]:
    """The operands that carry: those of the pattern, or random ones; None for the others."""
    found: list[Array | None] = []
    for i, operand in enumerate(real_operands(b)):
        if not b.case.layout(i):
            found.append(None)
            continue
        dtype = real(b, b.node.input(i).dtype)
        new = operand if what is None else b.noise(f"{what}{i}", operand.shape, dtype)
        found.append((times * new).astype(dtype))
    return found


def check_replay_at_the_pattern(case: Case, rules: RuleTable) -> None:
    """The replay of the operands that made the pattern is the output."""
    b = bench(case, rules)
    got = emitted_replay(b, rules)(b.feeds | given(new_operands(b)))
    for one, want in zip(got, real_outputs(b), strict=True):
        close(one, want, b)


def check_replay_against_definition(case: Case, rules: RuleTable) -> None:
    """The replay of other operands is what the definition's affine map makes of them."""
    b = bench(case, rules)
    new = new_operands(b, "v")
    got = emitted_replay(b, rules)(b.feeds | given(new))
    held = real_operands(b)
    want = replay_of(b)([h if n is None else n for n, h in zip(new, held, strict=True)])
    for one, other in zip(got, want, strict=True):
        close(one, other, b)


def check_replay_is_adjoint(case: Case, rules: RuleTable) -> None:
    """<u, replay(v) - replay(0)> = <VJP u, v>."""
    b = bench(case, rules)
    u, v = b.cotangents(), new_operands(b, "v")
    emitted = emitted_replay(b, rules)
    at_v, at_zero = (emitted(b.feeds | given(new_operands(b, "v", times))) for times in (1.0, 0.0))
    flows = emitted_vjp(b, u)(b.feeds | given(u))
    left = [(a - z, w) for a, z, w in zip(at_v, at_zero, u, strict=True) if a is not None and w is not None]
    right = [
        inner(flow, new) for flow, new in zip(flows, v, strict=True) if flow is not None and new is not None
    ]
    scale = sum(float(abs(moved * w).sum()) for moved, w in left)
    close(np.asarray(sum(right)), np.asarray(sum(inner(moved, w) for moved, w in left)), b, scale=scale)


def check_replay_on_runtime(case: Case, rules: RuleTable, right: RuleTable | None = None) -> None:
    """ONNX Runtime in single precision against double precision."""
    exact, single = bench(case, right or rules), bench(case, rules, precision="float32")
    new = new_operands(exact, "v")
    want = emitted_replay(exact, right or rules)(exact.feeds | given(new))
    got = on_runtime(emitted_replay(single, rules), single, new)
    for one, other in zip(got, want, strict=True):
        assert one is not None
        assert other is not None
        close_single(one, other, 0.0)


def check_replay_graph(case: Case, rules: RuleTable) -> None:
    """The checker accepts it, types and shapes are those of the outputs, and every node says its origin."""
    b = bench(case, rules)
    emitted = emitted_replay(b, rules)
    onnx.checker.check_model(emitted.model, full_check=True)
    for node in emitted.emit.nodes:
        origin = {entry.key: entry.value for entry in node.metadata_props}
        assert (origin.get(FORWARD_NODE), origin.get(RULE)) == ("node", b.rule.name)
