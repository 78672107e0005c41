"""What a label map says: volumes, occupancy, density and the class of a pneumothorax. Definitions: docs/ptx-seg.md."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..frame import Vector
from .labels import SIDES

LARGE = 0.20  # share of the pleural cavity from which on a pneumothorax counts as large
PRESENT = 0.01  # below, what is found is no more than what a healthy pleura can give


def measure_pneumothorax(labels: np.ndarray, hu: np.ndarray, spacing: Vector) -> dict[str, dict[str, Any]]:
    """Measure each side and both together.

    Args:
        labels: label map ``(X, Y, Z)``: 1, 2 right and left lung; 3, 4 air-accumulated region, right and left.
        hu: CT of the same shape in HU.
        spacing: voxel size in mm.

    Returns:
        for ``right``, ``left`` and ``total``: ``lung_ml``; ``pneumothorax_ml``; ``occupancy``, pneumothorax /
        (pneumothorax + lung) of that pleural cavity, 0 to 1 (for ``total`` of both cavities); ``mean_lung_hu``; and
        ``size``: ``none`` (occupancy under 1 %), ``small``, or ``large`` (20 % or more), for ``total`` of the worse
        side. What has no voxels to be measured from is NaN.
    """
    voxel_ml = float(np.prod(spacing)) / 1000.0
    counts = {
        side: (int(np.count_nonzero(labels == lung)), int(np.count_nonzero(labels == air)))
        for side, (lung, air) in SIDES.items()
    }
    sums = {side: float(hu[labels == lung].sum(dtype=np.float64)) for side, (lung, _) in SIDES.items()}
    result = {side: _measure(*counts[side], sums[side], voxel_ml) for side in SIDES}
    lung, air = (sum(count[part] for count in counts.values()) for part in range(2))
    total = _measure(lung, air, sum(sums.values()), voxel_ml)
    total["size"] = max((side["size"] for side in result.values()), key=["none", "small", "large"].index)
    return {**result, "total": total}


def _measure(lung: int, air: int, hu_sum: float, voxel_ml: float) -> dict[str, Any]:
    occupancy = air / (air + lung) if air + lung else float("nan")
    return {
        "lung_ml": lung * voxel_ml,
        "pneumothorax_ml": air * voxel_ml,
        "occupancy": occupancy,
        "mean_lung_hu": hu_sum / lung if lung else float("nan"),
        "size": "large" if occupancy >= LARGE else "small" if occupancy >= PRESENT else "none",
    }
