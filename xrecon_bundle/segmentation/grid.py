"""Whole-number resampling between a scan's grid and the ones that the classical method works on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..frame import Vector


class WorkingGrid:
    """A grid of about the voxel size wanted, made of whole blocks or whole parts of the scan's voxels.

    Args:
        shape: the scan's ``(X, Y, Z)``.
        spacing: its voxel size ``(3,)`` in mm.
        fine_mm: finer axes are averaged in blocks of at most this.
        coarse_mm: coarser axes are interpolated down to this or less.
    """

    def __init__(self, shape: tuple[int, ...], spacing: Vector, fine_mm: float, coarse_mm: float) -> None:
        self.shape = tuple(shape)
        self.blocks = tuple(max(1, int(fine_mm / step)) for step in spacing)
        self.parts = tuple(int(np.ceil(step / coarse_mm - 1e-6)) for step in spacing)
        self.spacing = np.multiply(spacing, self.blocks) / self.parts

    def to_working(self, volume: np.ndarray) -> np.ndarray:
        """``volume`` on the working grid, float32: the mean of each block, linear between coarse voxels."""
        return refine(block_mean(volume, self.blocks), self.parts)

    def to_scan(self, volume: np.ndarray) -> np.ndarray:
        """A working volume (a soft mask, say) back on the scan's grid, float32."""
        return refine(block_mean(volume, self.parts), self.blocks)[tuple(map(slice, self.shape))]

    def labels_to_scan(self, labels: np.ndarray) -> np.ndarray:
        """A label map on the scan's grid: each voxel takes the label with the largest share."""
        if max(self.blocks) == 1 and max(self.parts) == 1:
            return labels
        share = self.to_scan(labels == 0)
        result = np.zeros(share.shape, labels.dtype)
        for label in np.unique(labels[labels > 0]):
            own = self.to_scan(labels == label)
            more = own > share
            result[more], share[more] = label, own[more]
        return result


def block_mean(volume: np.ndarray, blocks: Sequence[int]) -> np.ndarray:
    """Mean of each block of ``blocks`` voxels along the axes, float32; the last blocks may be smaller."""
    volume = np.asarray(volume, np.float32)
    for axis, size in enumerate(blocks):
        if size > 1:
            along = (slice(None),) * axis
            total = volume[(*along, slice(0, None, size))].copy()
            for start in range(1, size):
                part = volume[(*along, slice(start, None, size))]
                total[(*along, slice(part.shape[axis]))] += part
            count = np.minimum(size, volume.shape[axis] - size * np.arange(total.shape[axis])).astype(np.float32)
            total /= count.reshape([-1 if other == axis else 1 for other in range(volume.ndim)])
            volume = total
    return volume


def refine(volume: np.ndarray, parts: Sequence[int]) -> np.ndarray:
    """Each voxel in ``parts`` parts along the axes, float32: linear between their centres, constant beyond the last."""
    volume = np.asarray(volume, np.float32)
    for axis, size in enumerate(parts):
        if size > 1:
            last = volume.shape[axis] - 1
            place = ((np.arange(size * (last + 1)) + 0.5) / size - 0.5).clip(0, last)
            first = place.astype(int)
            share = (place - first).astype(np.float32)
            low, high = volume.take(first, axis), volume.take(np.minimum(first + 1, last), axis)
            high -= low
            high *= share.reshape([-1 if other == axis else 1 for other in range(volume.ndim)])
            high += low
            volume = high
    return volume
