"""Running the command line in tests: in this process, or as a user would."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from PIL import Image
from typer.testing import CliRunner, Result

from srd_onnx.cli.app import app
from tests.nets import model_of, small_cnn

HOSTILE = "[red]x[/red]\n<script>\x1b[31m猫"


def run(*arguments: object) -> Result:
    """The command in this process; an exception that is a bug is raised."""
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(one) for one in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def command(*arguments: object) -> list[str]:
    """The command line of a process of its own."""
    return [sys.executable, "-c", "from srd_onnx.cli import main; main()", *(str(one) for one in arguments)]


def process(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a user starts it."""
    return subprocess.run(
        command(*arguments), capture_output=True, timeout=120, check=False, env=os.environ | environment
    )


def document(result: Result) -> dict[str, Any]:
    """What --json printed; fails if anything else is on stdout."""
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def photo(path: Path, seed: int = 0) -> Path:
    """A photo of noise, 40 x 36."""
    pixels = np.random.default_rng(seed).integers(0, 256, (36, 40, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def saved(model: onnx.ModelProto, path: Path) -> Path:
    """The model as a file."""
    onnx.save(model, path)
    return path


def small(folder: Path) -> Path:
    """A small network with 10 classes, of which the zoo knows nothing."""
    return saved(small_cnn(), folder / "small.onnx")


def check_refused(folder: Path, command: str, arguments: list[str], message: str) -> None:
    """The command says what is wrong and writes nothing; there are the small network, a.png, and bad.png."""
    model = small(folder)
    photo(folder / "a.png")
    (folder / "bad.png").write_text("no picture")
    before = sorted(path.name for path in folder.iterdir())
    with contextlib.chdir(folder):
        result = run(command, model, *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert sorted(path.name for path in folder.iterdir()) == before


def head(
    *middle: onnx.NodeProto, weights: dict[str, NDArray[Any]] | None = None, channels: int = 3
) -> onnx.ModelProto:
    """`input` N x channels x 8 x 8, the nodes `middle` from `input` to `m`, pooled to `output`, N x channels."""
    nodes = [
        *middle,
        helper.make_node("GlobalAveragePool", ["m"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["output"], name="flatten"),
    ]
    return model_of(nodes, weights or {}, (["N", channels, 8, 8], ["N", channels]))
