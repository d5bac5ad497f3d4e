"""A network explained piece by piece, its layers computed twice, has the map that it has as a whole."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer, Explanation, zoo
from srd_onnx.audit.config import Config, Shown
from srd_onnx.audit.output import STATE
from srd_onnx.audit.run import run_audit
from srd_onnx.audit.state import open_state
from srd_onnx.bounded import choosing
from srd_onnx.bounded.choosing import make_bounded
from srd_onnx.bounded.cuts import BESIDE, fitting, peak_of
from srd_onnx.bounded.pieces import Piece, cut
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.sizes import bytes_of, given_of, kept_of
from srd_onnx.bounded.tape import Tape, tape_of
from srd_onnx.bounded.tiles import Tiled
from srd_onnx.engine.compiling import Compiled, Result, compile_model, explanation_session, run_reading
from srd_onnx.errors import NonFiniteError, OptionError, SrdOnnxError
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.ort.runtime import CPU
from srd_onnx.targets import At, Contrast
from tests.attention_nets import BLOCKS
from tests.audit_tools import QUICK, folder
from tests.fuzz_checks import maps_agree
from tests.fuzz_graphs import Grown, grown
from tests.method_nets import vit
from tests.nets import model_of, small_cnn
from tests.small_nets import NETS, in_single
from tests.test_fuzz import QUICK as FUZZ
from tests.test_tiles import strided
from tests.test_unet import NETS as U_NETS

Array = NDArray[Any]
LAYOUTS = {"tokens": "NTC", "channels_last": "NHWC"}
NAMED: dict[str, Callable[[], onnx.ModelProto]] = {
    **{name: lambda make=make: in_single(make()) for name, make in NETS.items()},  # type: ignore[misc]
    "u_net": lambda: in_single(U_NETS["transpose"]()),
    "attention": lambda: in_single(BLOCKS["infinite"]()),
    "vit": lambda: in_single(vit()),
    "small_cnn": lambda: small_cnn(batch=2),
}


def chain(batch: int | str = "N", blocks: int = 6, channels: int = 8, side: int = 32) -> onnx.ModelProto:
    """Residual blocks of two 3x3 convolutions, all on as many positions; five scores."""
    rng = np.random.default_rng(0)
    nodes, weights = list[onnx.NodeProto](), dict[str, NDArray[np.generic]]()

    def op(kind: str, name: str, *inputs: str, **attrs: Any) -> str:
        nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, **attrs))
        return name

    def conv(name: str, x: str, into: int) -> str:
        weights[f"{name}.w"] = (rng.standard_normal((channels, into, 3, 3)) * (9 * into) ** -0.5).astype("f4")
        weights[f"{name}.b"] = (rng.standard_normal(channels) * 0.1).astype("f4")
        return op("Conv", name, x, f"{name}.w", f"{name}.b", pads=[1] * 4)

    x = op("Relu", "stem_relu", conv("stem", "input", 3))
    for i in range(blocks):
        a = op("Relu", f"b{i}_relu", conv(f"b{i}_a", x, channels))
        x = op("Relu", f"b{i}_out", op("Add", f"b{i}_add", conv(f"b{i}_b", a, channels), x))
    weights["fc.w"] = rng.standard_normal((channels, 5)).astype("f4")
    op("MatMul", "output", op("Flatten", "flat", op("GlobalAveragePool", "pool", x)), "fc.w")
    return model_of(nodes, weights, ([batch, 3, side, side], [batch, 5]))


CHAIN = chain()
X = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)


def explainer(model: Any, part: float | None = None, **options: Any) -> Explainer:
    """Of what the whole takes at a batch of `X`, so much is given."""
    options = {"providers": "cpu", "layout": "NCHW"} | options
    most = None
    if part is not None:
        whole = Explainer(model, **options)
        compiled = compile_model(
            whole.model.proto, whole.case({"input": (1, *X.shape[1:])}), RULES, EXPANSIONS
        )
        most = int(part * at_once(compiled))
    return Explainer(model, max_memory=most, **options)


def at_once(compiled: Compiled) -> float:
    return given_of(compiled.plan) + peak_of(cut(tape_of(compiled), [0]))


def same(whole: Sequence[Explanation], parts: Sequence[Explanation]) -> None:
    for one, other in zip(whole, parts, strict=True):
        for name, found in one.relevances.items():
            scale = float(np.abs(found).max())
            np.testing.assert_allclose(other.relevances[name], found, atol=1e-5 * scale, rtol=1e-5)
        np.testing.assert_allclose(other.logits, one.logits, rtol=1e-5, atol=1e-6)
        assert (other.target, other.name, other.label) == (one.target, one.name, one.label)
        assert list(other.ledger) == list(one.ledger)
        seed = max(1.0, abs(float(one.meta["seed_value"])))
        for name, amount in one.ledger.items():
            assert other.ledger[name] == pytest.approx(amount, rel=1e-4, abs=1e-5 * seed)
        assert abs(other.residual) < 1e-4 * seed
        assert (one.meta["rival"] is None) == (other.meta["rival"] is None)


def recomputed(found: Explainer) -> Recomputed:
    (ready,) = found._sessions.values()
    assert isinstance(ready, Recomputed)
    return ready


def cut_at(tape: Tape, how: str) -> list[Piece]:
    count = len(tape.forward)
    return cut(
        tape, {"halves": [0, count // 2], "thirds": [0, count // 3, 2 * count // 3]}.get(how, range(count))
    )


def tape_for(
    model: Any, layout: str = "NCHW", **options: Any
) -> tuple[Tape, Callable[[Sequence[Piece]], Result], Result]:
    """A tape, what runs its pieces, and what the whole says, of random inputs and the top class."""
    subject = Explainer(model, providers="cpu", layout=layout, **options)
    compiled = compile_model(subject.model.proto, subject.case(subject.shown_shapes()), RULES, EXPANSIONS)
    batch = compiled.plan.batch
    shapes = {port.name: subject.shown_shapes()[port.name] for port in subject.ports}
    rng = np.random.default_rng(0)
    feeds = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    seed = np.full(batch, -1, np.int64)
    whole = run_reading(explanation_session(compiled, [CPU], None), compiled.reading, feeds, seed)

    def run(pieces: Sequence[Piece]) -> Result:
        return Recomputed(compiled.plan, compiled.reading, tuple(pieces), 0.0, [CPU], None)(feeds, seed)

    return tape_of(compiled), run, whole


def same_results(whole: Result, parts: Result) -> None:
    for name, found in whole.relevance.items():
        scale = float(np.abs(found).max())
        np.testing.assert_allclose(parts.relevance[name], found, atol=1e-5 * scale, rtol=1e-5)
    scale = float(np.abs(whole.seed).max())
    assert parts.booked == whole.booked
    np.testing.assert_allclose(parts.ledger, whole.ledger, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(parts.seed, whole.seed, rtol=1e-5)
    np.testing.assert_allclose(parts.totals + parts.ledger.sum(axis=1), parts.seed, atol=1e-4 * max(1, scale))


@pytest.mark.parametrize("how", ["halves", "thirds", "each node"])
@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("net", NAMED)
def test_wherever_it_is_cut_it_is_the_whole(net: str, preset: str, how: str) -> None:
    tape, run, whole = tape_for(
        NAMED[net](), LAYOUTS.get(net, "NTC" if net == "attention" else "NCHW"), preset=preset
    )
    same_results(whole, run(cut_at(tape, how)))


@pytest.mark.parametrize("how", ["halves", "each node"])
@pytest.mark.parametrize("preset", ["paper", "joint"])
@pytest.mark.parametrize("name", ["squeezenet11", "efficientnet_lite0"])
def test_the_models_that_ship(name: str, preset: str, how: str) -> None:
    tape, run, whole = tape_for(zoo.zoo()[name].path, zoo.zoo()[name].layout, preset=preset)
    same_results(whole, run(cut_at(tape, how)))


@pytest.mark.parametrize("boundary", ["b0_out", "b3_relu", "input"])
def test_cuts_above_the_boundary_and_below_it(boundary: str) -> None:
    tape, run, whole = tape_for(CHAIN, preset="paper", boundary=boundary)
    same_results(whole, run(cut_at(tape, "each node")))


OPTIONS: list[dict[str, Any]] = [
    {"preset": "paper", "bias": "ledger"},
    {"preset": "paper", "sign": "positive"},
    {"preset": "paper", "seed": "logprob"},
    {"preset": "paper", "boundary": "b1_out"},
    {"preset": "paper", "smooth": 2.0},
    {"preset": "joint"},
    {"preset": "paper", "focus": "b2_out"},
    {"preset": "paper", "compare": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_whatever_the_options(options: dict[str, Any]) -> None:
    parts = explainer(CHAIN, 0.6, **options)
    same(explainer(CHAIN, **options).explain(X[:1], 3), parts.explain(X[:1], 3))
    assert len(recomputed(parts).pieces) > 2


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "targets",
    [None, "top3", Contrast(1, 4), At("output", (2,)), At("b4_out", (1, 2)), [0, 1, 2, 3, 4]],
    ids=str,
)
def test_whatever_is_explained(targets: Any, batch: int) -> None:
    parts = explainer(CHAIN, 0.7)
    same(explainer(CHAIN).explain(X, targets, batch_size=batch), parts.explain(X, targets, batch_size=batch))
    recomputed(parts)


SPOILT: dict[str, Callable[[Array], Array]] = {
    "dropped": np.zeros_like,
    "shifted": lambda array: np.roll(array, 1, axis=-1),
    "flipped": lambda array: array[::-1].copy(),
    "scaled": lambda array: array * np.float32(1.001),
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("boundary", ["encoder", "b0_out"])
@pytest.mark.parametrize("way", ["kept", "handed back"])
def test_a_wrong_stitch_is_seen(how: str, boundary: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right, spoilt = Recomputed._run, list[str]()

    def wrong(self: Recomputed, piece: Piece, held: Mapping[str, Array]) -> dict[str, Array]:
        found = right(self, piece, held)
        wide = [n for n, array in found.items() if array.ndim == 4 and n not in piece.tape.outputs]
        if wide and not spoilt and piece.back == (way == "handed back"):
            spoilt.append(wide[0])
            found[wide[0]] = SPOILT[how](found[wide[0]])
        return found

    tape, run, whole = tape_for(chain(batch=2), preset="paper", boundary=boundary)
    pieces = cut_at(tape, "thirds")
    monkeypatch.setattr(Recomputed, "_run", wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        same_results(whole, run(pieces))
    assert spoilt


def test_a_piece_left_out_is_seen() -> None:
    tape, run, _ = tape_for(CHAIN)
    pieces = cut_at(tape, "thirds")
    with pytest.raises(KeyError):
        run([*pieces[:3], *pieces[4:]])


def test_of_a_chain_one_tensor_is_kept_for_each_cut() -> None:
    tape, _, _ = tape_for(CHAIN, preset="paper", boundary="b0_out", compare=False)
    place = tape.place
    pieces = cut(tape, [0, place["b1_out"] + 1, place["b3_out"] + 1])
    assert [(piece.gives, piece.back) for piece in pieces[:2]] == [(("b1_out",), False), (("b3_out",), False)]
    assert [piece.back for piece in pieces[2:]] == [True] * 3
    # Above the boundary one cotangent crosses a cut, as large as its tensor.
    assert [tape.size(name) for name in pieces[2].gives if name in pieces[3].takes] == [tape.size("b3_out")]
    assert [name for name in pieces[3].takes if name not in pieces[2].gives] == ["b1_out"]
    below, _, _ = tape_for(CHAIN, preset="paper", compare=False)
    pieces = cut(below, [0, place["b1_out"] + 1, place["b3_out"] + 1])
    # Below it relevance does: a number for each position, along each of the two paths of the block behind it.
    crossing = [name for name in pieces[2].gives if name in pieces[3].takes]
    assert {below.size(name) for name in crossing} == {tape.size("b3_out") / 8}


def test_what_is_held_is_what_was_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept and what goes back, byte by byte, and what a piece computes."""
    tape, run, _ = tape_for(CHAIN, preset="paper")
    pieces, held = cut_at(tape, "thirds"), list[float]()
    right = Recomputed._run

    def watched(self: Recomputed, piece: Piece, given: Mapping[str, Array]) -> dict[str, Array]:
        arrays = [a for n, a in given.items() if n not in ("input", "target")]
        held.append(sum(array.nbytes for array in arrays) + BESIDE * piece.peak)
        return right(self, piece, given)

    monkeypatch.setattr(Recomputed, "_run", watched)
    run(pieces)
    assert len(held) == len(pieces)
    assert peak_of(pieces) == max(held)


