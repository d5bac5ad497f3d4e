"""The cells of LSTM, GRU and RNN: one step back, and one step of the affine map that the pattern leaves.

Pattern: the gates are constants and ``tanh`` is its secant ``s = tanh(a) / a``, so that each cell is affine in the
input and in the states before it. `tangent` is the derivative.
"""

from collections.abc import Sequence
from typing import Protocol

from graph_rules.recurrence import States, Unrolled

# What flows back through one step: to the preactivations of the gates (or to the frozen one), to the states before.
Back = tuple[str, States]


class Cell(Protocol):
    """One direction of a layer, its gates known."""

    seq: Unrolled

    def back(self, step: int, flow: States) -> Back:
        """The transposed step."""

    def input_back(self, flow: str) -> str:
        """From the preactivations of all steps to the input, [T, N, I]."""

    def forth(self, step: int, part: States) -> States:
        """The frozen step of the part of the states that comes from no input."""


class Lstm:
    """``C = f C' + i tanh(a)``, ``H = o tanh(C)``; gates in the order i, o, f, c."""

    def __init__(self, seq: Unrolled) -> None:
        self.seq, emit = seq, seq.emit
        shift = seq.const(seq.shift + seq.recurrent_shift)
        sums = emit(
            "Add", emit("Add", seq.times(seq.x, seq.matrix), seq.times(seq.before, seq.recurrent)), shift
        )
        *gates, a = seq.split(sums, 4)
        new = emit("Tanh", a)
        i, o, f, before, c = self._run(gates, new)
        out = emit("Tanh", c)
        self.forget = seq.steps(f)
        if emit.tangent:
            self.out = seq.steps(emit("Mul", o, seq.rise(out)))
            from_cell = [
                emit("Mul", new, seq.bell(i)),
                emit("Mul", before, seq.bell(f)),
                emit("Mul", i, seq.rise(new)),
            ]
            self.to_gates = [
                seq.steps(t) for t in (from_cell[0], emit("Mul", out, seq.bell(o)), *from_cell[1:])
            ]
        else:
            self.out = seq.steps(emit("Mul", o, seq.slope(c, out)))
            self.to_gates = [seq.steps(emit("Mul", i, seq.slope(a, new)))]

    def _run(self, gates: Sequence[str], new: str) -> tuple[str, str, str, str, str]:
        """The gates i, o, f, and the cell before and after each step."""
        seq, emit, peep = self.seq, self.seq.emit, self.seq.peepholes
        if peep is None:
            i, o, f = (emit("Sigmoid", gate) for gate in gates)
            adds, forgets = seq.steps(emit("Mul", i, new)), seq.steps(f)
        sums, news = [seq.steps(gate) for gate in gates], seq.steps(new)
        steps: list[list[str]] = [[""] * len(seq.order) for _ in range(5)]
        c = seq.start.cell
        assert c is not None
        for step in seq.order:
            before = c
            if peep is None:
                added, kept_part = adds[step], forgets[step]
            else:
                at_i, at_f = (emit("Sigmoid", emit("Add", sums[k][step], self._seen(c, k))) for k in (0, 2))
                added, kept_part = emit("Mul", at_i, news[step]), at_f
                steps[0][step], steps[2][step] = at_i, at_f
            c = emit("Add", emit("Mul", kept_part, before), added)
            if peep is not None:
                steps[1][step] = emit("Sigmoid", emit("Add", sums[1][step], self._seen(c, 1)))
            if (kept := seq.kept_at(step)) is not None:
                c = emit("Where", emit.const(kept > 0), c, before)
            steps[3][step], steps[4][step] = before, c
        if peep is not None:
            i, o, f = (seq.joined(steps[k]) for k in range(3))
        return i, o, f, seq.joined(steps[3]), seq.joined(steps[4])

    def _seen(self, cell: str, gate: int) -> str:
        """What a gate (i, o, f) sees of the cell, or a cotangent of what it saw."""
        assert self.seq.peepholes is not None
        return self.seq.emit("Mul", cell, self.seq.const(self.seq.block(self.seq.peepholes, gate)))

    def back(self, step: int, flow: States) -> Back:
        """The transposed step."""
        seq, emit = self.seq, self.seq.emit
        hidden = flow.hidden
        cell = seq.add(flow.cell, emit("Mul", hidden, self.out[step]) if hidden else None)
        assert cell is not None
        if not emit.tangent:
            new = emit("Mul", cell, self.to_gates[0][step])
            return new, States(
                seq.back(new, seq.block(seq.recurrent, 3)), emit("Mul", cell, self.forget[step])
            )
        # The output gate is the one that the cell does not go through.
        out = emit("Mul", hidden or emit("Mul", cell, emit.like(seq.like, 0.0)), self.to_gates[1][step])
        if seq.peepholes is not None:
            cell = emit("Add", cell, self._seen(out, 1))
        parts = [out if k == 1 else emit("Mul", cell, gate[step]) for k, gate in enumerate(self.to_gates)]
        before = emit("Mul", cell, self.forget[step])
        if seq.peepholes is not None:
            before = emit("Sum", before, self._seen(parts[0], 0), self._seen(parts[2], 2))
        gates = emit("Concat", *parts, axis=-1)
        return gates, States(seq.back(gates, seq.recurrent), before)

    def input_back(self, flow: str) -> str:
        """From the gates to the input."""
        seq = self.seq
        return seq.back(flow, seq.matrix if seq.emit.tangent else seq.block(seq.matrix, 3))

    def forth(self, step: int, part: States) -> States:
        """The frozen step without its input."""
        seq, emit = self.seq, self.seq.emit
        a = seq.const(seq.block(seq.shift + seq.recurrent_shift, 3)[None, None])
        if part.hidden:
            a = emit("Add", seq.times(part.hidden, seq.block(seq.recurrent, 3)), a)
        kept = emit("Mul", self.forget[step], part.cell) if part.cell else None
        cell = seq.add(emit("Mul", self.to_gates[0][step], a), kept)
        assert cell is not None
        return States(emit("Mul", self.out[step], cell), cell)


