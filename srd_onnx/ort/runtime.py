"""Everything that touches ONNX Runtime: sessions, their errors, versions and the newest opset it runs."""

import contextlib
import functools
import logging
import os
import platform
import re
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from srd_onnx.errors import (
    InputError,
    InvalidModelError,
    OptionError,
    ProviderError,
    SrdOnnxError,
    UnknownTensorError,
)
from srd_onnx.ort.cuda import CUDA, CUDA_OPTIONS, CudaState, cuda_state
from srd_onnx.ort.errors import BINDING_ERRORS, ORT_ERRORS, short_message, silenced
from srd_onnx.threads import usable

__all__ = [
    "CPU",
    "CUDA",
    "Tensor",
    "as_array",
    "choose_providers",
    "enough_memory",
    "make_session",
    "newest_ir_version",
    "newest_opset",
    "run",
    "run_staying",
    "versions",
]

CPU = "CPUExecutionProvider"
Request = Literal["auto", "cuda", "cpu"]
Tensor: TypeAlias = (
    NDArray[Any] | onnxruntime.OrtValue
)  # the latter lies where the session that computed it runs

_log = logging.getLogger("srd_onnx")

# The second puts pairs of QuantizeLinear and DequantizeLinear around a Reshape; of int8 since opset 21 wrong ones.
_QUANTISING = ["WeightBiasQuantization", "QDQPropagationTransformer"]
_WEIGHTS = "weights.bin"  # of a kept model, beside it: mapped into memory, not read
_FATAL_ONLY = 4  # ONNX Runtime's log levels: 0 verbose, 1 info, 2 warning, 3 error, 4 fatal
_OUT_OF_MEMORY = re.compile(r"failed to allocate|out of memory|bad_alloc", re.IGNORECASE)


@functools.cache
def newest_opset() -> int:
    """The newest default-domain opset that the installed ONNX Runtime loads."""
    return _newest(onnx.defs.onnx_opset_version(), lambda version: _relu(opset=version, ir=8))


@functools.cache
def newest_ir_version() -> int:
    """The newest IR version (the file format's own number) that the installed ONNX Runtime loads."""
    return _newest(int(onnx.IR_VERSION), lambda version: _relu(opset=17, ir=version))


def choose_providers(
    request: Request | str, probe: Callable[[], CudaState] | None = None
) -> tuple[list[str], str | None]:
    """Providers for `make_session`, and one line for the user if the GPU there is cannot be used.

    Args:
        request: "auto" takes CUDA when it works, else the CPU; "cuda" insists; "cpu" never looks for a GPU.
        probe: how to find out about CUDA; by default it is tried once per process.

    Raises:
        ProviderError: "cuda", and it does not work.
        OptionError: another word.
    """
    if request not in ("auto", "cuda", "cpu"):
        raise OptionError(f"provider {request!r} is not known; choose 'auto', 'cuda' or 'cpu'")
    if request == "cpu":
        return [CPU], None
    state = (probe or cuda_state)()
    if state.usable:
        return [CUDA, CPU], None
    tail = f"; {state.remedy}" if state.remedy else ""
    if request == "cuda":
        raise ProviderError(f"CUDA is not usable ({state.problem}){tail}; or choose the provider 'cpu'")
    if not state.driver:
        return [CPU], None
    line = f"CUDA is not usable ({state.problem}): running on the CPU{tail}"
    _log.warning("%s", line)
    return [CPU], line


