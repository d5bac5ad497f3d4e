"""The benchmark of quality: its split, its parts, its aims and its pages, on made-up rows; nothing is downloaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import explore, quality
from benchmarks.halves import REPORTING, TUNING, Halves, split
from benchmarks.quality_figures import FAITHFUL, POINTING, Aim, Figures, aims_of, figures_of
from benchmarks.quality_inputs import OURS
from benchmarks.quality_parts import KINDS, Part, metrics_of
from benchmarks.quality_report import BEGIN, END, number, page_of, short_table, written
from srd_onnx.evaluation.numbers import Row
from srd_onnx.metrics import METRICS
from tests.evaluation_nets import explainer

Table = Mapping[
    str, Mapping[str, Sequence[float | None]]
]  # by contender and metric, a value for each picture
MODEL = REPORTING[0]
PLAIN = {
    name: one.better for kind in KINDS for name, one in metrics_of(kind, masked=False).items()
}  # of which way is better


def level(good: float, **own: Sequence[float | None]) -> dict[str, Sequence[float | None]]:
    """All metrics at one level, the higher the better; but for those that are given."""
    found: dict[str, Sequence[float | None]] = {}
    for name, better in PLAIN.items():
        found[name] = [good if better == "higher" else 1 - good] * 4
    return found | {name.replace("_", "-"): values for name, values in own.items()}


def parts_of(table: Table, model: str = MODEL) -> list[Part]:
    found = []
    for contender, metrics in table.items():
        for kind in KINDS:
            of_kind = metrics_of(kind, masked=False)
            rows = tuple(
                Row(
                    f"{i}.jpg",
                    f"{i:064}",
                    7,
                    "cat",
                    contender,
                    name,
                    value,
                    None if value is not None else "no",
                )
                for name, values in metrics.items()
                if name in of_kind
                for i, value in enumerate(values)
            )
            parameters = {name: dict(one.parameters) for name, one in of_kind.items()}
            found.append(Part(model, contender, kind, 0, "ab", {}, parameters, "", "a machine", 1.5, rows))
    return found


def figures(table: Table, contenders: Sequence[str] = ()) -> Figures:
    found = figures_of(MODEL, parts_of(table), contenders or list(table), 0)
    assert found is not None
    return found


# The split


def test_no_photo_and_no_model_is_of_both_halves() -> None:
    names = [Path(f"{i}.jpg") for i in range(20)]
    found = split(names, [Path("free.png")])
    assert not {*found.tuning} & {*found.reporting}
    assert {*found.tuning, *found.reporting} == {*names, Path("free.png")}
    assert found.tuning[:2] == (Path("0.jpg"), Path("2.jpg"))
    assert not {*TUNING} & {*REPORTING}


def test_exploring_sees_the_tuning_half_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*explore.MODELS} <= {*TUNING}
    read: list[str] = []

    def stop(paths: list[str], *_: object) -> None:
        read.extend(paths)
        raise StopIteration

    monkeypatch.setattr(explore, "halves", lambda: Halves((Path("tuning.jpg"),), (Path("reporting.jpg"),)))
    monkeypatch.setattr(explore, "explainer_of", lambda *_, **__: explainer())
    monkeypatch.setattr(explore, "redrawn", lambda base, _: base)
    monkeypatch.setattr(explore, "network_of", lambda base: base)
    monkeypatch.setattr(explore, "read_items", stop)
    with pytest.raises(StopIteration):
        explore.tuning_half(TUNING[0], 0)
    assert read == ["tuning.jpg"]


# The aims


def test_all_aims_are_met_by_one_that_is_best_in_everything() -> None:
    best = level(0.9, mprt_last_layer=[0.2] * 4)
    aims = aims_of(figures({OURS: best, "gradcam": level(0.5), "random": level(0.1)}))
    assert [aim.met for aim in aims] == [True] * 4
    assert "place 1 of 3" in aims[0].said
    assert "`gradcam`, 0.500, a ratio of 1.80" in aims[1].said


def test_no_aim_is_met_by_one_that_is_worst_in_everything() -> None:
    aims = aims_of(figures({"gradcam": level(0.5), OURS: level(0.1)}))
    assert [aim.met for aim in aims] == [False] * 4
    assert "place 2 of 2" in aims[0].said
    assert "-0.400" in aims[2].said


def test_between_better_than_the_best_peer_but_by_less_than_a_fifth() -> None:
    aim = _aim(1, {OURS: level(0.55), "gradcam": level(0.5)})
    assert aim.met is False
    assert "a ratio of 1.10; difference 0.050 (0.050 to 0.050)" in aim.said
    assert _aim(1, {OURS: level(0.6), "gradcam": level(0.5)}).met is True


def test_how_far_away_what_is_not_met_is() -> None:
    ours, peer, control = [0.5, 0.5, 0.5, 0.9], [0.7, 0.7, 0.7, 0.7], [0.8, 0.0, 0.0, 0.0]
    table = {
        name: level(0.5, **{FAITHFUL: v})
        for name, v in ((OURS, ours), ("gradcam", peer), ("random", control))
    }
    said = _aim(1, table).said
    # 1.2 times 0.7; the best of each picture are 0.8, 0.7, 0.7, 0.9.
    assert said.endswith(
        "0.840 is wanted, and whoever chose the best of all methods picture by picture would have 0.775"
    )
    said = _aim(1, {OURS: level(0.8), "gradcam": level(0.9)}).said
    assert said.endswith("1.080 is wanted, and 1 is the most that there is")
    assert "wanted" not in _aim(1, {OURS: level(0.6), "gradcam": level(0.5)}).said


def test_a_control_is_no_peer_and_a_peer_that_is_no_cam_plays_no_part_in_the_grid() -> None:
    table = {OURS: level(0.5), "random": level(0.9), "gradcam": level(0.3), "saliency": level(0.7)}
    assert "`saliency`" in _aim(1, table).said
    assert "`gradcam`" in _aim(2, table).said
    assert _aim(2, table).met is True
    assert "place 3 of 4" in _aim(0, table).said


def test_the_difference_is_paired() -> None:
    own, peer = [0.1, 0.5, 0.9, 0.3], [0.0, 0.4, 0.8, 0.2]
    said = _aim(1, {OURS: level(0.5, **{FAITHFUL: own}), "gradcam": level(0.5, **{FAITHFUL: peer})}).said
    assert "difference 0.100 (0.100 to 0.100)" in said


def test_nothing_is_met_while_a_rival_is_missing_but_what_is_lost_is_lost() -> None:
    contenders = (OURS, "gradcam", "rise:masks=1000")
    won = figures({OURS: level(0.9, mprt_last_layer=[0.2] * 4), "gradcam": level(0.5)}, contenders)
    assert [aim.met for aim in aims_of(won)] == [None, None, True, True]  # RISE is no CAM
    other = figures({OURS: level(0.9), "gradcam": level(0.5)}, (OURS, "gradcam", "scorecam"))
    assert [aim.met for aim in aims_of(other)][:3] == [None] * 3
    lost = figures({OURS: level(0.1), "gradcam": level(0.5)}, contenders)
    assert [aim.met for aim in aims_of(lost)] == [False] * 4


def test_without_a_peer_or_ours_nothing_is_known() -> None:
    assert [aim.met for aim in aims_of(figures({"gradcam": level(0.5)}))] == [None] * 4
    assert _aim(1, {OURS: level(0.5), "random": level(0.1)}).met is None


def _aim(which: int, table: Table) -> Aim:
    return aims_of(figures(table))[which]


# Figures


def test_who_lacks_a_metric_or_a_picture_is_not_ranked() -> None:
    short = level(0.9)
    del short["mprt"]
    fewer = level(0.9) | {FAITHFUL: [0.9] * 3}
    found = figures({OURS: level(0.5), "gradcam": short, "saliency": fewer, "random": level(0.1)})
    assert found.ranked == [OURS, "random"]
    assert found.missing == ("gradcam", "saliency")
    assert ("gradcam", FAITHFUL) in found.means


def test_a_method_without_a_value_is_ranked_last_there() -> None:
    found = figures({OURS: level(0.5), "random": level(0.9) | {FAITHFUL: [None] * 4}})
    alone = figures({OURS: level(0.5), "random": level(0.9)})
    assert found.ranks["random"]["faithfulness"].mean > alone.ranks["random"]["faithfulness"].mean == 1


def test_what_has_no_value_where_others_have_one_is_told() -> None:
    ungridded: list[float | None] = [0.5, 0.5, None, None]
    ours = level(0.5) | {POINTING: ungridded}
    found = figures({OURS: ours, "random": ours | {FAITHFUL: [0.5, None, None, 0.5]}})
    assert found.undefined == {"random": f"{FAITHFUL} of 2 pictures: no"}
    assert found.undefined["random"] in page_of(parts_of({OURS: ours}), [found], [MODEL])


def test_the_axiomatic_family_does_not_count() -> None:
    other = {name: [0.0 if better == "higher" else 1.0] * 4 for name, better in PLAIN.items()}
    axiomatic = {name: values for name, values in other.items() if METRICS[name]().family == "axiomatic"}
    found = figures({OURS: level(0.9) | axiomatic, "random": level(0.5)})
    assert found.ranks[OURS]["all"].mean == 1
    assert found.ranks[OURS]["axiomatic"].mean == 2


# Pages


def test_the_pages_say_what_the_rows_say(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n", encoding="utf-8")
    parts = parts_of({OURS: level(0.75, mprt_last_layer=[0.2] * 4), "gradcam": level(0.5)})
    left_out = replace(parts[0], contender="attention-rollout", left_out="no\nattention", rows=())
    page, readme = (
        path.read_text(encoding="utf-8")
        for path in written(
            [*parts, left_out], (MODEL, "other"), (OURS, "gradcam", "attention-rollout"), tmp_path
        )
    )
    assert "Not measured yet: other." in page
    assert "- `attention-rollout`: no attention" in page
    assert f"| `{OURS}` (ours) | **1.00 (1.00 to 1.00)** |" in page
    assert "4 of 4 are met" in page
    assert "a machine" in page
    assert readme.startswith(f"before\n{BEGIN}\n")
    assert readme.endswith(f"{END}\nafter\n")
    assert f"| `{OURS}` (ours) | 1.0 | 0.750 | 0.750 | 0.200 |" in readme
    assert "old" not in readme


def test_what_is_not_met_is_said() -> None:
    parts = parts_of({OURS: level(0.1), "gradcam": level(0.5)})
    page = page_of(parts, [figures({OURS: level(0.1), "gradcam": level(0.5)})], [MODEL])
    assert "0 of 4 are met" in page
    assert page.count("**not met**") == 4


def test_a_table_of_the_reporting_half_has_nothing_of_the_tuning_half() -> None:
    table = {OURS: level(0.5), "gradcam": level(0.4)}
    tuned = figures_of(TUNING[0], parts_of({OURS: level(0.9), "gradcam": level(0.1)}, TUNING[0]), (), 0)
    assert tuned is not None
    assert short_table([tuned, figures(table)]) == short_table([figures(table)])
    assert short_table([tuned]).startswith("Not measured yet")


def test_a_page_without_a_place_for_the_table_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"{BEGIN}", encoding="utf-8")
    with pytest.raises(ValueError, match="has no <!-- quality -->"):
        written(parts_of({OURS: level(0.5)}), (MODEL,), (OURS,), tmp_path)
    with pytest.raises(ValueError, match="nothing has been measured"):
        written([], (MODEL,), (OURS,), tmp_path)


def test_pages_that_cannot_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["quality", "--pages", str(tmp_path)])
    monkeypatch.setattr(quality, "measure", lambda _: pytest.fail("measured"))
    with pytest.raises(SystemExit):
        quality.main()
    assert f"{tmp_path / 'README.md'} is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.000"), (0.5, "0.500"), (2.5e-7, "2.5e-07"), (-12.34, "-12.3"), (46012, "4.6e+04"), (float("inf"), "inf")],
)  # fmt: skip
def test_a_number_has_as_many_digits_as_say_something(value: float, text: str) -> None:
    assert number(value) == text
