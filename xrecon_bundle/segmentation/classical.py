"""PTX-Seg's own segmenter: image processing from HU to labels, nothing learned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .cavities import WALL_HU, pleural_cavities
from .free_air import find_free_air
from .grid import WorkingGrid
from .labels import SIDES

CAVITY_MM = 2.0  # the cavities are found at about this voxel size,
AIR_MM = 1.3  # their edges and the free air at about this one, or the scan's own
CT_HU = (-1024.0, 3071.0)


def segment_classical(hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Label map uint8 ``(X, Y, Z)`` of a CT ``(X, Y, Z)`` in HU with LPI axes and voxels of ``spacing`` mm."""
    fine = WorkingGrid(hu.shape, spacing, AIR_MM)
    hu = np.clip(fine.to_working(hu), *CT_HU)
    coarse = WorkingGrid(hu.shape, fine.spacing, CAVITY_MM)
    cavities = pleural_cavities(coarse.to_working(hu), coarse.spacing)

    def one_side(side: int) -> tuple[np.ndarray, np.ndarray]:
        cavity = _sharpen(coarse.to_scan(cavities == side), hu)
        return cavity, find_free_air(hu, cavity, fine.spacing, float(max(spacing)))

    labels = np.zeros(hu.shape, np.uint8)
    with ThreadPoolExecutor(2) as pool:
        for (lung, air), (cavity, free) in zip(SIDES.values(), pool.map(one_side, (1, 2)), strict=True):
            labels[cavity & (labels == 0)] = lung
            labels[free & (labels == lung)] = air
    return fine.labels_to_scan(labels)


def _sharpen(share: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """The cavity at the scan's own edges: where the working grid is in doubt, the HU decide."""
    return (share > 0.95) | ((share > 0.05) & (hu < WALL_HU))
