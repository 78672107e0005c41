"""A radiograph on the chest frame's detector."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from .. import frame
from ..frame import LOWER_PERCENTILE


def resample_to_detector(
    grey: np.ndarray, spacing_mm: np.ndarray, spatial_size: int, middle: np.ndarray | None = None
) -> np.ndarray:
    """``grey`` ``(U, V)`` on the chest frame's detector of ``(S, S)`` pixels.

    Linear, after a Gaussian against aliasing (scikit-image's rule for its width) where pixels become larger. Outside
    the image it is as dark as the image's darkest (robustly): air.

    Args:
        grey: the picture.
        spacing_mm: along u and v, on the chest frame's detector.
        spatial_size: S.
        middle: pixel (u, v) of ``grey`` that comes to the detector's middle; None: its own middle.
    """
    shape = np.array(grey.shape)
    first, step = _first_and_step(shape, spacing_mm, spatial_size, middle)
    result = sample_smoothly(grey, first, step, (spatial_size, spatial_size))
    outside = _outside(shape, first, step, spatial_size)
    if any(part.any() for part in outside):
        darkest = np.percentile(grey, LOWER_PERCENTILE)
        for axis, part in enumerate(outside):
            np.moveaxis(result, axis, 0)[part] = darkest
    return result


def sample_smoothly(grey: np.ndarray, first: np.ndarray, step: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """``shape`` samples of ``grey`` ``(U, V)`` from the pixel ``first`` on, ``step`` pixels apart; its edge goes on."""
    # A detector's 20 million pixels are averaged over blocks well below the Gaussian's width before it is applied.
    block = np.maximum(1, step // 4).astype(int)
    sigma = np.sqrt(np.maximum(0, (step - 1) / 2) ** 2 - (block**2 - 1) / 12) / block
    smooth = gaussian_filter(_block_means(grey, block), sigma, mode="nearest")
    return affine_transform(smooth, step / block, (first - (block - 1) / 2) / block, shape, order=1, mode="nearest")


def shown_on_detector(
    shape: tuple[int, int],
    exposed: np.ndarray | None,
    spacing_mm: np.ndarray,
    spatial_size: int,
    middle: np.ndarray | None = None,
) -> np.ndarray:
    """Which pixels ``(S, S)`` of the detector a picture of ``shape`` shows; arguments as :func:`resample_to_detector`.

    ``exposed`` is ``(U, V)`` bool, where the picture shows something; None: everywhere.
    """
    first, step = _first_and_step(np.array(shape), spacing_mm, spatial_size, middle)
    outside = _outside(np.array(shape), first, step, spatial_size)
    shown = ~(outside[0][:, None] | outside[1])
    if exposed is None:
        return shown
    sampled = affine_transform(exposed.astype(np.float32), step, first, (spatial_size,) * 2, order=1, mode="nearest")
    return shown & (sampled > 0.99)


def detector_matrix(spacing_mm: np.ndarray, spatial_size: int, middle: np.ndarray) -> np.ndarray:
    """``(3, 3)``, from (u, v, 1) of the picture to (u, v, 1) on the detector; as :func:`resample_to_detector`."""
    scale = np.asarray(spacing_mm) / (frame.detector_size_mm() / spatial_size)
    matrix = np.diag([*scale, 1.0])
    matrix[:2, 2] = (spatial_size - 1) / 2 - scale * middle
    return matrix


def _first_and_step(
    shape: np.ndarray, spacing_mm: np.ndarray, spatial_size: int, middle: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    step = frame.detector_size_mm() / spatial_size / np.asarray(spacing_mm)
    return ((shape - 1) / 2 if middle is None else middle) - step * (spatial_size - 1) / 2, step


def _outside(shape: np.ndarray, first: np.ndarray, step: np.ndarray, spatial_size: int) -> list[np.ndarray]:
    """Along u and v, which of the detector's pixels lie outside the picture."""
    return [
        np.abs(first[axis] + step[axis] * np.arange(spatial_size) - (shape[axis] - 1) / 2) > shape[axis] / 2
        for axis in range(2)
    ]


def block_sums(picture: np.ndarray, block: tuple[int, int]) -> np.ndarray:
    """Sums over blocks of pixels, which have to fill the picture."""
    for axis in sorted(range(2), key=lambda axis: -abs(picture.strides[axis])):  # whole lines of memory first
        lines = np.moveaxis(picture, axis, 0)
        parts = [lines[start :: block[axis]] for start in range(block[axis])]
        total = parts[0].copy()
        for part in parts[1:]:
            total += part
        picture = np.moveaxis(total, 0, axis)
    return picture


def _block_means(grey: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Means over blocks of pixels; the last ones are filled up with the edge."""
    if (block == 1).all():
        return grey
    missing = -np.array(grey.shape) % block
    if missing.any():
        grey = np.pad(grey, [(0, count) for count in missing], mode="edge")
    return block_sums(grey, (int(block[0]), int(block[1]))) / np.float32(block.prod())
