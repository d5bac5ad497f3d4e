"""The built wheel, installed into an empty environment, explains the shipped photo from another folder."""

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(command: Sequence[str | Path], folder: Path) -> str:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [str(part) for part in command], cwd=folder, env=clean, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT], folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_engine_rules_models_and_licences(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "srd_onnx/explainer.py",
        "srd_onnx/py.typed",
        "graph_rules/registry.py",
        "srd_onnx/_models/zoo.toml",
        "srd_onnx/_models/squeezenet11.onnx",
        "srd_onnx/_models/imagenet_labels.txt",
        "srd_onnx/_models/chelsea.png",
        "srd_onnx/_models/NOTICE",
    ):
        assert wanted in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"srd_onnx", "graph_rules"}


def test_the_installed_wheel_explains_the_shipped_photo(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "venv", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run([sys.executable, "-m", "venv", environment], tmp_path)
    binaries = environment / ("Scripts" if os.name == "nt" else "bin")
    run(
        [binaries / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel],
        elsewhere,
    )
    zoo = json.loads(run([binaries / "srd-onnx", "models", "--json"], elsewhere))
    assert str(environment) in zoo["photo"]
    said = run(
        [binaries / "srd-onnx", "explain", "squeezenet11", zoo["photo"], "--out", "out", "--json"], elsewhere
    )
    assert [(e["target"], e["label"]) for e in json.loads(said)["explanations"]] == [(285, "Egyptian cat")]
    assert sorted(p.name for p in (elsewhere / "out").iterdir()) == [
        "chelsea.285.npz",
        "chelsea.285.png",
        "explanations.json",
    ]
