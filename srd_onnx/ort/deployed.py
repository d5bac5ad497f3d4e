"""What a quantised model says where it is deployed: ONNX Runtime's integer kernels, which round in their own way.

Explaining reads tensors inside the model, and what is read is not fused: DequantizeLinear, Conv, QuantizeLinear run one
after the other in floating point, where the model alone would run a QLinearConv. Both are the network that the file
says, but a number halfway between two steps may go to either, and the next layers carry that on.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from srd_onnx.graph.external_data import nodes
from srd_onnx.graph.ir import Array
from srd_onnx.ort.runtime import CPU, make_session, run
from srd_onnx.subject import Subject

# QuantizeLinear, DynamicQuantizeLinear, DequantizeLinear; QLinearConv, QGemm, QAttention; MatMulInteger.
_QUANTISED = re.compile(r"Quantize|^Q[A-Z]|Integer")


def is_quantised(model: ModelProto) -> bool:
    """Whether there are integers in its arithmetic that stand for real numbers."""
    return any(_QUANTISED.search(node.op_type) for node in nodes(model.graph))


def as_deployed(subject: Subject) -> Callable[[Mapping[str, Array]], Array] | None:
    """From feeds to the first output of a quantised model alone, just as ONNX Runtime runs the file; else None."""
    proto = subject.model.proto
    if not is_quantised(proto):
        return None
    session = subject.kept(
        "deployed",
        lambda: make_session(proto.SerializeToString(), subject.providers, subject.threads, as_written=False),
    )
    name = proto.graph.output[0].name
    return lambda feeds: run(session, [name], feeds)[0]


def with_weights_of(original: ModelProto, model: ModelProto) -> ModelProto:
    """The model with quantised weights, dequantised by nodes, in place of float ones, where the original has them so.

    A file that others run must have them: between quantised activations ONNX Runtime would quantise float weights anew,
    with one scale for a whole tensor. In place.
    """
    stored = {t.name: t for t in original.graph.initializer}
    ours = {t.name: t for t in model.graph.initializer}
    found = {
        node.output[0]: node
        for node in original.graph.node
        if node.op_type == "DequantizeLinear"
        and not node.domain
        and node.output[0] in ours
        and stored.keys() >= set(node.input)
    }
    if not found:
        return model
    needed = {name: stored[name] for node in found.values() for name in node.input}
    outputs = [helper.make_empty_tensor_value_info(name) for name in found]
    graph = helper.make_graph(list(found.values()), "weights", [], outputs, list(needed.values()))
    alone = helper.make_model(graph, opset_imports=original.opset_import, ir_version=original.ir_version)
    arrays = run(make_session(alone.SerializeToString(), [CPU], optimise=False), list(found), {})
    # Others had something folded into them.
    same = [name for name, a in zip(found, arrays, strict=True) if a.tobytes() == _bytes(ours[name])]
    nodes_now = [*(found[name] for name in same), *model.graph.node]
    wanted = {name: needed[name] for one in same for name in found[one].input}
    weights = {name: tensor for name, tensor in ours.items() if name not in same} | wanted
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes_now)
    model.graph.initializer.extend(weights.values())
    return model


def _bytes(tensor: TensorProto) -> bytes:
    return numpy_helper.to_array(tensor).tobytes()


def tops_of(scores: Array, deployed: Array | None, label: Callable[[int], str | None]) -> dict[str, Any]:
    """The five best classes; and the best one of the deployed model, where that is another.

    Args:
        scores: [K], that are explained.
        deployed: [K] of the same classes (after a softmax, it may be); None, or of another size, to compare with none.
        label: the name of a class.
    """
    best = [int(i) for i in np.argsort(-scores, kind="stable")[:5]]
    found: dict[str, Any] = {
        "top5": [{"index": i, "label": label(i), "logit": float(scores[i])} for i in best]
    }
    if deployed is not None and deployed.size == scores.size:
        top = int(deployed.argmax())
        # Of scores that are quantised several may be the greatest.
        if deployed[top] > deployed[best[0]]:
            found["deployed"] = {"index": top, "label": label(top), "score": float(deployed[top])}
    return found
