"""A picture explained part by part has the map that it has as a whole."""

import math
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from srd_onnx import Explainer, Explanation
from srd_onnx.bounded import choosing, tiles
from srd_onnx.bounded.geometry import Reach, reach_of, spans
from srd_onnx.bounded.sizes import bytes_of, kept_of
from srd_onnx.bounded.tiles import Tiled
from srd_onnx.errors import OptionError
from srd_onnx.targets import At, Contrast
from tests.nets import model_of

H, W, CHANNELS = 117, 134, 6
X = np.random.default_rng(0).standard_normal((1, 3, H, W)).astype(np.float32)


@pytest.fixture(autouse=True)
def no_layer_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are the last resort; here they are the only one."""
    monkeypatch.setattr(choosing, "fitting", lambda *_: (None, math.inf))


class _Net:
    """Nodes in a row; `model` ends them with the mean over positions and five scores."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, NDArray[np.generic]] = {}
        self.rng = np.random.default_rng(3)

    def op(self, kind: str, *inputs: str, **attrs: Any) -> str:
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attrs))
        return name

    def weight(self, *shape: int) -> str:
        name = f"w{len(self.weights)}"
        scale = np.sqrt(2 / math.prod(shape[1:]))
        self.weights[name] = np.asarray(self.rng.standard_normal(shape) * scale, np.float32)
        return name

    def conv(self, x: str, into: int = CHANNELS, side: int = 3, **attrs: Any) -> str:
        w, b = self.weight(CHANNELS, into, side, side), self.weight(CHANNELS)
        padded = {} if "auto_pad" in attrs else {"pads": [side // 2] * 4}
        return self.op("Conv", x, w, b, **(padded | attrs))

    def model(self, x: str) -> onnx.ModelProto:
        flat = self.op("Flatten", self.op("GlobalAveragePool", x))
        self.nodes.append(helper.make_node("MatMul", [flat, self.weight(CHANNELS, 5)], ["output"], name="fc"))
        return model_of(self.nodes, self.weights, (["N", 3, "H", "W"], ["N", 5]))


def strided() -> onnx.ModelProto:
    """Strides, a dilation, padding on one side only, a residual sum."""
    net = _Net()
    x = net.op("Relu", net.conv("input", 3, side=5, strides=[2, 2], pads=[2, 1, 2, 3]))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.conv(net.op("Relu", net.conv(x)), dilations=[2, 2], pads=[2, 2, 2, 2])
    return net.model(net.op("Relu", net.op("Add", x, y)))


def pooled() -> onnx.ModelProto:
    """Windows that end beyond the picture, means that leave the padding out, branches side by side."""
    net = _Net()
    x = net.op("Relu", net.conv("input", 3))
    x = net.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    a = net.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    b = net.conv(x, strides=[2, 2])
    x = net.op("Concat", a, net.op("Clip", b), axis=1)
    return net.model(net.op("Relu", net.conv(x, 2 * CHANNELS)))


def same_padding() -> onnx.ModelProto:
    """Padding that depends on the size of the picture."""
    net = _Net()
    x = net.op("Relu", net.conv("input", 3, strides=[2, 2], auto_pad="SAME_UPPER"))
    x = net.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_LOWER")
    return net.model(net.op("Relu", net.conv(x, auto_pad="SAME_UPPER")))


NETS = {net.__name__: net for net in (strided, pooled, same_padding)}


def explainer(model: onnx.ModelProto, part: float | None, **options: Any) -> Explainer:
    """Of what the whole takes, so much is given."""
    options = {"providers": "cpu", "preset": "paper", "layout": "NCHW"} | options
    most = None
    if part is not None:
        whole = Explainer(model, **options)
        plan = whole.planned(whole.case({"input": X.shape}))[1]
        most = int(kept_of(plan) + part * bytes_of(plan))
    return Explainer(model, max_memory=most, **options)


def both(
    model: onnx.ModelProto, part: float, targets: Any = 3, **options: Any
) -> tuple[list[Explanation], ...]:
    whole, parts = explainer(model, None, **options), explainer(model, part, **options)
    found = whole.explain(X, targets), parts.explain(X, targets)
    (ready,) = parts._sessions.values()
    assert isinstance(ready, Tiled)
    count = len(ready.rows) * len(ready.columns)
    assert count > 1
    assert {one.meta["bounded"] for one in found[0]} == {None}
    assert {one.meta["bounded"] for one in found[1]} == {f"the picture in {count} parts"}
    return found


def same(whole: list[Explanation], parts: list[Explanation]) -> None:
    for one, other in zip(whole, parts, strict=True):
        scale, seed = float(np.abs(one.relevance).max()), abs(float(one.meta["seed_value"]))
        # The seed is a difference of scores, which are rounded; the map is as uncertain as that.
        rounding = 4 * float(np.finfo(np.float32).eps * np.abs(one.logits).max()) / seed
        tolerance = max(1e-5, rounding)
        np.testing.assert_allclose(other.relevance, one.relevance, atol=1e-5 * scale, rtol=tolerance)
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-5, atol=1e-6)
        assert other.target == one.target
        assert other.ledger.keys() == one.ledger.keys()
        for name, amount in one.ledger.items():
            assert other.ledger[name] == pytest.approx(amount, rel=1e-4, abs=1e-5)
        assert abs(other.residual) < 1e-4 * max(1.0, abs(float(one.meta["seed_value"])))


@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("net", NETS)
def test_part_by_part_is_the_whole(net: str, part: float) -> None:
    same(*both(NETS[net](), part))


@pytest.mark.parametrize(
    "options",
    [
        {"bias": "ledger"},
        {"sign": "positive"},
        {"seed": "logprob"},
        {"smooth": 2.0},
        {"boundary": "maxpool2"},
    ],
    ids=str,
)
def test_whatever_the_options(options: dict[str, Any]) -> None:
    same(*both(strided(), 0.5, **options))


@pytest.mark.parametrize(
    "targets", [None, "top3", Contrast(1, 4), At("output", (2,)), [0, 1, 2, 3, 4]], ids=str
)
def test_whatever_is_explained(targets: Any) -> None:
    same(*both(strided(), 0.5, targets))


def test_too_short_a_reach_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*given: Any) -> tuple[Reach, ...]:
        return tuple(Reach(one.stride, one.before // 2, one.after // 2) for one in reach_of(*given))

    monkeypatch.setattr(tiles, "reach_of", short)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        same(*both(strided(), 0.5))


def test_where_the_memory_is_enough_nothing_is_parted() -> None:
    found = explainer(strided(), 1.1)
    found.explain(X, 3)
    assert not any(isinstance(one, Tiled) for one in found._sessions.values())


def test_reach_by_hand() -> None:
    net = _Net()
    x = net.conv("input", 3, strides=[2, 2])  # 3 wide, one to each side
    x = net.op("MaxPool", net.op("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    x = net.conv(x)
    plan = explainer(net.model(net.op("Relu", x)), None).plan
    # Position 0: a 3x3 window around 0 of pools, each over 2 convolutions, each from -1 to +1: -5 to 2 * 4 - 2 + ...
    reach, _ = reach_of(plan, plan.boundary[0])
    assert reach == Reach(4, 5, 7)
    assert reach.size == 13


def test_every_position_is_in_one_part_with_all_it_looks_at() -> None:
    for stride, before, after, size in ((4, 5, 7, 117), (1, 3, 2, 40), (8, 30, 40, 301)):
        reach, positions = Reach(stride, before, after), -(-size // stride)
        for at_once in (1, 3, 7, 100):
            found = spans(reach, positions, size, at_once)
            assert [k for one in found for k in range(one.first, one.last)] == list(range(positions))
            assert len({one.stop - one.start for one in found}) == 1
            for one in found:
                assert one.start % stride == 0
                assert (size - one.stop) % stride == 0
                assert one.start <= max(0, one.first * stride - before)
                assert one.stop >= min(size, (one.last - 1) * stride + after + 1)


def test_refusals() -> None:
    with pytest.raises(OptionError, match="preset 'paper', or focus='none'"):
        explainer(strided(), 0.5, preset="joint", focus="maxpool2").explain(X, 3)
    with pytest.raises(OptionError, match="bytes at the least"):
        explainer(strided(), 0.001).explain(X, 3)
    with pytest.raises(OptionError, match="max_memory: an option of SRD"):
        Explainer(strided(), providers="cpu", layout="NCHW", method="gradcam", max_memory=1)
    with pytest.raises(OptionError, match="max_memory=0"):
        Explainer(strided(), providers="cpu", layout="NCHW", max_memory=0)
    with pytest.raises(OptionError, match="or max_memory"):
        explainer(strided(), 0.5).inside(X, 3)
    net = _Net()
    x = net.op("Relu", net.conv("input", 3))
    x = net.op("InstanceNormalization", x, net.weight(CHANNELS), net.weight(CHANNELS))
    with pytest.raises(OptionError, match="is not local"):
        explainer(net.model(net.op("Relu", net.conv(x))), 0.5).explain(X, 3)


def test_paths_around_the_boundary_are_refused() -> None:
    net = _Net()
    x = net.op("Relu", net.conv("input", 3))
    y = net.op("Relu", net.conv(x))
    model = net.model(net.op("Add", x, y))
    with pytest.raises(OptionError, match="max_memory"):
        explainer(model, 0.5, boundary=y).explain(X, 3)
