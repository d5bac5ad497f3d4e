"""What a rule is: the contract between the engine, which knows no operator, and `graph_rules`.

The engine needs one thing of an operator, its vector-Jacobian product with the activation pattern held fixed.
The rest tells it what it need not compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from srd_onnx.graph.ir import Array, Node, OpKey

if TYPE_CHECKING:
    from srd_onnx.engine.emit import Emitter
    from srd_onnx.graph.roles import Axes, Roles

# The names of emitted tensors, one per output (or input) of a node; None where nothing flows.
Flows = Sequence[str | None]


@dataclass(frozen=True, eq=False)
class Taps:
    """What each of K input positions contributes to an output position, along the output's own direction.

    Attributes:
        operand: the index of the input that they belong to.
        index: int64 [K, *positions of the output]: the flat position in the input, -1 for none; without the batch.
        products: tensor [N, K, *positions of the output]: <v̂_{k->j}, v_j>, the numerators of the sharing ratios.
    """

    operand: int
    index: Array
    products: str


@dataclass(frozen=True)
class Parts:
    """What each operand contributes to each output position, along the output's own direction.

    Attributes:
        products: of each input <v̂_{i->j}, v_j>, one number per position [N, 1, *positions]; None where nothing flows.
        rest: the index of one more input that relevance goes to: what the others leave is its own.
        norm: ‖v_j‖², where they add up to it.
    """

    products: Flows
    rest: int | None = None
    norm: str | None = None

    def complete(self, emit: Emitter, norm: str, bias: str | None) -> Flows:
        """The products of all operands: with those of the bias they add up to the norm."""
        if self.rest is None:
            return self.products
        others = [one for one in (*self.products, bias) if one is not None]
        last = emit("Sub", norm, emit.sum(others)) if others else norm
        return [last if i == self.rest else one for i, one in enumerate(self.products)]


@dataclass(frozen=True)
class Rule:
    """Everything the engine knows about one operator.

    Attributes:
        name: of the rule, as the audit trail shows it.
        vjp: emits `J^T u`. Takes the cotangents of the node's outputs (each shaped like its output) and gives
            those of its inputs (each shaped like its input). `emit.tangent` says which linearisation is meant.
        roles: axes of the outputs from those of the inputs.
        carriers: indices of the inputs that receive relevance under the fixed pattern (a gate receives none).
        routes: true if each output position is fed by at most one input position, so that relevance moves along
            `spread` and no ratio has to be computed.
        spread: emits where relevance goes that no direction tells apart: in position form, equally over the
            in-bounds input positions that feed each output position.
        bias: emits what the outputs have under the fixed pattern that comes from no input (broadcastable to them): one
            tensor for all, or a list with one for each; None where there is no such part.
        lossy: true if some relevance in position form has no input position to go to (it came from padding).
        approximate: why the result is not exact for this node, or None.
        head: at the end of a classifier, "link" if it only rescales the scores (softmax), so that the target is
            the value before it; "view" if it gives the same elements in the same order.
        nonlinear: true if it has an activation pattern, so that its input is a preactivation.
        taps: emits the numerators of the sharing ratios of one output position after the other, where that is cheaper
            than a VJP for each set of output positions that share no input position; None where it is not.
        far: true if the VJP may reach input positions that `spread` does not (places that are computed).
        replay: emits the outputs under the fixed pattern for new operands (names where an input carries, None where it
            stays what it is in the pattern run), the bias included. None, as also its result may be where it covers
            only some uses: the engine transposes the VJP, see `srd_onnx.apop.replay`.
        parts: emits what each operand contributes, where outputs and operands have the same positions; None where
            the VJP has to tell.
        collapsed: emits ``<x_i, (VJP g)_i>`` for the only carrier and ``g = v s``, s being a factor for each output
            position and v the output, where that is cheaper without the VJP; None where it is not.
        anew: emits the output again, where that is cheaper than to bring it out of the forward pass; None where not.
        active: of a rectifier, emits where its neurons are active (bool, shaped like the output); None where this use
            of the operator is none.
        weights: of a sum of products, such as a convolution, which input its weights are where they are constant: each
            output is a sum of elements of the one carrier, each times one of these, and of a bias. None, as also its
            result for other uses. Methods that change weights (LRP) ask for it.
    """

    name: str
    vjp: Callable[[Emitter, Node, Flows], Flows]
    roles: Callable[[Node, Roles], Sequence[Axes | None]]
    carriers: Callable[[Node, Roles], tuple[int, ...]]
    routes: Callable[[Node, Roles], bool]
    spread: Callable[[Emitter, Node, Flows], Flows]
    bias: Callable[[Emitter, Node], str | Flows | None]
    lossy: Callable[[Node], bool]
    approximate: Callable[[Node], str | None]
    head: Literal["link", "view"] | None
    nonlinear: bool
    taps: Callable[[Emitter, Node], Taps | None] | None
    far: bool
    replay: Callable[[Emitter, Node, Flows], Flows | None] | None
    parts: Callable[[Emitter, Node], Parts | None] | None
    collapsed: Callable[[Emitter, Node, str, str], str | None] | None
    anew: Callable[[Emitter, Node], str | None] | None
    active: Callable[[Emitter, Node], str | None] | None
    weights: Callable[[Node], int | None] | None


RuleTable = Mapping[OpKey, Rule]
