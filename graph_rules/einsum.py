"""Einsum: any sum of products; also permutations, sums and diagonals of one operand."""

import string

from graph_rules.contraction import Contraction, Term, contracting, flowing, halved, moved, sizes_of
from graph_rules.registry import cotangent
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows
from srd_onnx.graph.ir import Node

_ELLIPSIS = "."


def _equation(node: Node) -> Contraction:
    """The labels of all axes; those that an ellipsis stands for are letters that the equation does not use."""
    text = "".join(str(node.attrs["equation"]).split()).replace("...", _ELLIPSIS)
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if not arrow:
        once = sorted(c for c in set(left) - {",", _ELLIPSIS} if left.count(c) == 1)
        right = (_ELLIPSIS if _ELLIPSIS in left else "") + "".join(once)
    free = [c for c in string.ascii_letters if c not in text]
    ranks = [node.input(i).rank - len(term) + 1 for i, term in enumerate(terms) if _ELLIPSIS in term]
    hidden = "".join(free[: max(ranks, default=0)])

    def spelled(term: str, rank: int) -> Term:
        return tuple(term.replace(_ELLIPSIS, hidden[len(hidden) - (rank - len(term) + 1) :]))

    found = tuple(
        spelled(term, node.input(i).rank) if _ELLIPSIS in term else tuple(term)
        for i, term in enumerate(terms)
    )
    return Contraction(found, tuple(right.replace(_ELLIPSIS, hidden)))


def _to_operand(emit: Emitter, node: Node, c: Contraction, g: str, index: int) -> str:
    """The cotangent times all other factors, summed over what this factor has not; then put in its place."""
    x, y, sizes = node.input(index), node.output(), sizes_of(node, c)
    others = [i for i in range(len(c.terms)) if i != index]
    if not others:
        return moved(emit, g, (c.out, y.shape), c.terms[index], x, x.shape)
    out = c.out
    if not out:  # a number: not every Einsum knows a factor without axes
        out = (next(letter for letter in string.ascii_letters if letter not in sizes),)
        g = emit.reshape(g, [1])
    named = {
        *out,
        *(
            label
            for i in others
            for label, size in zip(c.terms[i], node.input(i).shape, strict=True)
            if size > 1
        ),
    }
    own = zip(c.terms[index], x.shape, strict=True)
    wanted = tuple(dict.fromkeys(label for label, size in own if label in named and size > 1))
    factors = ["".join(out), *("".join(c.terms[i]) for i in others)]
    names = [node.input(i).name for i in others]
    flow = emit("Einsum", g, *names, equation=f"{','.join(factors)}->{''.join(wanted)}")
    have = (wanted, [sizes[label] for label in wanted])
    return moved(emit, flow, have, c.terms[index], x, x.shape)


@contracting(_equation)("Einsum", versions=(12, 28))
def einsum(emit: Emitter, node: Node, cotangents: Flows) -> Flows:
    """``y = Σ Π x_i``: to each factor ``Σ g Π_{j≠i} x_j``, over the labels that it has not."""
    c = _equation(node)
    g = halved(emit, node, c, cotangent(cotangents, node))
    carriers = flowing(emit, node, c)
    return [_to_operand(emit, node, c, g, i) if i in carriers else None for i in range(len(node.inputs))]
