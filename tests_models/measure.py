"""One export of one network, explained: conservation, a finite map, and the gradient against PyTorch's own."""

import copy
import io
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer, Explanation, Options
from srd_onnx.engine.assemble import combined
from srd_onnx.engine.backward import build as build_backward
from srd_onnx.engine.compiling import Case, plan_for, relevance_outputs
from srd_onnx.ort.runtime import CPU, make_session, run
from srd_onnx.targets import At
from tests.test_real_graphs import relative_residual
from tests_models.networks import NETWORKS, Network, build


@dataclass(frozen=True)
class Row:
    """One line of docs/models.md: `gradient` is the greatest difference from autograd, relative to its greatest."""

    model: str
    exporter: str
    opset: int
    nodes: int
    boundary: str
    positions: int
    residual: float
    gradient: float | None
    finite: bool
    tolerance: float  # of the gradient

    @property
    def passed(self) -> bool:
        """Whether all that is demanded holds."""
        exact = self.gradient is None or self.gradient <= self.tolerance
        return self.finite and self.residual <= 1e-3 and exact


def exported(module: nn.Module, data: Tensor, exporter: str, opset: int) -> onnx.ModelProto:
    """The module as an ONNX model, from the legacy or the dynamo exporter."""
    dynamo = exporter == "dynamo"
    buffer = io.BytesIO()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        names = {"input_names": ["input"], "output_names": ["output"]}
        if dynamo:
            program = torch.onnx.export(
                module, (data,), dynamo=True, opset_version=opset, verbose=False, **names
            )
            return program.model_proto
        torch.onnx.export(module, (data,), buffer, dynamo=False, opset_version=opset, **names)
    return onnx.load_from_string(buffer.getvalue())


def measure(name: str, exporter: str, opset: int) -> Row:
    """Export, explain, and compare.

    Raises:
        SrdOnnxError: what keeps it from being explained.
    """
    network = NETWORKS[name]
    module, data = build(network)
    with torch.no_grad():
        output = _first(module(data))
    weights = _weights(network, output)
    model = exported(module, data, exporter, opset)
    layout = network.layout or ("NHWC" if network.shape[-1] == 3 and len(network.shape) == 4 else None)
    explainer = Explainer(model, layout=layout, preset="paper", providers="cpu", threads=2)
    target = int(np.argmax(weights[0])) if network.index is None else At("output", network.index)
    explanation = explainer.explain(data.numpy(), targets=target, batch_size=len(data))[0]
    return Row(
        name,
        exporter,
        opset,
        *outline(explainer, explanation, {explainer.ports[0].name: tuple(data.shape)}),
        relative_residual(explanation),
        None if network.tokens else _gradient_error(explainer, module, data, weights),
        all(np.isfinite(m).all() for m in explanation.relevances.values()),
        1e-2 if data.dtype == torch.float16 else 1e-4,
    )


def outline(
    explainer: Explainer, explanation: Explanation, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[int, str, int]:
    """How many nodes there are, the boundary, and on how many positions."""
    case = Case(shapes, {port.name: port.axes for port in explainer.ports}, explainer.options)
    _, plan = plan_for(explainer.model.proto, case, RULES, EXPANSIONS)
    boundary, values = explanation.meta["boundary"], plan.graph.values
    positions = max((plan.roles[b].count(values[b]) for b in boundary if b in plan.roles), default=0)
    return len(plan.graph.nodes), ", ".join(boundary), positions


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


def _weights(network: Network, output: Tensor) -> NDArray[np.float32]:
    """The direction that is explained, [N, K]: the greatest element of the first input, or those at the index."""
    weights = torch.zeros_like(output, dtype=torch.float32)
    if network.index is None:
        weights.flatten(1)[:, int(output[0].argmax())] = 1
    else:
        weights[(slice(None), *network.index)] = 1
    return weights.flatten(1).numpy()


def _gradient_error(
    explainer: Explainer, module: nn.Module, data: Tensor, weights: NDArray[np.float32]
) -> float:
    """The greatest difference from input × gradient by autograd, summed over channels, relative to its greatest."""
    port = explainer.ports[0]
    # In double precision: what is compared is the mathematics, not which of the two rounds as the other does.
    tracked = data.double().requires_grad_()
    scores = _first(copy.deepcopy(module).double()(tracked)).flatten(1)
    (scores * torch.from_numpy(weights)).sum().backward()
    assert tracked.grad is not None
    wanted = (tracked.grad * tracked).sum(port.axes.channels).detach().numpy()
    options = Options(boundary=port.name)
    case = Case(
        {port.name: tuple(data.shape)}, {port.name: port.axes}, options, "output", free=True, tangent=True
    )
    forward, plan = plan_for(explainer.model.proto, case, RULES, EXPANSIONS)
    backward = build_backward(plan, free=True)
    outputs = relevance_outputs(plan, backward)
    session = make_session(combined(forward, backward, outputs).SerializeToString(), [CPU])
    feeds = {port.name: data.numpy(), "direction": weights.astype(plan.target.dtype)}
    (given,) = run(session, list(outputs), feeds)
    return float(np.abs(given - wanted).max() / np.abs(wanted).max())
