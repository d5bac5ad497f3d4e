"""Models with redrawn weights."""

from collections.abc import Sequence

from onnx import ModelProto


def weighted_layers(proto: ModelProto) -> list[str]:
    """Names of the nodes with weights, from the output to the input; `proto` as `load_model` gives it."""
    raise NotImplementedError


def randomised_model(proto: ModelProto, names: Sequence[str], seed: int) -> ModelProto:
    """A copy in which the weights of these nodes are drawn anew."""
    raise NotImplementedError
