"""Sessions, their errors, and what is said about CUDA on every kind of machine."""

import ctypes
import logging
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest

from srd_onnx.errors import (
    InputError,
    InvalidModelError,
    OptionError,
    ProviderError,
    SrdOnnxError,
    UnknownTensorError,
)
from srd_onnx.ort import cuda, runtime
from srd_onnx.ort.cuda import CudaState, probe_cuda
from tests.nets import small_cnn, two_nodes


def never(*_: object) -> Any:
    raise AssertionError("this must not be asked")


def session_of(model: onnx.ModelProto, **options: Any) -> Any:
    return runtime.make_session(model.SerializeToString(), [runtime.CPU], **options)


# Versions


def test_the_newest_opset_loads_and_the_next_one_does_not() -> None:
    newest = runtime.newest_opset()
    assert newest >= 21
    session_of(two_nodes(opset=newest))
    with pytest.raises(InvalidModelError):
        session_of(two_nodes(opset=newest + 1))


def test_the_newest_ir_version_loads_and_the_next_one_does_not() -> None:
    model = two_nodes()
    model.ir_version = runtime.newest_ir_version()
    session_of(model)
    model.ir_version += 1
    with pytest.raises(InvalidModelError, match="IR version"):
        session_of(model)


def test_versions_name_all_that_matters() -> None:
    assert set(runtime.versions()) == {"srd-onnx", "onnx", "onnxruntime", "numpy", "python"}
    assert runtime.versions()["onnx"] == onnx.__version__


# Sessions


def test_threads_and_optimisation_do_not_change_the_result() -> None:
    model = small_cnn()
    x = {"input": np.random.default_rng(0).standard_normal((2, 3, 32, 32), np.float32)}
    (plain,) = runtime.run(session_of(model, threads=1, optimise=False), None, x)
    (fast,) = runtime.run(session_of(model), ["output"], x)
    np.testing.assert_allclose(fast, plain, rtol=1e-4, atol=1e-5)


def test_outputs_come_in_the_order_asked_for() -> None:
    model = two_nodes()
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", 1, ["N", 2, 4, 4]))
    session = session_of(model)
    x = {"input": np.ones((1, 1, 4, 4), np.float32)}
    before, after = runtime.run(session, ["c", "output"], x)
    assert before.min() < 0
    np.testing.assert_array_equal(np.maximum(before, 0), after)


@pytest.mark.parametrize("data", [b"", b"no model", two_nodes().SerializeToString()[:-20]])
def test_bytes_that_are_no_model_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidModelError, match=r"^ONNX Runtime cannot load the model: ") as caught:
        runtime.make_session(data, [runtime.CPU])
    assert "\n" not in str(caught.value)
    assert "/onnxruntime_src" not in str(caught.value)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, r"missing \['input'\]"),
        ({"x": np.zeros(1)}, r"missing \['input'\]; unknown \['x'\]\. It takes \['input'\]"),
        ({"input": np.zeros((1, 1, 4, 5), np.float32)}, r"'input' float32\[1, 1, 4, 5\]: .*Expected: 4"),
        ({"input": np.zeros((1, 4, 4), np.float32)}, r"'input' float32\[1, 4, 4\]: .*rank"),
        ({"input": np.zeros((1, 1, 4, 4))}, r"'input' float64\[1, 1, 4, 4\]: .*float"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(feeds: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        runtime.run(session_of(two_nodes()), None, feeds)


def test_a_node_that_fails_on_the_input_is_an_input_error() -> None:
    model = two_nodes()
    model.graph.node[1].CopyFrom(onnx.helper.make_node("Reshape", ["c", "to"], ["output"], "reshape"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 2, 4, 4]), "to"))
    with pytest.raises(InputError, match=r"cannot run on 'input' float32\[3, 1, 4, 4\]: .*'reshape'"):
        runtime.run(session_of(model), None, {"input": np.zeros((3, 1, 4, 4), np.float32)})


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(UnknownTensorError, match=r"no output 'nope'; it has \['output'\]"):
        runtime.run(session_of(two_nodes()), ["nope"], {"input": np.zeros((1, 1, 4, 4), np.float32)})


def test_an_unknown_provider_is_refused() -> None:
    with pytest.raises(ProviderError, match=r"has no AbacusExecutionProvider; it has .*CPUExecutionProvider"):
        runtime.make_session(two_nodes().SerializeToString(), ["AbacusExecutionProvider"])


def test_a_session_is_never_quietly_on_another_provider() -> None:
    """Wherever this runs: asking for CUDA gives CUDA, or an error."""
    try:
        session = runtime.make_session(two_nodes().SerializeToString(), [runtime.CUDA, runtime.CPU])
    except ProviderError as error:
        assert runtime.CUDA in str(error)  # noqa: PT017 - which of the two happens depends on the machine
    else:
        assert session.get_providers()[0] == runtime.CUDA


def test_nothing_is_printed_whatever_fails(capfd: pytest.CaptureFixture[str]) -> None:
    model = two_nodes().SerializeToString()
    runtime.run(
        runtime.make_session(model, [runtime.CPU]), None, {"input": np.zeros((1, 1, 4, 4), np.float32)}
    )
    for data, providers in ((b"no model", [runtime.CPU]), (model, [runtime.CUDA]), (model, ["Abacus"])):
        try:
            runtime.make_session(data, providers)
        except SrdOnnxError:
            continue
    cuda.load_cuda_libraries()
    cuda.try_cuda_session()
    runtime.choose_providers("cpu")
    assert capfd.readouterr() == ("", "")


# Providers: the choice

