"""What else makes a lung lighter or darker in a radiograph: no pneumothorax, but easily taken for one.

Pneumonia, emphysema, lungs of uneven density, pleural effusion. Coarse: forms and HU are those of textbooks
(consolidation near soft tissue, ground glass some 300 HU above lung, fluid near water), not measured on patients.

Arrays are ``(X, Y, Z)`` in the chest frame's orientation (LPI).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .. import frame
from ..segmentation.labels import SIDES

FLUID_HU = 10.0
_CONSOLIDATED_HU = (-550.0, 20.0)  # ground glass to consolidation
_MOST_FOCI = 5


def add_lung_disease(
    hu: np.ndarray, labels: np.ndarray, spacing: frame.Vector, seed: int | np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Each of the diseases by chance, in one lung or both.

    Args:
        hu: CT ``(X, Y, Z)`` in HU, LPI.
        labels: label map ``(X, Y, Z)``: 1 right lung, 2 left lung.
        spacing: voxel size in mm.
        seed: of what is drawn.

    Returns:
        the CT (float32 HU) and the labels (their dtype): 0 where fluid takes the lung's place.

    Raises:
        ValueError: the shapes differ.
    """
    if hu.shape != labels.shape:
        raise ValueError(f"hu {hu.shape} and labels {labels.shape} must have one shape")
    rng = np.random.default_rng(seed)
    edges = np.asarray(spacing, dtype=float)
    hu, labels = hu.astype(np.float32), labels.copy()
    where = np.argwhere(np.isin(labels, [lung for lung, _ in SIDES.values()]))
    if not len(where):
        return hu, labels
    # Only the box around the lungs is worked on.
    box = tuple(slice(low, high + 1) for low, high in zip(where.min(axis=0), where.max(axis=0), strict=True))
    for lung, _ in SIDES.values():
        inside = labels[box] == lung
        if not inside.any():
            continue
        part = hu[box]
        chances = rng.random(4)
        if chances[0] < 0.4:
            part = _uneven(part, inside, rng)
        if chances[1] < 0.25:
            part = _emphysema(part, inside, edges, rng)
        if chances[2] < 0.5:
            part = _pneumonia(part, inside, edges, rng)
        if chances[3] < 0.3:
            part, fluid = _effusion(part, inside, edges, rng)
            labels[box][fluid] = 0
        hu[box] = part
    return hu, labels


def _uneven(hu: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A whole lung with more or less blood in it than the other."""
    return np.where(inside & (hu < -300), (hu + 1000) * rng.uniform(0.65, 1.4) - 1000, hu)


def _emphysema(hu: np.ndarray, inside: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lung tissue lost in places, vessels kept."""
    share = rng.uniform(0.3, 0.9) * _patches(hu.shape, edges, rng.uniform(15, 60), rng)
    return np.where(inside & (hu < -600), hu - share * (hu + 990).clip(min=0), hu)


def _pneumonia(hu: np.ndarray, inside: np.ndarray, edges: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Foci in which the air spaces are filled, patchy at their edges."""
    places = np.argwhere(inside)
    texture = _patches(hu.shape, edges, rng.uniform(4, 12), rng)
    density = np.zeros(hu.shape, dtype=np.float32)
    axes = [np.arange(n)[tuple(slice(None) if a == b else None for b in range(3))] for a, n in enumerate(hu.shape)]
    for _ in range(rng.integers(1, _MOST_FOCI + 1)):
        middle = places[rng.integers(len(places))]
        reach = rng.uniform(10, 50) * np.exp(rng.normal(0, 0.25, 3))
        apart = sum(((axis - at) * edge / r) ** 2 for axis, at, edge, r in zip(axes, middle, edges, reach, strict=True))
        density = np.maximum(density, rng.uniform(0.4, 1.0) * np.exp(-0.5 * apart**2))
    share = density * (0.4 + 0.6 * texture)
    filled = np.maximum(hu, rng.uniform(*_CONSOLIDATED_HU))
    return np.where(inside, hu + share * (filled - hu), hu)


def _effusion(
    hu: np.ndarray, inside: np.ndarray, edges: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Fluid at the base (of who stands) with its meniscus along the chest wall, or behind (of who lies)."""
    axis = 2 if rng.random() < 0.7 else 1
    along = np.flatnonzero(inside.any(axis=tuple(other for other in range(3) if other != axis)))
    extent = along[-1] - along[0]
    level = along[-1] - rng.uniform(0.03, 0.4) * extent
    to_wall = ndimage.distance_transform_edt(inside, edges)
    meniscus_mm = rng.uniform(5, 30) * np.exp(-to_wall / rng.uniform(4, 12))
    place = np.arange(hu.shape[axis]).reshape([-1 if other == axis else 1 for other in range(3)])
    fluid = inside & (place + meniscus_mm / edges[axis] > level)
    return np.where(fluid, FLUID_HU + rng.normal(0, 8), hu), fluid


def _patches(shape: tuple[int, ...], edges: np.ndarray, width_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field between 0 and 1."""
    step = max(1, int(width_mm / 2 / edges.max()))  # drawn coarse, as it is smooth
    coarse = [-(-n // step) + 2 for n in shape]
    noise = ndimage.gaussian_filter(rng.standard_normal(coarse, dtype=np.float32), width_mm / edges / step)
    noise = 1 / (1 + np.exp(-2 * noise / noise.std()))
    index = np.meshgrid(*(np.arange(n) / step for n in shape), indexing="ij")
    return ndimage.map_coordinates(noise, index, order=1)
