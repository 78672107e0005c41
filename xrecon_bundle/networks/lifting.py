"""From 2D to 3D: the base volume from the pooled vector, and the linkers that lift the encoder's features.

A linker convolves a volume that is the same in every slice along the view's depth. With zero padding its result differs
only in the first and the last slice, and after a second convolution only in the two outermost at each end. So such
volumes are kept *thin*: three or five slices along depth, of which the middle one stands for all the interior. This is
exact.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .norm import norm_relu


class Base(nn.Module):
    """The coarsest volume, from the pooled vector by a linear layer: dropout, ReLU, reshaped.

    Args:
        in_channels: length of the vector.
        channels: channels of the volume.
        spatial_size: its edge.
        grid_size: edge of the grid that the linear layer fills; resampled trilinearly to ``spatial_size`` where it
            differs, so that the number of weights need not grow with the volume.
        dropout: probability, before the ReLU.
    """

    def __init__(self, in_channels: int, channels: int, spatial_size: int, grid_size: int, dropout: float) -> None:
        super().__init__()
        self.spatial_size = spatial_size
        self.shape = (channels, grid_size, grid_size, grid_size)
        self.linear = nn.Linear(in_channels, channels * grid_size**3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels)`` to ``(B, channels, n, n, n)`` on axes (x, y, z)."""
        x = F.relu(self.dropout(self.linear(x))).unflatten(1, self.shape)
        if x.shape[2] != self.spatial_size:
            size = [self.spatial_size, self.spatial_size, self.spatial_size]
            x = F.interpolate(x, size=size, mode="trilinear", align_corners=False)
        return x.contiguous(memory_format=torch.channels_last_3d)


class Linker(nn.Module):
    """Lift a 2D feature along the view's depth: 1x1 conv, norm, ReLU, repeat, 3x3x3 conv, norm, ReLU.

    Args:
        in_channels: channels of the feature.
        out_channels: channels of the volume.
        axis: tensor axis of the depth: 3 (y) for the PA view, 2 (x) for the lateral.
    """

    def __init__(self, in_channels: int, out_channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.compress = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.conv = nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, S, S)`` to a thin ``(B, out_channels, S, S, S)``: first, interior and last slice."""
        depth = x.shape[-1]
        x = norm_relu(self.compress(x)).unsqueeze(self.axis)
        x = self.conv(torch.cat([x, x, x], dim=self.axis))
        return thin_norm_relu(x, self.axis, depth)


def thin_norm_relu(thin: Tensor, axis: int, size: int) -> Tensor:
    """ReLU of the instance norm that the thin volume of three slices would have with ``size`` slices."""
    x = thin.to(torch.promote_types(thin.dtype, torch.float32))
    mean = _thin_mean(x, axis, size)
    x = x - mean
    x = x * torch.rsqrt(_thin_mean(x * x, axis, size) + 1e-5)
    return F.relu(x).to(thin.dtype)


def _thin_mean(thin: Tensor, axis: int, size: int) -> Tensor:
    """Mean over the space of the thin volume of three slices, of which the middle one counts ``size`` - 2 times."""
    slices = thin.mean([dim for dim in (2, 3, 4) if dim != axis], keepdim=True)
    outer = slices.narrow(axis, 0, 1) + slices.narrow(axis, 2, 1)
    return (outer + (size - 2) * slices.narrow(axis, 1, 1)) / size


def thicken(thin: Tensor, axis: int, size: int) -> Tensor:
    """Repeat the middle slice of a thin volume until it has ``size`` slices along ``axis``."""
    edge = thin.shape[axis] // 2
    middle = thin.narrow(axis, edge, 1)
    parts = [thin.narrow(axis, 0, edge)] + [middle] * (size - 2 * edge) + [thin.narrow(axis, edge + 1, edge)]
    return torch.cat(parts, dim=axis)


def add_thin_(volume: Tensor, thin: Tensor, axis: int) -> None:
    """Add a thin volume of three or five slices, or one of as many as ``volume`` has, to ``volume`` in place."""
    size, slices = volume.shape[axis], thin.shape[axis]
    if size == slices:
        volume.add_(thin)
        return
    edge = slices // 2
    volume.narrow(axis, 0, edge).add_(thin.narrow(axis, 0, edge))
    volume.narrow(axis, edge, size - 2 * edge).add_(thin.narrow(axis, edge, 1))
    volume.narrow(axis, size - edge, edge).add_(thin.narrow(axis, edge + 1, edge))