WORKS = CudaState(driver=True, problem="")
NO_DRIVER = CudaState(driver=False, problem="no NVIDIA driver with a GPU was found")
NO_CUDNN = CudaState(
    True, "libcudnn.so.9 not found", "`pip install 'srd-onnx[cuda]'` brings the CUDA libraries"
)
LINE = (
    "CUDA is not usable (libcudnn.so.9 not found): running on the CPU; "
    "`pip install 'srd-onnx[cuda]'` brings the CUDA libraries"
)


@pytest.mark.parametrize(
    ("state", "providers", "line"),
    [
        (WORKS, [runtime.CUDA, runtime.CPU], None),
        (NO_DRIVER, [runtime.CPU], None),
        (NO_CUDNN, [runtime.CPU], LINE),
        (CudaState(True, "odd"), [runtime.CPU], "CUDA is not usable (odd): running on the CPU"),
    ],
)
def test_auto_takes_what_works_and_says_one_line_at_most(
    state: CudaState, providers: list[str], line: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "srd_onnx")
    assert runtime.choose_providers("auto", lambda: state) == (providers, line)
    assert [record.getMessage() for record in caplog.records] == ([line] if line else [])


def test_cuda_is_given_or_refused_with_the_reason() -> None:
    assert runtime.choose_providers("cuda", lambda: WORKS) == ([runtime.CUDA, runtime.CPU], None)
    with pytest.raises(ProviderError) as caught:
        runtime.choose_providers("cuda", lambda: NO_CUDNN)
    assert str(caught.value) == (
        "CUDA is not usable (libcudnn.so.9 not found); `pip install 'srd-onnx[cuda]'` brings the CUDA "
        "libraries; or choose the provider 'cpu'"
    )
    with pytest.raises(ProviderError, match="no NVIDIA driver with a GPU was found"):
        runtime.choose_providers("cuda", lambda: NO_DRIVER)


def test_cpu_does_not_look_for_a_gpu() -> None:
    assert runtime.choose_providers("cpu", never) == ([runtime.CPU], None)


def test_another_provider_word_is_refused() -> None:
    with pytest.raises(OptionError, match="provider 'gpu' is not known; choose 'auto', 'cuda' or 'cpu'"):
        runtime.choose_providers("gpu", never)


def test_what_auto_chooses_on_this_machine_really_runs() -> None:
    providers, _ = runtime.choose_providers("auto")
    session = runtime.make_session(small_cnn().SerializeToString(), providers)
    assert session.get_providers()[0] == providers[0]


# Providers: finding out


def test_without_a_driver_nothing_else_is_tried() -> None:
    state = probe_cuda(lambda: "", never, never, never)
    assert (state.driver, state.usable) == (False, False)


def test_a_driver_that_does_not_start_is_reported() -> None:
    state = probe_cuda(lambda: "the NVIDIA driver answers with CUDA error 803", never, never, never)
    assert state == CudaState(driver=True, problem="the NVIDIA driver answers with CUDA error 803")


def test_an_onnxruntime_without_cuda_is_reported_beside_a_driver() -> None:
    state = probe_cuda(lambda: None, lambda: False, never, never)
    assert state.driver
    assert "built without it" in state.problem
    assert "onnxruntime-gpu" in state.remedy


@pytest.mark.parametrize(
    ("missing", "session", "state"),
    [
        (None, None, WORKS),
        ("libcudnn.so.9", None, WORKS),  # found in another way: the session is the judge
        ("libcudnn.so.9", "page of log", NO_CUDNN),
        (None, "no kernel image", CudaState(driver=True, problem="no kernel image")),
    ],
)
def test_the_session_decides_and_a_missing_library_explains(
    missing: str | None, session: str | None, state: CudaState
) -> None:
    assert probe_cuda(lambda: None, lambda: True, lambda: missing, lambda: session) == state


def fake_driver(init: int, count: int, code: int = 0) -> Callable[[str], Any]:
    def device_count(pointer: Any) -> int:
        ctypes.cast(pointer, ctypes.POINTER(ctypes.c_int))[0] = count
        return code

    return lambda name: SimpleNamespace(cuInit=lambda flags: init, cuDeviceGetCount=device_count)


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (fake_driver(0, 1), None),
        (fake_driver(0, 0), ""),
        (fake_driver(100, 0), ""),
        (fake_driver(34, 0), ""),
        (fake_driver(803, 0), "the NVIDIA driver answers with CUDA error 803"),
        (fake_driver(0, 0, 999), "the NVIDIA driver answers with CUDA error 999"),
    ],
)
def test_the_driver_is_asked_for_devices(load: Callable[[str], Any], problem: str | None) -> None:
    assert cuda.driver_problem(load) == problem


def no_file(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def test_no_driver_file_is_no_driver() -> None:
    assert cuda.driver_problem(no_file) == ""


def printing(*lines: str) -> Callable[[], None]:
    return lambda: print(*lines, sep="\n")  # noqa: T201 - as onnxruntime.preload_dlls does


def test_the_first_missing_library_is_named_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    said = printing(
        "Failed to load libcublasLt.so.13: libcublasLt.so.13: cannot open shared object file",
        "Failed to load libcublas.so.13: libcublas.so.13: cannot open shared object file",
    )
    assert cuda.load_cuda_libraries(said, never) == "libcublasLt.so.13"
    assert (
        cuda.load_cuda_libraries(printing("Failed to load /x/y/libcurand.so.10: bad"), never)
        == "libcurand.so.10"
    )
    assert cuda.load_cuda_libraries(printing("fine"), lambda name: None) is None
    assert "cudnn" in str(cuda.load_cuda_libraries(printing(), no_file))
    assert capfd.readouterr() == ("", "")
