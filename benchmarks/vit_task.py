"""Do maps of a transformer lie on the object? A task with a known answer: a shape pasted on a random ground.

    python -m benchmarks.vit_task --write

Draws the pictures, trains two small vision transformers with torch (cached, with their .onnx, in --cache), explains
held-out pictures for their class from the .onnx alone, and prints how much of the map lies inside the object; with
--write also into docs/transformers.md and docs/vit_task.png.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from benchmarks.machine import header
from benchmarks.vit_data import BLOCKS, CLASSES, PATCH, POOLS, SIZE, Pictures, Pool, draw
from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer
from srd_onnx.engine.assemble import combined
from srd_onnx.engine.backward import build
from srd_onnx.engine.compiling import Case, plan_for, relevance_outputs
from srd_onnx.engine.options import Options
from srd_onnx.methods.attention import attention_layers, rolled_out
from srd_onnx.ort.runtime import CPU, make_session, run

Array = NDArray[Any]
ROOT = Path(__file__).parents[1]
GRADIENT = "input × gradient"
_CHUNK = 50  # pictures explained at once


@dataclass(frozen=True, eq=False)
class Maps:
    """Relevance [N, SIZE, SIZE] of one method; of how much of the seed is lost and booked; None where not ours."""

    relevance: Array
    residual: float | None = None
    booked: float | None = None


Method = Callable[[Array, Array], Maps]  # of images [N, 3, SIZE, SIZE] and classes [N]


# Methods


def ours(model: bytes, preset: str = "paper", **options: Any) -> Method:
    """`Explainer` with these options."""
    explainer = Explainer(model, preset=preset, layout="NCHW", providers="cpu", labels=CLASSES, **options)

    def explained(images: Array, classes: Array) -> Maps:
        relevance = np.zeros((len(images), SIZE, SIZE), np.float32)
        residuals, booked = [], []
        for target in np.unique(classes):
            rows = np.flatnonzero(classes == target)
            found = explainer.explain(images[rows], targets=int(target), batch_size=_CHUNK)
            for row, one in zip(rows, found, strict=True):
                relevance[row] = one.relevance
                seed = one.meta["seed_value"]
                residuals.append(abs(one.residual / seed))
                booked.append(sum(one.ledger.values()) / seed)
        return Maps(relevance, max(residuals), float(np.median(booked)))

    return explained


def gradient(model: bytes) -> Method:
    """Input × gradient: the engine's own backward pass in the true derivative, collapsed at the input."""
    explainer = Explainer(model, preset="paper", layout="NCHW", providers="cpu")
    port = explainer.ports[0]
    options = Options(boundary=port.name)
    shape = (_CHUNK, *explainer.input_shape[1:])
    case = Case({port.name: shape}, {port.name: port.axes}, options, tangent=True)
    forward, plan = plan_for(explainer.model.proto, case, RULES, EXPANSIONS)
    backward = build(plan, tangent=True)
    outputs = relevance_outputs(plan, backward)
    session = make_session(combined(forward, backward, outputs).SerializeToString(), [CPU])

    def multiplied(images: Array, classes: Array) -> Maps:
        parts = []
        for start in range(0, len(images), _CHUNK):
            x, target = images[start : start + _CHUNK], classes[start : start + _CHUNK]
            rest = _CHUNK - len(x)
            feeds = {
                port.name: np.concatenate([x, np.repeat(x[-1:], rest, 0)]),
                "target": np.concatenate([target, np.repeat(target[-1:], rest)]),
            }
            parts.append(run(session, list(outputs), feeds)[0][: len(x)])
        return Maps(np.concatenate(parts))

    return multiplied


def rollout(model: bytes, pool: str) -> Method:
    """Attention rollout by patches, from the weights that the engine finds."""
    explainer = Explainer(model, preset="paper", layout="NCHW", providers="cpu")
    names = [layer.weights.name for layer in attention_layers(explainer.plan)]

    def rolled(images: Array, _: Array) -> Maps:
        weights = explainer.preactivations(images, names)
        total = rolled_out([weights[name] for name in names])
        tokens = total[:, 0, 1:] if pool == "class token" else total.mean(axis=1)
        side = SIZE // PATCH
        grid = tokens.reshape(-1, side, side)
        return Maps(grid.repeat(PATCH, axis=1).repeat(PATCH, axis=2))

    return rolled


