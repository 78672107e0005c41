"""Free air in a pleural cavity, told from aerated lung by density, by place and by shape.

Density proposes: air is about -1000 HU, lung beside it less dark. Place decides: a pneumothorax lies between chest wall
and lung, so that about half of its surface or more is wall. A bulla or emphysema is surrounded by lung.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

AIR_HU = -1000.0
SOLID_HU = -600.0  # denser voxels hold wall or vessel and say nothing about air
WALL_LAYER_MM = 6.0  # as deep, HU is averaged along the wall and not across it
ALONG_MM = 2.5
BULK_MM = 1.2
NEIGHBOURHOOD_MM = 12.0
WALL_STEP_HU = 900.0  # from lung or air to the chest wall
RIM = 0.75  # half the thickness of the mixed rim, in widths of an edge
LEAST_ML = 4.0
LEAST_WALL = 0.42
LEAST_WALL_THICK = 0.52  # of pockets thicker than THICK_MM
THICK_MM = 9.0


def find_free_air(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The free air in one pleural cavity.

    Args:
        hu: CT ``(X, Y, Z)`` in HU.
        cavity: boolean, one pleural cavity.
        spacing: voxel size ``(3,)`` in mm.

    Returns:
        boolean mask, a part of ``cavity``.
    """
    found = np.zeros_like(cavity)
    if not cavity.any():
        return found
    box = tuple(slice(max(0, s.start - 2), s.stop + 2) for s in ndimage.find_objects(cavity.astype(np.uint8))[0])
    hu, cavity = hu[box].astype(np.float32), cavity[box]
    edge = edge_width(hu, cavity, spacing)
    density = _smooth(hu, cavity, spacing)
    sure, likely = _thresholds(density, cavity, spacing)
    core = cavity & (density < sure)
    low = cavity & (density < likely)
    low &= ndimage.distance_transform_edt(~core, sampling=spacing) <= edge
    pockets = _complete(low, cavity, spacing, max(RIM * edge, 1.1 * max(spacing)))
    voxel = float(np.prod(spacing))
    for pocket, part in enumerate(ndimage.find_objects(pockets), start=1):
        if part is None:
            continue
        part = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in part)
        mask = pockets[part] == pocket
        volume = np.count_nonzero(mask) * voxel
        if volume < 1000.0 * LEAST_ML:
            continue
        wall = _contact(mask, ~cavity[part], spacing)
        inner = _contact(mask, cavity[part] & ~mask, spacing)
        thick = 2.0 * volume / (wall + inner)
        if wall > (LEAST_WALL if thick < THICK_MM else LEAST_WALL_THICK) * (wall + inner):
            found[box][part] |= mask
    return found


def edge_width(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> float:
    """How blurred the CT is, whatever its voxels: mm over which HU rise from the cavity to the chest wall.

    The typical step divided by the median gradient at the cavity's surface; a Gaussian blur gives 2.5 sigma.
    """
    slope = np.sqrt(sum(part**2 for part in np.gradient(hu, *spacing)))
    surface = cavity & ~ndimage.binary_erosion(cavity)
    return WALL_STEP_HU / max(float(np.median(ndimage.maximum_filter(slope, 3)[surface])), 20.0)


def _smooth(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """HU without noise and without what shines in from the wall.

    Normalised convolution over the voxels of the cavity that are not solid. Beside the wall it runs within layers of
    equal depth, so that a thin film of air along the wall keeps its contrast.
    """
    weight = np.clip((SOLID_HU - hu) / 200.0, 0.0, 1.0) * cavity
    share = ndimage.gaussian_filter(weight, BULK_MM / spacing, truncate=3.0)
    mean = ndimage.gaussian_filter(hu * weight, BULK_MM / spacing, truncate=3.0)
    density = np.where(share > 0.05, mean / np.maximum(share, 0.05), hu)
    depth = ndimage.distance_transform_edt(cavity, sampling=spacing)
    step = max(0.75, float(min(spacing)))
    for start in np.arange(0.5 * step, WALL_LAYER_MM, step):
        layer = (depth >= start) & (depth < start + step)
        inside = weight * layer
        share = ndimage.gaussian_filter(inside, ALONG_MM / spacing, truncate=2.0)
        mean = ndimage.gaussian_filter(hu * inside, ALONG_MM / spacing, truncate=2.0)
        layer &= share > 0.02
        density[layer] = mean[layer] / share[layer]
    return density


def _thresholds(density: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """HU below which a voxel is surely and likely air: 35 % and half of the way from air to the lung nearby."""
    lung = cavity & (density < SOLID_HU) & (density > AIR_HU + 50.0)
    typical = float(np.median(density[lung])) if lung.any() else -700.0
    every = tuple(slice(None, None, max(1, int(4.0 / step))) for step in spacing)
    coarse = spacing * [max(1, int(4.0 / step)) for step in spacing]
    inside = (lung[every] & (density[every] > AIR_HU + 0.5 * (typical - AIR_HU))).astype(np.float32)
    share = ndimage.gaussian_filter(inside, NEIGHBOURHOOD_MM / coarse)
    mean = ndimage.gaussian_filter(inside * density[every], NEIGHBOURHOOD_MM / coarse)
    local = np.where(share > 0.02, mean / np.maximum(share, 0.02), typical)
    zoom = np.divide(density.shape, local.shape)
    local = ndimage.affine_transform(local, 1.0 / zoom, output_shape=density.shape, order=1, mode="nearest")
    contrast = np.minimum(local, typical) - AIR_HU
    return AIR_HU + 0.35 * contrast, AIR_HU + 0.5 * contrast


def _complete(low: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, ball: float) -> np.ndarray:
    """Pockets of air grown to the wall and to the lung: every voxel of the cavity goes to the nearer of the two.

    Between air and wall lies a rim of mixed voxels as dense as lung. It is thin: lung is only what a ball fits into.
    """
    lung = cavity & ~low
    core = ndimage.distance_transform_edt(lung, sampling=spacing) > ball
    lung &= ndimage.distance_transform_edt(~core, sampling=spacing) <= ball
    pockets, _ = ndimage.label(low)
    markers = np.where(lung, -1, pockets)
    nearest = ndimage.distance_transform_edt(
        markers == 0, sampling=spacing, return_distances=False, return_indices=True
    )
    markers = markers[tuple(nearest)]
    return np.where(cavity & (markers > 0), markers, 0)


def _contact(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> float:
    """Area in mm^2 of the voxel faces between two masks."""
    area = 0.0
    for axis in range(3):
        a, b = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
        faces = np.count_nonzero(a[1:] & b[:-1]) + np.count_nonzero(a[:-1] & b[1:])
        area += faces * float(np.prod(spacing)) / spacing[axis]
    return area
