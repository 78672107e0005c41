"""Two of scikit-image's functions for pictures, with the same results; its own bring half of SciPy to every start."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def resize(picture: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Linear interpolation after smoothing, as ``skimage.transform.resize(order=1, anti_aliasing=True)``.

    Args:
        picture: floats, finite.
        shape: wanted; as many axes.
    """
    factors = np.divide(picture.shape, shape)
    smooth = ndimage.gaussian_filter(picture, np.maximum(0, (factors - 1) / 2), mode="mirror")
    resized = ndimage.zoom(smooth, 1 / factors, order=1, mode="mirror", grid_mode=True)
    return np.clip(resized, picture.min(), picture.max())


def fill_basins(picture: np.ndarray) -> np.ndarray:
    """Raise what brighter pixels surround to the lowest way out, as morphological reconstruction by erosion.

    Vincent, IEEE Trans. Image Process. 2 (1993) 176; neighbours over edges and corners.
    """
    flooded = np.full_like(picture, picture.max())
    rim = np.pad(np.zeros(np.subtract(picture.shape, 2), dtype=bool), 1, constant_values=True)
    flooded[rim] = picture[rim]
    while True:
        lower = np.maximum(ndimage.minimum_filter(flooded, 3), picture)
        if np.array_equal(lower, flooded):
            return flooded
        flooded = lower