def noise(seed: int) -> Method:
    """A control: every pixel at random."""
    return lambda images, _: Maps(np.random.default_rng(seed).random((len(images), SIZE, SIZE)))


def centre() -> Method:
    """A control: a blob in the middle of every picture."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    blob = np.exp(-(rows**2 + columns**2) / (2 * (SIZE / 6) ** 2))
    return lambda images, _: Maps(np.tile(blob, (len(images), 1, 1)))


def methods(model: bytes, pool: str, seed: int) -> dict[str, Method]:
    """All of them, by the name that the table shows."""
    grids = {f"tokens entering block {i + 1}": f"/blocks.{i - 1}/Add_2" for i in range(BLOCKS - 1, 0, -1)}
    grids["tokens entering block 1"] = "/Add"
    last = f"/blocks.{BLOCKS - 1}/Add_2"
    found = {
        "**the default preset (`joint`)**": ours(model, "joint"),
        "**encoder, logit (`paper`)**": ours(model),
        "encoder, contrast": ours(model, seed="contrast"),
        "encoder, logit, positive": ours(model, sign="positive"),
        "encoder, contrast, positive": ours(model, seed="contrast", sign="positive"),
        "tokens leaving the last block, logit": ours(model, boundary=last),
    }
    for name, boundary in grids.items():
        found[f"{name}, logit"] = ours(model, boundary=boundary)
        found[f"{name}, contrast, positive"] = ours(
            model, boundary=boundary, seed="contrast", sign="positive"
        )
    found["input × gradient, pattern held fixed"] = ours(model, boundary="image")
    found[GRADIENT] = gradient(model)
    found["attention rollout"] = rollout(model, pool)
    found["control: random"] = noise(seed)
    found["control: blob in the centre"] = centre()
    return found


# Measures


def by_patch(relevance: Array) -> Array:
    """Summed over each patch and spread over it again: the map as coarse as the tokens."""
    side = SIZE // PATCH
    sums = relevance.reshape(-1, side, PATCH, side, PATCH).sum(axis=(2, 4)) / PATCH**2
    return np.asarray(sums.repeat(PATCH, axis=1).repeat(PATCH, axis=2))


def inside(relevance: Array, masks: Array) -> Array:
    """[N]: the share of the positive relevance that lies in the mask; the mask's area where nothing is positive."""
    positive = np.maximum(relevance, 0).astype(np.float64)
    total = positive.sum(axis=(1, 2))
    share = (positive * masks).sum(axis=(1, 2)) / np.where(total > 0, total, 1)
    return np.asarray(np.where(total > 0, share, masks.mean(axis=(1, 2))))


def pointing(relevance: Array, masks: Array) -> Array:
    """[N]: how much of the set of greatest pixels lies in the mask (a whole patch may be greatest)."""
    peaks = relevance == relevance.max(axis=(1, 2), keepdims=True)
    return np.asarray((peaks & masks).sum(axis=(1, 2)) / peaks.sum(axis=(1, 2)))


def row(name: str, method: Method, single: Pictures, double: Pictures, other: Array) -> str:
    """One line of the table; `other` [N] is what of input × gradient lies inside."""
    found = method(single.images, single.labels)
    area = single.masks.mean()
    fine, coarse = (inside(m, single.masks) for m in (found.relevance, by_patch(found.relevance)))
    ahead = fine - other
    error = ahead.std(ddof=1) / np.sqrt(len(ahead))
    own = []
    for index in range(2):
        coarse_map = by_patch(method(double.images, double.labels[:, index]).relevance)
        mine, other = (inside(coarse_map, double.masks[:, k]) for k in (index, 1 - index))
        own.append(mine / np.maximum(mine + other, 1e-12))
    hits = pointing(by_patch(found.relevance), single.masks).mean()
    reported = [
        "" if value is None else f"{value:z.{form}}"
        for value, form in ((found.residual, "0e"), (found.booked, "0%"))
    ]
    cells = (
        name,
        f"{fine.mean():.1%}",
        f"{100 * ahead.mean():+z.1f} ± {100 * error:.1f}",
        f"{fine.mean() / area:.1f}",
        f"{coarse.mean():.1%}",
        f"{hits:.0%}",
        f"{np.mean(own):.0%}",
        *reported,
    )
    return f"| {' | '.join(cells)} |"