def make_session(
    model: bytes | Path,
    providers: Sequence[str],
    threads: int | None = None,
    *,
    optimise: bool = True,
    as_written: bool = True,
    arena: bool = True,
    packed: bool = True,
    keep: Path | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> onnxruntime.InferenceSession:
    """Open a silent session that runs on the first of `providers`, or says why it does not.

    Args:
        model: a serialised model, its weights inside; or the file of one that `keep` wrote.
        providers: as `choose_providers` returns them, the wanted one first.
        threads: threads within one operator; None leaves the choice to ONNX Runtime.
        optimise: let ONNX Runtime fuse and reorder; without it every node runs as written.
        as_written: do not let it quantise more than the model does. By default it quantises float weights between
            quantised activations, with one scale for a whole tensor.
        arena: keep memory on the CPU for the next run; without it each tensor is given back when it is no more needed.
        packed: lay out the weights of matrix products anew, which is a copy; see `weights.packing_pays`.
        keep: a file to write the optimised model into, and its weights beside it; only for this kind of processor.
        weights: of a model from `weights.light`, which has them not inside.

    Raises:
        InvalidModelError: ONNX Runtime refuses the model.
        ProviderError: the session would run on another provider than the first one.
    """
    there = onnxruntime.get_available_providers()
    if absent := [name for name in providers if name not in there]:
        raise ProviderError(f"this ONNX Runtime has no {', '.join(absent)}; it has {', '.join(there)}")
    try:
        with silenced():
            session = onnxruntime.InferenceSession(
                str(model) if isinstance(model, Path) else model,
                with_weights(
                    _options(threads, optimise=optimise, arena=arena, packed=packed, keep=keep), weights or {}
                ),
                providers=[(name, CUDA_OPTIONS if name == CUDA else {}) for name in providers],
                enable_fallback=0,
                disabled_optimizers=_QUANTISING if as_written else [],
            )
    except ORT_ERRORS as error:
        raise _translated(error, "ONNX Runtime cannot load the model", otherwise=InvalidModelError) from error
    session.srd_weights = weights  # it reads their memory, and does not hold them
    used = session.get_providers()
    if providers and used[:1] != [providers[0]]:
        raise ProviderError(
            f"{providers[0]} was asked for, but ONNX Runtime would run the model on {used[0]}. "
            "Choose providers with choose_providers(), which tries them first."
        )
    return session


def run(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str] | None,
    feeds: Mapping[str, Tensor],
    *,
    needed_only: bool = False,
) -> list[NDArray[Any]]:
    """Run `session` and return `outputs` in order (all of them for None).

    `feeds` may be what `run_staying` gave. `needed_only`: leave out the nodes that these outputs do not need; by
    default ONNX Runtime runs all.

    Raises:
        UnknownTensorError: an output name that the model does not have.
        InputError: an input is missing, unknown, or of the wrong shape or type; or the model fails on it.
        ProviderError: not enough memory.
    """
    _check_names(session, outputs or (), feeds)
    try:
        how = onnxruntime.RunOptions()
        how.only_execute_path_to_fetches = needed_only
        return list(session.run(None if outputs is None else list(outputs), dict(feeds), how))
    except ORT_ERRORS as error:
        raise _refused(error, feeds) from error


def run_staying(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str],
    feeds: Mapping[str, Tensor],
    stay: Container[str],
) -> dict[str, Tensor]:
    """As `run`, by name; those of `stay` are left where the session runs, for sessions there that read them next.

    On a GPU they are not copied to the host and back. They must not outlive the session, whose memory they are.

    Raises:
        as `run` does.
    """
    _check_names(session, outputs, feeds)
    here = "cuda" if session.get_providers()[0] == CUDA else "cpu"
    try:
        binding = session.io_binding()
        for name, tensor in feeds.items():
            if isinstance(tensor, onnxruntime.OrtValue):
                binding.bind_ortvalue_input(name, tensor)
            else:
                binding.bind_cpu_input(name, np.ascontiguousarray(tensor).reshape(tensor.shape))
        for name in outputs:
            binding.bind_output(name, here if name in stay else "cpu")
        session.run_with_iobinding(binding)
        found = dict(zip(outputs, binding.get_outputs(), strict=True))
        return {name: value if name in stay else value.numpy() for name, value in found.items()}
    except BINDING_ERRORS as error:
        raise _refused(error, feeds) from error


def as_array(tensor: Tensor) -> NDArray[Any]:
    """A tensor on the CPU: itself, or a copy of what stayed on a GPU."""
    return cast("NDArray[Any]", tensor.numpy() if isinstance(tensor, onnxruntime.OrtValue) else tensor)


