"""The script that anybody with a GPU runs, as far as a CPU can run it."""

import json
from typing import Any

import numpy as np
import pytest

from benchmarks import gpu, placement, speed, travel
from benchmarks.gpu import Agreement, agreement, main, wrongly_placed
from benchmarks.placement import Placed, fallen_back, parts_of, placed, profile_of
from srd_onnx import Explainer
from srd_onnx.ort.runtime import CPU, CUDA
from srd_onnx.sharing.several import AT_ONCE
from tests.nets import small_cnn


def event(name: str, op: str, provider: str, **more: Any) -> dict[str, Any]:
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "args": {"op_name": op, "provider": provider},
        "dur": 3,
    } | more


# As ONNX Runtime writes them: what the session does, each node with its provider, and the fences of each without.
PROFILE: list[dict[str, Any]] = [
    {"cat": "Session", "name": "model_loading_array", "args": {}, "dur": 9},
    {"cat": "Node", "name": "conv1_fence_before", "args": {"op_name": "Conv"}},
    event("conv1", "Conv", CUDA),
    event("pool", "MaxPool", CPU),
    event("pool_token_3", "MaxPool", CPU),
    event("Memcpy_token_1", "MemcpyToHost", CUDA),
    event("srd/Mul_7", "Mul", CUDA),
    event("srd/Mul_7", "Mul", CUDA),
]
OF_MODEL = {"conv1", "pool"}


def test_a_profile_is_read_node_by_node() -> None:
    assert placed(PROFILE) == [
        Placed("conv1", "Conv", CUDA),
        Placed("pool", "MaxPool", CPU),
        Placed("pool_token_3", "MaxPool", CPU),
        Placed("Memcpy_token_1", "MemcpyToHost", CUDA),
        Placed("srd/Mul_7", "Mul", CUDA),
    ]


def test_nodes_of_the_model_may_be_on_the_cpu() -> None:
    assert fallen_back(placed(PROFILE), OF_MODEL) == []


@pytest.mark.parametrize("name", ["srd/MaxUnpool_9", "InsertedCast_3", "poolish"])
def test_any_other_node_on_the_cpu_is_found(name: str) -> None:
    found = fallen_back(placed([*PROFILE, event(name, "MaxUnpool", CPU)]), OF_MODEL)
    assert found == [Placed(name, "MaxUnpool", CPU)]


def explainer() -> Explainer:
    return Explainer(small_cnn(batch=1), providers="cpu")


def test_a_real_profile_of_the_cpu_has_every_emitted_node_on_it() -> None:
    one = explainer()
    parts = list(parts_of(one, one.case(one.shown_shapes())))
    assert {part.purpose.split(" at ")[0] for part in parts} == {"one target", "ratios", "head"}
    for part in parts:
        nodes = profile_of(part.model, [CPU])
        found = fallen_back(nodes, part.of_model)
        assert {node.provider for node in nodes} == {CPU}
        assert any(node.name.startswith("srd/") for node in found)
        assert not part.of_model & {node.name for node in found}


def test_a_profile_without_nodes_is_no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", lambda text: [])
    one = explainer()
    part = next(parts_of(one, one.case(one.shown_shapes())))
    with pytest.raises(RuntimeError, match="no nodes"):
        profile_of(part.model, [CPU])


def test_what_fell_back_is_said_by_session_and_operator() -> None:
    lines = list(wrongly_placed(small_cnn(batch=1).SerializeToString(), "joint", 1, [CPU]))
    assert any(
        line.startswith("joint, one target: ") and " of Mul on the CPU, such as 'srd/" in line
        for line in lines
    )
    assert any(line.startswith("joint, ratios: ") for line in lines)


@pytest.mark.parametrize(
    ("apart", "moved", "holds"),
    [
        ([1e-6, 9e-4], [0.0, 0.0], True),
        ([1e-6, 2e-3], [0.0, 0.0], False),
        ([1e-6, 2e-3], [0.0, 1e-2], True),  # the map itself is not defined better
        ([2e-3, 1e-6], [0.0, 1e-2], False),  # another map is
        ([np.nan, 0.0], [0.0, 0.0], False),
    ],
)
def test_maps_agree_as_far_as_they_are_defined(apart: list[float], moved: list[float], holds: bool) -> None:
    assert Agreement(np.array(apart), np.array(moved)).holds == holds


def test_another_map_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    data, x = small_cnn().SerializeToString(), np.random.default_rng(0).standard_normal((2, 3, 32, 32))
    x = x.astype(np.float32)
    assert agreement(data, "paper", 2, x, "cpu", 0).holds
    right = gpu.maps
    first = iter([1.01])  # the first maps are those of the GPU
    monkeypatch.setattr(gpu, "maps", lambda explainer, x: right(explainer, x) * next(first, 1.0))
    assert not agreement(data, "paper", 2, x, "cpu", 0).holds


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    data = small_cnn().SerializeToString()
    for module in (gpu, speed):
        monkeypatch.setattr(module, "model_bytes", lambda name: data)
        monkeypatch.setattr(
            module,
            "inputs",
            lambda name, batch, seed: np.random.default_rng(seed).standard_normal(
                (batch, 3, 32, 32), np.float32
            ),
        )


@pytest.mark.usefixtures("small")
def test_on_a_cpu_the_script_runs_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--provider", "cpu", "--models", "squeezenet11", "--batches", "1", "2", "--rounds", "1"]
    assert main(arguments) == 1
    said = capsys.readouterr().out
    head, rule, *rows = [line for line in said.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == ["squeezenet11, 1", "squeezenet11, 2"]
    assert {line.count("|") for line in (head, rule, *rows)} == {18}
    assert "squeezenet11, 2, paper, one target: " in said
    assert "differs from the CPU" not in said


@pytest.mark.usefixtures("small")
def test_where_nothing_is_wrong_it_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a GPU: nothing on the CPU."""
    monkeypatch.setattr(placement, "CPU", "nowhere")
    assert main(["--provider", "cpu", "--models", "squeezenet11", "--batches", "1", "--rounds", "1"]) == 0
    assert "no emitted node ran on the CPU" in capsys.readouterr().out


# What travels


def test_for_one_target_less_comes_back_than_goes_in() -> None:
    for preset in ("paper", "joint"):
        given, back = travel.one_target(Explainer("squeezenet11", preset=preset, providers="cpu"))
        assert given == 227 * 227 * 3 * 4  # the picture
        assert 227 * 227 * 4 < back < given / 2  # the map, and little else


def test_the_copies_for_many_targets_are_made_where_they_are_read() -> None:
    one = Explainer("squeezenet11", preset="paper", providers="cpu")
    ratios, stays, copies = travel.many_targets(one, 0)
    (boundary,) = one.plan.boundary
    assert stays == 4 * np.prod(one.plan.graph.values[boundary].shape)
    assert copies == AT_ONCE * (stays + 4 * 1000)  # and of the scores, which come to the host as well
    assert ratios > 0
