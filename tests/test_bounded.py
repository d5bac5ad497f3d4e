"""How much memory pieces take, and what is chosen for it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from numpy.typing import NDArray

from graph_rules import EXPANSIONS, RULES
from srd_onnx import Explainer
from srd_onnx.audit.config import Config, Shown
from srd_onnx.audit.output import STATE
from srd_onnx.audit.run import run_audit
from srd_onnx.audit.state import open_state
from srd_onnx.bounded.choosing import make_bounded
from srd_onnx.bounded.cuts import BESIDE, fitting, peak_of
from srd_onnx.bounded.pieces import Piece, cut
from srd_onnx.bounded.recomputed import Recomputed
from srd_onnx.bounded.sizes import bytes_of, given_of, kept_of
from srd_onnx.bounded.tape import Tape, tape_of
from srd_onnx.bounded.tiles import Tiled
from srd_onnx.engine.compiling import compile_model
from srd_onnx.errors import OptionError
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.ort.runtime import CPU
from tests.audit_tools import QUICK, folder
from tests.bounded_tools import (
    CHAIN,
    at_once,
    chain,
    cut_at,
    explainer,
    tape_for,
)
from tests.test_tiles import strided

Array = NDArray[Any]


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
