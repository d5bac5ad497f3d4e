"""A network that sees colours, photos of them, and metrics that tell what they were given."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from srd_onnx.errors import NonFiniteError
from srd_onnx.explainer import Explainer
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.metrics.metric import Explained, Metric, Need
from tests.nets import model_of

COLOURS = {"red": (255, 0, 0), "green": (0, 255, 0), "blue": (0, 0, 255), "white": (255, 255, 255)}
SIZE = 16
_WEIGHTS = ((4, -4, -4), (-4, 4, -4), (-4, -4, 4), (2, 2, 2))


def colour_net(size: int | str = SIZE) -> onnx.ModelProto:
    """A score for each of `COLOURS`: the mean over positions of how much of it there is."""
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["output"], name="flatten"),
    ]
    weights: dict[str, NDArray[np.generic]] = {"w": np.array(_WEIGHTS, np.float32).reshape(4, 3, 1, 1)}
    return model_of(nodes, weights, (["N", 3, size, size], ["N", 4]))


def explainer(model: onnx.ModelProto | str | None = None, preprocess: Preprocess | None = None) -> Explainer:
    """Of the colour net; photos are taken as they are, in 0..1."""
    return Explainer(
        model or colour_net(), preprocess=preprocess or Preprocess(scale=1 / 255), layout="NCHW",
        labels=list(COLOURS), providers="cpu", threads=1,
    )  # fmt: skip


def photo_of(path: Path, colour: str, *, seed: int = 0, size: int = SIZE) -> Path:
    """A photo of a colour with a little noise, so that no two are the same."""
    noise = np.random.default_rng(seed).integers(-20, 20, (size, size, 3))
    pixels = np.clip(np.array(COLOURS[colour]) * 0.8 + 25 + noise, 0, 255).astype(np.uint8)
    assert cv2.imwrite(str(path), pixels[:, :, ::-1])
    return path


def photos(folder: Path, *colours: str) -> list[Path]:
    """Photos of these colours, by their number."""
    folder.mkdir(parents=True, exist_ok=True)
    return [photo_of(folder / f"{number}_{c}.png", c, seed=number) for number, c in enumerate(colours)]


def masks_for(folder: Path, images: Sequence[Path], ids: NDArray[np.int64]) -> Path:
    """Masks as of ImageNet-S, the same for every photo: a folder."""
    folder.mkdir()
    for image in images:
        pixels = np.stack([np.zeros_like(ids), ids // 256, ids % 256], axis=-1).astype(np.uint8)
        cv2.imwrite(str(folder / f"{image.stem}.png"), pixels)
    return folder


def metric(
    name: str,
    score: Callable[[Explained], float],
    *needs: Need,
    better: Literal["higher", "lower"] = "higher",
    **parameters: object,
) -> Metric:
    """A metric of one line."""
    return Metric(
        name, name.title(), "faithfulness", "for tests", (-np.inf, np.inf), better, "tests", score, parameters,
        frozenset(needs),
    )  # fmt: skip


def total(explained: Explained) -> float:
    """The sum of the map."""
    return float(explained.map.sum())


def drawn(explained: Explained) -> float:
    """A random number by the seed."""
    return float(np.random.default_rng(explained.seed).random())


def undefined(_: Explained) -> float:
    """Nothing."""
    return float("nan")


def broken(_: Explained) -> float:
    """The fault of the input."""
    raise NonFiniteError("the scores are NaN")
