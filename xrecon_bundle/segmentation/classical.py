"""PTX-Seg's own segmenter: image processing from HU to labels, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from .cavities import WALL_HU, pleural_cavities
from .free_air import find_free_air
from .grid import WorkingGrid
from .labels import SIDES

CAVITY_MM = 2.0  # the cavities are found at about this voxel size,
AIR_MM = 1.3  # their edges and the free air at about this one, or the scan's own
CT_HU = (-1024.0, 3071.0)


class ClassicalSegmenter:
    """Body, airway, pleural cavities, sides, then free air against lung (``cavities.py``, ``free_air.py``)."""

    def __call__(self, hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
        """Label map uint8 ``(X, Y, Z)`` of a CT ``(X, Y, Z)`` in HU with LPI axes and voxels of ``spacing`` mm."""
        fine = WorkingGrid(hu.shape, spacing, AIR_MM)
        hu = np.clip(fine.to_working(hu), *CT_HU)
        coarse = WorkingGrid(hu.shape, fine.spacing, CAVITY_MM)
        found = pleural_cavities(coarse.to_working(hu), coarse.spacing)
        cavities = np.zeros(hu.shape, np.uint8)
        for side in (1, 2):
            cavities[_sharpen(coarse.to_scan(found == side), hu) & (cavities == 0)] = side
        return fine.labels_to_scan(label_free_air(hu, cavities, fine.spacing))


def label_free_air(hu: np.ndarray, cavities: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Label map 1 to 4 from pleural cavities (1 right, 2 left): in each, free air is told from lung."""
    labels = np.zeros(hu.shape, np.uint8)
    with ThreadPoolExecutor(2) as pool:
        free = pool.map(lambda side: find_free_air(hu, cavities == side, spacing), (1, 2))
        for side, (lung, air), found in zip((1, 2), SIDES.values(), free, strict=True):
            labels[cavities == side] = lung
            labels[found] = air
    return labels


def _sharpen(share: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """The cavity at the scan's own edges: where the working grid is in doubt, the HU decide."""
    return (share > 0.95) | ((share > 0.05) & (hu < WALL_HU))
