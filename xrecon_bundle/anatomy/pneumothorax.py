"""Put a pneumothorax of known size into a chest CT, real or synthetic.

The pleural cavity stays; the lung in it shrinks towards its hilum and the freed space fills with air. Air gathers where
it rises to: at the apex of a patient who stands, at the front and the base of one who lies on the back. There the lung
leaves the wall; elsewhere it stays apposed, until a large pneumothorax detaches it all round. What the lung contains is
carried with it and grows denser: the mass of tissue is kept, until the lung is airless and blood must leave it. A large
pneumothorax pushes the mediastinum to the other side.

Arrays are ``(X, Y, Z)`` in the chest frame's orientation (LPI: x to the left, y to the back, z to the feet).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

from .. import frame
from ..segmentation.labels import SIDES
from ..segmentation.parameters import TISSUE
from ..segmentation.smoothing import mean_nearby

Side = Literal["right", "left"]
Posture = Literal["erect", "supine"]
_COLLAPSED = 1.03  # airless lung, relative to water
_LABEL_MM = 2.0  # as far a label map's outline may be off


@dataclass(frozen=True)
class Pneumothorax:
    """Side, and occupancy: the share of that pleural cavity which is air, 0 to 0.9."""

    side: Side
    occupancy: float

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise ValueError(f"side must be 'right' or 'left', not {self.side!r}")
        if not 0.0 <= self.occupancy <= 0.9:
            raise ValueError(f"occupancy must be between 0 and 0.9, not {self.occupancy}")


def insert_pneumothorax(
    hu: np.ndarray,
    lungs: np.ndarray,
    spacing: frame.Vector,
    side: Side,
    occupancy: float,
    seed: int | np.random.Generator = 0,
    posture: Posture | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Collapse one lung.

    Args:
        hu: CT ``(X, Y, Z)`` in HU, LPI.
        lungs: label map ``(X, Y, Z)``: 1 right lung, 2 left lung. Values above 4 are carried along unchanged.
        spacing: voxel size in mm.
        side: ``"right"`` or ``"left"``, the patient's.
        occupancy: pneumothorax / (pneumothorax + lung), 0 to 0.9. Counted in voxels of the returned labels.
        seed: of the collapsed lung's form, the mediastinum's shift and the noise in the air.
        posture: ``"erect"``, air at the apex and beside it, or ``"supine"``, in front; by default the seed draws one.

    Returns:
        the CT (float32 HU) and the labels, now with 3 (right) or 4 (left) where the air is.

    Raises:
        ValueError: side, occupancy or posture out of range, shapes that differ, no lung or already air on that side.
    """
    Pneumothorax(side, occupancy)
    if posture not in (None, "erect", "supine"):
        raise ValueError(f"posture must be 'erect' or 'supine', not {posture!r}")
    if hu.shape != lungs.shape:
        raise ValueError(f"hu {hu.shape} and lungs {lungs.shape} must have one shape")
    lung, air = SIDES[side]
    if not (lungs == lung).any():
        raise ValueError(f"the label map holds no {side} lung ({lung}), so no pneumothorax can be put there")
    if (lungs == air).any():
        raise ValueError(f"the label map already holds a {side} pneumothorax ({air})")
    hu, labels = hu.astype(np.float32), lungs.copy()
    if occupancy == 0:
        return hu, labels
    rng = np.random.default_rng(seed)
    edges = np.asarray(spacing, dtype=float)
    shift = rng.uniform(0.4, 1.0) * 28.0 * max(0.0, occupancy - 0.3)
    if shift > 0.1:
        hu, labels = _shift_mediastinum(hu, labels, edges, side, shift)
    posture = posture or ("erect", "supine")[rng.integers(2)]
    _collapse(hu, labels, edges, side, posture, occupancy, rng)
    return np.maximum(hu, np.float32(frame.AIR_HU)), labels


