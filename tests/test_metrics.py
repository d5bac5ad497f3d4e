"""The table of metrics: names, what each says of itself, and names that do not exist."""

import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest

from srd_onnx.errors import OptionError
from srd_onnx.methods import METHODS, method_named
from srd_onnx.metrics import METRICS, metric_named
from srd_onnx.named import made_by_name
from tests.metric_probes import explained, linear


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_says_what_it_is(name: str) -> None:
    metric = METRICS[name]()
    assert metric.name == name
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
    assert metric.title
    assert "\n" not in metric.meaning
    assert not metric.meaning.endswith(".")
    assert re.search(r"arXiv \d{4}\.\d{5}|PLOS", metric.source)
    assert metric.bounds[0] < metric.bounds[1]
    json.dumps(dict(metric.parameters))


@pytest.mark.parametrize("name", METRICS)
def test_each_parameter_is_recorded_and_can_be_named(name: str) -> None:
    for key, parameter in inspect.signature(METRICS[name]).parameters.items():
        value = str(parameter.default).lower() if isinstance(parameter.default, bool) else parameter.default
        again = metric_named(f"{name}:{key}={value}")
        assert again.parameters == METRICS[name]().parameters
        recorded = again.parameters.get(key, len(again.parameters.get("percentages", ())))
        assert recorded == parameter.default


PLAIN = [
    name
    for name, make in METRICS.items()
    if not make().needs and make().family in ("complexity", "faithfulness", "axiomatic")
]


@pytest.mark.parametrize("name", PLAIN)
def test_scores_are_within_their_bounds_and_given_again(name: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 40, 40)).astype(np.float32)
    probe = linear(rng.standard_normal((4, 3, 40, 40)) / 30)
    assert probe.attribute is not None
    one = explained(probe, x, probe.attribute(x, 2), target=2)
    metric = METRICS[name]()
    found = metric.score(one)
    assert isinstance(found, float)
    assert metric.bounds[0] <= found <= metric.bounds[1]
    assert metric.score(explained(probe, x, probe.attribute(x, 2), target=2)) == found


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(
        OptionError, match=r"there is no metric 'insertoin'; did you mean 'insertion'.*There is: "
    ):
        metric_named("insertoin")
    with pytest.raises(
        OptionError, match=r"metric 'deletion' has no parameter 'step'; it takes steps, baseline"
    ):
        metric_named("deletion:step=3")
    with pytest.raises(
        OptionError, match="metric 'sparseness' has no parameter 'eps'; it takes no parameters"
    ):
        metric_named("sparseness:eps=3")
    with pytest.raises(OptionError, match=r"metric 'deletion': steps='3.5' is not int"):
        metric_named("deletion:steps=3.5")


def test_methods_are_named_in_the_same_way() -> None:
    assert method_named("srd") is None
    assert all(made is not None and made.name == name for name in METHODS if (made := method_named(name)))
    with pytest.raises(OptionError, match=r"there is no method 'saliancy'; did you mean 'saliency'.*: srd, "):
        method_named("saliancy")
    with pytest.raises(OptionError, match="method 'saliency' has no parameter 'n'; it takes no parameters"):
        method_named("saliency:n=3")


def test_values_are_read_as_the_type_of_the_default() -> None:
    def make(a: int = 1, b: float = 0.5, c: str = "x", *, d: bool = True) -> tuple[object, ...]:
        return a, b, c, d

    table = {"thing": make}
    assert made_by_name("thing", table, "thing") == (1, 0.5, "x", True)
    found = made_by_name("thing:a=3,b=2,c=y,d=false", table, "thing")
    assert found == (3, 2.0, "y", False)
    assert isinstance(found[1], float)
    with pytest.raises(OptionError, match="d='' is neither true nor false"):
        made_by_name("thing:d", table, "thing")


def rows_of_the_documentation() -> dict[str, list[str]]:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text(encoding="utf-8")
    table = text.split("## The table")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row for row in rows}


@pytest.mark.parametrize("name", METRICS)
def test_the_documentation_says_the_same(name: str) -> None:
    row, metric = rows_of_the_documentation()[name], METRICS[name]()
    assert metric.meaning in row
    assert metric.better in row
    words = {0.0: "0", 1.0: "1", -1.0: "−1", np.inf: "∞", 2.0: "2"}
    assert " to ".join(words[bound] for bound in metric.bounds) in row
    assert metric.source.split(", ")[-1] in row[-1]
    for key in inspect.signature(METRICS[name]).parameters:
        assert f"`{key}`" in " ".join(row)


def test_the_documentation_has_no_more() -> None:
    assert list(rows_of_the_documentation()) == list(METRICS)
