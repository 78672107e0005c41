"""A small residual U-Net, of a radiograph or of a volume.

MONAI's SegResNet is the like; importing ``monai.networks.nets`` takes as long as the whole rest of a reconstruction's
start.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
LAYOUT = {2: torch.channels_last, 3: torch.channels_last_3d}


class UNet(nn.Module):
    """Residual blocks at each scale, on the way down and on the way up, skips added.

    Args:
        stem: from the input to ``channels[0]``.
        channels: at the stem's size, half of it, a quarter and so on; multiples of 8.
        dimensions: 2 or 3.
    """

    def __init__(self, stem: nn.Module, channels: tuple[int, ...], dimensions: int = 2) -> None:
        super().__init__()
        conv = CONV[dimensions]
        self.dimensions = dimensions
        self.stem = stem
        self.first = nn.ModuleList(Residual(n, dimensions) for n in channels)
        self.down = nn.ModuleList(
            conv(finer, coarser, 3, stride=2, padding=1) for finer, coarser in itertools.pairwise(channels)
        )
        self.up = nn.ModuleList(conv(coarser, finer, 1) for finer, coarser in itertools.pairwise(channels))
        self.second = nn.ModuleList(Residual(n, dimensions) for n in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, C, ...)`` to the features at the stem's size, half of it and so on."""
        return self.decode(self.encode(x))

    def encode(self, x: Tensor) -> list[Tensor]:
        """The features on the way down, coarsest last."""
        x = self.first[0](self.stem(x.contiguous(memory_format=LAYOUT[self.dimensions])))
        skips = [x]
        for down, residual in zip(self.down, list(self.first)[1:], strict=True):
            skips.append(residual(down(skips[-1])))
        return skips

    def decode(self, skips: list[Tensor]) -> list[Tensor]:
        """The features on the way up, finest first; the list is emptied."""
        x = self.second[-1](skips.pop())
        features = [x]
        for level in reversed(range(len(self.up))):
            mode = LINEAR[self.dimensions]
            larger = F.interpolate(self.up[level](x), scale_factor=2.0, mode=mode, align_corners=False)
            x = self.second[level](skips.pop() + larger)
            features.append(x)
        return features[::-1]


class Residual(nn.Module):
    """Group norm, ReLU and a convolution of edge 3, twice, added to the input."""

    def __init__(self, channels: int, dimensions: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(channels // 8, channels) for _ in range(2))
        self.convs = nn.ModuleList(CONV[dimensions](channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, ...)`` to the same shape."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.relu(norm(y)))
        return x + y