def test_what_a_piece_holds_at_once_by_hand() -> None:
    """Of three layers kept for the way back, one view and one sum that ends before the last is made."""
    kinds = {
        n: onnx.helper.make_tensor_value_info(n, 1, [size])
        for n, size in zip("xabcde", (9, 10, 10, 4, 5, 1), strict=True)
    }
    nodes = [
        onnx.helper.make_node("Relu", ["x"], ["a"]),
        onnx.helper.make_node("Reshape", ["a", "shape"], ["b"]),
        onnx.helper.make_node("Foo", ["b"], ["c"]),
        onnx.helper.make_node("Foo", ["c", "a"], ["d"]),
        onnx.helper.make_node("Foo", ["d"], ["e"]),
    ]
    tape = Tape(tuple(nodes), (0, 1, 2), {"shape": onnx.TensorProto()}, {}, kinds, ("e",), onnx.ModelProto())
    # a is held until d is made (as b it would be read last by c), and with it c and d: 10 + 4 + 5 numbers.
    assert Piece(tape, tuple(nodes), ("x",), ("e",), back=True).peak == 4 * 19
    # What is given stays to the end: all but x.
    assert Piece(tape, tuple(nodes), ("x",), ("a", "c", "d", "e"), back=True).peak == 4 * 20
    assert Piece(tape, tuple(nodes[:2]), ("x",), ("b",), back=False).peak == 4 * 10