def _collapse(
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: np.ndarray,
    side: Side,
    posture: Posture,
    occupancy: float,
    rng: np.random.Generator,
) -> None:
    """Shrink the lung in place: ``hu`` and ``labels`` are changed inside the cavity and on its rim."""
    lung, air = SIDES[side]
    mask = labels == lung
    box = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in ndimage.find_objects(mask.astype(np.uint8))[0])
    mask, hu, labels = mask[box], hu[box], labels[box]
    # Vessels that the lung mask left out move with the lung; the other lung and the organs do not.
    closing = ndimage.binary_closing(mask, iterations=max(1, round(4.0 / spacing.max())))
    cavity = mask | (closing & (labels == 0))
    cavity |= ndimage.binary_fill_holes(cavity)
    cavity = _to_the_wall(hu, cavity, labels == 0, spacing)

    content = _without_rim(hu, cavity)
    voxels = np.argwhere(cavity)
    anchor = _hilum(voxels, side)
    collapse = _Collapse(anchor, spacing, side, posture, rng)
    soft = ndimage.gaussian_filter(cavity.astype(np.float32), 0.6)
    few = voxels if len(voxels) <= 150_000 else voxels[rng.choice(len(voxels), 150_000, replace=False)]
    prepared = collapse.prepare(few)
    amount = _bisect(lambda k: 1 - (_membership(soft, few, prepared.source(k)) > 0.5).mean(), occupancy, 0.0, 12.0)

    # On the cavity's rim a voxel holds some chest wall: that share stays where it is.
    rim = np.argwhere(ndimage.binary_dilation(cavity) & ~cavity)
    every = np.concatenate([voxels, rim])
    at = tuple(every.T)
    before, lung_before = hu[at], content[at]
    edge = np.concatenate([~ndimage.binary_erosion(cavity)[tuple(voxels.T)], np.ones(len(rim), dtype=bool)])
    wall = np.where(edge, np.clip((before - lung_before) / np.maximum(TISSUE.wall - lung_before, 50.0), 0.0, 1.0), 0.0)
    wall_hu = np.maximum(before, TISSUE.wall)

    source = collapse.prepare(every).source(amount)
    membership = _membership(soft, every, source)
    is_lung = membership[: len(voxels)] > 0.5
    cover = np.clip(2.0 * membership - 0.5, 0.0, 1.0)
    # Shrinking skips voxels: smooth first, as the sampling theorem asks.
    shrink = (1 - occupancy) ** (1 / 3)
    smooth = ndimage.gaussian_filter(content, 0.35 * np.sqrt(1 / shrink**2 - 1))
    tissue = np.maximum(_sample(smooth, source) / 1000 + 1, 0.0)
    mass = ((1 - wall) * np.maximum(lung_before / 1000 + 1, 0.0)).sum()
    weight = (1 - wall) * cover
    denser = _bisect(lambda factor: (weight * _compress(tissue, factor)).sum(), mass, 0.3, 60.0)
    lung_hu = (_compress(tissue, denser) - 1) * 1000
    air_hu = TISSUE.air + _air_noise(hu, cavity, rng)[at]
    hu[at] = wall * wall_hu + (1 - wall) * (cover * lung_hu + (1 - cover) * air_hu)
    labels[tuple(voxels.T)] = np.where(is_lung, lung, air)


