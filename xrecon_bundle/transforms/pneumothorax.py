"""Put a pneumothorax of known size into a chest CT, real or synthetic.

The pleural cavity stays; the lung in it shrinks towards its hilum and the freed space fills with air. In the supine
patient air rises to the front, so the front of the lung leaves the wall first and the back last. What the lung
contains is carried with it and grows denser: the mass of tissue is kept, until the lung is airless and blood must
leave it. A large pneumothorax pushes the mediastinum to the other side.

Arrays are ``(X, Y, Z)`` in the chest frame's orientation (LPI: x to the left, y to the back, z to the feet).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

Side = Literal["right", "left"]
_LUNG = {"right": 1, "left": 2}
_AIR = {"right": 3, "left": 4}
_AIR_HU = -1000.0
_COLLAPSED = 1.03  # airless lung, relative to water


@dataclass(frozen=True)
class Pneumothorax:
    """Side, and occupancy: the share of that pleural cavity which is air, 0 to 0.9."""

    side: Side
    occupancy: float

    def __post_init__(self) -> None:
        if self.side not in _LUNG:
            raise ValueError(f"side must be 'right' or 'left', not {self.side!r}")
        if not 0.0 <= self.occupancy <= 0.9:
            raise ValueError(f"occupancy must be between 0 and 0.9, not {self.occupancy}")


def insert_pneumothorax(
    hu: np.ndarray,
    lungs: np.ndarray,
    spacing: Sequence[float],
    side: Side,
    occupancy: float,
    seed: int | np.random.Generator = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Collapse one lung.

    Args:
        hu: CT ``(X, Y, Z)`` in HU, LPI.
        lungs: label map ``(X, Y, Z)``: 1 right lung, 2 left lung. Values above 4 are carried along unchanged.
        spacing: voxel size in mm.
        side: ``"right"`` or ``"left"``, the patient's.
        occupancy: pneumothorax / (pneumothorax + lung), 0 to 0.9. Counted in voxels of the returned labels.
        seed: of the collapsed lung's form, the shift and the noise in the air.

    Returns:
        the CT (float32 HU) and the labels, now with 3 (right) or 4 (left) where the air is.

    Raises:
        ValueError: side or occupancy out of range, shapes that differ, or no lung on that side.
    """
    Pneumothorax(side, occupancy)
    if hu.shape != lungs.shape:
        raise ValueError(f"hu {hu.shape} and lungs {lungs.shape} must have one shape")
    if not (lungs == _LUNG[side]).any():
        raise ValueError(f"the label map holds no {side} lung ({_LUNG[side]}), so no pneumothorax can be put there")
    hu, labels = hu.astype(np.float32), lungs.copy()
    if occupancy == 0:
        return hu, labels
    rng = np.random.default_rng(seed)
    spacing = np.asarray(spacing, dtype=float)
    shift = rng.uniform(0.4, 1.0) * 28.0 * max(0.0, occupancy - 0.3)
    if shift > 0.1:
        hu, labels = _shift_mediastinum(hu, labels, spacing, side, shift)
    _collapse(hu, labels, spacing, side, occupancy, rng)
    return hu, labels