def test_each_is_chosen_where_it_fits() -> None:
    shape = {"input": (1, 3, 32, 32)}

    def made(most: float, **options: Any) -> object:
        subject = Explainer(CHAIN, providers="cpu", layout="NCHW", **options)
        return make_bounded(
            subject.model.proto, subject.case(shape), RULES, EXPANSIONS, [CPU], None, int(most)
        )

    subject = Explainer(CHAIN, providers="cpu", layout="NCHW", preset="paper")
    compiled = compile_model(subject.model.proto, subject.case(shape), RULES, EXPANSIONS)
    plan, whole = compiled.plan, at_once(compiled)
    assert whole < kept_of(plan) + bytes_of(plan)
    assert made(kept_of(plan) + bytes_of(plan), preset="paper") is None
    assert made(whole + 1, preset="paper") is None
    first = made(whole - 1, preset="paper")
    assert isinstance(first, Recomputed)
    tape = first.pieces[0].tape
    none, least = fitting(tape, given_of(plan), 0)
    assert none is None
    assert least < 0.6 * whole
    last = made(least + 1, preset="paper")
    assert isinstance(last, Recomputed)
    assert len(last.pieces) > len(first.pieces)
    assert given_of(plan) + peak_of(last.pieces) <= least + 1
    with pytest.raises(
        OptionError, match=rf"about {whole:.0f} bytes, and with layers computed twice {least:.0f} at"
    ):
        made(least - 1, preset="paper")
    with pytest.raises(OptionError, match="In parts of the picture: only one picture at a time"):
        made(least - 1, preset="joint", focus="b1_out")


