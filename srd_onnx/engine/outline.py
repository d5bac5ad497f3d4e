"""`Outline`: what of a plan is still needed once the model is compiled."""

from collections.abc import Mapping
from dataclasses import dataclass

from srd_onnx.graph.ir import Value
from srd_onnx.graph.roles import Axes


@dataclass(frozen=True, eq=False)
class Outline:
    """What it takes to read what a session gives, and to say what was done. Plain data, which can be kept on the disk.

    Attributes:
        sources: the explained inputs.
        target: the explained tensor.
        boundary: the tensors at which cotangents are collapsed, nearest to the target first.
        roles: the axes of all these, by name.
        batch: how many inputs are explained at once.
        approximate: why a node is not explained exactly, by its original name.
    """

    sources: tuple[Value, ...]
    target: Value
    boundary: tuple[Value, ...]
    roles: Mapping[str, Axes]
    batch: int
    approximate: Mapping[str, str]
