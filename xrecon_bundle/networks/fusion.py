"""The 3D decoders and the multi-scale fusion rendering (MFusionRen) that joins them.

All decoders are one: at every scale the features of the views and of the main decoder are channel groups of one tensor,
(view, ..., view, main), and grouped convolutions decode them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .lifting import Linker, add_thin_
from .norm import norm_relu


class Scale(nn.Module):
    """One scale of all decoders: up-sample, link, fuse, render, convolve; norm and ReLU after every convolution.

    - Up-sample: transposed 3x3x3 conv of stride 2.
    - Link: each view's feature and its linker's, concatenated, through a 3x3x3 conv that halves the channels.
    - Fuse: the average of the views' features replaces them.
    - Render: 1x1x1 conv of average and main to one channel, LeakyReLU 0.01.
    - Convolve (not at the finest scale): two 3x3x3 convs. The first reads, for a view, the average; for the main
      decoder, the concatenation of average and main.

    A conv of a concatenation is computed as the sum of the convs of its parts. ``link`` holds the views' halves of the
    link conv and, as its last group, the half of the main decoder's first conv that reads main.

    Args:
        in_channels: channels of one decoder at the next coarser scale.
        channels: channels of one decoder.
        encoder_channels: channels of the encoder feature at this scale.
        axes: depth axis (of the tensor) of each view.
        fusion: without, there is no main decoder, no view reads another, and only the finest scale renders.
        coarsest: the decoders read the average of the bases.
        finest: nothing follows the rendering.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        encoder_channels: int,
        axes: Sequence[int],
        fusion: bool,
        coarsest: bool,
        finest: bool,
    ) -> None:
        super().__init__()
        self.channels = channels
        self.views = len(axes)
        self.fusion = fusion
        self.finest = finest
        self.axes = list(axes)
        self.decoders = self.views + fusion
        groups = 1 if coarsest and fusion else self.decoders
        self.up = nn.ConvTranspose3d(
            groups * in_channels, self.decoders * channels, 3, 2, 1, output_padding=1, groups=groups, bias=False
        )
        self.linkers = nn.ModuleList(Linker(encoder_channels, channels, axis) for axis in axes)
        self.link = _conv(channels, groups=self.views if finest else self.decoders)
        self.render_average = nn.Conv3d(channels, 1, 1) if fusion or finest else None
        self.render_main = nn.Conv3d(channels, 1, 1, bias=False) if fusion else None
        self.first = None if finest else _conv(channels, groups=self.decoders)
        self.second = None if finest else _conv(channels, groups=self.decoders)

    def forward(self, x: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """One scale.

        Args:
            x: all decoders' features at S/2, ``(B, decoders * in_channels, S/2, S/2, S/2)``.
            features: each view's encoder feature ``(B, encoder_channels, S, S)``.

        Returns:
            All decoders' features at S, and the rendering ``(B, 1, S, S, S)`` (None where none is made).
        """
        links = [linker(features[view]) for view, linker in enumerate(self.linkers)]
        x = norm_relu(self.up(x))
        channels, own = self.channels, self.views * self.channels
        rendered: Tensor | None = None
        if self.render_main is not None:
            rendered = self.render_main(x.narrow(1, own, channels))
        if self.finest:
            x = x.narrow(1, 0, own)
        x = F.conv3d(x, self.link.weight, padding=1, groups=self.link.groups)
        views = x.narrow(1, 0, own)
        for view, link in enumerate(links):
            add_thin_(views.narrow(1, view * channels, channels), link, self.axes[view])
        views = norm_relu(views)
        if self.render_average is not None:
            average = mean_of_views(views, self.views)
            of_average = self.render_average(average)
            rendered = of_average if rendered is None else rendered + of_average
            rendered = F.leaky_relu(rendered, 0.01)
            if self.fusion:
                views = average.repeat(1, self.decoders, 1, 1, 1)
        if self.first is not None and self.second is not None:
            decoded = self.first(views)
            if self.fusion:
                decoded.narrow(1, own, channels).add_(x.narrow(1, own, channels))
            x = norm_relu(self.second(norm_relu(decoded)))
        return x, rendered


def _conv(channels: int, groups: int) -> nn.Conv3d:
    return nn.Conv3d(groups * channels, groups * channels, 3, padding=1, groups=groups, bias=False)


def mean_of_views(x: Tensor, views: int) -> Tensor:
    """Average of the views' channel groups: ``(B, views * C, ...)`` to ``(B, C, ...)``."""
    parts = x.chunk(views, dim=1)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / views
