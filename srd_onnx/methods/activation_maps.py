"""Class activation maps from the activations of one layer and the derivative of the score by them.

A [N, C, *grid] are the activations of the layer `boundary` and G the derivative of the explained number by them; w are
the weights of the channels. Tokens that stand for no place of the picture (the class token) are left out. Maps are
enlarged linearly to the input.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from srd_onnx.engine.compiling import Case
from srd_onnx.engine.cotangents import CotangentSession
from srd_onnx.engine.plan import Plan
from srd_onnx.graph.ir import Array
from srd_onnx.methods.gradients import arriving
from srd_onnx.methods.layer import Layer, layer_of, turn_of
from srd_onnx.methods.method import Attributed, Method
from srd_onnx.subject import Subject

Combine = Callable[[Array, Array], Array]  # of A and G, [N, C, *grid] float64: maps [N, *grid]


@dataclass(frozen=True, eq=False)
class _ActivationMap:
    layer: Layer
    session: CotangentSession
    combine: Combine

    @property
    def plan(self) -> Plan:
        return self.layer.plan

    def __call__(self, feeds: Mapping[str, Array], seed: Array) -> Attributed:
        arrived, layer = self.session(feeds, seed), self.layer
        name, turn = layer.value.name, turn_of(layer.plan, layer.value)
        values, slopes = (
            layer.grid(np.asarray(turn(array[name]), np.float64))
            for array in (arrived.values, arrived.cotangents)
        )
        maps = layer.enlarged(self.combine(values, slopes)).astype(np.float32)
        return Attributed({layer.source.name: maps}, arrived.seed, arrived.scores)


def _method(name: str, title: str, source: str, combine: Combine, note: str = "") -> Method:
    def make(subject: Subject, case: Case) -> _ActivationMap:
        layer = layer_of(subject, case)
        return _ActivationMap(layer, arriving(subject, case, at=layer.value.name), combine)

    return Method(name, title, "activation map", source, make, note=note)


def _over_grid(array: Array) -> tuple[int, ...]:
    return tuple(range(2, array.ndim))


def _weighted(weights: Array, values: Array) -> Array:
    """``ReLU(Σ_c w_c A_c)``."""
    return np.asarray(np.maximum((weights * values).sum(axis=1), 0))


def gradcam() -> Method:
    """``ReLU(Σ_c w_c A_c)``, ``w_c = mean over the positions of G_c`` (Selvaraju et al. 2017, equations 1 and 2)."""
    return _method(
        "gradcam",
        "Grad-CAM",
        "Selvaraju et al. 2017, arXiv 1610.02391",
        lambda a, g: _weighted(g.mean(axis=_over_grid(g), keepdims=True), a),
    )


def gradcam_plus_plus() -> Method:
    """``ReLU(Σ_c w_c A_c)``, ``w_c = Σ α ReLU(G_c)``, ``α = G² / (2 G² + (Σ A_c) G³)``; α = 0 where G is.

    Chattopadhyay et al. 2018, equation 19: of Y = exp(score), the factor exp(score) left out, which is one for
    the whole map.
    """

    def combine(a: Array, g: Array) -> Array:
        below = 2 * g**2 + a.sum(axis=_over_grid(a), keepdims=True) * g**3
        parts = np.divide(g**2, below, out=np.zeros_like(g), where=(g != 0) & (below != 0))
        return _weighted((np.maximum(g, 0) * parts).sum(axis=_over_grid(g), keepdims=True), a)

    return _method("gradcam-plus-plus", "Grad-CAM++", "Chattopadhyay et al. 2018, arXiv 1710.11063", combine)


def xgradcam() -> Method:
    """``ReLU(Σ_c w_c A_c)``, ``w_c = Σ G_c A_c / Σ A_c`` over the positions; 0 where that sum is 0.

    Fu et al. 2020.
    """

    def combine(a: Array, g: Array) -> Array:
        axes = _over_grid(a)
        total, found = a.sum(axis=axes, keepdims=True), (g * a).sum(axis=axes, keepdims=True)
        return _weighted(np.divide(found, total, out=np.zeros_like(found), where=total != 0), a)

    return _method("xgradcam", "XGrad-CAM", "Fu et al. 2020, arXiv 2008.02312", combine)


def layercam() -> Method:
    """``ReLU(Σ_c ReLU(G_c) A_c)`` (Jiang et al. 2021)."""
    return _method(
        "layercam",
        "LayerCAM",
        "Jiang, Zhang, Hou, Cheng, Wei 2021, doi 10.1109/TIP.2021.3089943",
        lambda a, g: _weighted(np.maximum(g, 0), a),
    )


def hirescam() -> Method:
    """``Σ_c G_c A_c``, signed (Draelos, Carin 2020).

    At the input of a global pool or a flatten before one linear layer it adds up to the score without its bias, before
    it is enlarged. At tokens that go on only through a layer normalisation it is 0, since that forgets their scale.
    """
    return _method(
        "hirescam",
        "HiResCAM",
        "Draelos, Carin 2020, arXiv 2011.08891",
        lambda a, g: (g * a).sum(axis=1),
        "in a transformer choose the output of a layer normalisation with boundary=: before it the map is 0",
    )
