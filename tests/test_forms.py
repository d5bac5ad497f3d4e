"""What is emitted where a rule knows something cheaper than its VJP: the same numbers, case by case and on models."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product
from typing import Any, get_args

import numpy as np
import pytest

from graph_rules import EXPANSIONS, RULES, winograd
from graph_rules.taps import narrow_products
from srd_onnx.engine.compiling import compile_model, explanation_session, run_explanation
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.options import PRESETS, Bias
from srd_onnx.engine.rule import Parts, RuleTable
from srd_onnx.explainer import Explainer
from srd_onnx.graph.ir import Array, Node, OpKey, Value
from srd_onnx.ort.runtime import CPU
from tests import checks
from tests.cases import CASES, Case
from tests.harness import bench, emitted_position
from tests.nets import small_cnn

# Cases are small, and in double precision: there channels are in blocks if they could be in a larger tensor. Pictures
# never are, which have one channel here. Of several versions with one rule the newest is enough.
RULE_OF = {case: RULES[OpKey("", case.op, case.since)] for case in CASES}
NEWEST = {(case.op, id(RULE_OF[case])): case.since for case in sorted(CASES, key=lambda one: one.since)}
IN_BLOCKS = [
    case
    for case in CASES
    if case.no_pattern is None
    and case.since == NEWEST[case.op, id(RULE_OF[case])]
    and "Quantize" not in case.op
    and any(len(getattr(spec, "shape", ())) == 4 for spec in case.inputs)
]
CASES_OF = {op: [c for c in IN_BLOCKS if c.op == op] for op in ("Add", "Sum", "Concat", "Conv", "MaxPool")}


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    def blocked(emit: Emitter, value: Value) -> bool:
        fits = value.rank == 4 and value.is_float and emit.axes(value).channels == (1,)
        return not emit.plain and fits and value.shape[1] > 1

    monkeypatch.setattr(Emitter, "blocked", blocked)


@pytest.fixture
def rows(blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Convolutions are taken by rows however small they are."""
    monkeypatch.setattr("graph_rules.winograd._FEWEST", 1)
    monkeypatch.setattr("graph_rules.winograd._LEAST", 0)


def cheaper(case: Case, bias: Bias = "distribute", *, zero: bool = False) -> bool:
    """Whether something else than the VJP, expanded and collapsed, is emitted."""
    b = bench(case, RULES, zero=zero)
    plain, made = (emitted_position(b, b.shares(), bias, plain=plain).model for plain in (True, False))
    return bool(plain != made)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("case", IN_BLOCKS, ids=str)
def test_what_is_emitted_is_the_plain_one_or_the_definition(case: Case) -> None:
    for bias, zero in product(get_args(Bias), (False, True)):
        if cheaper(case, bias, zero=zero):  # else it is what tests/test_rules.py holds against the definition
            checks.check_against_definition(case, RULES, bias, zero=zero, plain=False)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("op", CASES_OF)
def test_there_are_cases_of_each(op: str) -> None:
    assert any(cheaper(case) for case in CASES_OF[op])


def wrong_parts(right: Callable[[Emitter, Node], Parts | None]) -> Callable[[Emitter, Node], Parts | None]:
    def wrong(emit: Emitter, node: Node) -> Parts | None:
        found = right(emit, node)
        if found is None:
            return None
        off = emit("CastLike", emit.const(1.001), node.output().name)
        return replace(found, products=[emit("Mul", one, off) if one else None for one in found.products])

    return wrong


