"""What would travel between a GPU and the host for an explanation, in bytes; counted, so it needs no GPU.

python -m benchmarks.travel
"""

import argparse
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.speed import MODELS, model_bytes
from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer
from srd_onnx.engine.compiling import compile_model, explanation_session
from srd_onnx.engine.options import PRESETS
from srd_onnx.ort.runtime import CPU, Tensor
from srd_onnx.runs import make_several
from srd_onnx.sharing.ratios import run_ratios
from srd_onnx.sharing.several import AT_ONCE

_SIZES = {"tensor(float)": 4, "tensor(float16)": 2, "tensor(int64)": 8, "tensor(double)": 8}


def size_of(values: Iterable[Any]) -> int:
    """Bytes of inputs or outputs of a session."""
    return sum(math.prod(value.shape) * _SIZES[value.type] for value in values)


def one_target(explainer: Explainer) -> tuple[int, int]:
    """Bytes of all that goes in, and of all that comes back."""
    case = explainer.case(explainer.shown_shapes())
    made = compile_model(explainer.model.proto, case, RULES, EXPANSIONS)
    session = explanation_session(made, [CPU], None)
    return size_of(session.get_inputs()), size_of(session.get_outputs())


def many_targets(explainer: Explainer, seed: int) -> tuple[int, int, int]:
    """Bytes of the ratios, which numpy reads; of what stays for the heads; and of its copies for so many targets."""
    shapes = explainer.shown_shapes()
    case = explainer.case(shapes)
    sessions = make_several(explainer.model.proto, case, RULES, EXPANSIONS, [CPU], None).sessions
    rng = np.random.default_rng(seed)
    feeds = {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    _, found = run_ratios(sessions.ratios, feeds)
    read = {name: tensor for name, tensor in found.items() if name not in feeds}
    staying = [tensor for tensor in read.values() if isinstance(tensor, onnxruntime.OrtValue)]
    widened = [head.widen.get_outputs() for head in sessions.heads if head.widen is not None]
    return (
        sum(_bytes(tensor) for tensor in read.values() if isinstance(tensor, np.ndarray)),
        sum(map(_bytes, staying)),
        sum(map(size_of, widened)),
    )


def _bytes(tensor: Tensor) -> int:
    if isinstance(tensor, onnxruntime.OrtValue):
        return int(tensor.tensor_size_in_bytes())
    return int(tensor.nbytes)


def main() -> None:
    """Print the table, in kB."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    columns = ("one target: in", "back", "many: ratios back", "stays", f"its {AT_ONCE} copies")
    print(f"| model, preset | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for name in args.models:
        for preset in PRESETS:
            explainer = Explainer(model_bytes(name), preset=preset, providers="cpu")
            counted = (*one_target(explainer), *many_targets(explainer, args.seed))
            print(
                f"| {name}, `{preset}` | {' | '.join(f'{size / 1000:.0f}' for size in counted)} |", flush=True
            )


if __name__ == "__main__":
    main()
