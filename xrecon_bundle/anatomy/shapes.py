"""Implicit shapes for the synthetic thorax: approximate signed distances in mm (negative inside) and their painting."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np


class Canvas:
    """A CT under construction: HU and labels on a voxel grid, with each voxel's position in the anatomy's own mm.

    ``points`` are the three coordinate arrays ``(S, S, S)``; ``step`` is the voxel's edge. Edges are painted as the
    share of a voxel that a shape covers, so that coarse grids show partial volume as a scanner does.
    """

    def __init__(self, points: Sequence[np.ndarray], step: float, hu: float) -> None:
        self.points = tuple(points)
        self.step = step
        self.hu = np.full(points[0].shape, hu, dtype=np.float32)
        self.labels = np.zeros(points[0].shape, dtype=np.uint8)

    def cover(self, distance: np.ndarray) -> np.ndarray:
        """Share of each voxel inside the shape: a ramp one voxel wide."""
        return np.clip(0.5 - distance / self.step, 0.0, 1.0)

    def paint(
        self,
        distance: np.ndarray,
        hu: np.ndarray | float,
        label: int | None = None,
        box: tuple[slice, ...] = (slice(None),) * 3,
    ) -> None:
        """Lay a shape of value ``hu`` over what is there; voxels more than half inside get ``label``."""
        self.blend(self.cover(distance), hu, label, box)

    def blend(
        self,
        share: np.ndarray,
        hu: np.ndarray | float,
        label: int | None = None,
        box: tuple[slice, ...] = (slice(None),) * 3,
    ) -> None:
        """As :meth:`paint`, from the covered share in [0, 1]."""
        view = self.hu[box]
        view += share * (hu - view)
        if label is not None:
            self.labels[box][share > 0.5] = label

    def paint_bone(
        self,
        distance: np.ndarray,
        cortex: float,
        marrow: float,
        thickness: float,
        label: int,
        box: tuple[slice, ...],
    ) -> None:
        """Cortical shell of ``thickness`` mm around spongy bone, as one blend: right at any resolution."""
        outer, inner = self.cover(distance), self.cover(distance + thickness)
        mean = np.where(outer > 0, (outer * cortex + inner * (marrow - cortex)) / np.maximum(outer, 1e-6), cortex)
        self.blend(outer, mean, label, box)

    def box(self, low: Sequence[float], high: Sequence[float], margin: float = 0.0) -> tuple[slice, ...]:
        """Slices of the grid that hold the box from ``low`` to ``high`` (mm of the anatomy), however it is warped."""
        slices = []
        for (smallest, largest), least, most in zip(self._ranges, low, high, strict=True):
            inside = np.flatnonzero((largest >= least - margin) & (smallest <= most + margin))
            slices.append(slice(inside[0], inside[-1] + 1) if len(inside) else slice(0, 0))
        return tuple(slices)

    def at(self, box: tuple[slice, ...]) -> tuple[np.ndarray, ...]:
        """The coordinates inside ``box``."""
        return tuple(coordinate[box] for coordinate in self.points)

    @cached_property
    def _ranges(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """For each axis, the least and the largest of its coordinate in each of the grid's planes across it."""
        planes = [tuple(other for other in range(3) if other != axis) for axis in range(3)]
        return [(c.min(axis=p), c.max(axis=p)) for c, p in zip(self.points, planes, strict=True)]


