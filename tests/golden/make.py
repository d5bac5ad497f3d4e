"""Write the golden maps: run it after the method was changed on purpose, and say in the commit why they moved.

    python -m tests.golden.make

Each is the map of the shipped photo, summed over 14 x 14 cells and rounded to float16 (400 bytes a map). They notice
a silent change of the method; what is right is checked elsewhere (the rules by definition, SqueezeNet in numpy).
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srd_onnx import Explainer, zoo

FILE = Path(__file__).with_name("maps.npz")
CELLS = 14
CASES: dict[str, dict[str, Any]] = {
    "paper": {"preset": "paper"},
    "ledger": {"preset": "paper", "bias": "ledger"},
    "contrast": {"preset": "paper", "seed": "contrast", "sign": "positive"},
    "logprob": {"preset": "paper", "seed": "logprob"},
}


def coarse(relevance: NDArray[np.float32]) -> NDArray[np.float64]:
    """The sums over CELLS x CELLS cells, which differ by a pixel where the side is no multiple."""
    rows, columns = (np.linspace(0, size, CELLS + 1).astype(int)[:-1] for size in relevance.shape)
    return np.add.reduceat(np.add.reduceat(relevance.astype(np.float64), rows, axis=0), columns, axis=1)


def maps() -> dict[str, NDArray[np.float64]]:
    """The map of the sample photo's top class, coarse, for every model of the zoo and every case."""
    return {
        f"{name}.{case}": coarse(
            Explainer(name, providers="cpu", **options).explain(zoo.sample_photo())[0].relevance
        )
        for name in zoo.zoo()
        for case, options in CASES.items()
    }


if __name__ == "__main__":
    stored: dict[str, Any] = {name: array.astype(np.float16) for name, array in maps().items()}
    np.savez_compressed(FILE, **stored)