def off(right: Callable[..., str | None]) -> Callable[..., str | None]:
    def wrong(emit: Emitter, node: Node, *names: str) -> str | None:
        found = right(emit, node, *names)
        return found and emit("Mul", found, emit("CastLike", emit.const(1.001), node.output().name))

    return wrong


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(
    ("op", "hook", "spoil"),
    [
        ("Add", "parts", wrong_parts),
        ("Sum", "parts", wrong_parts),
        ("Concat", "parts", wrong_parts),
        ("Conv", "collapsed", off),
        ("MaxPool", "collapsed", off),
    ],
)
def test_the_definition_notices_a_wrong_one(op: str, hook: str, spoil: Any) -> None:
    key = OpKey("", op, CASES_OF[op][0].since)
    rules = RULES | {key: replace(RULES[key], **{hook: spoil(getattr(RULES[key], hook))})}
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_all(CASES_OF[op], rules)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("case", [one for one in CASES_OF["Conv"] if "narrow" in str(one)], ids=str)
def test_the_definition_notices_wrong_taps_of_few_channels(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graph_rules.convolution.narrow_products", off(narrow_products))
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_all([case], RULES)


BY_ROWS = [one for one in CASES_OF["Conv"] if "tall" in str(one) or "asymmetric_pads" in str(one)]


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("zero", [False, True])
@pytest.mark.parametrize("case", BY_ROWS, ids=str)
def test_rows_by_fewer_products_are_the_definition(case: Case, zero: bool) -> None:
    assert cheaper(case)
    checks.check_against_definition(case, RULES, zero=zero, plain=False)


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize("case", BY_ROWS, ids=str)
def test_the_definition_notices_wrong_rows(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = winograd._FLOW.copy()
    wrong[1, 3] = 2
    monkeypatch.setattr(winograd, "_FLOW", wrong)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        check_all([case], RULES)


def check_all(cases: list[Case], rules: RuleTable) -> None:
    for case in cases:
        checks.check_against_definition(case, rules, plain=False)


def of(
    explainer: Explainer, x: Array, rules: RuleTable = RULES, *, plain: bool = False, blocks: bool = True
) -> Array:
    case = replace(explainer.case(explainer.shown_shapes()), plain=plain, blocks=blocks, rival=False)
    compiled = compile_model(explainer.model.proto, case, rules, EXPANSIONS)
    session = explanation_session(compiled, [CPU], 2)
    result = run_explanation(session, compiled, {explainer.ports[0].name: x}, np.full(len(x), -1, np.int64))
    return next(iter(result.relevance.values()))


def noise(explainer: Explainer) -> Array:
    return np.random.default_rng(0).standard_normal(explainer.input_shape).astype(np.float32)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["squeezenet11", "efficientnet_lite0"])
def test_on_the_models_that_ship_it_is_the_plain_one(name: str, preset: str) -> None:
    explainer = Explainer(name, preset=preset, providers="cpu")
    x = noise(explainer)
    want = of(explainer, x, plain=True)
    for got in (of(explainer, x), of(explainer, x, blocks=False)):
        np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_on_a_model_something_wrong_is_noticed() -> None:
    explainer = Explainer("efficientnet_lite0", preset="paper", providers="cpu")
    x, wrong = noise(explainer), dict(RULES)
    for key, right in RULES.items():
        if key.op_type == "Conv":
            assert right.anew is not None
            wrong[key] = replace(right, anew=off(right.anew))
    want, got = of(explainer, x, plain=True), of(explainer, x, wrong)
    assert np.abs(got - want).max() > 1e-4 * np.abs(want).max()


@pytest.mark.parametrize("preset", PRESETS)
def test_layers_of_many_channels_are_the_plain_ones(preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(small_cnn(channels=384, batch=2), preset=preset, providers="cpu")
    x = noise(explainer)
    want = of(explainer, x, plain=True)
    np.testing.assert_allclose(of(explainer, x), want, rtol=0, atol=1e-5 * np.abs(want).max())
    # They are taken by rows: something wrong in that is noticed.
    monkeypatch.setattr(winograd, "_FLOW", 1.001 * winograd._FLOW)
    assert np.abs(of(explainer, x) - want).max() > 1e-4 * np.abs(want).max()


def test_what_is_made_of_weights_is_made_once_for_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    right = winograd._transformed

    def counted(weights: Array) -> Array:
        made.append(id(weights))
        return right(weights)

    monkeypatch.setattr(winograd, "_transformed", counted)
    explainer = Explainer(small_cnn(channels=384, batch=1), preset="joint", providers="cpu")
    of(explainer, noise(explainer))
    assert len(made) == len({*made}) == 2
