"""What is needed to make an explanation again."""

from typing import Any

from srd_onnx.engine.outline import Outline
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.inputs.sources import Item
from srd_onnx.methods.method import SRD, Method
from srd_onnx.ort import runtime
from srd_onnx.subject import Subject


def describe(subject: Subject, outline: Outline, item: Item, method: Method | None = None) -> dict[str, Any]:
    """What is needed to make an explanation again, as plain data."""
    loaded, source, preprocess = subject.model, outline.sources[0], subject.preprocess
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
        "precision": loaded.precision,
        "fixed": subject.fixed,
        "preprocess": preprocess.to_dict() if isinstance(preprocess, Preprocess) else "custom",
        "preprocess_assumed": subject.preprocess_assumed,
        "method": method.to_dict() if method else {"name": SRD},
        "preset": subject.preset,
        "options": subject.options.to_dict(),
        "target_tensor": outline.target.name,
        "boundary": [value.name for value in outline.boundary],
        "approximate": dict(outline.approximate),
        "provider": subject.provider,
        "versions": runtime.versions(),
    }
