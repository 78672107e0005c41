"""CoordConv: a convolution that knows where it is."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn


class CoordConv(nn.Module):
    """Append each axis's coordinate, from -1 to 1, as a channel, then convolve (Liu et al., NeurIPS 2018).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input, without the coordinates.
        out_channels: channels of the output.
        coord: append the coordinates; False makes it an ordinary convolution (ablation).
        kwargs: passed on to :class:`monai.networks.blocks.Convolution`.

    Input ``(B, in_channels, *spatial)``, output ``(B, out_channels, *spatial')``.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, coord: bool = True, **kwargs) -> None:
        super().__init__()
        self.coord = coord
        self.conv = Convolution(spatial_dims, in_channels + spatial_dims * coord, out_channels, **kwargs)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` and its coordinates."""
        if self.coord:
            x = torch.cat([x, coordinates(x)], dim=1)
        return self.conv(x)


def coordinates(x: Tensor) -> Tensor:
    """Coordinates ``(B, n, *spatial)`` of the ``n`` spatial axes of ``x``, -1 at the first voxel, 1 at the last."""
    axes: list[Tensor] = []
    for dim in range(2, x.dim()):
        axis = torch.linspace(-1.0, 1.0, x.shape[dim], dtype=x.dtype, device=x.device)
        shape = [1] * (x.dim() - 2)
        shape[dim - 2] = -1
        axes.append(axis.view(shape).expand(x.shape[2:]))
    return torch.stack(axes).unsqueeze(0).expand([x.shape[0]] + [-1] * (x.dim() - 1))
