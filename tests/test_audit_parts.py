"""Parts of an audit on their own: models and inputs of other kinds, verdicts, how long it takes."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper

from srd_onnx.audit.config import Asked, Config
from srd_onnx.audit.found import Found, found_in
from srd_onnx.audit.items import Items
from srd_onnx.audit.maps import open_maps
from srd_onnx.audit.model_section import external_files, model_section
from srd_onnx.audit.output import HTML, MAPS, STATE
from srd_onnx.audit.places import Places
from srd_onnx.audit.plan import prepare
from srd_onnx.audit.run import run_audit
from srd_onnx.audit.sanity import checks_of
from srd_onnx.audit.state import ExplanationRow, ImageRow, NumberRow, open_state
from srd_onnx.audit.verify import verify
from srd_onnx.cli.audit_progress import Left
from srd_onnx.errors import OutputError, SrdOnnxError
from srd_onnx.explainer import Explainer
from srd_onnx.files import sha256_of
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.report.content import Section
from tests.audit_tools import QUICK, SHOWN, audited, colours, folder, small
from tests.cli_tools import HOSTILE
from tests.evaluation_nets import colour_net, photo_of
from tests.nets import model_of
from tests.small_nets import in_single, tokens


def table(section: Section, caption: str) -> tuple[tuple[object, ...], ...]:
    return next(one.rows for one in section.tables if one.caption.startswith(caption))


def test_what_is_said_of_a_model(tmp_path: Path) -> None:
    section = model_section(small(tmp_path / "model.onnx"))
    facts = dict(section.facts)
    assert facts["sha256"] == sha256_of(tmp_path / "model.onnx")
    assert facts["producer"] == "tests 1"
    assert facts["opset"] == "17"
    census = {row[0]: row[1:] for row in table(section, "Operators")}
    assert census["BatchNormalization"][0] == census["BatchNormalization"][2] != 0  # all are fused
    assert census["Conv"][:3] == (census["Conv"][0], census["Conv"][0], 0)
    for count, kept, fused, folded in census.values():
        assert count == int(str(kept)) + int(str(fused)) + int(str(folded))
    nodes = table(section, "Every node")
    assert any("conv1" in str(row[0]) and "bn1" in str(row[0]) for row in nodes)
    assert {row[4] for row in nodes} <= {"exact", "approximate"}


def test_external_data_are_files_of_the_model_too(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(colour_net(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert external_files(path) == [tmp_path / "weights.bin"]
    rows = table(model_section(colours(path)), "Files")
    assert [row[2] for row in rows] == [sha256_of(path), sha256_of(tmp_path / "weights.bin")]
    audited(tmp_path)
    assert verify(tmp_path / "out").problems == ()
    content = bytearray((tmp_path / "weights.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(content)
    assert "the model was changed: its sha256 was" in verify(tmp_path / "out").problems[0]


def test_a_hostile_model_does_nothing(tmp_path: Path) -> None:
    net = colour_net()
    for node in net.graph.node:
        node.name = f"{HOSTILE}</td>{node.name}"
    net.producer_name = "<img src=x onerror=alert(1)>"
    onnx.save(net, tmp_path / "model.onnx")
    audited(tmp_path)
    html = (tmp_path / "out" / HTML).read_text()
    assert "onerror=alert(1)&gt;" in html
    assert "<img src=x" not in html
    assert "[red]x[/red]\n<script>" not in html


def test_arrays_of_a_model_that_takes_no_pictures(tmp_path: Path) -> None:
    net = tokens()
    model = in_single(net)
    onnx.save(model, tmp_path / "tokens.onnx")
    (tmp_path / "images").mkdir()
    for seed in range(2):
        np.save(tmp_path / "images" / f"{seed}.npy", net.photo(seed).astype(np.float32)[0])
    explainer = Explainer(tmp_path / "tokens.onnx", layout="NTC", providers="cpu", threads=1)
    outcome = run_audit(
        explainer, tmp_path / "images", Config(QUICK, report=SHOWN), tmp_path / "out", command=("a",)
    )
    with open_state(tmp_path / "out" / STATE) as state:
        rows = state.explanations()
    assert outcome.usable == len(rows)
    assert all(row.shape == (5,) for row in rows)


def test_targets_of_every_kind(tmp_path: Path) -> None:
    asked = Asked(
        targets=("top2", "blue", "output[1]"),
        contrasts=(("red", "green"),),
        metrics=("sparseness",),
        sanity_images=0,
    )
    audited(tmp_path, explain=asked)
    with open_state(tmp_path / "out" / STATE) as state:
        targets = [row.target for row in state.explanations(0)]
        numbers = {row.target for row in state.numbers()}
    assert len(targets) == len(set(targets))
    assert {"0-over-1", "output[1]", 2} < set(targets)
    assert all(isinstance(target, int) for target in numbers)
    assert verify(tmp_path / "out", sample=100).problems == ()


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    with (
        open_state(tmp_path / "rows.sqlite"),
        pytest.raises(OutputError, match=r"in use: another `srd-onnx audit`"),
    ):
        open_state(tmp_path / "rows.sqlite")


def test_a_map_is_not_taken_for_another(tmp_path: Path) -> None:
    maps = open_maps(tmp_path / MAPS, 3)
    one, other = np.ones((2, 3), np.float32), np.arange(4, dtype=np.float32)
    first, second = maps.write(0, one), maps.write(1, other)
    found = maps.read(0, (2, 3), first)
    assert found is not None
    np.testing.assert_array_equal(found, one)
    assert maps.read(0, (2, 3), second) is None
    assert maps.read(1, (2, 3), first) is None
    assert maps.read(2, (2, 3), first) is None
    assert maps.read(9, (2, 3), first) is None
    assert maps.read(1, (4,), second) is not None


def made_up(place: Path, scores: list[float], metrics: dict[str, list[float | None]]) -> Found:
    """What an audit might have found, of numbers that are given."""
    images = folder(place / "images", len(scores))
    asked = dataclasses.replace(QUICK, metrics=tuple(name for name in metrics if "mprt" not in name))
    audit = prepare(colours(place / "model.onnx"), images, Config(asked))
    with open_state(place / "rows.sqlite") as state:
        state.begin({"kind": "audit"}, audit.rows)
        for number, score in enumerate(scores):
            places = Places(0.4, 0.2 + 0.001 * number)
            row = ExplanationRow(
                number, "srd", 0, 0, "red", score, score, score, 0.0, (), (), places, None, (16, 16), number, "",
            )  # fmt: skip
            state.add_work(number, "srd", [row], [(0, "red", score)], None, 1.0)
            for name, values in metrics.items():
                state.add_number(NumberRow(number, "srd", 0, name, values[number], None), 0.5)
        assert state.seconds()[0] == (0, 1.0 + 0.5 * len(metrics))
        return found_in(audit, state)


def test_what_stands_out_comes_first(tmp_path: Path) -> None:
    scores = [1.0 + 0.1 * number for number in range(14)]
    scores[9] = 50.0
    faithful = [0.1 * ((number * 5) % 14) for number in range(14)]
    found = made_up(tmp_path, scores, {"insertion-minus-deletion": list(faithful)})
    order = sorted(range(14), key=lambda number: -faithful[number])
    most, least = found.ends
    assert [image.id for image in most] == order[:5]
    assert [image.id for image in least] == order[::-1][:5]
    assert found.outliers == {9: ("score",)}
    selected = [image.id for image in found.selected(12)]
    assert selected[:10] == order[:5] + order[::-1][:5]
    assert len(set(selected)) == 12
    assert 9 in selected
    assert "outlier" in found.flags(found.images[9])


@pytest.mark.parametrize(
    ("value", "verdict"),
    [(0.1, "passed"), (0.5, "passed"), (0.51, "weak"), (0.81, "failed"), (None, "not known")],
)
def test_verdicts(tmp_path: Path, value: float | None, verdict: str) -> None:
    found = made_up(tmp_path, [1.0, 2.0], {"sparseness": [0.1, 0.2], "mprt-last-layer": [value, value]})
    check = next(one for one in checks_of(found) if one.metric == "mprt-last-layer")
    assert check.verdict == verdict


def test_how_long_it_takes() -> None:
    left = Left([True, False, False, False, True], {})
    assert left.in_words() == "at least 0 s left"
    left.add(0, True, 100.0)
    assert left.in_words() == "at least 2 min left"
    left.add(1, False, 20.0)  # compiles
    left.add(2, False, 2.0)
    assert left.in_words() == "about 2 min left"  # 2 s and 100 s
    left.add(3, False, 2.0)
    left.add(4, True, 10.0)
    assert left.in_words() == "about 0 s left"


def test_what_was_done_before_is_not_taken_for_fast() -> None:
    left = Left([False] * 3, {0: 30.0, 1: 30.0})
    left.add(0, False, 0.001)
    left.add(1, False, 0.001)
    assert left.in_words() == "about 30 s left"


def test_images_that_were_never_explained_have_no_numbers(tmp_path: Path) -> None:
    found = made_up(tmp_path, [1.0], {"sparseness": [0.1]})
    alone = dataclasses.replace(found, explanations={}, images=(ImageRow(0, "a.png", "", None, False),))
    assert all(np.isnan(value) for value in alone.keys(alone.images[0]).values())


def test_ids_of_sections_are_unique_in_the_page(tmp_path: Path) -> None:
    audited(tmp_path)
    ids = re.findall(r'\bid="([^"]*)"', (tmp_path / "out" / HTML).read_text())
    assert {"asked", "across", "model", "data", "how", "sanity", "metrics", "environment", "files"} < set(ids)
    assert len(ids) == len(set(ids))


def test_an_image_of_a_size_for_which_the_model_has_no_rules_is_a_row(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["input", "w"], ["c"], name="conv"),
        helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["output"], name="flatten"),
    ]
    weights: dict[str, NDArray[np.generic]] = {"w": np.ones((4, 3, 3, 3), np.float32)}
    onnx.save(model_of(nodes, weights, (["N", 3, "H", "W"], ["N", 4])), tmp_path / "model.onnx")
    base = Explainer(
        tmp_path / "model.onnx",
        preprocess=Preprocess(scale=1 / 255),
        layout="NCHW",
        providers="cpu",
        threads=1,
    )
    for number, size in enumerate((6, 1, 7, 2)):
        (tmp_path / "images").mkdir(exist_ok=True)
        photo_of(tmp_path / "images" / f"{number}.png", "red", size=size)
    config = Config(dataclasses.replace(QUICK, sanity_images=0), report=SHOWN)
    outcome = run_audit(base, tmp_path / "images", config, tmp_path / "out")
    assert (outcome.images, outcome.usable) == (4, 2)
    assert {one.image for one in outcome.findings if one.rule == "unusable-image"} == {"1.png", "3.png"}
    (tmp_path / "images" / "0.png").unlink()
    with pytest.raises(SrdOnnxError):
        run_audit(base, tmp_path / "images", config, tmp_path / "other")


def test_what_is_shown_adds_up_to_the_explained_number(tmp_path: Path) -> None:
    asked = dataclasses.replace(QUICK, methods=("srd", "saliency"))
    audited(tmp_path, explain=asked)
    config = Config(asked, report=SHOWN)
    audit = prepare(colours(tmp_path / "model.onnx"), tmp_path / "images", config)
    with open_state(tmp_path / "out" / STATE) as state:
        maps = open_maps(tmp_path / "out" / MAPS, audit.map_rows)
        items = list(Items(found_in(audit, state), maps, state, explored=False))
    assert len(items) == 4
    others = 0
    for item in items:
        shown, other = item.shown
        assert (shown.complete, other.complete) == (True, False)
        total = float(shown.relevance.sum(dtype=np.float64)) + sum(amount for _, amount in shown.ledger)
        assert total + shown.residual == pytest.approx(shown.score, rel=1e-5)
        others += shown.score != pytest.approx(dict(item.keys)["score"], rel=1e-3)
    assert others  # the preset explains log-odds, which need not be the score
