"""How well two label maps agree, region by region: Dice, Hausdorff distance, average surface distance."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..frame import Vector
from ..segmentation.labels import REGIONS


def region_overlap(
    pred: np.ndarray | torch.Tensor,
    true: np.ndarray | torch.Tensor,
    spacing: Vector,
    regions: Mapping[str, int] = REGIONS,
) -> dict[str, float]:
    """Dice, 95th percentile Hausdorff distance and average symmetric surface distance of every region.

    A region absent from both maps has nothing to compare: all three are NaN, so that a mean over cases leaves it out.
    A region in one map only is a plain miss: Dice 0, and both distances are the diagonal of the volume, the worst that
    its grid allows, so that a miss never improves a mean.

    Args:
        pred: label map ``(X, Y, Z)`` or ``(1, X, Y, Z)``.
        true: label map of the same shape.
        spacing: voxel size in mm along x, y and z.
        regions: name to label.

    Returns:
        ``dice_<region>`` in [0, 1], ``hd95_<region>`` and ``asd_<region>`` in mm.
    """
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance  # seconds

    pred, true = (np.asarray(labels).reshape(np.shape(labels)[-3:]) for labels in (pred, true))
    diagonal = float(np.linalg.norm(np.multiply(true.shape, spacing)))
    values: dict[str, float] = {}
    for name, label in regions.items():
        a, b = pred == label, true == label
        dice, hd95, asd = dice_score(a, b), np.nan, np.nan
        if a.any() and b.any():
            pair = torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]
            mm = [float(edge) for edge in spacing]
            hd95 = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=mm).item()
            asd = compute_average_surface_distance(*pair, include_background=True, symmetric=True, spacing=mm).item()
        elif a.any() or b.any():
            hd95 = asd = diagonal
        values |= {f"dice_{name}": dice, f"hd95_{name}": hd95, f"asd_{name}": asd}
    return values


def dice_score(pred: np.ndarray, true: np.ndarray) -> float:
    """Dice's coefficient of two boolean masks, ``2 |A and B| / (|A| + |B|)``; NaN when both are empty (Dice 1945)."""
    size = np.count_nonzero(pred) + np.count_nonzero(true)
    return 2.0 * np.count_nonzero(pred & true) / size if size else float("nan")
