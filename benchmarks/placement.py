"""Where the nodes of a session ran: read from ONNX Runtime's profile.

A node that the CUDA provider has no kernel for runs on the CPU, and every tensor that it reads and writes is copied
there and back; nothing says so unless one looks. Nodes of the model itself may be such; of what is emitted none should
be. Nodes that compute shapes ONNX Runtime puts there on purpose, but all shapes that are emitted are constants.
"""

import json
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto

from srd_onnx import Explainer
from srd_onnx.engine.assemble import combined, pruned
from srd_onnx.engine.backward import build_head
from srd_onnx.engine.compiling import Case
from srd_onnx.graph.ir import Array
from srd_onnx.ort.cuda import CUDA, CUDA_OPTIONS
from srd_onnx.ort.runtime import CPU
from srd_onnx.sharing.ratios import ratio_model
from srd_onnx.sharing.several import head_model

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64}


@dataclass(frozen=True)
class Placed:
    """A node as it ran: its name, operator and provider."""

    name: str
    op: str
    provider: str


def placed(events: Sequence[Mapping[str, Any]]) -> list[Placed]:
    """The nodes of a profile, each once, in the order in which they ran."""
    found = {}
    for event in events:
        facts = event.get("args", {})
        if event.get("cat") == "Node" and "provider" in facts:
            name = event["name"].removesuffix("_kernel_time")
            found[name] = Placed(name, facts["op_name"], facts["provider"])
    return list(found.values())


def fallen_back(nodes: Sequence[Placed], of_model: Collection[str]) -> list[Placed]:
    """Those on the CPU that are not the model's own, by its nodes' names: emitted, or put in by ONNX Runtime."""
    return [n for n in nodes if n.provider == CPU and not any(_is(n.name, own) for own in of_model)]


def _is(name: str, own: str) -> bool:
    """Whether a node is one of the model, which ONNX Runtime may have given a longer name."""
    return name == own or name.startswith(f"{own}_")


def profile_of(model: ModelProto, providers: Sequence[str], seed: int = 0) -> list[Placed]:
    """Run a model once on random inputs, as sessions of ours are run.

    Raises:
        RuntimeError: nothing was recorded.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        given = [(name, CUDA_OPTIONS if name == CUDA else {}) for name in providers]
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=given, enable_fallback=0
        )
        session.run(None, {value.name: _drawn(value, seed) for value in session.get_inputs()})
        nodes = placed(json.loads(Path(session.end_profiling()).read_text()))
    if not nodes:
        raise RuntimeError("the profile has no nodes: this ONNX Runtime writes another format")
    return nodes


def _drawn(value: Any, seed: int) -> Array:
    dtype = np.dtype(_TYPES[value.type])
    drawn: Array = np.random.default_rng(seed).standard_normal(value.shape)
    return (drawn if dtype.kind == "f" else np.zeros(value.shape)).astype(dtype)


@dataclass(frozen=True)
class Part:
    """One of the sessions that explain: what for, its model, and the names of those nodes that are the model's own."""

    purpose: str
    model: ModelProto
    of_model: frozenset[str]


def parts_of(explainer: Explainer, case: Case) -> Iterator[Part]:
    """All that is run for a case: for one target; and for many the ratios, and the heads of all passes."""
    made = explainer.compiled(case)
    own = frozenset(node.name for node in made.forward.graph.node)
    yield Part("one target", pruned(combined(made.forward, made.backward, made.outputs)), own)
    yield Part("ratios", ratio_model(made.plan, made.forward).model, own)
    for one in (made.plan, *made.plan.focus):
        for free in (False, True):
            model = head_model(one, build_head(one, free=free), free=free).model
            yield Part(f"head at {', '.join(one.boundary)}", model, own)
