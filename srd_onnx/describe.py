"""What is needed to make an explanation again."""

from typing import Any

from srd_onnx.engine.plan import Plan
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.inputs.sources import Item
from srd_onnx.methods.method import SRD, Method
from srd_onnx.ort import runtime
from srd_onnx.subject import Subject


def describe(subject: Subject, plan: Plan, item: Item, method: Method | None = None) -> dict[str, Any]:
    """What is needed to make an explanation again, as plain data."""
    loaded, source, preprocess = subject.model, plan.sources[0], subject.preprocess
    return {
        "model": {
            "path": str(loaded.path) if loaded.path else None,
            "sha256": loaded.sha256,
            "opset": loaded.opset,
            "producer": loaded.producer,
            "parameters": loaded.parameters,
        },
        "input": {"name": source.name, "shape": list(source.shape), **(item.origin or {})},
        "layout": subject.layout,
        "layout_guessed": subject.layout_guessed,
        "fixed": subject.fixed,
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
        "preprocess_assumed": subject.preprocess_assumed,
        "method": method.to_dict() if method else {"name": SRD},
        "preset": subject.preset,
        "options": subject.options.to_dict(),
        "target_tensor": plan.target.name,
        "boundary": list(plan.boundary),
        "approximate": {s.node.origins[0]: s.approximate for s in plan.steps if s.approximate},
        "provider": subject.provider,
        "versions": runtime.versions(),
    }
