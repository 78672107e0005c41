"""PTX-Seg's own segmenter: image processing from HU to labels, nothing learned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from scipy import ndimage

from ..frame import Vector
from .cavities import pleural_cavities
from .free_air import JudgedPocket, edge_blur, find_free_air
from .grid import WorkingGrid
from .labels import SIDES
from .parameters import PARAMETERS, Parameters, TissueHU
from .smoothing import mean_nearby

CT_HU = (-1024.0, 3071.0)  # of a 12-bit scanner


class ClassicalSegmenter:
    """Body, airway, pleural cavities, sides, then free air against lung (``cavities.py``, ``free_air.py``).

    Args:
        numbers: what to decide by.
    """

    def __init__(self, numbers: Parameters = PARAMETERS) -> None:
        self.numbers = numbers

    def __call__(self, hu: np.ndarray, spacing: Vector) -> np.ndarray:
        """Label map uint8 ``(X, Y, Z)`` of a CT ``(X, Y, Z)`` in HU with LPI axes and voxels of ``spacing`` mm."""
        return self.explain(hu, spacing)[0]

    def explain(self, hu: np.ndarray, spacing: Vector) -> tuple[np.ndarray, dict[str, list[JudgedPocket]]]:
        """The label map, and by side (``right``, ``left``) each pocket of air with the reason why it counts or not.

        Their places are in mm from the centre of the CT's first voxel, along its axes.
        """
        optics = self.numbers.optics
        hu = np.clip(hu, *CT_HU)
        missing = max(0, int(np.ceil(0.5 * (optics.least_height_mm / spacing[2] - hu.shape[2]))))
        if missing:
            hu = np.pad(hu, ((0, 0), (0, 0), (missing, missing)), mode="edge")
        coarse = WorkingGrid(hu.shape, spacing, *optics.cavity_grid_mm)
        fine = WorkingGrid(hu.shape, spacing, *optics.air_grid_mm)
        coarse_hu, hu = coarse.to_working(hu), fine.to_working(hu)
        found = pleural_cavities(coarse_hu, coarse.spacing, self.numbers)
        doubt = np.maximum(optics.doubt_mm, optics.doubt_voxels * np.asarray(spacing)) / fine.spacing

        def at_the_edges(cavity: np.ndarray) -> np.ndarray:
            levels = _edge_level(coarse_hu, cavity, coarse.spacing, optics.nearby_mm, self.numbers.tissue)
            share, level = (fine.to_working(coarse.to_scan(volume)) for volume in (cavity, levels))
            return _sharpen(ndimage.gaussian_filter(share, doubt, truncate=2.0), hu, level)

        cavities = np.zeros(hu.shape, np.uint8)
        with ThreadPoolExecutor(2) as pool:
            sharp = pool.map(at_the_edges, (found == 1, found == 2))
            for side, cavity in enumerate(sharp, start=1):
                cavities[cavity & (cavities == 0)] = side
        labels, pockets = label_free_air(hu, cavities, fine.spacing, self.numbers)
        labels = fine.labels_to_scan(labels)
        first = 0.5 * (fine.spacing - spacing) - [0, 0, missing * spacing[2]]  # the working grid's first voxel
        return labels[..., missing : labels.shape[2] - missing], _moved(pockets, first)


def label_free_air(
    hu: np.ndarray, cavities: np.ndarray, spacing: np.ndarray, numbers: Parameters = PARAMETERS
) -> tuple[np.ndarray, dict[str, list[JudgedPocket]]]:
    """Label map 1 to 4 from pleural cavities (1 right, 2 left): in each, free air is told from lung.

    Returns:
        the label map; by side, what :func:`~.free_air.find_free_air` judged.
    """
    labels = np.zeros(hu.shape, np.uint8)
    if not cavities.any():
        return labels, {side: [] for side in SIDES}
    masks = {side: cavities == lung for side, (lung, _) in SIDES.items()}
    blur = edge_blur(hu, cavities > 0, spacing, numbers)
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(
            lambda one, other: find_free_air(hu, masks[one], masks[other], spacing, blur, numbers),
            SIDES,
            reversed(SIDES),
        )
        judged = {}
        for (side, (lung, air)), (mask, pockets) in zip(SIDES.items(), found, strict=True):
            labels[masks[side]] = lung
            labels[mask] = air
            judged[side] = pockets
    return labels, judged


def _moved(pockets: dict[str, list[JudgedPocket]], first: np.ndarray) -> dict[str, list[JudgedPocket]]:
    return {
        side: [
            one._replace(pocket=replace(one.pocket, centre_mm=tuple((first + one.pocket.centre_mm).tolist())))
            for one in judged
        ]
        for side, judged in pockets.items()
    }


def _edge_level(
    hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, sigma_mm: float, tissue: TissueHU
) -> np.ndarray:
    """HU half-way between the chest wall and what the cavity holds nearby: air, lung or collapsed lung."""
    inner = ndimage.binary_erosion(cavity, iterations=2)
    content = mean_nearby(hu, inner, sigma_mm / spacing, 2 * tissue.lung_edge - tissue.wall, least=0.01)
    return 0.5 * (tissue.wall + np.clip(content, tissue.air, tissue.solid))


def _sharpen(share: np.ndarray, hu: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The cavity at the scan's own edges: where the working grid is in doubt, the HU decide."""
    return (share > 0.95) | ((share > 0.05) & (hu < level))
