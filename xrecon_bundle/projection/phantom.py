"""Bodies whose line integrals are known exactly: the truth that the projector is tested and benchmarked against.

Both are uniform (value 1 inside), stand along the volume's axes and are given in mm from the volume's centre:
``centre``, and ``half`` for the semi-axes or half edges along x, y, z.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Ellipsoid:
    """Uniform ellipsoid."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]

    def integral(self, point: Tensor, direction: Tensor) -> Tensor:
        """Length in mm ``(...)`` of each line ``point + t * direction``, both ``(..., 3)`` in mm, inside the body."""
        enter, leave = self._interval(point, direction)
        return (leave - enter) * direction.norm(dim=-1)

    def rasterise(self, shape: tuple[int, int, int], spacing: tuple[float, float, float], samples: int = 4) -> Tensor:
        """Volume ``(1, 1, X, Y, Z)``, float64: the part of each voxel that the body fills.

        Exact along z, from ``samples`` x ``samples`` lines a voxel across.
        """
        x, y = (_centres(n * samples, step / samples) for n, step in zip(shape[:2], spacing[:2], strict=True))
        z = _centres(shape[2], spacing[2])
        point = torch.stack([*torch.meshgrid(x, y, indexing="ij"), torch.zeros(len(x), len(y))], -1)
        enter, leave = self._interval(point, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        columns = (leave > enter).unflatten(0, (-1, samples)).unflatten(2, (-1, samples)).any(3).any(1)
        filled = torch.zeros(int(columns.sum()), shape[2], dtype=torch.float64)
        for i in range(samples):
            for j in range(samples):
                low, high = (bound[i::samples, j::samples][columns][:, None] for bound in (enter, leave))
                filled += _overlap(low, high, z, spacing[2])
        volume = torch.zeros(shape, dtype=torch.float64)
        volume[columns] = filled / samples**2
        return volume[None, None]

    def _interval(self, point: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters of entry and exit; equal where the line misses."""
        point = (point - point.new_tensor(self.centre)) / point.new_tensor(self.half)
        direction = direction / direction.new_tensor(self.half)
        along, square = (point * direction).sum(-1), direction.square().sum(-1)
        root = (along.square() - square * (point.square().sum(-1) - 1)).clamp_min(0).sqrt()
        return (-along - root) / square, (-along + root) / square


@dataclass(frozen=True)
class Box:
    """Uniform box."""

    centre: tuple[float, float, float]
    half: tuple[float, float, float]

    def integral(self, point: Tensor, direction: Tensor) -> Tensor:
        """See :meth:`Ellipsoid.integral`."""
        point = point - point.new_tensor(self.centre)
        half = point.new_tensor(self.half)
        slope = torch.where(direction == 0, 1e-30, direction)  # along a face: in or out for ever
        a, b = (-half - point) / slope, (half - point) / slope
        inside = torch.maximum(a, b).amin(-1) - torch.minimum(a, b).amax(-1)
        return inside.clamp_min(0) * direction.norm(dim=-1)

    def rasterise(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Tensor:
        """Volume ``(1, 1, X, Y, Z)``, float64: the part of each voxel that the body fills, exactly."""
        x, y, z = (
            _overlap(torch.tensor(c - h), torch.tensor(c + h), _centres(n, step), step)
            for c, h, n, step in zip(self.centre, self.half, shape, spacing, strict=True)
        )
        return torch.einsum("x,y,z->xyz", x, y, z)[None, None]


def _centres(count: int, step: float) -> Tensor:
    return (torch.arange(count, dtype=torch.float64) - (count - 1) / 2) * step


def _overlap(low: Tensor, high: Tensor, centres: Tensor, step: float) -> Tensor:
    """The part of each cell of length ``step`` that lies between ``low`` and ``high``."""
    return (torch.minimum(high, centres + step / 2) - torch.maximum(low, centres - step / 2)).clamp_min(0) / step
