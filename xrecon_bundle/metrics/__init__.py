"""How far a reconstruction can be trusted: image measures, overlap of regions, agreement of measurements."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .agreement import agreement, bland_altman, cohen_kappa, crossed_mean, fleiss_kappa, icc_2_1, icc_3_1, pearson
from .image import body_mask, image_metrics
from .overlap import dice_score, region_overlap
from .proportion import bootstrap_cases, clustered_proportion, paired_difference, proportion
from .resolution import EdgeResponse, chest_resolution, edge_response

if TYPE_CHECKING:
    from .image_metric import ImageMetric

__all__ = [
    "EdgeResponse",
    "ImageMetric",
    "agreement",
    "bland_altman",
    "body_mask",
    "bootstrap_cases",
    "chest_resolution",
    "clustered_proportion",
    "cohen_kappa",
    "crossed_mean",
    "dice_score",
    "edge_response",
    "fleiss_kappa",
    "icc_2_1",
    "icc_3_1",
    "image_metrics",
    "paired_difference",
    "pearson",
    "proportion",
    "region_overlap",
]


def __getattr__(name: str) -> Any:
    if name != "ImageMetric":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .image_metric import ImageMetric  # by need: MONAI's metrics take seconds to import

    return ImageMetric
