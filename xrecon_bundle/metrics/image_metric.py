"""The image measures as MONAI metrics."""

from __future__ import annotations

import torch
from monai.metrics.regression import RegressionMetric
from monai.utils import MetricReduction

from .image import image_metric


class ImageMetric(RegressionMetric):
    """One measure of :func:`.image_metrics` as a MONAI metric, for ``monai.handlers.IgniteMetricHandler`` and configs.

    Args:
        name: a key that :func:`.image_metrics` returns, ``psnr_avg`` or ``mae_hu_body`` for instance.
        reduction: how cases are put together, as in :class:`monai.metrics.MAEMetric`.

    Raises:
        ValueError: No measure has this name.
    """

    def __init__(self, name: str, reduction: MetricReduction | str = MetricReduction.MEAN) -> None:
        super().__init__(reduction=reduction)
        self.name = name
        self._measure = image_metric(name)

    def _compute_metric(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """``(B, 1)`` values for volumes ``(B, 1, X, Y, Z)`` in network units."""
        values = [[self._measure(pred, true)] for pred, true in zip(y_pred, y, strict=True)]
        return torch.tensor(values, dtype=torch.float32)
