"""The one Gaussian mean over a part of a volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage


def mean_nearby(
    values: np.ndarray,
    weights: np.ndarray,
    sigma: float | Sequence[float] | np.ndarray,
    otherwise: np.ndarray | float = np.nan,
    least: float = 1e-3,
    truncate: float = 2.0,
) -> np.ndarray:
    """Weighted Gaussian mean of ``values`` around every voxel (normalised convolution, Knutsson and Westin 1993).

    Args:
        values: ``(X, Y, Z)``; finite also where they do not count.
        weights: of the same shape; a boolean mask, or weights of at least 0.
        sigma: of the Gaussian in voxels, one or per axis.
        otherwise: what stands where too little weighs nearby.
        least: share of the neighbourhood's weight, at least.
        truncate: where the Gaussian ends, in sigmas.
    """
    weights = np.asarray(weights, np.float32)
    share = ndimage.gaussian_filter(weights, sigma, truncate=truncate)
    mean = ndimage.gaussian_filter(weights * values, sigma, truncate=truncate)
    return np.where(share > least, mean / np.maximum(share, least), otherwise)
