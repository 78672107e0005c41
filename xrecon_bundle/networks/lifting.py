"""From 2D to 3D: the base volume from the pooled vector, and the linkers that lift the encoder's features.

A linker convolves a volume that is the same in every slice along the view's depth. With zero padding its result differs
only in the first and the last slice, and after a second convolution only in the two outermost at each end. So such
volumes are kept *thin*, as three or five images, of which the middle one stands for all the interior, and a 3D
convolution of them is a 2D one with sums of its kernel's slices. This is exact.
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
    """Lift a 2D feature along the view's depth and take it halfway through the conv that joins it to the decoder.

    Published: 1x1 conv, norm, ReLU, repeat along depth, 3x3x3 conv, norm, ReLU; then, concatenated behind the decoder's
    feature, a 3x3x3 conv ("compress"), which is linear: this computes the linker's share of its result.

    Args:
        in_channels: channels of the feature.
        channels: channels of the volume.
        axis: tensor axis of the depth: 3 (y) for the PA view, 2 (x) for the lateral.
    """

    def __init__(self, in_channels: int, channels: int, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.reduce = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.lift = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.compress = nn.Conv3d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, S, S)`` to the slices of a thin ``(B, slices, channels, S, S)``, see :func:`add_thin_`."""
        depth = x.shape[-1]
        x = norm_relu(self.reduce(x))
        before, at, after = self.lift.weight.unbind(self.axis)
        # A slice of the result reads the same image through the kernels of the slices before, at and after it.
        kernels = [at + after, before + at + after, before + at]
        x = F.conv2d(x, torch.cat(kernels), padding=1).unflatten(1, (3, -1))
        first, inner, last = thin_norm_relu(x, depth).unbind(1)
        before, at, after = self.compress.weight.unbind(self.axis)
        none = torch.zeros_like(at)
        # From the images (first, inner, last) to the slices 0, 1, inner, depth - 2 and depth - 1.
        kernels = [
            torch.cat([at, after, none], dim=1),
            torch.cat([before, at + after, none], dim=1),
            torch.cat([none, before + at + after, none], dim=1),
            torch.cat([none, before + at, after], dim=1),
            torch.cat([none, before, at], dim=1),
        ]
        if depth == 4:
            kernels.pop(2)
        x = torch.cat([first, inner, last], dim=1)
        return F.conv2d(x, torch.cat(kernels), padding=1).unflatten(1, (len(kernels), -1))


def thin_norm_relu(thin: Tensor, depth: int) -> Tensor:
    """ReLU of the instance norm of ``(B, 3, C, U, V)``, its middle slice counted ``depth`` - 2 times."""
    x = thin.to(torch.promote_types(thin.dtype, torch.float32))
    x = x - _thin_mean(x, depth)
    x = x * torch.rsqrt(_thin_mean(x * x, depth) + 1e-5)
    return F.relu(x).to(thin.dtype)


def _thin_mean(thin: Tensor, depth: int) -> Tensor:
    slices = thin.mean((3, 4), keepdim=True)
    first, inner, last = slices[:, :1], slices[:, 1:2], slices[:, 2:]
    return (first + (depth - 2) * inner + last) / depth


def add_thin_(volume: Tensor, thin: Tensor, axis: int) -> None:
    """Add slices to a volume in place along ``axis``: the outermost two at each end, the middle one to all between.

    Args:
        volume: ``(B, C, X, Y, Z)``.
        thin: ``(B, 5, C, U, V)``, or ``(B, 4, C, U, V)`` where the volume has just four slices.
        axis: 2 or 3.
    """
    spans = depth_spans(thin.shape[1], volume.shape[axis])
    for index, (start, stop) in enumerate(spans):
        volume.narrow(axis, start, stop - start).add_(thin[:, index].unsqueeze(axis))


def depth_spans(slices: int, depth: int) -> list[tuple[int, int]]:
    """Of a thin volume's four or five slices: first row and end, along the depth, of what each stands for."""
    spans = [(0, 1), (1, 2)]
    if slices == 5:
        spans.append((2, depth - 2))
    spans.append((depth - 2, depth - 1))
    spans.append((depth - 1, depth))
    return spans
