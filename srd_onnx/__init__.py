"""Sharing-ratio explanations of exported ONNX models.

from srd_onnx import Explainer
explanation = Explainer("squeezenet11").explain("photo.jpg")[0]
"""

from typing import TYPE_CHECKING, Any

from srd_onnx.errors import SrdOnnxError

if TYPE_CHECKING:
    from srd_onnx.engine.options import Options
    from srd_onnx.explainer import Explainer
    from srd_onnx.explanation import Explanation
    from srd_onnx.inputs.preprocess import Preprocess
    from srd_onnx.inputs.stream import Failure

__all__ = ["Explainer", "Explanation", "Failure", "Options", "Preprocess", "SrdOnnxError"]

_WHERE = {
    "Explainer": "srd_onnx.explainer",
    "Explanation": "srd_onnx.explanation",
    "Failure": "srd_onnx.inputs.stream",
    "Options": "srd_onnx.engine.options",
    "Preprocess": "srd_onnx.inputs.preprocess",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the rules import the engine, and the facade imports the rules."""
    if name not in _WHERE:
        raise AttributeError(f"module 'srd_onnx' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_WHERE[name]), name)
