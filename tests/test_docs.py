"""The documentation agrees with the code."""

from benchmarks.operators import PAGE, page


def test_the_operator_table_is_that_of_the_rules() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m benchmarks.operators"