def test_a_picture_too_large_for_that_is_parted() -> None:
    shape = {"input": (1, 3, 117, 134)}
    subject = Explainer(strided(), providers="cpu", layout="NCHW", preset="paper")
    given = (subject.model.proto, subject.case(shape), RULES, EXPANSIONS)
    compiled = compile_model(*given)
    _, least = fitting(tape_of(compiled), given_of(compiled.plan), 0)
    assert isinstance(make_bounded(*given, [CPU], None, int(least) + 1), Recomputed)
    assert isinstance(make_bounded(*given, [CPU], None, int(least) - 1), Tiled)


def test_numbers_that_are_not_finite_are_told_as_of_the_whole() -> None:
    parts = explainer(CHAIN, 0.6, preset="paper")
    for factor, message in (
        (1e22, "^every activation is finite but"),
        (8e37, "^infinity in the activation"),
    ):
        with pytest.raises(NonFiniteError, match=message) as told:
            parts.explain(X[:1] * np.float32(factor))
        with pytest.raises(NonFiniteError) as of_whole:
            explainer(CHAIN, preset="paper").explain(X[:1] * np.float32(factor))
        assert str(told.value) == str(of_whole.value)
    recomputed(parts)


def test_long_skips_are_kept() -> None:
    """Where a network remembers its first layer to the end, every cut keeps that layer, once."""
    tape, run, whole = tape_for(in_single(U_NETS["transpose"]()), preset="paper")
    pieces = cut_at(tape, "each node")
    kept = [name for piece in pieces if not piece.back for name in piece.gives]
    assert len(kept) == len(set(kept))
    same_results(whole, run(pieces))


