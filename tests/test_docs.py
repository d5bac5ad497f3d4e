"""The documentation agrees with the code."""

from pathlib import Path

import pytest

from benchmarks.operators import PAGE, page
from srd_onnx.methods import METHODS

METHODS_PAGE = Path(__file__).parent.parent / "docs" / "methods.md"


def test_the_operator_table_is_that_of_the_rules() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m benchmarks.operators"


@pytest.mark.parametrize(
    "name", [n for n, make in METHODS.items() if make().family in ("gradient", "propagation")]
)
def test_the_page_of_the_methods_says_what_the_code_says(name: str) -> None:
    method = METHODS[name]()
    (row,) = [
        line for line in METHODS_PAGE.read_text("utf-8").splitlines() if line.startswith(f"| `{name}` |")
    ]
    _, _, _, parameters, complete, *_ = row.replace(r"\|", "").split("|")
    assert parameters.strip() == ", ".join(f"`{key}` ({value})" for key, value in method.parameters.items())
    assert complete.strip() == ("yes" if method.complete else "no")
