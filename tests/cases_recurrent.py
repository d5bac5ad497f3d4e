"""Rows of LSTM, GRU and RNN."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from tests.case_types import Case, Const, Operand, Rand, Var, rows

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
STEPS, ITEMS, FEATURES, HIDDEN = 4, 2, 3, 2
X = Var("TNC", (STEPS, ITEMS, FEATURES))
STATE = Var("CNC", (1, ITEMS, HIDDEN))


def _layer(op: str, how: str, *more: Operand, x: Var = X, bias: bool = True, **attrs: Any) -> Iterator[Case]:
    """A row; `more` are the inputs after the biases, what feeds back into it."""
    count, gates = 2 if attrs.get("direction") == "bidirectional" else 1, GATES[op] * HIDDEN
    added = Rand((count, 2 * gates)) if bias else None
    inputs = (x, Rand((count, gates, FEATURES)), Rand((count, gates, HIDDEN)), added, *more)
    while inputs[-1] is None:
        inputs = inputs[:-1]
    states = 2 if op == "LSTM" else 1
    first = "NTCC" if attrs.get("layout") else "TCNC"
    out = (
        first.replace("T", x.layout[0]) if first[0] == "T" else first,
        *[first.replace("T", "", 1)] * states,
    )
    yield from rows(op, (14, 22), how, *inputs, out=out, hidden_size=HIDDEN, **attrs)


def cases() -> Iterator[Case]:
    both = Var("CNC", (2, ITEMS, HIDDEN))
    lengths = Const([4, 2], "int32")
    for op in GATES:
        yield from _layer(op, "forward")
        yield from _layer(op, "no_bias", bias=False)
        yield from _layer(op, "reverse", direction="reverse")
        yield from _layer(op, "bidirectional", direction="bidirectional")
        yield from _layer(op, "one_step", x=Var("TNC", (1, ITEMS, FEATURES)))
        yield from _layer(op, "lengths", lengths)
        yield from _layer(op, "lengths_both_ways", lengths, direction="bidirectional")
        yield from _layer(op, "full_lengths", Const([4, 4], "int32"), direction="reverse")
        start = (None, Rand((1, ITEMS, HIDDEN)), *([Rand((1, ITEMS, HIDDEN))] if op == "LSTM" else []))
        yield from _layer(op, "constant_start", *start, bias=False)
        states = (STATE, *([STATE] if op == "LSTM" else []))
        yield from _layer(op, "computed_start", None, *states)
        yield from _layer(op, "computed_start_reverse_lengths", lengths, *states, direction="reverse")
        yield from _layer(
            op, "computed_start_both_ways", None, *[both] * len(states), direction="bidirectional"
        )
        yield from _layer(op, "channels_along_time", x=Var("CNC", (STEPS, ITEMS, FEATURES)))
    for op, last in (("LSTM", 2), ("GRU", 1), ("RNN", 1)):
        for case in _layer(op, "last_state"):
            yield replace(case, dead=frozenset(set(range(last + 1)) - {last}))
        for case in _layer(op, "states_alone"):
            yield replace(case, dead=frozenset(range(1, last + 1)))
    yield from _layer("GRU", "linear_before_reset", linear_before_reset=1)
    yield from _layer("GRU", "linear_both_ways", linear_before_reset=1, direction="bidirectional")
    yield from _layer(
        "GRU", "linear_no_bias", None, Rand((1, ITEMS, HIDDEN)), linear_before_reset=1, bias=False
    )
    yield from _layer("RNN", "relu", activations=["Relu"])
    yield from _layer("RNN", "relu_both_ways", activations=["Relu", "Relu"], direction="bidirectional")
    sees, twice = Rand((1, 3 * HIDDEN)), Rand((2, 3 * HIDDEN))
    yield from _layer("LSTM", "peepholes", None, None, None, sees)
    yield from _layer("LSTM", "peepholes_lengths", lengths, None, None, sees, direction="reverse")
    yield from _layer("LSTM", "peepholes_start", None, both, both, twice, direction="bidirectional")
    yield from _layer("LSTM", "named", activations=["Sigmoid", "Tanh", "Tanh"])


def batchwise() -> Iterator[Case]:
    """Items before times: ONNX Runtime has no kernel, so these rows are not in the table of all."""
    x, state = Var("NTC", (ITEMS, STEPS, FEATURES)), Var("NCC", (ITEMS, 1, HIDDEN))
    for op in GATES:
        yield from _layer(op, "batchwise", x=x, layout=1)
        yield from _layer(op, "batchwise_start", None, *[state] * (1 + (op == "LSTM")), x=x, layout=1)
        yield from _layer(
            op, "batchwise_lengths", Const([4, 2], "int32"), x=x, layout=1, direction="bidirectional"
        )
