"""The graph as rules see it: frozen values and nodes, and a networkx DAG over them. No protobuf."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from srd_onnx.errors import UnsupportedCaseError

Array = NDArray[Any]

UNKNOWN: np.dtype[Any] = np.dtype(np.void)  # dtype of a tensor whose shape nobody could infer


@dataclass(frozen=True)
class Value:
    """A tensor of the graph: its name, concrete shape and dtype, and its data where it is a constant."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    constant: Array | None = field(default=None, compare=False, repr=False)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def known(self) -> bool:
        """Whether its shape and dtype are known before the model runs."""
        return self.dtype != UNKNOWN

    @property
    def is_float(self) -> bool:
        """Whether it holds real numbers, which alone can carry relevance (bfloat16 and float8 included)."""
        return self.dtype.kind == "f" or self.dtype.name.startswith(("bfloat", "float"))


@dataclass(frozen=True, order=True)
class OpKey:
    """Which operator, exactly: domain ("" is ai.onnx), type, and the opset since which it means this."""

    domain: str
    op_type: str
    since: int

    def __str__(self) -> str:
        return f"{self.domain or 'ai.onnx'}::{self.op_type} v{self.since}"


@dataclass(frozen=True)
class Node:
    """One operator of the simplified graph.

    `inputs` and `outputs` hold None where ONNX writes "" (an optional one left out). `attrs` has every
    attribute of the operator's schema, defaults filled in. `origins` names the nodes of the user's file
    that this node stands for (several where simplification fused them), its own first.
    """

    name: str
    key: OpKey
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}), compare=False)
    origins: tuple[str, ...] = ()

    def __hash__(self) -> int:
        return hash(self.name)

    def input(self, index: int) -> Value:
        """The input at `index`, which must be present.

        Raises:
            UnsupportedCaseError: if it was left out.
        """
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise UnsupportedCaseError(f"{self}: input {index} is required")
        return value

    def optional(self, index: int) -> Value | None:
        """The input at `index`, or None if it was left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def output(self) -> Value:
        """The first output that is there, which carries the result."""
        value = next((v for v in self.outputs if v is not None), None)
        if value is None:
            raise UnsupportedCaseError(f"{self}: an output is required")
        return value

    def constant(self, index: int) -> Array | None:
        """The data of the input at `index`; None where the input was left out.

        Raises:
            UnsupportedCaseError: if that input is computed at run time.
        """
        value = self.optional(index)
        if value is None:
            return None
        if value.constant is None:
            raise UnsupportedCaseError(
                f"{self}: input {index} ('{value.name}') must be a constant for the rule to apply, "
                "but it is computed at run time"
            )
        return value.constant

    def require(self, condition: bool, message: str) -> None:  # noqa: FBT001 - reads as an assertion
        """Refuse a use of the operator that its rule does not cover.

        Raises:
            UnsupportedCaseError: naming the node, if `condition` is false.
        """
        if not condition:
            raise UnsupportedCaseError(f"{self}: {message}")

    def __str__(self) -> str:
        return f"{self.key}, node '{self.name}'"


@dataclass(frozen=True, eq=False)
class Graph:
    """A model as a DAG with concrete shapes.

    `nodes` is in topological order. `dag` has one vertex per node (by node name, attribute `node`), per graph
    input (`input:NAME`) and per graph output (`output:NAME`); one edge per use of a tensor, keyed by
    (tensor name, consumer's input index), attribute `value`.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    opset: int
    dag: nx.MultiDiGraph

    @property
    def values(self) -> dict[str, Value]:
        """Every tensor by name: graph inputs first, then the results of nodes in topological order."""
        found = {value.name: value for value in self.inputs}
        for node in self.nodes:
            found.update({value.name: value for value in node.outputs if value is not None})
        return found

    @cached_property
    def masked(self) -> bool:
        """Whether a constant holds an infinite number, or one so large that a sum of four may be infinite."""
        constants = {v.name: v.constant for node in self.nodes for v in node.inputs if v is not None}
        reals = [c for c in constants.values() if c is not None and c.dtype.kind == "f"]
        ends = (
            (float(c.max(initial=0)), float(c.min(initial=0)), float(np.finfo(c.dtype).max)) for c in reals
        )
        return any(high > most / 4 or low < -most / 4 for high, low, most in ends)

    @property
    def producers(self) -> dict[str, Node]:
        """The node that computes each tensor, by tensor name."""
        return {value.name: node for node in self.nodes for value in node.outputs if value is not None}