class Gru:
    """``H = (1 - z) tanh(a) + z H'``; gates in the order z, r, h."""

    def __init__(self, seq: Unrolled) -> None:
        self.seq, emit = seq, seq.emit
        self.linear_first = bool(seq.node.attrs["linear_before_reset"])
        both = seq.const(seq.block(seq.shift + seq.recurrent_shift, 0, 1))
        gates = emit(
            "Add",
            emit(
                "Add",
                seq.times(seq.x, seq.block(seq.matrix, 0, 1)),
                seq.times(seq.before, seq.block(seq.recurrent, 0, 1)),
            ),
            both,
        )
        z, r = (emit("Sigmoid", gate) for gate in seq.split(gates, 2))
        own, rows = seq.const(seq.block(seq.recurrent_shift, 2)), seq.block(seq.recurrent, 2)
        if self.linear_first:
            inner = emit("Add", seq.times(seq.before, rows), own)
            recurrent = emit("Mul", r, inner)
        else:
            inner = seq.before
            recurrent = emit("Add", seq.times(emit("Mul", r, seq.before), rows), own)
        given = emit("Add", seq.times(seq.x, seq.block(seq.matrix, 2)), seq.const(seq.block(seq.shift, 2)))
        a = emit("Add", given, recurrent)
        new = emit("Tanh", a)
        self.update, self.reset = seq.steps(z), seq.steps(r)
        slope = seq.rise(new) if emit.tangent else seq.slope(a, new)
        self.to_new = seq.steps(emit("Mul", seq.complement(z), slope))
        if emit.tangent:
            self.to_update = seq.steps(emit("Mul", emit("Sub", seq.before, new), seq.bell(z)))
            self.to_reset = seq.steps(emit("Mul", inner, seq.bell(r)))

    def back(self, step: int, flow: States) -> Back:
        """The transposed step."""
        seq, emit, hidden = self.seq, self.seq.emit, flow.hidden
        assert hidden is not None
        new = emit("Mul", hidden, self.to_new[step])
        rows = seq.block(seq.recurrent, 2)
        if self.linear_first:
            through, reset = seq.back(emit("Mul", new, self.reset[step]), rows), new
        else:
            reset = seq.back(new, rows)
            through = emit("Mul", reset, self.reset[step])
        before = [emit("Mul", hidden, self.update[step]), through]
        if not emit.tangent:
            return new, States(emit.sum(before))
        gates = emit(
            "Concat",
            emit("Mul", hidden, self.to_update[step]),
            emit("Mul", reset, self.to_reset[step]),
            axis=-1,
        )
        before.append(seq.back(gates, seq.block(seq.recurrent, 0, 1)))
        return emit("Concat", gates, new, axis=-1), States(emit.sum(before))

    def input_back(self, flow: str) -> str:
        """From the gates to the input."""
        seq = self.seq
        return seq.back(flow, seq.matrix if seq.emit.tangent else seq.block(seq.matrix, 2))

    def forth(self, step: int, part: States) -> States:
        """The frozen step without its input."""
        seq, emit, hidden = self.seq, self.seq.emit, part.hidden
        own, given = (seq.block(b, 2)[None, None] for b in (seq.recurrent_shift, seq.shift))
        rows = seq.block(seq.recurrent, 2)
        if self.linear_first:
            inner = seq.const(own)
            if hidden:
                inner = emit("Add", seq.times(hidden, rows), inner)
            a = emit("Add", emit("Mul", inner, self.reset[step]), seq.const(given))
        else:
            a = seq.const(own + given)
            if hidden:
                a = emit("Add", seq.times(emit("Mul", hidden, self.reset[step]), rows), a)
        new = emit("Mul", self.to_new[step], a)
        total = seq.add(new, emit("Mul", self.update[step], hidden) if hidden else None)
        return States(total)


class Rnn:
    """``H = tanh(a)`` or ``relu(a)``."""

    def __init__(self, seq: Unrolled, activation: str) -> None:
        self.seq, emit = seq, seq.emit
        if activation == "relu":
            like = seq.like
            active = emit("Greater", seq.after, emit.like(like, 0.0))
            slope = emit("Where", active, emit.like(like, 1.0), emit.like(like, 0.0))
        elif emit.tangent:
            slope = seq.rise(seq.after)
        else:
            shift = seq.const(seq.shift + seq.recurrent_shift)
            sums = emit("Add", seq.times(seq.x, seq.matrix), seq.times(seq.before, seq.recurrent))
            a = emit("Add", sums, shift)
            slope = seq.slope(a, emit("Tanh", a))
        self.slopes = seq.steps(slope)

    def back(self, step: int, flow: States) -> Back:
        """The transposed step."""
        assert flow.hidden is not None
        gate = self.seq.emit("Mul", flow.hidden, self.slopes[step])
        return gate, States(self.seq.back(gate, self.seq.recurrent))

    def input_back(self, flow: str) -> str:
        """From the gates to the input."""
        return self.seq.back(flow, self.seq.matrix)

    def forth(self, step: int, part: States) -> States:
        """The frozen step without its input."""
        seq, emit = self.seq, self.seq.emit
        a = seq.const((seq.shift + seq.recurrent_shift)[None, None])
        if part.hidden:
            a = emit("Add", seq.times(part.hidden, seq.recurrent), a)
        return States(emit("Mul", self.slopes[step], a))
