"""Whether CUDA really works here, found out by trying it; nothing is printed on the way."""

import contextlib
import ctypes
import functools
import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from srd_onnx.ort.errors import ORT_ERRORS, short_message, silenced

CUDA = "CUDAExecutionProvider"
# Real float32 (TF32 keeps 10 bits of the mantissa, which shows in the residual), and convolution algorithms that are
# looked up, not raced against each other: the winner of a race differs from run to run, and with it the last digits.
# Memory as needed: the default takes powers of two, for each of the sessions that an explainer keeps.
CUDA_OPTIONS = {
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",
}

_NO_DEVICE_CODES = (34, 100)  # CUDA_ERROR_STUB_LIBRARY, CUDA_ERROR_NO_DEVICE: as good as no driver
_WINDOWS = sys.platform == "win32"
_DRIVER = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_CUDNN = "cudnn64_9.dll" if _WINDOWS else "libcudnn.so.9"
_BRING_LIBRARIES = "`pip install 'srd-onnx[cuda]'` brings the CUDA libraries"
_BRING_RUNTIME = "`pip install --force-reinstall onnxruntime-gpu` brings one that has it"


@dataclass(frozen=True)
class CudaState:
    """What became of CUDA on this machine.

    Attributes:
        driver: an NVIDIA driver with at least one device is there.
        problem: why CUDA does not work although somebody may expect it to; "" when it works.
        remedy: what the user can do about it, or "".
    """

    driver: bool
    problem: str
    remedy: str = ""

    @property
    def usable(self) -> bool:
        """A CUDA session ran and gave the right numbers."""
        return self.driver and not self.problem


@functools.cache
def cuda_state() -> CudaState:
    """`probe_cuda()`, once per process: the first use of a GPU takes a second or two."""
    return probe_cuda()


def probe_cuda(
    driver: Callable[[], str | None] | None = None,
    compiled_in: Callable[[], bool] | None = None,
    missing_library: Callable[[], str | None] | None = None,
    session_problem: Callable[[], str | None] | None = None,
) -> CudaState:
    """Driver, then ONNX Runtime's build, then the CUDA libraries, then a convolution on the GPU.

    Args:
        driver: None when an NVIDIA driver has a device, "" when there is nothing of the kind, else what is
            wrong with it.
        compiled_in: whether the installed ONNX Runtime has the CUDA provider at all.
        missing_library: loads the CUDA libraries; the file name of the first that cannot be found.
        session_problem: runs a tiny model on the GPU; what went wrong.
    """
    trouble = (driver or driver_problem)()
    if trouble is not None:
        return CudaState(driver=bool(trouble), problem=trouble or "no NVIDIA driver with a GPU was found")
    if not (compiled_in or _has_cuda_build)():
        return CudaState(driver=True, problem="this onnxruntime is built without it", remedy=_BRING_RUNTIME)
    missing = (missing_library or load_cuda_libraries)()
    problem = (session_problem or try_cuda_session)()
    if problem is None:  # a library may be found in ways that our look-up does not know: the session decides
        return CudaState(driver=True, problem="")
    if missing is not None:
        return CudaState(driver=True, problem=f"{missing} not found", remedy=_BRING_LIBRARIES)
    return CudaState(driver=True, problem=problem)


def driver_problem(load: Callable[[str], Any] = ctypes.CDLL) -> str | None:
    """None: a driver with a device; "": no driver or no device; else why the driver does not start."""
    try:
        library = load(_DRIVER)
    except OSError:
        return ""
    count = ctypes.c_int(0)
    code = library.cuInit(0) or library.cuDeviceGetCount(ctypes.byref(count))
    if code:
        return "" if code in _NO_DEVICE_CODES else f"the NVIDIA driver answers with CUDA error {code}"
    return None if count.value else ""


def load_cuda_libraries(
    preload: Callable[[], None] = onnxruntime.preload_dlls, load: Callable[[str], Any] = ctypes.CDLL
) -> str | None:
    """Load the CUDA libraries from where pip puts them; the file name of the first that is not there."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(RuntimeError):
        preload()  # prints what it misses, and keeps silent about cuDNN
    if found := re.search(r"Failed to load (.+?): ", said.getvalue()):
        return PurePath(found[1]).name
    try:
        load(_CUDNN)
    except OSError:
        return _CUDNN
    return None


def try_cuda_session() -> str | None:
    """Run a convolution and a matrix product on the GPU; None if they run there and are right."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        with silenced():
            session = onnxruntime.InferenceSession(
                _probe_model(), options, providers=[CUDA], enable_fallback=0
            )
            if CUDA not in session.get_providers():
                return "ONNX Runtime falls back to the CPU"
            (result,) = session.run(None, {"x": np.ones((1, 2, 4, 4), np.float32)})
    except ORT_ERRORS as error:
        return short_message(error)
    wanted = 72.0  # 4 output positions of 2 channels x 3 x 3 taps
    return (
        None
        if np.abs(result - wanted).max() < 0.1
        else f"it computes {result.ravel()[0]} instead of {wanted}"
    )


def _has_cuda_build() -> bool:
    return CUDA in onnxruntime.get_available_providers()


def _probe_model() -> bytes:
    """Conv (cuDNN) and MatMul (cuBLAS) over ones: x 1x2x4x4 -> y 1x1."""
    weights = [
        numpy_helper.from_array(np.ones((1, 2, 3, 3), np.float32), "w"),
        numpy_helper.from_array(np.ones((4, 1), np.float32), "m"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())
