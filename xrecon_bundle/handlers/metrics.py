"""Image metrics for Ignite engines."""

from __future__ import annotations

from collections.abc import Sequence

from monai.handlers import IgniteMetricHandler, from_engine
from monai.utils import CommonKeys

from ..metrics import ImageMetric


def image_metric_handlers(names: Sequence[str]) -> dict[str, IgniteMetricHandler]:
    """``{name: metric}`` of ``pred`` against ``label``, for an evaluator's key and additional metrics.

    Args:
        names: names that :func:`xrecon_bundle.metrics.image_metrics` returns.
    """
    pair = from_engine([CommonKeys.PRED, CommonKeys.LABEL])
    return {name: IgniteMetricHandler(metric_fn=ImageMetric(name), output_transform=pair) for name in names}