class _Collapse:
    """The map from a collapsed lung back to the healthy one: each ray from the anchor is stretched by its own factor.

    A ray's points stay on it, so the map has no folds. ``height(n)`` says how high direction ``n`` points, 0 to 1. The
    air fills from the top: above its edge the lung shrinks along ``n`` by an exponent that grows linearly with the
    height, so the visceral pleura leaves the wall at an angle; below it stays where it was. The edge falls as the
    pneumothorax grows, from a cap to below the lowest point. At the hilum the lung hangs.
    """

    def __init__(
        self, anchor: np.ndarray, spacing: np.ndarray, side: Side, posture: Posture, rng: np.random.Generator
    ) -> None:
        self.anchor, self.spacing = anchor, spacing
        self.medial = np.array([1.0 if side == "right" else -1.0, 0.0, 0.0])
        if posture == "supine":
            up = np.array([0.0, -1.0, rng.uniform(-0.4, 0.2)])
        else:
            up = np.array([0.0, rng.uniform(-0.3, 0.3), -1.0]) - rng.uniform(0.1, 0.6) * self.medial
        self.up = up / np.linalg.norm(up)
        self.waves = rng.normal(size=(6, 3)) * 2.2
        self.phases = rng.uniform(0, 2 * np.pi, 6)
        self.lobes = rng.uniform(0.02, 0.08)

    def prepare(self, voxels: np.ndarray) -> _Rays:
        offset = (voxels - self.anchor) * self.spacing
        direction = offset / np.maximum(np.linalg.norm(offset, axis=1, keepdims=True), 1e-3)
        height = (1 + direction @ self.up) / 2
        height += self.lobes * np.sin(direction @ self.waves.T + self.phases).sum(axis=1) / 1.7
        free = 1 - 0.97 * np.exp(-(((1 - direction @ self.medial) / 0.25) ** 2))
        return _Rays(
            (voxels - self.anchor).astype(np.float32), height.astype(np.float32), free.astype(np.float32), self.anchor
        )


@dataclass
class _Rays:
    offset: np.ndarray
    height: np.ndarray
    free: np.ndarray  # 0 where the lung hangs at its hilum, 1 elsewhere
    anchor: np.ndarray

    def source(self, amount: float) -> np.ndarray:
        """Where in the healthy lung ``(N, 3)`` each point comes from, in voxels."""
        edge = 0.85 - 1.2 * (1 - np.exp(-amount / 0.5))
        exponent = amount * self.free * np.maximum(self.height - edge, 0.0) / (1 - edge)
        return self.anchor + self.offset * np.exp(np.minimum(exponent, 6.0))[:, None]