def _collapse(
    hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, side: Side, occupancy: float, rng: np.random.Generator
) -> None:
    """Shrink the lung in place: ``hu`` and ``labels`` are changed inside the cavity and on its rim."""
    mask = labels == _LUNG[side]
    box = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    mask, hu, labels = mask[box], hu[box], labels[box]
    # Vessels that the lung mask left out move with the lung; the other lung and the organs do not.
    closing = ndimage.binary_closing(mask, iterations=max(1, round(4.0 / spacing.max())))
    cavity = mask | (closing & (labels == 0))
    cavity |= ndimage.binary_fill_holes(cavity)

    content = _without_rim(hu, cavity)
    voxels = np.argwhere(cavity)
    anchor = _hilum(voxels, side)
    collapse = _Collapse(anchor, spacing, side, rng)
    soft = ndimage.gaussian_filter(cavity.astype(np.float32), 0.6)
    few = voxels if len(voxels) <= 150_000 else voxels[rng.choice(len(voxels), 150_000, replace=False)]
    prepared = collapse.prepare(few)
    amount = _bisect(lambda k: 1 - (_sample(soft, prepared.source(k)) > 0.5).mean(), occupancy, 0.0, 12.0)

    rim = np.argwhere(ndimage.binary_dilation(cavity) & ~cavity)
    every = np.concatenate([voxels, rim])
    source = collapse.prepare(every).source(amount)
    membership = _sample(soft, source)
    is_lung = membership[: len(voxels)] > 0.5
    cover = np.clip((membership - 0.5) * 2.0 + 0.5, 0.0, 1.0)
    shrink = max(1 - occupancy, 0.05) ** (1 / 3)
    # Shrinking skips voxels: smooth first, as the sampling theorem asks.
    smooth = ndimage.gaussian_filter(content, 0.35 * np.sqrt(1 / shrink**2 - 1))
    tissue = np.maximum(_sample(smooth, source) / 1000 + 1, 0.0)
    mass = np.maximum(content[cavity] / 1000 + 1, 0.0).sum()
    weight = cover[: len(voxels)]
    inside = tissue[: len(voxels)]
    denser = _bisect(lambda g: (_compress(inside, g) * weight).sum() / mass, 1.0, 0.5, 40.0)
    lung_hu = (_compress(tissue, denser) - 1) * 1000
    noise = _air_noise(hu, cavity, rng)
    new = cover * lung_hu + (1 - cover) * (_AIR_HU + noise[tuple(every.T)])

    # On the rim a voxel holds some chest wall: that share stays.
    wall = np.zeros(len(every), dtype=np.float32)
    edge = np.concatenate([~ndimage.binary_erosion(cavity)[tuple(voxels.T)], np.ones(len(rim), dtype=bool)])
    before, plain = hu[tuple(every.T)], content[tuple(every.T)]
    wall[edge] = np.clip((before - plain) / np.maximum(30.0 - plain, 50.0), 0.0, 1.0)[edge]
    hu[tuple(every.T)] = np.where(wall < 1, wall * np.maximum(before, 30.0) + (1 - wall) * new, before)
    labels[tuple(voxels.T)] = np.where(is_lung, _LUNG[side], _AIR[side])


class _Collapse:
    """The map from a collapsed lung back to the healthy one: each ray from the anchor is stretched by its own factor.

    A ray's points stay on it, so the map has no folds. Along direction ``n`` the lung shrinks by
    ``exp(-k w(n)^(1 / (1 + k)))``: ``w`` is largest to the front, nearly none to the back and at the hilum, where the
    lung hangs; as ``k`` grows, it gives way everywhere.
    """

    def __init__(self, anchor: np.ndarray, spacing: np.ndarray, side: Side, rng: np.random.Generator) -> None:
        self.anchor, self.spacing = anchor, spacing
        self.medial = np.array([1.0 if side == "right" else -1.0, 0.0, 0.0])
        lift = np.array([0.0, -1.0, -rng.uniform(0.0, 0.6)])
        self.up = lift / np.linalg.norm(lift) * rng.uniform(0.5, 0.85)
        self.waves = rng.normal(size=(6, 3)) * 2.2
        self.phases = rng.uniform(0, 2 * np.pi, 6)
        self.lobes = rng.uniform(0.05, 0.2)

    def prepare(self, voxels: np.ndarray) -> _Rays:
        offset = (voxels - self.anchor) * self.spacing
        direction = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-3)
        weight = ((1 + direction @ self.up) / (1 + np.linalg.norm(self.up))) ** 2
        hangs = np.exp(-(((1 - direction @ self.medial) / 0.25) ** 2))
        weight *= 1 - 0.97 * hangs
        weight *= np.exp(self.lobes * np.sin(direction @ self.waves.T + self.phases).sum(axis=1) / 1.7)
        return _Rays((voxels - self.anchor).astype(np.float32), weight.astype(np.float32), self.anchor)


@dataclass
class _Rays:
    offset: np.ndarray
    weight: np.ndarray
    anchor: np.ndarray

    def source(self, amount: float) -> np.ndarray:
        """Where in the healthy lung ``(N, 3)`` each point comes from, in voxels."""
        stretch = np.exp(np.minimum(amount * self.weight ** (1 / (1 + amount)), 6.0))
        return self.anchor + self.offset * stretch[:, None]