def best(single: Pictures) -> str:
    """The line of a map that is the mask itself: what a map as coarse as the patches can reach."""
    coarse = by_patch(single.masks.astype(np.float32))
    hits = pointing(coarse, single.masks).mean()
    return f"| control: the mask itself | 100% | | | {inside(coarse, single.masks).mean():.1%} | {hits:.0%} | | | |"


TITLES = (
    "| method | inside, by pixel | − input × gradient | × area | inside, by patch | pointing | own of two objects "
    "| residual | booked |\n"
    "|---|---|---|---|---|---|---|---|---|"
)


# The models


@dataclass(frozen=True, eq=False)
class Trained:
    """A model's file, and what is known from its training."""

    model: bytes
    accuracy: float
    gradient_error: float


def trained(pool: Pool, cache: Path, steps: int, seed: int, threads: int) -> Trained:
    """From the cache, or trained and exported now; torch is needed only then."""
    stem = cache / f"vit-{pool.replace(' ', '-')}-{steps}-{seed}"
    file, facts = stem.with_suffix(".onnx"), stem.with_suffix(".npz")
    if not (file.exists() and facts.exists()):
        from benchmarks import torch_training, vit_net

        net = vit_net.train(pool, *_training(seed), steps=steps, seed=seed, threads=threads)
        model = torch_training.exported(net, SIZE)
        held = draw(512, [seed, 2])
        wanted = vit_net.input_gradient(net, held.images[:16], held.labels[:16])
        given = gradient(model)(held.images[:16], held.labels[:16]).relevance
        error = np.abs(given - wanted).max() / np.abs(wanted).max()
        cache.mkdir(parents=True, exist_ok=True)
        file.write_bytes(model)
        accuracy = torch_training.accuracy(net, held.images, held.labels)
        np.savez(facts, accuracy=accuracy, gradient_error=error)
    known = np.load(facts)
    return Trained(file.read_bytes(), float(known["accuracy"]), float(known["gradient_error"]))


def _training(seed: int) -> tuple[Pictures, Pictures]:
    return draw(16384, [seed, 1]), draw(512, [seed, 2])


def patch_kernel(model: bytes) -> tuple[float, float]:
    """Mean norm of the patch embedding's weights for a pixel at the patch's border, and for one inside."""
    tensors = {t.name: t for t in onnx.load_from_string(model).graph.initializer}
    norms = np.linalg.norm(numpy_helper.to_array(tensors["patches.weight"]).reshape(-1, PATCH, PATCH), axis=0)
    middle = norms[1:-1, 1:-1]
    return float((norms.sum() - middle.sum()) / (norms.size - middle.size)), float(middle.mean())


def held_out(model: bytes, count: int, seed: int) -> tuple[Pictures, Pictures]:
    """Pictures that the model gets right: with one object; with two, both of them its two highest scores."""
    single, double = draw(2 * count, [seed, 3]), draw(8 * count, [seed, 4], objects=2)
    session = make_session(model, [CPU])
    top = run(session, ["scores"], {"image": single.images})[0].argmax(axis=1)
    two = np.argsort(-run(session, ["scores"], {"image": double.images})[0], axis=1)[:, :2]
    right = np.flatnonzero(top == single.labels)[:count]
    both = np.flatnonzero((np.sort(two) == np.sort(double.labels)).all(axis=1))[:count]
    return (
        Pictures(single.images[right], single.labels[right], single.masks[right]),
        Pictures(double.images[both], double.labels[both], double.masks[both]),
    )


# The picture

