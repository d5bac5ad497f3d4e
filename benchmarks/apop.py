"""APOP on the four ImageNet classifiers and the photos that can be had from PyPI.

    python -m benchmarks.apop [--seed N] [--threads N] [--photos DIR] [--write]

prints one table per classifier; `--write` puts them into docs/apop.md between its marks, and draws docs/apop.png from
photos that may be shown. What is not there yet is downloaded by pip, see `benchmarks.imagenet`.
"""

import argparse
import time
from pathlib import Path

from benchmarks.imagenet import CLASSIFIERS, explainer_of, free_photos, photos
from benchmarks.machine import header
from srd_onnx import Explainer
from srd_onnx.apop.picture import picture
from srd_onnx.apop.table import ApopTable, apop_table
from srd_onnx.cli.photos import expanded

DOCS = Path(__file__).resolve().parent.parent / "docs"
BEGIN, END = "<!-- benchmarks/apop.py -->", "<!-- end -->"
SHOWN = "efficientnet_lite0"


def markdown(name: str, explainer: Explainer, table: ApopTable) -> str:
    """Rows: kinds of input; columns: kinds of pattern; cells: how many keep their class / have it in the top five."""
    port = "x".join(map(str, explainer.input_shape))
    layers = [f"{pattern}, {count} of {total} layers" for pattern, (count, total) in table.layers.items()]
    lines = [
        f"**{name}**, input {port}, {len(table.names)} photos",
        "",
        f"| run on | {' | '.join(layers)} |",
        f"|---{'|---:' * len(layers)}|",
    ]
    for kind in table.inputs:
        cells = (table.cells[kind, pattern] for pattern in table.patterns)
        lines.append(f"| {kind} | {' | '.join(f'{c.top1} / {c.top5}' for c in cells)} |")
    return "\n".join(lines)


def measured(name: str, given: list[Path], seed: int, threads: int) -> str:
    """The table of one classifier, or what is missing."""
    explainer = explainer_of(name, providers="cpu", threads=threads)
    if explainer is None:
        return f"**{name}**: not measured, PyTorch is not there to export it: pip install -e '.[models]'"
    began = time.perf_counter()
    text = markdown(name, explainer, apop_table(explainer, given, seed=seed))
    print(text, f"\n({time.perf_counter() - began:.0f} s)\n", flush=True)
    return text


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--photos", type=Path, help="a folder of photos instead of those from PyPI")
    parser.add_argument("--write", action="store_true", help="into docs/apop.md and docs/apop.png")
    options = parser.parse_args()
    given = expanded([options.photos]) if options.photos else photos()
    head = header(options.seed, options.threads)
    print(head, "\n", flush=True)
    tables = [measured(name, given, options.seed, options.threads) for name in CLASSIFIERS]
    if options.write:
        page = DOCS / "apop.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        made = "\n\n".join([f"```\n{head}\n```", *tables])
        page.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{after}", encoding="utf-8")
        explainer = Explainer(SHOWN, preset="paper", providers="cpu", threads=options.threads)
        shown = picture(explainer, apop_table(explainer, free_photos(), seed=options.seed))
        (DOCS / "apop.png").write_bytes(shown)


if __name__ == "__main__":
    main()
