"""Whole-number resampling between a scan's grid and the ones that the classical method works on."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F


class WorkingGrid:
    """A grid of about the voxel size wanted, made of whole blocks or whole parts of the scan's voxels.

    Args:
        shape: the scan's ``(X, Y, Z)``.
        spacing: its voxel size ``(3,)`` in mm.
        fine_mm: finer axes are averaged in blocks of at most this.
        coarse_mm: coarser axes are interpolated down to this or less.
    """

    def __init__(self, shape: tuple[int, ...], spacing: Sequence[float], fine_mm: float, coarse_mm: float) -> None:
        self.shape = tuple(shape)
        self.blocks = tuple(max(1, int(fine_mm / step)) for step in spacing)
        self.parts = tuple(int(np.ceil(step / coarse_mm - 1e-6)) for step in spacing)
        self.spacing = np.multiply(spacing, self.blocks) / self.parts

    def to_working(self, volume: np.ndarray) -> np.ndarray:
        """``volume`` on the working grid, float32: the mean of each block, linear between coarse voxels."""
        tensor = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
        if max(self.blocks) > 1:
            tensor = F.avg_pool3d(tensor, self.blocks, ceil_mode=True)
        if max(self.parts) > 1:
            tensor = F.interpolate(tensor, scale_factor=self.parts, mode="trilinear")
        return tensor[0, 0].numpy()

    def to_scan(self, volume: np.ndarray) -> np.ndarray:
        """A working volume (a soft mask, say) back on the scan's grid, float32."""
        tensor = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))[None, None]
        if max(self.parts) > 1:
            tensor = F.avg_pool3d(tensor, self.parts)
        if max(self.blocks) > 1:
            tensor = F.interpolate(tensor, scale_factor=self.blocks, mode="trilinear")
        return tensor[0, 0].numpy()[tuple(map(slice, self.shape))]

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