@functools.cache
def _own_version() -> str:
    try:
        return metadata.version("srd-onnx")
    except metadata.PackageNotFoundError:
        return "not installed"


def versions() -> dict[str, str]:
    """The versions that a report must name for its numbers to be reproducible."""
    return {
        "srd-onnx": _own_version(),
        "onnx": onnx.__version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _options(
    threads: int | None,
    *,
    optimise: bool,
    arena: bool = True,
    packed: bool = True,
    keep: Path | None = None,
) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.disable_prepacking", str(int(not packed)))
    options.log_severity_level = _FATAL_ONLY
    # It would reserve one block for a whole run, beside what the first run took piece by piece: more memory, no time.
    options.enable_mem_pattern = False
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if keep is not None:
        options.optimized_model_filepath = str(keep)
        prefix = "session.optimized_model_external_initializers_"
        options.add_session_config_entry(prefix + "file_name", _WEIGHTS)
        options.add_session_config_entry(prefix + "min_size_in_bytes", "1024")
    if threads is None and usable() < (os.cpu_count() or 1):
        # Left to itself ONNX Runtime pins a thread to every core of the machine, and in a container that
        # may use only some of them it prints an error for each of the others.
        threads = usable()
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def with_weights(
    options: onnxruntime.SessionOptions, weights: Mapping[str, NDArray[Any]]
) -> onnxruntime.SessionOptions:
    """Options for a model from `weights.light`; the arrays must live as long as the session."""
    if weights:
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        options.add_external_initializers(list(weights), values)
    return options


def _check_names(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feeds: Mapping[str, Tensor]
) -> None:
    known = [value.name for value in session.get_outputs()]
    if absent := [name for name in outputs if name not in known]:
        raise UnknownTensorError(f"the model has no output {', '.join(map(repr, absent))}; it has {known}")
    wanted = [value.name for value in session.get_inputs()]
    optional = [value.name for value in session.get_overridable_initializers()]
    missing = [name for name in wanted if name not in feeds]
    unknown = [name for name in feeds if name not in (*wanted, *optional)]
    if missing or unknown:
        parts = [f"{what} {names}" for what, names in (("missing", missing), ("unknown", unknown)) if names]
        raise InputError(f"the inputs do not fit the model: {'; '.join(parts)}. It takes {list(wanted)}.")


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Say it in our words where numpy finds too little memory.

    Raises:
        ProviderError: not enough memory.
    """
    try:
        yield
    except MemoryError as error:
        raise ProviderError(
            f"not enough memory ({error}). Use a smaller input or fewer at once; if neither is large, the model's "
            "sizes are wrong."
        ) from error


def _refused(error: Exception, feeds: Mapping[str, Tensor]) -> SrdOnnxError:
    given = ", ".join(f"{name!r} {_described(value)}" for name, value in feeds.items())
    return _translated(error, f"the model cannot run on {given}", otherwise=InputError)


def _described(value: Tensor) -> str:
    if isinstance(value, onnxruntime.OrtValue):
        return f"{value.data_type()}{list(value.shape())}"
    array: NDArray[Any] = np.asarray(value)
    return f"{array.dtype}{list(array.shape)}"


def _translated(error: Exception, what: str, otherwise: type[SrdOnnxError]) -> SrdOnnxError:
    message = short_message(error)
    if _OUT_OF_MEMORY.search(message):
        return ProviderError(f"{what}: not enough memory ({message}). Use fewer images at once, or the CPU.")
    return otherwise(f"{what}: {message}")


def _newest(start: int, model: Callable[[int], bytes]) -> int:
    for version in range(start, 0, -1):
        try:
            onnxruntime.InferenceSession(model(version), _options(1, optimise=False), providers=[CPU])
        except ORT_ERRORS:
            continue
        return version
    raise ProviderError(f"ONNX Runtime {onnxruntime.__version__} cannot run a single Relu. Reinstall it.")


def _relu(*, opset: int, ir: int) -> bytes:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "probe", values[:1], values[1:])
    imports = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(graph, opset_imports=imports, ir_version=ir).SerializeToString())
