"""Normalisations and activations written out in primitive operators, as exporters do: relevance passes unchanged.

Each block acts on each position alone, so that what enters behind it must arrive at its input position by position.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from graph_rules import RULES
from srd_onnx.engine.compiling import Case, Compiled, compile_model, explanation_session, run_explanation
from srd_onnx.engine.options import Bias, Options
from srd_onnx.engine.reading import Result
from srd_onnx.graph.roles import parse_layout
from srd_onnx.ort.runtime import CPU, make_session
from tests.nets import model_of

Array = NDArray[Any]
TOKENS = (2, 5, 6)  # [N, T, C]
IMAGE = (2, 6, 4, 3)  # [N, C, H, W]
LAYOUTS = {3: "NTC", 4: "NCHW"}
RNG = np.random.default_rng(7)
EXACT = 1e-6  # relative to the largest share, in single precision


@dataclass
class Graph:
    """Nodes and constants, made by calls: ``y = g("Mul", x, 0.5)``."""

    opset: int
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, Array] = field(default_factory=dict)

    def __call__(self, op: str, *inputs: Any, **attrs: Any) -> str:
        names = [v if isinstance(v, str) else self.constant(v) for v in inputs]
        output = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, names, [output], name=f"{op}_{output}", **attrs))
        return output

    def constant(self, data: Any) -> str:
        name = f"c{len(self.constants)}"
        array = np.asarray(data)
        self.constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
        return name

    def mean(self, x: str, *axes: int) -> str:
        if self.opset < 18:
            return self("ReduceMean", x, axes=list(axes), keepdims=1)
        return self("ReduceMean", x, np.array(axes), keepdims=1)

    def random(self, *shape: int) -> Array:
        """Numbers around 1, the same each time."""
        return np.asarray(1 + 0.3 * np.random.default_rng(sum(shape)).standard_normal(shape))


Block = Callable[[Graph, str], str]


# Normalisations over channels


def layer_norm_torch(g: Graph, x: str) -> str:
    centred = g("Sub", x, g.mean(x, -1))
    variance = g.mean(g("Pow", centred, 2.0), -1)
    y = g("Div", centred, g("Sqrt", g("Add", variance, 1e-5)))
    return g("Add", g("Mul", y, g.random(6)), g.random(6))


def layer_norm_tensorflow(g: Graph, x: str) -> str:
    """``x * inv + (beta - mean * inv)``, as tf.nn.batch_normalization after tf.nn.moments."""
    mean = g.mean(x, -1)
    difference = g("Sub", x, mean)
    variance = g.mean(g("Mul", difference, difference), -1)
    inverse = g("Reciprocal", g("Sqrt", g("Add", variance, 1e-3)))
    scaled = g("Mul", inverse, g.random(6))
    return g("Add", g("Mul", x, scaled), g("Sub", g.random(6), g("Mul", mean, scaled)))


def layer_norm_channels_first(g: Graph, x: str) -> str:
    """ConvNeXt's LayerNorm2d."""
    centred = g("Sub", x, g.mean(x, 1))
    variance = g.mean(g("Pow", centred, 2.0), 1)
    y = g("Div", centred, g("Sqrt", g("Add", variance, 1e-6)))
    return g("Add", g("Mul", g.random(6, 1, 1), y), g.random(6, 1, 1))


def rms_norm_torch(g: Graph, x: str) -> str:
    square = g.mean(g("Pow", x, 2.0), -1)
    inverse = g("Div", 1.0, g("Sqrt", g("Add", square, 1e-6)))
    return g("Mul", g.random(6), g("Mul", x, inverse))


def rms_norm_reciprocal(g: Graph, x: str) -> str:
    square = g.mean(g("Mul", x, x), -1)
    return g("Mul", x, g("Reciprocal", g("Sqrt", g("Add", square, 1e-6))))


