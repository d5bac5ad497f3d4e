"""Metrics of explanations, under the names of Quantus.

Each is a function that gives a `Metric`; its keyword parameters decide the number that the metric computes.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from srd_onnx.metrics import manipulation, randomisation, robustness
from srd_onnx.metrics.axiomatic import completeness_metric, completeness_to_baseline_metric
from srd_onnx.metrics.complexity import complexity_metric, effective_complexity_metric, sparseness_metric
from srd_onnx.metrics.curves import (
    deletion_metric,
    insertion_metric,
    insertion_minus_deletion_metric,
    pixel_flipping_metric,
    road_lerf_metric,
    road_morf_metric,
)
from srd_onnx.metrics.faithfulness import (
    faithfulness_correlation_metric,
    infidelity_metric,
    sufficiency_metric,
)
from srd_onnx.metrics.localisation import (
    attribution_localisation_metric,
    grid_pointing_game_metric,
    pointing_game_metric,
    relevance_mass_accuracy_metric,
    relevance_rank_accuracy_metric,
    top_k_intersection_metric,
)
from srd_onnx.metrics.metric import Explained, Metric, Probe
from srd_onnx.named import made_by_name

__all__ = ["METRICS", "Explained", "Metric", "Probe", "metric_named"]

_MAKERS: tuple[Callable[..., Metric], ...] = (
    pointing_game_metric,
    attribution_localisation_metric,
    relevance_rank_accuracy_metric,
    relevance_mass_accuracy_metric,
    top_k_intersection_metric,
    grid_pointing_game_metric,
    sparseness_metric,
    complexity_metric,
    effective_complexity_metric,
    insertion_metric,
    deletion_metric,
    insertion_minus_deletion_metric,
    pixel_flipping_metric,
    faithfulness_correlation_metric,
    sufficiency_metric,
    infidelity_metric,
    road_morf_metric,
    road_lerf_metric,
    robustness.local_lipschitz_estimate,
    robustness.max_sensitivity,
    robustness.avg_sensitivity,
    robustness.relative_input_stability,
    robustness.relative_output_stability,
    manipulation.manipulation,
    randomisation.mprt,
    randomisation.mprt_last_layer,
    randomisation.mprt_independent,
    randomisation.random_logit,
    completeness_metric,
    completeness_to_baseline_metric,
)

METRICS: Mapping[str, Callable[..., Metric]] = MappingProxyType({make().name: make for make in _MAKERS})


def metric_named(text: str) -> Metric:
    """A metric by its name, or with parameters as `top-k-intersection:k=500`.

    Raises:
        OptionError: there is no such metric or parameter, or a value means nothing.
    """
    return made_by_name(text, METRICS, "metric")
