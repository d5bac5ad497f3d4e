"""Trained models from PyPI, and the graph among onnx's own that is too large for the quick tests."""

import pytest

from tests.test_real_graphs import SLOW, check, explained
from tests_models.wheels import WHEELS, measure_wheel


@pytest.mark.parametrize("name", WHEELS)
def test_a_deployed_model_is_explained(name: str) -> None:
    row = measure_wheel(name)
    assert row.finite
    assert row.residual <= 1e-3


@pytest.mark.parametrize("name", SLOW)
def test_a_large_graph_of_the_old_zoo_conserves(name: str) -> None:
    check(explained(name))
