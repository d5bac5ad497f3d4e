"""What `quality` asks about: the models, and the reporting pictures of each with their masks."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks import imagenet, pasted_net
from benchmarks.halves import PASTED, halves
from benchmarks.pasted import CLASSES, Array, draw
from srd_onnx import Explainer
from srd_onnx.engine.boundary import passages
from srd_onnx.evaluation.contenders import Contender, contender_named
from srd_onnx.files import atomic_write_all
from srd_onnx.methods import METHODS

PICTURES = 20  # of a pasted network
FINER = "-finer"  # ends the name of a CAM at a layer before the usual one
PER_POSITION, ODD = 256, 1.1  # input positions for each of that layer; odd sizes have a little more
OURS, PAPER = "srd:preset=joint", "srd:preset=paper"
# LRP's box rule refuses neighbours of a picture that leave the range of pixels, and with them whole metrics.
_WITH_PARAMETERS = {"rise": "rise:masks=1000", "lrp-composite": "lrp-composite:first=flat"}
CONTENDERS = (
    OURS, PAPER, *(_WITH_PARAMETERS.get(name, name) for name in METHODS), f"gradcam{FINER}", f"layercam{FINER}",
)  # fmt: skip


@dataclass(frozen=True)
class Pictures:
    """Paths of pictures, and the folder of their masks; None where there are none."""

    images: tuple[Path, ...]
    masks: Path | None = None


def base_of(model: str, providers: str, threads: int) -> Explainer:
    """The model, explained by nothing in particular.

    Raises:
        ModuleNotFoundError: it has to be exported or trained first, and there is no PyTorch.
    """
    if model.startswith(PASTED):
        name = model.removeprefix(PASTED)
        return pasted_net.explainer_of(name, preset="paper", providers=providers, threads=threads)
    base = imagenet.explainer_of(model, preset="paper", providers=providers, threads=threads)
    if base is None:
        raise ModuleNotFoundError(f"{model} has to be exported by PyTorch once: pip install -e '.[models]'")
    return base


def pictures_of(model: str, folder: Path, seed: int) -> Pictures:
    """The reporting pictures of a model: photos, or pasted ones that it knows, which are written to a folder."""
    if not model.startswith(PASTED):
        return Pictures(halves().reporting)
    drawn = draw(2 * PICTURES, [seed, 6])
    path = pasted_net.trained(model.removeprefix(PASTED)).path
    drawn = drawn[np.flatnonzero(pasted_net.known(path, drawn))[:PICTURES]]
    images, files = [], dict[Path, bytes]()
    for number, (photo, label, mask) in enumerate(zip(drawn.photos, drawn.labels, drawn.masks, strict=True)):
        name = f"{number:02}_{CLASSES[label]}.png"
        images.append(folder / model / "photos" / name)
        files[images[-1]] = _png(photo[:, :, ::-1])
        files[folder / model / "masks" / name] = _png(mask.astype(np.uint8) * 255)
    atomic_write_all(files)
    return Pictures(tuple(images), folder / model / "masks")


def contender_of(name: str, base: Explainer, seed: int) -> Contender | str:
    """Who takes part under that name; or why it cannot with this model."""
    if not name.endswith(FINER):
        return contender_named(name, seed=seed, required=False)
    layer = finer_layer(base)
    if layer is None:
        return f"no layer has more positions than the usual one and at most 1/{PER_POSITION} of the input's"
    return Contender(name, METHODS[name.removesuffix(FINER)](), {"boundary": layer}, required=False)


def finer_layer(base: Explainer) -> str | None:
    """The last tensor that all relevance passes of the finest scale of at most 1/256 of the input's positions.

    None where that is not finer than the encoder.
    """
    (encoder,) = base.plan.boundary
    counts = passed_by_all(base)
    whole, passed = next(iter(counts.values())), list(counts)
    few = [name for name in passed if counts[encoder] < counts[name] <= ODD * whole / PER_POSITION]
    return max(few, key=lambda name: (counts[name], passed.index(name)), default=None)


def passed_by_all(base: Explainer) -> dict[str, int]:
    """The tensors that all relevance passes, from the input on, and how many positions each has."""
    plan = base.with_changed(boundary=base.ports[0].name).plan
    crossed = [(step.node, step.rule, step.carriers) for step in plan.steps]
    passed = passages(crossed, [plan.target.name], plan.sources)
    return {name: plan.roles[name].count(plan.graph.values[name]) for name in passed}


def name_for_files(text: str) -> str:
    """A contender's name without what a file's name cannot have."""
    return "".join(one if one.isalnum() else "-" for one in text)


def _png(pixels: Array) -> bytes:
    done, data = cv2.imencode(".png", np.ascontiguousarray(pixels))
    assert done
    return data.tobytes()
