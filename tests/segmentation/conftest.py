"""An analytic chest, not symmetric in any axis, whose labels are known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

SPACING = (3.0, 2.5, 3.5)
SHAPE = (112, 92, 80)


@dataclass
class Chest:
    """A CT in HU, its labels 1 to 4, and the voxel size."""

    hu: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float] = SPACING


def ball(centre: tuple[float, ...], radii: tuple[float, ...]) -> np.ndarray:
    """Ellipsoid in mm on the phantom's grid."""
    grid = [(np.arange(n) + 0.5) * step for n, step in zip(SHAPE, SPACING, strict=True)]
    x, y, z = np.meshgrid(*grid, indexing="ij", sparse=True)
    return sum(((axis - c) / r) ** 2 for axis, c, r in zip((x, y, z), centre, radii, strict=True)) < 1


def make_chest(
    air: str | None = None, depth: float = 0.0, bulla: float = 0.0, blur_mm: float = 0.0, noise: float = 20.0
) -> Chest:
    """A body with two unequal lungs, trachea, heart, vessels, bowel gas and a table.

    Args:
        air: side whose front ``depth`` mm are free air.
        depth: thickness of the free air.
        bulla: radius in mm of a ball of air inside the right lung.
        blur_mm: Gaussian sigma of the scanner.
        noise: standard deviation in HU.
    """
    rng = np.random.default_rng(5)
    hu = np.full(SHAPE, -1000.0)
    hu[ball((168, 115, 140), (155, 98, 400))] = 30
    hu[20:100, -4:, :] = 300
    right, left = ball((100, 115, 140), (58, 76, 105)), ball((240, 115, 150), (52, 72, 92))
    vessels = ndimage.gaussian_filter(rng.normal(size=SHAPE), 1.0)
    vessels = vessels > 3.0 * vessels.std()
    labels = np.zeros(SHAPE, np.uint8)
    front = (np.arange(SHAPE[1]) + 0.5)[None, :, None] * SPACING[1]
    for lung, mask, side, top in ((1, right, "right", 39.0), (2, left, "left", 43.0)):
        hu[mask] = -860
        hu[mask & vessels] = 20
        labels[mask] = lung
        if side == air:
            free = mask & (front < top + depth)
            hu[free] = -1000
            labels[free] = lung + 2
    hu[ball((171, 100, 40), (9, 8, 75))] = -1000  # trachea
    hu[ball((185, 80, 200), (42, 40, 50)) & (labels == 0)] = 40
    hu[ball((240, 90, 262), (18, 20, 10))] = -1000  # stomach bubble
    if bulla:
        hu[ball((100, 115, 120), (bulla,) * 3)] = -1000
    hu = ndimage.gaussian_filter(hu, blur_mm / np.array(SPACING)) if blur_mm else hu
    return Chest((hu + rng.normal(0, noise, SHAPE)).astype(np.float32), labels)


@pytest.fixture(scope="session")
def healthy() -> Chest:
    return make_chest()


@pytest.fixture(scope="session")
def collapsed() -> Chest:
    """Free air in front of the left lung, 40 mm deep."""
    return make_chest(air="left", depth=40.0)
