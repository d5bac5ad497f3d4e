"""The pictures of docs/erf.md, and its table: what active and inactive neurons carry in the models that ship.

python -m benchmarks.erf_pictures [PHOTO ...] [--write]
"""

import argparse
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import header
from srd_onnx import Explainer
from srd_onnx.inside.contact import Choice, contacts, picture
from srd_onnx.pictures.layer_strip import strip
from srd_onnx.zoo import sample_photo, zoo

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "erf.md"
BEGIN, END = "<!-- measured by benchmarks.erf_pictures -->\n", "<!-- end -->\n"
LARGEST = 500_000  # bytes
SHEETS = (("squeezenet11", "/fires.3/Concat"), ("efficientnet_lite0", "encoder"))


def main() -> None:
    """Print the table; write the pictures and the page if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="*", type=Path, default=[Path(sample_photo())])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true", help="write docs/erf.md and its pictures")
    args = parser.parse_args()
    print(header(0, args.threads))
    lines = []
    for name in zoo():
        explainer = Explainer(name, preset="paper", providers="cpu", threads=args.threads)
        for line in table(explainer, name, args.photos):
            print(line, flush=True)
            lines.append(line)
    if args.write:
        page = PAGE.read_text(encoding="utf-8")
        before, rest = page.split(BEGIN)
        PAGE.write_text(before + BEGIN + "\n".join(lines) + "\n" + END + rest.split(END)[1], encoding="utf-8")
        pictures(args.threads)


def table(explainer: Explainer, name: str, photos: Sequence[Path]) -> Iterator[str]:
    """For each preactivation that mixes positions its parts of <v̂, v>, and how many neurons are inactive: means."""
    found: dict[str, list[tuple[float, ...]]] = {}
    for photo in photos:
        (decision,) = explainer.inside(photo)
        shares = [one for one in decision.layers if one.active is not None]
        tensors = explainer.preactivations(photo, [one.tensor for one in shares])
        for one in shares:
            parts = [part for part in (one.active, one.inactive, one.bias) if part is not None]
            silent = float((tensors[one.tensor] <= 0).mean())
            found.setdefault(one.name, []).append((silent, *parts))
    yield f"\n**{name}**, {len(photos)} photo{'s' if len(photos) > 1 else ''}, explained for the prediction\n"
    yield "| layer | neurons that are inactive | active carry | inactive carry | bias |"
    yield "|---|---|---|---|---|"
    for layer, rows in found.items():
        yield row(f"`{layer}`", np.mean(rows, axis=0))
    yield row("**mean**", np.mean([np.mean(rows, axis=0) for rows in found.values()], axis=0))


def row(name: str, numbers: Sequence[float]) -> str:
    """One line of the table."""
    return (
        f"| {name} | "
        + " | ".join(f"{abs(number) if abs(number) < 5e-4 else number:.1%}" for number in numbers)
        + " |"
    )


def pictures(threads: int) -> None:
    """The strip of one model, and a contact sheet of both."""
    for number, (name, layer) in enumerate(SHEETS):
        explainer = Explainer(name, preset="paper", providers="cpu", threads=threads)
        for sheet in contacts(explainer, sample_photo(), layer, Choice()):
            save(picture(sheet), f"erf_{name}.png")
        if number == 0:
            (decision,) = explainer.inside(sample_photo())
            save(strip(decision), f"layers_{name}.png")


def save(png: bytes, name: str) -> None:
    """Write a picture; one that is too large for a page smaller and with 256 colours."""
    with Image.open(io.BytesIO(png)) as image:
        shown: Image.Image = image.convert("RGB")
    whole = io.BytesIO()
    shown.save(whole, "png", optimize=True)
    if whole.tell() > LARGEST:
        small = shown.resize((shown.width * 3 // 4, shown.height * 3 // 4), Image.Resampling.LANCZOS)
        whole = io.BytesIO()
        small.quantize(256, dither=Image.Dither.NONE).save(whole, "png", optimize=True)
    (DOCS / name).write_bytes(whole.getvalue())
    print(f"{DOCS / name}: {whole.tell() // 1000} kB")


if __name__ == "__main__":
    main()
