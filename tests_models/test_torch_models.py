"""What people build in PyTorch, from both exporters: explained, conserving, and with autograd's own gradient."""

import pytest

from tests_models.exports import EXPORTS
from tests_models.measure import measure
from tests_models.networks import NETWORKS


@pytest.mark.parametrize(("name", "exporter", "opset"), EXPORTS)
def test_an_exported_network_is_explained_and_its_gradient_is_that_of_autograd(
    name: str, exporter: str, opset: int
) -> None:
    row = measure(name, exporter, opset)
    assert row.finite
    assert row.residual <= 1e-3
    assert NETWORKS[name].tokens if row.gradient is None else row.gradient <= row.tolerance
