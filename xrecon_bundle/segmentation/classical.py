"""PTX-Seg's own segmenter: image processing from HU to labels, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage

from .cavities import WALL_HU, pleural_cavities
from .free_air import edge_blur, find_free_air
from .grid import WorkingGrid
from .labels import SIDES

CAVITY_GRID_MM = (2.0, 3.0)  # voxel sizes, finest and coarsest, on which the cavities are found,
AIR_GRID_MM = (1.3, 2.5)  # and on which their edges and the free air are
LEAST_HEIGHT_MM = 20.0  # a lower stack of slices is continued by its first and its last
CT_HU = (-1024.0, 3071.0)
TISSUE_HU = 30.0  # of the chest wall
CONTENT_HU = (-1000.0, -600.0)  # of what a cavity holds: air to dense lung
NEARBY_MM = 4.0  # sigma within which that is averaged
DOUBT_MM = 1.0  # sigma of the coarse outline's error, at least,
DOUBT = 0.3  # and in voxels of the scan


class ClassicalSegmenter:
    """Body, airway, pleural cavities, sides, then free air against lung (``cavities.py``, ``free_air.py``)."""

    def __call__(self, hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Label map uint8 ``(X, Y, Z)`` of a CT ``(X, Y, Z)`` in HU with LPI axes and voxels of ``spacing`` mm."""
        hu = np.clip(hu, *CT_HU)
        missing = max(0, int(np.ceil(0.5 * (LEAST_HEIGHT_MM / spacing[2] - hu.shape[2]))))
        if missing:
            hu = np.pad(hu, ((0, 0), (0, 0), (missing, missing)), mode="edge")
            return self(hu, spacing)[..., missing:-missing]
        coarse, fine = WorkingGrid(hu.shape, spacing, *CAVITY_GRID_MM), WorkingGrid(hu.shape, spacing, *AIR_GRID_MM)
        coarse_hu, hu = coarse.to_working(hu), fine.to_working(hu)
        found = pleural_cavities(coarse_hu, coarse.spacing)
        doubt = np.maximum(DOUBT_MM, DOUBT * np.asarray(spacing)) / fine.spacing

        def at_the_edges(cavity: np.ndarray) -> np.ndarray:
            share, level = (
                fine.to_working(coarse.to_scan(volume))
                for volume in (cavity, _edge_level(coarse_hu, cavity, coarse.spacing))
            )
            return _sharpen(ndimage.gaussian_filter(share, doubt, truncate=2.0), hu, level)

        cavities = np.zeros(hu.shape, np.uint8)
        with ThreadPoolExecutor(2) as pool:
            sharp = pool.map(at_the_edges, (found == 1, found == 2))
            for side, cavity in enumerate(sharp, start=1):
                cavities[cavity & (cavities == 0)] = side
        return fine.labels_to_scan(label_free_air(hu, cavities, fine.spacing))


def label_free_air(hu: np.ndarray, cavities: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Label map 1 to 4 from pleural cavities (1 right, 2 left): in each, free air is told from lung."""
    labels = np.zeros(hu.shape, np.uint8)
    if not cavities.any():
        return labels
    sides = {side: cavities == side for side in (1, 2)}
    blur = edge_blur(hu, cavities > 0, spacing)
    with ThreadPoolExecutor(2) as pool:
        free = pool.map(lambda side: find_free_air(hu, sides[side], sides[3 - side], spacing, blur), sides)
        for side, (lung, air), found in zip(sides, SIDES.values(), free, strict=True):
            labels[sides[side]] = lung
            labels[found] = air
    return labels


def _edge_level(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """HU half-way between the chest wall and what the cavity holds nearby: air, lung or collapsed lung."""
    inner = ndimage.binary_erosion(cavity, iterations=2).astype(np.float32)
    share = ndimage.gaussian_filter(inner, NEARBY_MM / spacing, truncate=2.0)
    mean = ndimage.gaussian_filter(inner * hu, NEARBY_MM / spacing, truncate=2.0)
    content = np.where(share > 0.01, mean / np.maximum(share, 0.01), 2 * WALL_HU - TISSUE_HU)
    return 0.5 * (TISSUE_HU + np.clip(content, *CONTENT_HU))


def _sharpen(share: np.ndarray, hu: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The cavity at the scan's own edges: where the working grid is in doubt, the HU decide."""
    return (share > 0.95) | ((share > 0.05) & (hu < level))
