"""Tensors that stay where a session computed them; the code that a GPU runs, on the CPU."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer
from srd_onnx.engine.assemble import WIDE, widening
from srd_onnx.errors import InputError, UnknownTensorError
from srd_onnx.graph.ir import Array, Value
from srd_onnx.ort import runtime
from srd_onnx.ort.runtime import CPU, CUDA, as_array, make_session, run, run_staying
from srd_onnx.runs import Many, make_several
from srd_onnx.sharing.ratios import run_ratios
from srd_onnx.sharing.several import _head_of, carried
from tests.nets import model_of, small_cnn, two_nodes


def data(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def inner(model: Any = None) -> onnxruntime.InferenceSession:
    """A session that gives an inner tensor, too."""
    model = model or two_nodes()
    model.graph.output.append(helper.make_tensor_value_info("c", 1, ["N", 2, 4, 4]))
    return make_session(model.SerializeToString(), [CPU])


def tail() -> onnxruntime.InferenceSession:
    """What comes after that tensor."""
    nodes = [helper.make_node("Relu", ["input"], ["output"])]
    model = model_of(nodes, {}, (["N", 2, 4, 4], ["N", 2, 4, 4]))
    return make_session(model.SerializeToString(), [CPU])


def test_what_stays_is_what_run_gives() -> None:
    session, x = inner(), {"input": data(3, 1, 4, 4)}
    before, after = run(session, ["c", "output"], x)
    found = run_staying(session, ["output", "c"], x, {"c"})
    assert list(found) == ["output", "c"]
    assert isinstance(found["c"], onnxruntime.OrtValue)
    assert isinstance(found["output"], np.ndarray)
    np.testing.assert_array_equal(as_array(found["c"]), before)
    np.testing.assert_array_equal(as_array(found["output"]), after)
    assert as_array(found["output"]) is found["output"]


@pytest.mark.parametrize("stay", [(), ("output",)])
def test_what_stays_is_fed_to_the_next_session(stay: tuple[str, ...]) -> None:
    found = run_staying(inner(), ["c", "output"], {"input": data(2, 1, 4, 4)}, {"c"})
    (by_run,) = run(tail(), ["output"], {"input": found["c"]})
    by_staying = run_staying(tail(), ["output"], {"input": found["c"]}, stay)
    np.testing.assert_array_equal(by_run, as_array(found["output"]))
    np.testing.assert_array_equal(as_array(by_staying["output"]), by_run)


def test_what_stays_is_not_written_over_by_later_runs() -> None:
    session = inner()
    first = run_staying(session, ["c", "output"], {"input": data(2, 1, 4, 4)}, {"c"})
    kept = {name: as_array(tensor).copy() for name, tensor in first.items()}
    for seed in range(1, 20):
        run_staying(session, ["c", "output"], {"input": data(2, 1, 4, 4, seed=seed)}, {"c"})
    for name, tensor in first.items():
        np.testing.assert_array_equal(as_array(tensor), kept[name])


def test_arrays_outlive_the_session() -> None:
    session = inner()
    found = as_array(run_staying(session, ["output"], {"input": data(2, 1, 4, 4)}, ())["output"])
    expected = run(session, ["output"], {"input": data(2, 1, 4, 4)})[0].copy()
    del session
    np.testing.assert_array_equal(found, expected)


def test_arrays_in_any_order_and_empty_ones_go_in() -> None:
    session, x = inner(), data(4, 4, 1, 6)
    turned = x.transpose(3, 2, 0, 1)[::2]
    assert not turned.flags.c_contiguous
    (expected,) = run(session, ["output"], {"input": np.ascontiguousarray(turned)})
    np.testing.assert_array_equal(
        as_array(run_staying(session, ["output"], {"input": turned}, ())["output"]), expected
    )
    none = run_staying(session, ["c"], {"input": data(0, 1, 4, 4)}, {"c"})["c"]
    assert as_array(none).shape == (0, 2, 4, 4)


@pytest.mark.parametrize(
    ("feeds", "said"),
    [
        ({}, r"missing \['input'\]"),
        ({"input": np.zeros((1, 1, 4, 5), np.float32)}, r"'input' float32\[1, 1, 4, 5\]: .*Expected: 4"),
        ({"input": np.zeros((1, 4, 4), np.float32)}, r"'input' float32\[1, 4, 4\]: .*rank"),
        ({"input": np.zeros((1, 1, 4, 4))}, r"'input' float64\[1, 1, 4, 4\]: Unexpected"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(feeds: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run_staying(inner(), ["output"], feeds, ())


def test_a_staying_tensor_that_does_not_fit_is_described() -> None:
    found = run_staying(inner(), ["c"], {"input": data(2, 1, 4, 4)}, {"c"})
    with pytest.raises(InputError, match=r"'input' tensor\(float\)\[2, 2, 4, 4\]"):
        run(inner(), None, {"input": found["c"]})
    with pytest.raises(InputError, match=r"'input' tensor\(float\)\[2, 2, 4, 4\]"):
        run_staying(inner(), ["c"], {"input": found["c"]}, ())


def test_an_unknown_output_is_named() -> None:
    with pytest.raises(UnknownTensorError, match=r"no output 'nope'; it has \['output', 'c'\]"):
        run_staying(inner(), ["nope"], {"input": data(1, 1, 4, 4)}, {"nope"})


@pytest.mark.parametrize(("provider", "device"), [(CUDA, "cuda"), (CPU, "cpu")])
def test_outputs_are_bound_to_the_device_or_to_the_cpu(provider: str, device: str) -> None:
    """What is asked of ONNX Runtime where the session runs on a GPU."""
    asked: list[tuple[str, ...]] = []
    value = onnxruntime.OrtValue.ortvalue_from_numpy(data(2))
    binding = SimpleNamespace(
        bind_cpu_input=lambda name, array: asked.append(("array", name)),
        bind_ortvalue_input=lambda name, tensor: asked.append(("stayed", name)),
        bind_output=lambda name, kind: asked.append((kind, name)),
        get_outputs=lambda: [value, value],
    )
    ends = [SimpleNamespace(name=name) for name in "ab"]
    session: Any = SimpleNamespace(
        get_outputs=lambda: ends,
        get_inputs=lambda: [SimpleNamespace(name=name) for name in "xy"],
        get_overridable_initializers=list,
        get_providers=lambda: [provider, CPU],
        io_binding=lambda: binding,
        run_with_iobinding=lambda one: asked.append(("run",)),
    )
    found = run_staying(session, ["a", "b"], {"x": data(2), "y": value}, {"b"})
    assert asked == [("array", "x"), ("stayed", "y"), ("cpu", "a"), (device, "b"), ("run",)]
    assert isinstance(found["a"], np.ndarray)
    assert found["b"] is value


# The sessions for many targets


def many(model: Any, preset: str = "joint") -> tuple[Many, dict[str, Array]]:
    explainer = Explainer(model, preset=preset, providers="cpu")
    shapes = explainer.shown_shapes()
    case = explainer.case(shapes)
    return make_several(explainer.model.proto, case, RULES, EXPANSIONS, [CPU], None), {
        name: data(*shape) for name, shape in shapes.items()
    }


@pytest.mark.parametrize("preset", ["paper", "joint"])
def test_forward_tensors_that_only_heads_read_stay(preset: str) -> None:
    ready, feeds = many("squeezenet11", preset)
    sessions = ready.sessions
    _, found = run_ratios(sessions.ratios, feeds)
    inner = {name for head in sessions.heads for name in head.reads} - {ready.plan.target.name, *feeds}
    assert inner
    assert inner == sessions.ratios.stay
    for name, tensor in found.items():
        assert isinstance(tensor, onnxruntime.OrtValue) == (name in inner), name


def test_a_head_for_many_takes_one_copy_of_what_it_reads() -> None:
    ready, feeds = many(small_cnn(), "paper")
    head = ready.sessions.heads[0]
    assert head.widen is not None
    assert all(given.shape[0] == 1 for given in head.widen.get_inputs())
    _, found = run_ratios(ready.sessions.ratios, feeds)
    several = [np.array([i]) for i in range(5)]
    together = _head_of(head, found, several)
    for t, seed in enumerate(several):
        alone = _head_of(head, found, [seed])
        for name, share in together.start.items():
            np.testing.assert_allclose(share[:, t : t + 1], alone.start[name], rtol=1e-5, atol=1e-7)


def test_nothing_that_stays_is_brought_to_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, feeds = many("squeezenet11")
    layers, found = run_ratios(ready.sessions.ratios, feeds)
    brought: list[Any] = []
    monkeypatch.setattr(onnxruntime.OrtValue, "numpy", lambda self: brought.append(self))
    carried_ = carried(ready.sessions, layers, found, [np.array([7])])
    assert not brought
    assert carried_.relevance


def test_widening_repeats_along_any_axis_and_nothing_else() -> None:
    kind = np.dtype(np.float32)
    pairs = [
        (Value("a", (1, 3), kind), Value("a", (4, 3), kind)),
        (Value("b", (2,), kind), Value("b", (2,), kind)),
    ]
    session = make_session(widening(pairs, 18).SerializeToString(), [CPU], arena=False)
    given = {"a": data(1, 3), "b": data(2, seed=1)}
    a, b = run(session, [WIDE.format("a"), WIDE.format("b")], given)
    np.testing.assert_array_equal(a, np.repeat(given["a"], 4, axis=0))
    np.testing.assert_array_equal(b, given["b"])


def test_the_arena_is_an_option_of_a_session() -> None:
    for arena in (True, False):
        options = runtime._options(None, optimise=True, arena=arena)
        assert options.enable_cpu_mem_arena == arena