def _hilum(voxels: np.ndarray, side: Side) -> np.ndarray:
    """A place just lateral of the hilum, inside the cavity: half-way up, behind the middle."""
    low, high = np.percentile(voxels, 2, axis=0), np.percentile(voxels, 98, axis=0)
    wanted = low + (high - low) * [0.78 if side == "right" else 0.22, 0.58, 0.47]
    nearest = np.argmin((((voxels - wanted) / (high - low)) ** 2).sum(axis=1))
    return voxels[nearest].astype(float)


def _without_rim(hu: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """HU of the lung, continued smoothly over its rim and beyond, where the chest wall shines in."""
    core = ndimage.binary_erosion(cavity)
    core = (core if core.any() else cavity).astype(np.float32)
    total = np.zeros(hu.shape, dtype=np.float32)
    missing = np.ones(hu.shape, dtype=bool)
    for width in (1.2, 3.0, 9.0):
        near = ndimage.gaussian_filter(core, width)
        mean = ndimage.gaussian_filter(np.where(core > 0, np.minimum(hu, -300.0), 0.0), width)
        fill = missing & (near > 0.02)
        total[fill] = mean[fill] / near[fill]
        missing &= ~fill
    total[missing] = np.median(hu[core > 0])
    return np.where(core > 0, hu, total).astype(np.float32)


def _compress(tissue: np.ndarray, factor: float) -> np.ndarray:
    """Density of lung tissue (1 is water) packed ``factor`` times closer, at most airless; denser things keep theirs."""
    return np.maximum(np.minimum(tissue * factor, _COLLAPSED), tissue)


def _air_noise(hu: np.ndarray, cavity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    detail = (hu - ndimage.gaussian_filter(hu, 1.0))[cavity]
    level = float(np.clip(1.48 * np.median(np.abs(detail)), 2.0, 40.0))
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.6)
    return noise * np.float32(level / noise.std())


def _shift_mediastinum(
    hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, side: Side, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move what lies between the lungs ``shift`` mm away from ``side``; chest wall, spine and diaphragm stay.

    The displacement is along x, greatest between the lungs and zero at the cage, and grows by less than 1 mm a mm, so
    it does not fold. Lung density follows its determinant.
    """
    lungs = (labels == 1) | (labels == 2)
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    sizes = [s.stop - s.start for s in box]
    t = [(np.arange(n) + 0.5) / n for n in sizes]
    across = np.sin(np.pi * t[0]) ** 2
    front_back = _smooth_step(t[1] / 0.22) * _smooth_step((0.85 - t[1]) / 0.35)
    down = _smooth_step(t[2] / 0.25) * _smooth_step((1.0 - t[2]) / 0.45)
    sign = 1.0 if side == "right" else -1.0
    width = sign * shift / spacing[0]
    move = (width * across[:, None, None] * front_back[None, :, None] * down[None, None, :]).astype(np.float32)
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in sizes), indexing="ij", sparse=True)
    source = np.stack(np.broadcast_arrays(grid[0] - move, grid[1], grid[2]))
    moved_hu, moved_labels = hu.copy(), labels.copy()
    view = ndimage.map_coordinates(hu[box], source, order=1, mode="nearest")
    kinds = ndimage.map_coordinates(labels[box], source, order=0, mode="nearest")
    determinant = 1 - np.gradient(move, axis=0)
    in_lung = (kinds == 1) | (kinds == 2)
    view[in_lung] = (_compress_local(view[in_lung] / 1000 + 1, determinant[in_lung]) - 1) * 1000
    moved_hu[box], moved_labels[box] = view, kinds
    return moved_hu, moved_labels


def _compress_local(tissue: np.ndarray, factor: np.ndarray) -> np.ndarray:
    return np.where(tissue > 0.9, tissue, np.minimum(tissue * factor, _COLLAPSED))


def _smooth_step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _sample(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(array, index.T, order=1, mode="nearest")


def _bisect(function, wanted: float, low: float, high: float, rounds: int = 26) -> float:  # noqa: ANN001
    """Argument at which the rising ``function`` reaches ``wanted``; an end where it does not."""
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        if function(middle) < wanted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