def _membership(soft: np.ndarray, points: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Share of lung at ``points`` that come from ``source``; what moves less than a voxel leaves no film of air."""
    still = 1 - np.clip(np.linalg.norm(source - points, axis=1), 0.0, 1.0)
    return still + (1 - still) * _sample(soft, source)


def _to_the_wall(hu: np.ndarray, cavity: np.ndarray, free: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The cavity with what a label map leaves out between lung and wall: voxels that are more lung than wall."""
    near = ndimage.distance_transform_edt(~cavity, sampling=spacing) <= max(_LABEL_MM, float(spacing.max()))
    between = 0.5 * (TISSUE.wall + float(np.median(hu[cavity])))
    return ndimage.binary_propagation(cavity, mask=cavity | (near & free & (hu < between)))


def _hilum(voxels: np.ndarray, side: Side) -> np.ndarray:
    """A place just lateral of the hilum, inside the cavity: half-way up, behind the middle."""
    low, high = np.percentile(voxels, 2, axis=0), np.percentile(voxels, 98, axis=0)
    wanted = low + (high - low) * [0.78 if side == "right" else 0.22, 0.58, 0.47]
    nearest = np.argmin((((voxels - wanted) / (high - low)) ** 2).sum(axis=1))
    return voxels[nearest].astype(float)


def _without_rim(hu: np.ndarray, cavity: np.ndarray) -> np.ndarray:
    """HU of the lung, continued smoothly over its rim and beyond, where the chest wall shines in."""
    core = ndimage.binary_erosion(cavity)
    core = core if core.any() else cavity
    total = np.zeros(hu.shape, dtype=np.float32)
    missing = np.ones(hu.shape, dtype=bool)
    for width in (1.2, 3.0, 9.0):
        mean = mean_nearby(np.minimum(hu, -300.0), core, width, least=0.02, truncate=4.0)
        fill = missing & ~np.isnan(mean)
        total[fill] = mean[fill]
        missing &= ~fill
    total[missing] = np.median(hu[core])
    return np.where(core, hu, total).astype(np.float32)


def _compress(tissue: np.ndarray, factor: float) -> np.ndarray:
    """Density of lung (1 is water) packed ``factor`` times closer, at most airless; what is denser keeps its own."""
    return np.maximum(np.minimum(tissue * factor, _COLLAPSED), tissue)


def _air_noise(hu: np.ndarray, cavity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    detail = (hu - ndimage.gaussian_filter(hu, 1.0))[cavity]
    level = float(np.clip(1.48 * np.median(np.abs(detail)), 2.0, 40.0))
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.6)
    return noise * np.float32(0.6 * level / noise.std())


def _shift_mediastinum(
    hu: np.ndarray, labels: np.ndarray, spacing: np.ndarray, side: Side, shift: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move what lies between the lungs ``shift`` mm away from ``side``; chest wall, spine and diaphragm stay.

    Every line across the chest is a chain: wall, lung, mediastinum, lung, wall. The lungs stretch and shorten evenly,
    their density with them; the mediastinum keeps its form. Nowhere does a lung lose or gain more than 45 % of its
    width, so the map does not fold.
    """
    box = ndimage.find_objects(((labels == 1) | (labels == 2)).astype(np.uint8))[0]
    other = "left" if side == "right" else "right"
    near, far = labels[box] == SIDES[side][0], labels[box] == SIDES[other][0]
    if side == "left":  # the chain begins at the side with the air
        near, far = near[::-1], far[::-1]
    size = near.shape
    width_near, width_far = near.sum(axis=0), far.sum(axis=0)
    y, z = ((np.arange(n) + 0.5) / n for n in size[1:])
    front_back = _smooth_step(y / 0.22) * _smooth_step((0.85 - y) / 0.35)
    down = _smooth_step(z / 0.25) * _smooth_step((1.0 - z) / 0.45)
    wanted = np.minimum(shift / spacing[0] * front_back[:, None] * down, 0.45 * np.minimum(width_near, width_far))
    move = np.cumsum(near, axis=0) / np.maximum(width_near, 1) - np.cumsum(far, axis=0) / np.maximum(width_far, 1)
    move = ndimage.gaussian_filter((wanted * move).astype(np.float32), 6.0 / spacing, mode="constant")
    if side == "left":
        move = -move[::-1]
    grid = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in size), indexing="ij")
    source = grid[0].copy()
    for _ in range(8):  # a point that arrives here started where x + move(x) is here
        source = grid[0] - ndimage.map_coordinates(move, (source, *grid[1:]), order=1, mode="nearest")
    where = (source, *grid[1:])
    moved_hu, moved_labels = hu.copy(), labels.copy()
    view = ndimage.map_coordinates(hu[box], where, order=1, mode="nearest")
    kinds = ndimage.map_coordinates(labels[box], where, order=0, mode="nearest")
    determinant = np.gradient(source, axis=0)
    in_lung = (kinds == 1) | (kinds == 2)
    view[in_lung] = (_stretch(view[in_lung] / 1000 + 1, determinant[in_lung]) - 1) * 1000
    moved_hu[box], moved_labels[box] = view, kinds
    return moved_hu, moved_labels


def _stretch(tissue: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Density of lung that is packed or drawn out by ``factor``; vessels keep theirs."""
    return np.where(tissue > 0.9, tissue, np.minimum(tissue * factor, _COLLAPSED))


def _smooth_step(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def _sample(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    return ndimage.map_coordinates(array, index.T, order=1, mode="nearest")


def _bisect(function: Callable[[float], float], wanted: float, low: float, high: float, rounds: int = 26) -> float:
    """Argument at which the rising ``function`` reaches ``wanted``; an end where it does not."""
    for _ in range(rounds):
        middle = 0.5 * (low + high)
        if function(middle) < wanted:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