SHEET = (
    "**the default preset (`joint`)**",
    "**encoder, logit (`paper`)**",
    "tokens entering block 2, contrast, positive",
    GRADIENT,
    "attention rollout",
)


def sheet(rows: Sequence[tuple[str, Array, Array, list[Array]]], path: Path) -> None:
    """A contact sheet: title, photo [3, H, W], mask, and the maps of SHEET, line by line."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.55 * (1 + len(SHEET)), 1.62 * len(rows) + 0.4), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), 1 + len(SHEET))
    for line, (title, image, mask, maps) in zip(axes, rows, strict=True):
        line[0].imshow(np.clip((image.transpose(1, 2, 0) + 1.3) / 2.6, 0, 1), interpolation="nearest")
        line[0].set_ylabel(title, fontsize=8)
        for axis, values in zip(line[1:], maps, strict=True):
            limit = np.percentile(np.abs(values), 99.5) or 1
            axis.imshow(values, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
            axis.contour(mask, [0.5], colors="black", linewidths=0.7)
        for axis in line:
            axis.set_xticks([])
            axis.set_yticks([])
    for axis, name in zip(axes[0], ("picture", *SHEET), strict=True):
        axis.set_title(name.strip("*").replace("`", "").replace(", ", ",\n", 1), fontsize=8)
    figure.savefig(path)


def sheet_rows(
    pool: str, table: dict[str, Method], single: Pictures, double: Pictures, count: int
) -> list[tuple[str, Array, Array, list[Array]]]:
    """The first `count` pictures with one object, and the first with two explained for each of them."""
    images = np.concatenate([single.images[:count], double.images[:1], double.images[:1]])
    labels = np.concatenate([single.labels[:count], double.labels[0]])
    masks = np.concatenate([single.masks[:count], double.masks[0]])
    maps = [table[name](images, labels).relevance for name in SHEET]
    return [
        (f"{CLASSES[labels[i]]} ({pool})", images[i], masks[i], [m[i] for m in maps])
        for i in range(len(images))
    ]


# The page

BEGIN, END = "<!-- vit_task: made by benchmarks/vit_task.py -->", "<!-- end of vit_task -->"


def write_page(table: str) -> None:
    """Put the tables into their place in docs/transformers.md."""
    page = ROOT / "docs/transformers.md"
    text = page.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=ROOT / "build/vit_task")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--pools", nargs="+", default=POOLS, choices=POOLS)
    parser.add_argument(
        "--write", action="store_true", help="write docs/transformers.md and docs/vit_task.png"
    )
    args = parser.parse_args()
    lines = ["```", header(args.seed, args.threads), f"steps: {args.steps}, pictures: {args.count}", "```"]
    print(*lines, sep="\n", flush=True)
    pictures: list[tuple[str, Array, Array, list[Array]]] = []
    for pool in args.pools:
        known = trained(pool, args.cache, args.steps, args.seed, args.threads)
        single, double = held_out(known.model, args.count, args.seed)
        border, middle = patch_kernel(known.model)
        facts = (
            f"\n**{pool}**: accuracy on 512 held-out pictures {known.accuracy:.1%}; {len(single.labels)} pictures with "
            f"one object (mean area of its mask {single.masks.mean():.1%}), {len(double.labels)} with two; input × "
            f"gradient differs from torch autograd by {known.gradient_error:.0e} of its maximum; "
            f"mean norm of the patch embedding's weights {border:.2f} at a patch's border, {middle:.2f} inside it."
            f"\n\n{TITLES}"
        )
        print(facts, flush=True)
        lines.append(facts)
        table = methods(known.model, pool, args.seed)
        other = inside(table[GRADIENT](single.images, single.labels).relevance, single.masks)
        for name, method in table.items():
            lines.append(row(name, method, single, double, other))
            print(lines[-1], flush=True)
        lines.append(best(single))
        print(lines[-1], flush=True)
        pictures += sheet_rows(pool, table, single, double, count=2 if pool == "class token" else 1)
    if args.write:
        write_page("\n".join(lines))
        sheet(pictures, ROOT / "docs/vit_task.png")


if __name__ == "__main__":
    main()
