"""How ONNX Runtime reports trouble: its exceptions, what they mean to say, and its log."""

import contextlib
import re
from collections.abc import Iterator

import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

# ONNX Runtime's exceptions have no common base but `Exception`, so they are listed here, once.
ORT_ERRORS: tuple[type[Exception], ...] = tuple(
    getattr(_state, name)
    for name in (
        "Fail",
        "InvalidArgument",
        "NoSuchFile",
        "NoModel",
        "EngineError",
        "RuntimeException",
        "InvalidProtobuf",
        "NotImplemented",
        "InvalidGraph",
        "EPFail",
    )
)

# Where inputs and outputs are bound, it raises what is in Python a RuntimeError, with the same text.
BINDING_ERRORS: tuple[type[Exception], ...] = (*ORT_ERRORS, RuntimeError)


def short_message(error: Exception) -> str:
    """What ONNX Runtime means to say: one line without its prefix, source paths and C++ signatures."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : |^Error in execution: ", "", str(error))
    text = re.sub(r"/\S+\.(?:cc|h|cpp|cu|hpp):\d+ .*?\) (?=[A-Z\[])", "", text)
    text = " ".join(text.split())
    return text if len(text) <= 400 else text[:400] + " ..."


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Switch off ONNX Runtime's process-wide log, where a provider that cannot be loaded is reported in red.

    Sessions have a log level of their own. Afterwards the level is ONNX Runtime's default, warnings: there is
    no way to ask what it was.
    """
    onnxruntime.set_default_logger_severity(4)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)