def rms_norm_power(g: Graph, x: str) -> str:
    return g("Mul", g("Pow", g("Add", g.mean(g("Pow", x, 2.0), -1), 1e-6), -0.5), x)


def rms_norm_root_of_inverse(g: Graph, x: str) -> str:
    return g("Mul", x, g("Sqrt", g("Reciprocal", g("Add", g.mean(g("Mul", x, x), -1), 1e-6))))


def rms_norm_of_a_gate(g: Graph, x: str) -> str:
    return rms_norm_reciprocal(g, g("Sigmoid", x))


def unit_length(g: Graph, x: str) -> str:
    """F.normalize."""
    square = g.mean(g("Mul", x, x), 1)
    return g("Div", x, g("Max", g("Sqrt", g("Mul", square, 6.0)), 1e-12))


# Normalisations over positions, with their means held fixed


def instance_norm(g: Graph, x: str) -> str:
    centred = g("Sub", x, g.mean(x, 2, 3))
    variance = g.mean(g("Mul", centred, centred), 2, 3)
    y = g("Mul", centred, g("Pow", g("Add", variance, 1e-5), -0.5))
    return g("Add", g("Mul", y, g.random(6, 1, 1)), g.random(6, 1, 1))


def instance_norm_keras(g: Graph, x: str) -> str:
    """``x * inv + (beta - mean * inv)``: here the mean is no operand of a Sub, so that it carries relevance."""
    mean = g.mean(x, 2, 3)
    difference = g("Sub", x, mean)
    variance = g.mean(g("Mul", difference, difference), 2, 3)
    inverse = g("Mul", g("Reciprocal", g("Sqrt", g("Add", variance, 1e-3))), g.random(6, 1, 1))
    return g("Add", g("Mul", x, inverse), g("Sub", g.random(6, 1, 1), g("Mul", mean, inverse)))


def global_response_norm(g: Graph, x: str) -> str:
    """ConvNeXt V2, without the residual."""
    energy = g("Sqrt", g("Mul", g.mean(g("Mul", x, x), 2, 3), 12.0))
    share = g("Div", energy, g("Add", g.mean(energy, 1), 1e-6))
    return g("Add", g("Mul", g.random(6, 1, 1), g("Mul", x, share)), g.random(6, 1, 1))


# Activations


def gelu_torch(g: Graph, x: str) -> str:
    phi = g("Add", g("Erf", g("Div", x, 2**0.5)), 1.0)
    return g("Mul", g("Mul", x, phi), 0.5)


def gelu_keras(g: Graph, x: str) -> str:
    return g("Mul", g("Mul", 0.5, x), g("Add", 1.0, g("Erf", g("Mul", x, 0.5**0.5))))


def gelu_tanh(g: Graph, x: str) -> str:
    inner = g("Add", x, g("Mul", g("Pow", x, 3.0), 0.044715))
    phi = g("Add", g("Tanh", g("Mul", inner, (2 / np.pi) ** 0.5)), 1.0)
    return g("Mul", g("Mul", x, 0.5), phi)


def gelu_tanh_cube(g: Graph, x: str) -> str:
    cube = g("Mul", g("Mul", x, x), x)
    inner = g("Mul", g("Add", x, g("Mul", 0.044715, cube)), (2 / np.pi) ** 0.5)
    return g("Mul", x, g("Mul", 0.5, g("Add", 1.0, g("Tanh", inner))))


def quick_gelu(g: Graph, x: str) -> str:
    return g("Mul", x, g("Sigmoid", g("Mul", x, 1.702)))


def silu(g: Graph, x: str) -> str:
    return g("Mul", x, g("Sigmoid", x))


def silu_quotient(g: Graph, x: str) -> str:
    return g("Div", x, g("Add", g("Exp", g("Neg", x)), 1.0))


def silu_inverse(g: Graph, x: str) -> str:
    return g("Mul", x, g("Div", 1.0, g("Add", 1.0, g("Exp", g("Neg", x)))))