def smooth_min(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Union with a fillet of about ``blend`` mm (polynomial smooth minimum, Quilez)."""
    overlap = np.maximum(blend - np.abs(first - second), 0.0)
    return np.minimum(first, second) - overlap * overlap * (0.25 / blend)


def smooth_max(first: np.ndarray, second: np.ndarray, blend: float) -> np.ndarray:
    """Intersection with a rounded edge of about ``blend`` mm."""
    return -smooth_min(-first, -second, blend)


def ellipsoid(
    points: Sequence[np.ndarray],
    centre: Sequence[float] | np.ndarray,
    radii: Sequence[float] | np.ndarray,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """Distance to an ellipsoid; ``axes`` are its orthonormal axes as rows (default: the coordinate axes)."""
    local = [coordinate - np.float32(value) for coordinate, value in zip(points, centre, strict=True)]
    if axes is not None:
        local = [np.float32(a) * local[0] + np.float32(b) * local[1] + np.float32(c) * local[2] for a, b, c in axes]
    first = sum((value / np.float32(radius)) ** 2 for value, radius in zip(local, radii, strict=True))
    second = sum((value / np.float32(radius) ** 2) ** 2 for value, radius in zip(local, radii, strict=True))
    root = np.sqrt(first)
    return root * (root - 1) / np.maximum(np.sqrt(second), 1e-6)


def capsule(
    points: Sequence[np.ndarray],
    start: Sequence[float],
    end: Sequence[float],
    radii: tuple[float, float],
    scale: Sequence[float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Distance to a segment thickened from ``radii[0]`` to ``radii[1]``; ``scale`` flattens it (3: a third as wide)."""
    local = [(p - np.float32(s)) * np.float32(f) for p, s, f in zip(points, start, scale, strict=True)]
    along = [np.float32((e - s) * f) for s, e, f in zip(start, end, scale, strict=True)]
    length = max(float(sum(a * a for a in along)), 1e-6)
    t = np.clip(sum(p * a for p, a in zip(local, along, strict=True)) / np.float32(length), 0.0, 1.0)
    square = sum((p - t * a) ** 2 for p, a in zip(local, along, strict=True))
    return np.sqrt(square) - (np.float32(radii[0]) + t * np.float32(radii[1] - radii[0]))


def triangle(points: Sequence[np.ndarray], corners: np.ndarray) -> np.ndarray:
    """Unsigned distance to a flat triangle with ``corners`` ``(3, 3)`` (Quilez, udTriangle)."""
    a, b, c = (np.asarray(corner, dtype=np.float32) for corner in corners)
    normal = np.cross(b - a, a - c)
    edges = [(b - a, a), (c - b, b), (a - c, c)]
    inside = np.zeros(points[0].shape, dtype=np.int8)
    nearest = np.full(points[0].shape, np.inf, dtype=np.float32)
    for edge, origin in edges:
        local = [p - o for p, o in zip(points, origin, strict=True)]
        across = np.cross(edge, normal)
        inside += (sum(n * p for n, p in zip(across, local, strict=True)) >= 0).astype(np.int8)
        t = np.clip(sum(e * p for e, p in zip(edge, local, strict=True)) / edge.dot(edge), 0.0, 1.0)
        nearest = np.minimum(nearest, sum((p - t * e) ** 2 for p, e in zip(local, edge, strict=True)))
    plane = sum(n * (p - o) for n, p, o in zip(normal, points, a, strict=True)) ** 2 / normal.dot(normal)
    return np.sqrt(np.where(inside == 3, plane, nearest))


def true_distance(field: np.ndarray, step: float) -> np.ndarray:
    """Rescale an implicit function by its gradient, so that near its zero it is a distance in mm."""
    square = sum(slope * slope for slope in np.gradient(field, step))
    return field / np.maximum(np.sqrt(square), 0.3)


def smooth_noise(rng: np.random.Generator, points: Sequence[np.ndarray], length: float, waves: int = 12) -> np.ndarray:
    """Smooth random field of about unit variance: ``waves`` plane waves of about ``length`` mm, on any grid."""
    field = np.zeros(points[0].shape, dtype=np.float32)
    directions = rng.normal(size=(waves, 3))
    directions *= (2 * np.pi / length * rng.uniform(0.6, 1.4, (waves, 1))) / np.linalg.norm(directions, axis=1)[:, None]
    for direction, phase in zip(directions.astype(np.float32), rng.uniform(0, 2 * np.pi, waves), strict=True):
        wave = direction[0] * points[0] + direction[1] * points[1]
        wave += direction[2] * points[2] + np.float32(phase)
        field += np.sin(wave)
    return field * np.float32(np.sqrt(2 / waves))