def test_an_audit_in_little_memory_finds_the_same(tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 2)
    onnx.save(CHAIN, tmp_path / "model.onnx")
    seen = Preprocess(resize=(32, 32), scale=1 / 255)
    config = Config(QUICK, report=Shown(explored=1, pdf=False))
    found = {}
    for part in (None, 0.6):
        subject = explainer(tmp_path / "model.onnx", part, preprocess=seen)
        outcome = run_audit(subject, images, config, tmp_path / f"out {part}", command=("srd-onnx", "audit"))
        assert outcome.usable == 2
        with open_state(tmp_path / f"out {part}" / STATE) as state:
            found[part] = [row for image in state.images() for row in state.explanations(image.id)]
    for whole, one in zip(found[None], found[0.6], strict=True):
        assert one.target == whole.target
        assert one.score == pytest.approx(whole.score, rel=1e-5)
        assert dict(one.ledger) == pytest.approx(dict(whole.ledger), rel=1e-3, abs=1e-4)


def test_grown_graphs_cut_after_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks: subgraphs, integers, several inputs, any layout, fused operators."""
    monkeypatch.setattr(choosing, "fitting", lambda tape, *_: (cut(tape, range(len(tape.forward))), 0.0))
    compared = 0

    @settings(FUZZ, max_examples=60)
    @given(grown())
    def one(case: Grown) -> None:
        nonlocal compared
        options: dict[str, Any] = {"layout": case.layouts, "providers": "cpu", "threads": 1, **case.options}
        data = case.feeds if len(case.feeds) > 1 else next(iter(case.feeds.values()))
        ways = [
            Explainer(case.model, preprocess=np.asarray, **options, max_memory=most) for most in (None, 1)
        ]
        try:
            whole = ways[0].explain(data, case.target)
        except SrdOnnxError:
            return
        maps_agree(ways[1].explain(data, case.target), whole)
        compared += 1

    one()
    assert compared >= 45


PEAK = """
import sys
from pathlib import Path
import numpy as np
from srd_onnx import Explainer
def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
subject = Explainer(sys.argv[1], providers="cpu", threads=1, layout="NCHW", max_memory=int(sys.argv[2]) or None)
x = np.random.default_rng(0).standard_normal((1, 3, 128, 128)).astype(np.float32)
before = peak()
subject.explain(x, 3)
print(peak() - before)
"""


def test_the_peak_of_a_process_is_what_was_asked_for(tmp_path: Path) -> None:
    """A chain whose activations are 150 tensors of a megabyte, in MB over what the process had before."""
    onnx.save(chain(blocks=30, channels=16, side=128), tmp_path / "chain.onnx")
    found = [
        float(
            subprocess.run(
                [sys.executable, "-c", PEAK, str(tmp_path / "chain.onnx"), str(most)],
                capture_output=True, text=True, check=True, env={**os.environ, "SRD_ONNX_CACHE": "off"},
            ).stdout
        )
        for most in (0, 60_000_000)
    ]  # fmt: skip
    assert found[0] > 140
    assert found[1] < 60 + 30  # and the plan, and what ONNX Runtime loads once