def hard_swish_torch(g: Graph, x: str) -> str:
    return g("Div", g("Mul", x, g("Clip", g("Add", x, 3.0), 0.0, 6.0)), 6.0)


def hard_swish_keras(g: Graph, x: str) -> str:
    return g("Mul", x, g("Mul", g("Clip", g("Add", x, 3.0), 0.0, 6.0), 1 / 6))


def hard_swish_hard_sigmoid(g: Graph, x: str) -> str:
    return g("Mul", x, g("HardSigmoid", x, alpha=1 / 6, beta=0.5))


def hard_swish_min_max(g: Graph, x: str) -> str:
    return g("Mul", x, g("Mul", g("Min", g("Max", g("Add", x, 3.0), 0.0), 6.0), 1 / 6))


def mish(g: Graph, x: str) -> str:
    return g("Mul", x, g("Tanh", g("Softplus", x)))


def mish_written_out(g: Graph, x: str) -> str:
    return g("Mul", x, g("Tanh", g("Log", g("Add", g("Exp", x), 1.0))))


def leaky_where(g: Graph, x: str) -> str:
    return g("Where", g("Greater", x, 0.0), x, g("Mul", x, 0.1))


def leaky_maximum(g: Graph, x: str) -> str:
    return g("Max", x, g("Mul", x, 0.1))


def soft_sign(g: Graph, x: str) -> str:
    return g("Div", x, g("Add", g("Abs", x), 1.0))


def fake_quantised(g: Graph, x: str) -> str:
    steps = g("Clip", g("Round", g("Div", x, 0.125)), -128.0, 127.0)
    return g("Mul", steps, 0.125)


NORMS_OF_TOKENS: tuple[Block, ...] = (
    layer_norm_torch,
    layer_norm_tensorflow,
    rms_norm_torch,
    rms_norm_reciprocal,
    rms_norm_power,
    rms_norm_root_of_inverse,
    rms_norm_of_a_gate,
)
NORMS_OF_IMAGES: tuple[Block, ...] = (
    layer_norm_channels_first,
    unit_length,
    instance_norm,
    global_response_norm,
)
ACTIVATIONS: tuple[Block, ...] = (
    gelu_torch,
    gelu_keras,
    gelu_tanh,
    gelu_tanh_cube,
    quick_gelu,
    silu,
    silu_quotient,
    silu_inverse,
    hard_swish_torch,
    hard_swish_keras,
    hard_swish_hard_sigmoid,
    hard_swish_min_max,
    mish,
    mish_written_out,
    leaky_where,
    leaky_maximum,
    soft_sign,
    fake_quantised,
)
# Blocks in which everything but one path is held fixed.
HELD = [*NORMS_OF_TOKENS[:-1], *NORMS_OF_IMAGES, *ACTIVATIONS[:11], *ACTIVATIONS[12:14], soft_sign]
ROWS = [
    *((block, TOKENS) for block in NORMS_OF_TOKENS),
    *((block, IMAGE) for block in NORMS_OF_IMAGES),
    *((block, shape) for block in ACTIVATIONS for shape in (TOKENS, IMAGE)),
]
every_block = pytest.mark.parametrize(
    ("block", "shape"), ROWS, ids=[f"{b.__name__}-{LAYOUTS[len(s)]}" for b, s in ROWS]
)


def compiled_head(
    block: Block, shape: Sequence[int], opset: int, boundary: str = "encoder", bias: Bias = "distribute"
) -> tuple[Compiled, Array]:
    """The block and a linear head over all its positions; and the weights of the head."""
    g = Graph(opset)
    head = RNG.standard_normal((int(np.prod(shape[1:])), 4)).astype(np.float32)
    g.nodes.append(helper.make_node("Flatten", [block(g, "input")], ["flat"], name="flat"))
    g.nodes.append(helper.make_node("MatMul", ["flat", g.constant(head)], ["output"], name="head"))
    model = model_of(g.nodes, g.constants, (list(shape), [shape[0], 4]), opset)
    start = {"input": parse_layout(LAYOUTS[len(shape)], "input", tuple(shape))}
    case = Case({"input": shape}, start, Options(boundary=boundary, bias=bias))
    return compile_model(model, case, RULES), head


