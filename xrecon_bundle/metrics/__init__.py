"""How far a reconstruction can be trusted: image measures, overlap of regions, agreement of measurements."""

from __future__ import annotations

from .agreement import agreement, bland_altman, icc_2_1, pearson
from .image import ImageMetric, body_mask, image_metrics
from .overlap import dice_score, region_overlap

__all__ = [
    "ImageMetric",
    "agreement",
    "bland_altman",
    "body_mask",
    "dice_score",
    "icc_2_1",
    "image_metrics",
    "pearson",
    "region_overlap",
]
