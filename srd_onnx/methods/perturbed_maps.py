"""Class activation maps without a derivative: the activations of one layer weigh, or are changed; the scores tell how.

A [C, *grid] are the activations of the layer `boundary` for one input. Tokens that stand for no place of the picture
(the class token) are left as they are. Maps are enlarged linearly to the input.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
from scipy.special import softmax

from srd_onnx.engine.compiling import Case
from srd_onnx.engine.plan import Plan
from srd_onnx.errors import NonFiniteError, OptionError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.methods.black_box import require_logit
from srd_onnx.methods.grid import over_items
from srd_onnx.methods.layer import Layer, layer_of
from srd_onnx.methods.method import Attribute, Method
from srd_onnx.methods.perturbing import Perturbing, Probe, Probed
from srd_onnx.methods.scoring import Scored, Scorer, compile_scorer, joined
from srd_onnx.methods.tail import compile_tail
from srd_onnx.subject import Subject

Mask = Literal["single", "gaussian"]


def _perturbing(
    subject: Subject, case: Case, layer: Layer, probe: Probe, combine: Callable[[Probed], Array]
) -> Perturbing:
    """With the plain model for what the unchanged inputs score; `combine` gives a map over the grid."""
    scorer = replace(compile_scorer(subject, case, rows=1), plan=layer.plan)

    def enlarged(plan: Plan, probed: Probed) -> Array:
        return np.asarray(layer.enlarged(combine(probed)[None])[0])

    return Perturbing(scorer, probe, enlarged)


def scorecam() -> Method:
    """``ReLU(Σ_c w_c A_c)``, ``w = softmax over c of f(x ⊙ n(A_c))``, n: enlarged to x and brought to [0, 1].

    Wang et al. 2020, algorithm 1 (the score of the black picture, which it takes from f, is one for all c and goes in
    the softmax); f is the explained number. Where A_c is the same everywhere, n is 0: such channels, many behind a
    ReLU, all give the black picture, which is scored once.
    """

    def make(subject: Subject, case: Case) -> Attribute:
        layer = layer_of(subject, case)
        tail, whole = compile_tail(subject, case, layer), compile_scorer(subject, case)
        axes = layer.plan.roles[layer.source.name]

        def probe(scorer: Scorer, source: Value, item: Mapping[str, Array]) -> tuple[Scored, Array]:
            values = _on_grid(layer, tail.activations(item)[0])
            x = item[source.name] if source.name in whole.batched else item[source.name][None]
            # A flat channel becomes 0 before it is enlarged, which would make rounding of it that is brought to 0..1.
            raised = values - values.min(axis=tuple(range(1, values.ndim)), keepdims=True)
            apart, which = _apart(raised)

            def rows() -> Iterator[Array]:
                for start in range(0, len(apart), whole.size):
                    masks = _between_0_and_1(layer.enlarged(raised[apart[start : start + whole.size]]))
                    yield np.asarray(x * over_items(masks, axes), source.dtype)

            return joined(whole.changed(item, source.name, one) for one in rows()).taken(which), values

        def combine(probed: Probed) -> Array:
            weights = softmax(probed.changed.scores @ probed.direction)
            return np.asarray(np.maximum(np.tensordot(weights, probed.activations, axes=1), 0))

        return _perturbing(subject, case, layer, probe, combine)

    return Method("scorecam", "Score-CAM", "activation map", "Wang et al. 2020, arXiv 1910.01279", make)


def ablationcam() -> Method:
    """``ReLU(Σ_c w_c A_c)``, ``w_c = (y - y_c) / y``, y_c: the score with A_c set to 0 (Desai, Ramaswamy 2020).

    Where y is negative the signs turn, as the definition has it. Channels that are 0 everywhere are scored once.

    Raises:
        NonFiniteError: when used, if y is 0.
    """

    def make(subject: Subject, case: Case) -> Attribute:
        layer = layer_of(subject, case)
        tail = compile_tail(subject, case, layer)

        def probe(scorer: Scorer, source: Value, item: Mapping[str, Array]) -> tuple[Scored, Array]:
            values, found = tail.activations(item)
            apart, which = _apart(values)

            def chunks() -> Iterator[Array]:
                for start in range(0, len(apart), tail.scorer.size):
                    taken = apart[start : start + tail.scorer.size]
                    changed = np.repeat(values[None], len(taken), axis=0)
                    changed[np.arange(len(taken)), taken] = 0
                    yield changed

            return tail.changed(found, chunks()).taken(which), _on_grid(layer, values)

        def combine(probed: Probed) -> Array:
            score = float(probed.unchanged.scores[0] @ probed.direction)
            if not probed.direction.any():
                return np.zeros(layer.grid.sizes)
            if score == 0:
                raise NonFiniteError(
                    "Ablation-CAM divides by the explained score, which is 0: choose another target"
                )
            weights = (score - probed.changed.scores @ probed.direction) / score
            return np.asarray(np.maximum(np.tensordot(weights, probed.activations, axes=1), 0))

        return _perturbing(subject, case, layer, probe, combine)

    return Method(
        "ablationcam", "Ablation-CAM", "activation map", "Desai, Ramaswamy 2020, WACV, pages 972 to 980", make
    )


def reciprocam(mask: Mask = "single") -> Method:
    """``p_g``: the probability of the class with A kept at the place g of the grid alone, brought to [0, 1].

    Byun, Lee 2022; all other places are 0. A map that is the same everywhere is 0.

    Args:
        mask: "single", or "gaussian": the places around g are kept in part, by 1/4, 1/2, 1/4 along each axis.

    Raises:
        OptionError: if there is no such mask.
    """
    if mask not in get_args(Mask):
        raise OptionError(f"mask='{mask}' is not one of {', '.join(get_args(Mask))}")

    def make(subject: Subject, case: Case) -> Attribute:
        require_logit("reciprocam", case)
        layer = layer_of(subject, case)
        tail = compile_tail(subject, case, layer)
        kept = _kept(layer, mask)

        def probe(scorer: Scorer, source: Value, item: Mapping[str, Array]) -> tuple[Scored, Array]:
            values, found = tail.activations(item)
            size = tail.scorer.size
            chunks = (values * kept[start : start + size, None] for start in range(0, len(kept), size))
            return tail.changed(found, chunks), values

        def combine(probed: Probed) -> Array:
            found = probed.changed.probabilities @ probed.direction
            return np.asarray(_between_0_and_1(found[None])[0].reshape(layer.grid.sizes))

        return _perturbing(subject, case, layer, probe, combine)

    return Method(
        "reciprocam", "ReciproCAM", "activation map", "Byun, Lee 2022, arXiv 2209.14074", make, {"mask": mask}
    )


def _kept(layer: Layer, mask: Mask) -> Array:
    """[G, T]: how much of each position of the layer is kept for each place of the grid."""
    sizes, grid = layer.grid.sizes, layer.grid
    around: Array = np.ones((1, 1))
    for size in sizes:
        neighbours: Array = np.eye(size, k=1) + np.eye(size, k=-1)
        near = np.eye(size) if mask == "single" else np.eye(size) / 2 + neighbours / 4
        around = np.kron(around, near)
    kept = np.ones((len(around), len(grid.index)))
    kept[:, grid.token_of] = around
    return kept


def _on_grid(layer: Layer, values: Array) -> Array:
    return np.asarray(layer.grid(np.asarray(values, np.float64)))


def _apart(maps: Array) -> tuple[Array, Array]:
    """Of [C, ...], which are all or are the first that is 0 everywhere [D]; and which of those D each of the C is."""
    zero = ~maps.reshape(len(maps), -1).any(axis=1)
    apart, which = np.unique(np.where(zero, zero.argmax(), np.arange(len(maps))), return_inverse=True)
    return apart, which


def _between_0_and_1(maps: Array) -> Array:
    """Each of [M, ...] from its least to its greatest value; 0 where it is the same everywhere."""
    axes = tuple(range(1, maps.ndim))
    low = maps.min(axis=axes, keepdims=True)
    span = maps.max(axis=axes, keepdims=True) - low
    return np.asarray(np.divide(maps - low, span, out=np.zeros_like(maps), where=span > 0))