def run(compiled: Compiled, shape: Sequence[int]) -> tuple[Result, Array]:
    """The explanation of one random input, and that input."""
    data = (2 * RNG.standard_normal(tuple(shape)) + 0.3).astype(np.float32)
    session = explanation_session(compiled, [CPU], None)
    return run_explanation(session, compiled, {"input": data}, np.array([1, -1])), data


def entered(result: Result, shape: Sequence[int], z: Array, head: Array) -> Array:
    """Relevance where the head begins: ``<z, its weights>`` per position."""
    assert result.chosen is not None
    weights = head.T[result.chosen].reshape(shape)
    return np.asarray((z * weights).sum(axis=1 if len(shape) == 4 else 2))


def output_of(block: Block, data: Array, opset: int) -> Array:
    """What the block computes, node by node."""
    g = Graph(opset)
    g.nodes.append(helper.make_node("Identity", [block(g, "input")], ["output"], name="last"))
    model = model_of(g.nodes, g.constants, (list(data.shape), list(data.shape)), opset)
    session = make_session(model.SerializeToString(), [CPU], optimise=False)
    return np.asarray(session.run(None, {"input": data})[0])


@pytest.mark.parametrize("opset", [11, 17, 18])
@every_block
def test_relevance_passes_position_by_position(block: Block, shape: tuple[int, ...], opset: int) -> None:
    compiled, head = compiled_head(block, shape, opset)
    result, data = run(compiled, shape)
    wanted = entered(result, shape, output_of(block, data, opset), head)
    found = result.relevance["input"]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=EXACT * np.abs(wanted).max())
    residual = found.reshape(len(found), -1).sum(1) + result.ledger.sum(1) - result.seed
    np.testing.assert_allclose(residual, 0, atol=EXACT * np.abs(wanted).sum())


@every_block
def test_with_the_cotangent_carried_through_nothing_is_lost(block: Block, shape: tuple[int, ...]) -> None:
    """The boundary is the input: gradient x input under the pattern, with the biases in the ledger."""
    result, _ = run(compiled_head(block, shape, 17, boundary="input", bias="ledger")[0], shape)
    total = result.relevance["input"].reshape(shape[0], -1).sum(1) + result.ledger.sum(1)
    scale = np.abs(result.relevance["input"]).sum() + np.abs(result.ledger).sum()
    np.testing.assert_allclose(total, result.seed, rtol=0, atol=EXACT * scale)


@pytest.mark.parametrize("boundary", ["encoder", "input"])
@pytest.mark.parametrize("bias", ["distribute", "ledger"])
def test_a_mean_over_positions_that_carries_relevance_loses_none(boundary: str, bias: Bias) -> None:
    result, _ = run(compiled_head(instance_norm_keras, IMAGE, 17, boundary, bias)[0], IMAGE)
    found = result.relevance["input"]
    total = found.reshape(len(found), -1).sum(1) + result.ledger.sum(1)
    np.testing.assert_allclose(total, result.seed, rtol=0, atol=EXACT * np.abs(found).sum())


@pytest.mark.parametrize("block", HELD, ids=lambda block: block.__name__)
def test_gates_and_statistics_receive_nothing(block: Block) -> None:
    shape = IMAGE if block in NORMS_OF_IMAGES else TOKENS
    compiled, _ = compiled_head(block, shape, 11)  # at newer opsets ONNX Runtime fuses some of them
    crossed = {step.node.key.op_type for step in compiled.plan.steps}
    assert crossed <= {"Add", "Sub", "Mul", "Div", "ReduceMean", "Reshape", "Flatten", "MatMul"}
