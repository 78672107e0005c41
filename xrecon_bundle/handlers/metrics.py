"""Image metrics for Ignite engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from monai.handlers import IgniteMetricHandler, from_engine
from monai.utils import CommonKeys

from ..metrics import ImageMetric

ERRORS = ("mae", "mse")  # how the names of those metrics begin of which less is better


def better(name: str) -> Callable[[float, float], bool]:
    """Whether a value of a metric is better than the best so far, for an evaluator's ``metric_cmp_fn``.

    Args:
        name: see :func:`image_metric_handlers`.
    """
    if name.startswith(ERRORS):
        return lambda current, best: current < best
    return lambda current, best: current > best


def image_metric_handlers(names: Sequence[str]) -> dict[str, IgniteMetricHandler]:
    """``{name: metric}`` of ``pred`` against ``label``, for an evaluator's key and additional metrics.

    Args:
        names: names that :func:`xrecon_bundle.metrics.image_metrics` returns.
    """
    pair = from_engine([CommonKeys.PRED, CommonKeys.LABEL])
    return {name: IgniteMetricHandler(metric_fn=ImageMetric(name), output_transform=pair) for name in names}
