"""The rule table: what it holds, that it says where it does not, and that a slip in it cannot pass unseen."""

import onnx
import pytest

from graph_rules import RULES, rule
from graph_rules.registry import always, same, through
from srd_onnx.engine.emit import Emitter
from srd_onnx.engine.rule import Flows, Rule, RuleTable
from srd_onnx.graph.ir import Node, OpKey
from srd_onnx.graph.simplify import WORKING_OPSET
from tests import checks
from tests.cases import CASES
from tests.oracles import ORACLES


def test_every_version_of_every_rule_has_a_case_and_the_other_way_round() -> None:
    assert {OpKey("", case.op, case.since) for case in CASES} == set(RULES)


def test_every_operator_has_an_oracle_and_the_other_way_round() -> None:
    assert {key.op_type for key in RULES} == set(ORACLES)


def test_case_names_are_unique() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("key", sorted(RULES), ids=str)
def test_version_exists_and_is_still_in_use_at_the_working_opset(key: OpKey) -> None:
    schema = onnx.defs.get_schema(key.op_type, max(WORKING_OPSET, key.since), key.domain)
    assert schema.since_version == key.since
    assert not schema.deprecated


@pytest.mark.parametrize("op", sorted({key.op_type for key in RULES}))
def test_no_version_between_the_covered_ones_is_left_out(op: str) -> None:
    """From the working opset up to the newest rule, every meaning of the operator has a rule."""
    covered = {key.since for key in RULES if key.op_type == op}
    history = onnx.defs.get_all_schemas_with_history()
    appeared = min(schema.since_version for schema in history if (schema.domain, schema.name) == ("", op))
    opsets = range(max(WORKING_OPSET, appeared), max(WORKING_OPSET, *covered) + 1)
    schemas = [onnx.defs.get_schema(op, opset) for opset in opsets]
    assert {schema.since_version for schema in schemas if not schema.deprecated} == covered


@pytest.mark.parametrize(
    ("key", "made"), sorted(RULES.items()), ids=lambda x: str(x) if isinstance(x, OpKey) else ""
)
def test_rule_has_a_name_and_a_formula(key: OpKey, made: Rule) -> None:
    assert made.name.isidentifier(), key
    assert "``" in (made.vjp.__doc__ or ""), key


def test_a_second_rule_for_the_same_operator_is_refused() -> None:
    table: dict[OpKey, Rule] = {}
    again = rule("Neg", versions=(13,), roles=same, routes=always, spread=through, table=table)

    @again
    def negated(_emit: Emitter, _node: Node, flows: Flows) -> Flows:
        return flows

    assert [(str(key), made.name) for key, made in table.items()] == [("ai.onnx::Neg v13", "negated")]
    with pytest.raises(ValueError, match=r"ai\.onnx::Neg v13 has a rule already: negated"):
        again(negated)


def test_checks_take_the_table_they_are_given() -> None:
    empty: RuleTable = {}
    with pytest.raises(KeyError):
        checks.check_adjoint(CASES[0], empty)
