"""Evaluations: each number is what its metric says of that map, nothing is done twice, and one bad image is one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from srd_onnx.errors import OptionError, SrdOnnxError, UnsupportedCaseError
from srd_onnx.evaluation.contenders import Contender, contender_named
from srd_onnx.evaluation.masks import read_masks
from srd_onnx.evaluation.numbers import UNDEFINED, Row, numbers, prepare
from srd_onnx.evaluation.store import Store, open_store
from srd_onnx.explainer import Explainer
from srd_onnx.inputs.preprocess import Preprocess
from srd_onnx.methods import Method
from srd_onnx.metrics import metric_named
from srd_onnx.metrics.metric import Explained, Metric
from tests.evaluation_nets import broken, drawn, explainer, masks_for, metric, photos, total, undefined

METHODS = ("srd", "saliency", "gradient-x-input")


def evaluated(
    images: Sequence[str | Path],
    *metrics: Metric,
    methods: Sequence[str | Contender] = METHODS,
    store: Store | None = None,
    base: Explainer | None = None,
    **options: Any,
) -> list[Row]:
    contenders = [contender_named(one) if isinstance(one, str) else one for one in methods]
    asked = {one.name: one for one in metrics}
    return list(numbers(prepare(base or explainer(), images, contenders, asked, **options), store))


def values(rows: Sequence[Row], key: str = "image") -> dict[Any, float | None]:
    return {(Path(getattr(row, key)).name, row.method): row.value for row in rows}


def test_every_number_is_what_the_metric_says_of_that_map(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "blue")
    rows = evaluated(images, metric("total", total), metric("greatest", lambda one: float(one.map.max())))
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        alone = Explainer(
            explainer().model.proto, method=row.method, preprocess=Preprocess(scale=1 / 255), layout="NCHW"
        )
        (one,) = alone.explain(row.image)
        expected = one.relevance.astype(np.float64).sum() if row.metric == "total" else one.relevance.max()
        assert row.value == pytest.approx(float(expected), rel=1e-6)
        assert row.target == one.target == (0 if "red" in row.image else 2)
        assert row.label == ("red" if "red" in row.image else "blue")
        assert row.sha256 == one.meta["input"]["sha256"]
        assert row.error is None
    assert len({row.value for row in rows}) > 4  # or the check would not tell one map from another


def test_one_class_for_all_images(tmp_path: Path) -> None:
    rows = evaluated(photos(tmp_path, "red", "blue"), metric("total", total), target="green")
    assert {row.target for row in rows} == {1}
    with pytest.raises(SrdOnnxError, match="ultraviolet"):
        evaluated(photos(tmp_path, "red"), metric("total", total), target="ultraviolet")


def test_the_seed_is_the_same_for_every_method_and_the_images_own(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "blue", "white")
    asked = metric("drawn", drawn)
    found = values(evaluated(images, asked))
    for image in images:
        assert len({found[image.name, name] for name in METHODS}) == 1
    assert len(set(found.values())) == 3
    alone = values(evaluated(images[1:2], asked))
    assert alone.items() <= found.items()
    assert values(evaluated(images, asked, seed=1)).values() != found.values()


def test_a_map_is_computed_once_for_all_metrics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    explain = Explainer.explain

    def counted(self: Explainer, *arguments: Any, **options: Any) -> Any:
        calls.append(self.method)
        return explain(self, *arguments, **options)

    monkeypatch.setattr(Explainer, "explain", counted)
    asked = [metric(name, total) for name in ("a", "b", "c")]
    evaluated(photos(tmp_path, "red", "blue"), *asked)
    assert len(calls) == 2 * len(METHODS)


def test_a_bad_image_is_rows_with_its_error(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "blue")
    (tmp_path / "broken.png").write_bytes(b"broken")
    np.save(tmp_path / "two.npy", np.zeros((2, 3, 16, 16), np.float32))
    np.save(tmp_path / "nan.npy", np.full((1, 3, 16, 16), np.nan, np.float32))
    bad = [tmp_path / name for name in ("broken.png", "two.npy", "nan.npy", "nowhere.png")]
    rows = evaluated([images[0], *bad, images[1]], metric("total", total))
    good = [row for row in rows if row.error is None]
    assert values(good) == values(evaluated(images, metric("total", total)))
    reasons = {Path(row.image).name: row.error or "" for row in rows if row.error}
    for name, reason in {
        "broken.png": "not an image",
        "two.npy": "holds 2 inputs",
        "nan.npy": "NaN or infinity",
        "nowhere.png": "there is no such file",
    }.items():
        assert reason in reasons.pop(name)
    assert not reasons
    assert len(rows) == 6 * len(METHODS)


def test_arrays_are_evaluated_too(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.random.default_rng(0).random((1, 3, 16, 16), np.float32))
    rows = evaluated([tmp_path / "one.npy"], metric("total", total))
    assert all(row.value is not None and row.sha256 for row in rows)


def test_a_metric_without_an_answer_is_a_row(tmp_path: Path) -> None:
    asked = [metric("undefined", undefined), metric("broken", broken), metric("total", total)]
    rows = evaluated(photos(tmp_path, "red"), *asked, methods=["srd"])
    assert [(row.metric, row.error) for row in rows] == [
        ("undefined", UNDEFINED), ("broken", "the scores are NaN"), ("total", None),
    ]  # fmt: skip
    assert [row.value is None for row in rows] == [True, True, False]


def test_what_is_wrong_with_a_metric_ends_all(tmp_path: Path) -> None:
    def wrong(_: Explained) -> float:
        raise OptionError("layers=99: the model has 2")

    with pytest.raises(OptionError, match="layers=99"):
        evaluated(photos(tmp_path, "red"), metric("wrong", wrong))


def test_an_optional_metric_that_is_not_for_the_model_is_left_out(tmp_path: Path) -> None:
    def late(explained: Explained) -> float:
        if explained.target == 2:
            raise OptionError("layers=99: the model has 2")
        return 1.0

    images = photos(tmp_path, "red", "blue")
    asked = {one.name: one for one in (
        metric("total", total), metric("late", late), metric("inside", total, "mask"), metric("grid", total, "grid"),
    )}  # fmt: skip
    contenders = [contender_named(name) for name in METHODS]
    evaluation = prepare(explainer(), images, contenders, asked, optional=("late", "inside", "grid"))
    left: dict[str, str] = {}
    rows = list(numbers(evaluation, left_out=lambda name, why: left.update({name: str(why)})))
    assert left == {
        "inside": "the object must be known; give masks",
        "grid": "a grid takes 4 images of different classes",
        "late": "layers=99: the model has 2",
    }
    assert [(row.method, row.metric) for row in rows] == [
        ("srd", "total"), ("srd", "late"), ("srd", "total"),
        *((name, "total") for name in METHODS[1:] for _ in images),
    ]  # fmt: skip
    assert set(evaluation.metrics) == {"total", "late"}
    assert set(evaluation.without(left).metrics) == {"total"}
    with pytest.raises(OptionError, match="layers=99"):
        list(numbers(prepare(explainer(), images, contenders, asked, optional=("inside", "grid"))))
    with pytest.raises(OptionError, match="inside: the object must be known; give masks"):
        prepare(explainer(), images, contenders, asked, optional=("late", "grid"))


def test_an_optional_grid_is_left_out_where_photos_differ_in_size(tmp_path: Path) -> None:
    from tests.evaluation_nets import colour_net, photo_of

    base = explainer(colour_net("S"))
    images = [*photos(tmp_path, "red", "green", "blue"), photo_of(tmp_path / "x.png", "white", size=20)]
    asked = {"grid": metric("grid", total, "grid"), "total": metric("total", total)}
    evaluation = prepare(base, images, [contender_named("srd")], asked, optional=["grid"])
    assert "a grid needs photos of one size" in str(evaluation.unfit["grid"])
    assert {row.metric for row in numbers(evaluation)} == {"total"}
    with pytest.raises(OptionError, match="a grid needs photos of one size"):
        prepare(base, images, [contender_named("srd")], asked)


def unfit(*, required: bool) -> Contender:
    def make(*_: object) -> Any:
        raise UnsupportedCaseError("there is no attention")

    return Contender("rollout", Method("rollout", "Rollout", "attention", "tests", make), {}, required)


def test_a_method_that_cannot_explain_the_model_ends_all_or_is_left_out(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "blue")
    with pytest.raises(UnsupportedCaseError, match="there is no attention"):
        evaluated(images, metric("total", total), methods=["srd", unfit(required=True)])
    contenders = [unfit(required=False), contender_named("srd")]
    evaluation = prepare(explainer(), images, contenders, {"total": metric("total", total)})
    left: dict[str, str] = {}
    rows = list(numbers(evaluation, left_out=lambda one, why: left.update({one: str(why)})))
    assert left == {"rollout": "there is no attention"}
    assert [row.method for row in rows] == ["srd", "srd"]


def test_srd_takes_part_with_options(tmp_path: Path) -> None:
    images = photos(tmp_path, "red")
    found = values(
        evaluated(images, metric("total", total), methods=["srd", "srd:seed=logprob,sign=positive"])
    )
    other = Explainer(
        explainer().model.proto, preprocess=Preprocess(scale=1 / 255), seed="logprob", sign="positive"
    )
    (one,) = other.explain(images[0])
    assert found["0_red.png", "srd:seed=logprob,sign=positive"] == pytest.approx(
        float(one.relevance.sum()), rel=1e-5
    )
    assert len(set(found.values())) == 2
    with pytest.raises(
        OptionError, match="method 'srd' has no option 'masks'; it takes preset, boundary, seed"
    ):
        contender_named("srd:masks=3")
    assert contender_named("srd:preset=joint,smooth=3").options == {"preset": "joint", "smooth": 3.0}
    with pytest.raises(OptionError, match="method 'srd': smooth='x' is not a number"):
        contender_named("srd:smooth=x")
    with pytest.raises(OptionError, match="seed='x' is not one of"):
        evaluated(images, metric("total", total), methods=["srd:seed=x"])


def test_an_activation_map_takes_part_with_its_layer(tmp_path: Path) -> None:
    images = photos(tmp_path, "red")
    cams = ["hirescam", "hirescam:boundary=relu", "hirescam:boundary=input"]
    with open_store(tmp_path / "kept.sqlite") as store:
        found = values(evaluated(images, metric("total", total), methods=cams, store=store))
        assert store.count() == 3
    for name in cams:
        layer = name.partition("=")[2] or "encoder"
        other = Explainer(
            explainer().model.proto, method="hirescam", boundary=layer, preprocess=Preprocess(scale=1 / 255)
        )
        (one,) = other.explain(images[0])
        assert found["0_red.png", name] == pytest.approx(float(one.relevance.sum()), rel=1e-5)
    assert found["0_red.png", cams[0]] == found["0_red.png", cams[1]] != found["0_red.png", cams[2]]
    contender = contender_named("reciprocam:boundary=relu,mask=gaussian")
    assert contender.options == {"boundary": "relu"}
    assert contender.method is not None
    assert contender.method.parameters == {"mask": "gaussian"}
    with pytest.raises(OptionError, match="boundary 'nowhere' is not a tensor"):
        evaluated(images, metric("total", total), methods=["gradcam:boundary=nowhere"])


@pytest.mark.parametrize("name", ["saliency", "rise:masks=2", "random"])
def test_a_method_that_is_made_at_no_layer_takes_no_boundary(tmp_path: Path, name: str) -> None:
    said = f"boundary: of SRD and of activation maps, .*; the method '{name.partition(':')[0]}' has none"
    separator = "," if ":" in name else ":"
    with pytest.raises(OptionError, match=said):
        evaluated(
            photos(tmp_path, "red"), metric("total", total), methods=[f"{name}{separator}boundary=relu"]
        )
    with pytest.raises(OptionError, match=said):
        Explainer(explainer().model.proto, method=name, boundary="relu")
    with pytest.raises(OptionError, match="sign: an option of SRD"):
        explainer().with_method(contender_named(name).method, sign="positive")


def test_what_means_nothing_is_refused_before_any_work(tmp_path: Path) -> None:
    images = photos(tmp_path, "red")
    with pytest.raises(OptionError, match="method srd: named twice"):
        evaluated(images, metric("total", total), methods=["srd", "srd"])
    with pytest.raises(OptionError, match="name at least one method and one metric"):
        evaluated(images, methods=["srd"])
    with pytest.raises(OptionError, match="inside: the object must be known; give masks"):
        evaluated(images, metric("inside", total, "mask"))
    base = Explainer(explainer().model.proto, preprocess=lambda x: x[..., :3] / 255.0)
    with pytest.raises(OptionError, match="masks cannot follow a preprocessing that is a function"):
        evaluated(images, metric("total", total), base=base, masks=read_masks(tmp_path))


# What is kept


def test_what_does_not_depend_on_the_method_is_computed_once(tmp_path: Path) -> None:
    images = photos(tmp_path, "red", "blue")
    seen: dict[int, list[Explained]] = {}

    def counted(explained: Explained) -> float:
        seen.setdefault(explained.target, []).append(explained)
        return total(explained)

    asked = [metric_named("faithfulness-correlation:runs=20,subset=50"), metric_named("infidelity:grid=4")]
    rows = evaluated(images, *asked, metric("counted", counted))
    for row in rows:
        if row.metric == "counted":
            continue
        alone = evaluated(
            [row.image], *(one for one in asked if one.name == row.metric), methods=[row.method]
        )
        assert alone[0].value == row.value
    for explained in seen.values():
        assert len(explained) == len(METHODS)
        first = explained[0].shared
        assert {key[0] for key in first if isinstance(key, tuple)} == {"subsets", "patches"}
        assert all(one.shared is first for one in explained)
        assert len({id(one.own) for one in explained}) == len(METHODS)
    (red,), (blue,) = ({id(one.shared) for one in explained} for explained in seen.values())
    assert red != blue


def counting(name: str, calls: list[str]) -> Metric:
    def score(explained: Explained) -> float:
        calls.append(name)
        return total(explained)

    return metric(name, score)


def test_nothing_is_done_twice(tmp_path: Path) -> None:
    images = photos(tmp_path / "p", "red", "blue")
    calls: list[str] = []
    with open_store(tmp_path / "kept.sqlite") as store:
        first = evaluated(images, counting("a", calls), store=store)
        assert (len(calls), store.count()) == (6, 6)
    with open_store(tmp_path / "kept.sqlite") as store:
        assert evaluated(images, counting("a", calls), store=store) == first
        assert len(calls) == 6
        both = evaluated(
            [*images, *photos(tmp_path / "q", "white")],
            counting("a", calls),
            counting("b", calls),
            store=store,
        )
        assert (len(calls), len(both)) == (18, 18)
        assert [row for row in both if row in first] == first


@pytest.mark.parametrize(
    "change", ["seed", "parameters", "pixels", "preprocessing", "options", "target", "mask"]
)
def test_what_decides_a_number_makes_it_new(tmp_path: Path, change: str) -> None:
    images = photos(tmp_path / "p", "red")
    ids = np.zeros((16, 16), np.int64)
    ids[4:9, 2:12] = 7
    masks = read_masks(masks_for(tmp_path / "m", images, ids))
    calls: list[str] = []
    needing = replace(counting("a", calls), needs=frozenset({"mask"}))
    with open_store(tmp_path / "kept.sqlite") as store:
        evaluated(images, needing, methods=["srd"], masks=masks, store=store)
        options: dict[str, Any] = {"methods": ["srd"], "masks": masks}
        if change == "seed":
            options["seed"] = 1
        elif change == "parameters":
            needing = replace(needing, parameters={"steps": 3})
        elif change == "pixels":
            photos(tmp_path / "p", "blue")[0].replace(images[0])
        elif change == "preprocessing":
            options["base"] = explainer(preprocess=Preprocess(scale=1 / 128))
        elif change == "options":
            options["methods"] = ["srd:sign=positive"]
        elif change == "target":
            options["target"] = 3
        elif change == "mask":
            options["masks"] = read_masks(masks_for(tmp_path / "n", images, np.roll(ids, 1)))
        evaluated(images, needing, store=store, **options)
    assert len(calls) == 2


def test_a_mistake_that_can_be_mended_is_not_kept(tmp_path: Path) -> None:
    images = photos(tmp_path, "red")
    with open_store(tmp_path / "kept.sqlite") as store:
        assert evaluated(images, metric("a", broken), methods=["srd"], store=store)[0].value is None
        assert store.count() == 0
        assert evaluated(images, metric("a", total), methods=["srd"], store=store)[0].value is not None
        assert evaluated(images, metric("b", undefined), methods=["srd"], store=store)[0].error == UNDEFINED
        assert evaluated(images, metric("b", undefined), methods=["srd"], store=store)[0].error == UNDEFINED
        assert store.count() == 2
