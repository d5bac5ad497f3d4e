"""Trained models from PyPI, and the graph among onnx's own that is too large for the quick tests."""

import pytest

from srd_onnx import SrdOnnxError
from tests.test_real_graphs import SLOW, check, explained
from tests_models.wheels import WHEELS, measure_wheel


@pytest.mark.parametrize("name", [name for name, wheel in WHEELS.items() if wheel.refused])
def test_what_cannot_be_explained_yet_is_refused_in_words(name: str) -> None:
    with pytest.raises(SrdOnnxError, match=f"^{WHEELS[name].refused} "):
        measure_wheel(name)


@pytest.mark.parametrize("name", [name for name, wheel in WHEELS.items() if not wheel.refused])
def test_a_deployed_model_is_explained(name: str) -> None:
    row = measure_wheel(name)
    assert row.finite
    assert row.residual <= 1e-3


@pytest.mark.parametrize("name", SLOW)
def test_a_large_graph_of_the_old_zoo_conserves(name: str) -> None:
    check(explained(name))
