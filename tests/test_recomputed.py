"""A network explained piece by piece, its layers computed twice, has the map that it has as a whole."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray

from srd_onnx import Explainer, zoo
from srd_onnx.bounded import choosing
from srd_onnx.bounded.pieces import Piece, cut
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.errors import NonFiniteError, SrdOnnxError
from srd_onnx.targets import At, Contrast
from tests.attention_nets import BLOCKS
from tests.bounded_tools import CHAIN, X, chain, cut_at, explainer, recomputed, same, same_results, tape_for
from tests.fuzz_checks import QUICK, maps_agree, options_of, single
from tests.fuzz_graphs import Grown, grown
from tests.method_nets import vit
from tests.nets import small_cnn
from tests.small_nets import NETS, in_single
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
    whole, found = explainer(CHAIN, **options).explain(X[:1], 3), parts.explain(X[:1], 3)
    same(whole, found)
    back = sum(piece.back for piece in recomputed(parts).pieces)
    assert back > 1
    assert found[0].meta["bounded"] == f"layers computed twice, in {back} segments"
    assert whole[0].meta["bounded"] is None


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


def test_grown_graphs_cut_after_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random networks: subgraphs, integers, several inputs, any layout, fused operators."""
    monkeypatch.setattr(choosing, "fitting", lambda tape, *_: (cut(tape, range(len(tape.forward))), 0.0))
    compared = 0

    @settings(QUICK, max_examples=60)
    @given(grown())
    def one(case: Grown) -> None:
        nonlocal compared
        data = single(case.feeds)
        ways = [Explainer(case.model, **options_of(case), max_memory=most) for most in (None, 1)]
        try:
            whole = ways[0].explain(data, case.target)
        except SrdOnnxError:
            return
        maps_agree(ways[1].explain(data, case.target), whole)
        compared += 1

    one()
    assert compared >= 45
