"""What a compiled model depends on, as a key: equal keys, equal models, bit for bit."""

import functools
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import graph_rules
import srd_onnx
from srd_onnx.engine.compiling import Case
from srd_onnx.engine.rule import RuleTable
from srd_onnx.graph.expand import ExpansionTable
from srd_onnx.graph.load import LoadedModel
from srd_onnx.ort import runtime

_CPU_LINES = ("model name", "flags", "Features")  # of /proc/cpuinfo


def key_of(model: LoadedModel, fixed: Mapping[str, Any], case: Case, providers: Sequence[str]) -> str:
    """64 hex digits.

    Args:
        model: known by its SHA-256, that of its external data included, and what of it was widened.
        fixed: values of inputs that were made constants.
        case: shapes, axes, options and what is explained.
        providers: of the session. ONNX Runtime writes kernels' layouts into what it optimises, so that the kind of CPU
            is part of the key too; the number of threads is not.
    """
    asked = {field.name: getattr(case, field.name) for field in fields(case)} | {
        "start": {name: [str(a), int(a.gate), a.inert] for name, a in case.start.items()},
        "shapes": {name: list(shape) for name, shape in case.shapes.items()},
        "options": asdict(case.options),
    }
    content = {
        "model": model.sha256,
        "half": dict(model.half),
        "fixed": fixed,
        "case": asked,
        "providers": list(providers),
        "by": identity(),
        "cpu": cpu(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def all_ours(rules: RuleTable, expansions: ExpansionTable) -> bool:
    """Whether every rule is from `graph_rules`, whose source is in the key; of one from elsewhere nothing is known."""
    found = {rule.vjp.__module__ for rule in rules.values()} | {e.__module__ for e in expansions.values()}
    return all(name.partition(".")[0] == graph_rules.__name__ for name in found)


def identity() -> str:
    """The code that compiles, and the versions of what it stands on."""
    return json.dumps({"code": code(), "versions": runtime.versions()}, sort_keys=True)


@functools.cache
def code() -> str:
    """A digest of the source of engine and rules: whatever is changed there compiles anew."""
    digest = hashlib.sha256()
    for package in (srd_onnx, graph_rules):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


@functools.cache
def cpu() -> str:
    """The kind of processor, as far as kernels are chosen by it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    known = sorted({line for line in lines if line.startswith(_CPU_LINES)})
    return "\n".join([platform.system(), platform.machine(), platform.processor(), *known])
