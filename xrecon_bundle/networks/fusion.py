"""The 3D decoders and the multi-scale fusion rendering (MFusionRen) that joins them.

All decoders are one: at every scale the features of the views and of the main decoder are channel groups
of one tensor, (view, ..., view, main), and grouped convolutions decode them. Fusion replaces each view's feature by the
average of the views, so the convolutions that follow it all read the same input and are one ordinary convolution.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .lifting import Linker, add_thin_, thicken
from .norm import norm_relu


class LinkViews(nn.Module):
    """Join each view's decoder feature with its linked encoder feature: conv of both, norm, ReLU ("compress").

    The conv is linear, so it is done as the sum of its halves; the linker's half is done thin.

    Args:
        encoder_channels: channels of the encoder feature.
        channels: channels of a view's decoder feature, of its linker and of its result.
        axes: depth axis (of the tensor) of each view.
    """

    def __init__(self, encoder_channels: int, channels: int, axes: Sequence[int]) -> None:
        super().__init__()
        views = len(axes)
        self.linkers = nn.ModuleList(Linker(encoder_channels, channels, axis) for axis in axes)
        self.decoder_half = nn.Conv3d(views * channels, views * channels, 3, padding=1, groups=views, bias=False)
        self.linker_halves = nn.ModuleList(nn.Conv3d(channels, channels, 3, padding=1, bias=False) for _ in axes)

    def forward(self, x: Tensor, features: list[Tensor]) -> Tensor:
        """``(B, views * channels, S, S, S)`` and views of ``(B, encoder_channels, S, S)`` to the shape of the first."""
        x = self.decoder_half(x)
        channels = x.shape[1] // len(features)
        for view, (linker, conv) in enumerate(zip(self.linkers, self.linker_halves, strict=True)):
            link = conv(thicken(linker(features[view]), linker.axis, min(x.shape[-1], 5)))
            add_thin_(x.narrow(1, view * channels, channels), link, linker.axis)
        return norm_relu(x)


class Decode(nn.Module):
    """The convolutions of one scale, for all decoders at once: 3x3x3 conv, 3x3x3 conv, up-sampling block.

    Norm and ReLU follow each. With fusion every view reads the average, and the main decoder the concatenation of
    average and main (as a sum of two convolutions). Without, there is no main decoder, and every view reads its own.

    Args:
        channels: channels of one decoder.
        out_channels: its channels at the next scale.
        views: number of views.
        fusion: with fusion.
    """

    def __init__(self, channels: int, out_channels: int, views: int, fusion: bool) -> None:
        super().__init__()
        decoders = views + fusion
        inputs, groups = (1, 1) if fusion else (views, views)
        self.first = nn.Conv3d(inputs * channels, decoders * channels, 3, padding=1, groups=groups, bias=False)
        self.main = nn.Conv3d(channels, channels, 3, padding=1, bias=False) if fusion else None
        self.second = nn.Conv3d(decoders * channels, decoders * channels, 3, padding=1, groups=decoders, bias=False)
        self.up = Up(decoders * channels, decoders * out_channels, decoders)

    def forward(self, x: Tensor, main: Tensor | None) -> Tensor:
        """Average and main (or the views' features and None), at S, to all decoders' features at 2S."""
        x = self.first(x)
        if self.main is not None and main is not None:
            main = self.main(main)
            x.narrow(1, x.shape[1] - main.shape[1], main.shape[1]).add_(main)
        return self.up(norm_relu(self.second(norm_relu(x))))


class Up(nn.Module):
    """Up-sampling block: 3x3x3 transposed conv of stride 2, norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose3d(
            in_channels, out_channels, 3, stride=2, padding=1, output_padding=1, groups=groups, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, S, S, S)`` to ``(B, out_channels, 2S, 2S, 2S)``."""
        return norm_relu(self.conv(x))


class Head(nn.Module):
    """Rendering head: 1x1x1 conv of the concatenation of average and main, as the sum of its halves, LeakyReLU 0.01."""

    def __init__(self, channels: int, main: bool) -> None:
        super().__init__()
        self.average = nn.Conv3d(channels, 1, 1)
        self.main = nn.Conv3d(channels, 1, 1, bias=False) if main else None
        self.act = nn.LeakyReLU(0.01)

    def forward(self, average: Tensor, main: Tensor | None) -> Tensor:
        """``(B, channels, S, S, S)`` of each to ``(B, 1, S, S, S)``."""
        x = self.average(average)
        if self.main is not None and main is not None:
            x = x + self.main(main)
        return self.act(x)


class Scale(nn.Module):
    """One scale of all decoders: link, fuse, render, decode.

    Args:
        encoder_channels: channels of the encoder feature at this scale.
        channels: channels of one decoder.
        out_channels: its channels at the next scale; None at the finest, where nothing follows.
        axes: depth axis of each view.
        fusion: with fusion.
    """

    def __init__(
        self, encoder_channels: int, channels: int, out_channels: int | None, axes: Sequence[int], fusion: bool
    ) -> None:
        super().__init__()
        self.views = len(axes)
        self.channels = channels
        self.fusion = fusion
        self.link = LinkViews(encoder_channels, channels, axes)
        self.head = Head(channels, fusion) if fusion or out_channels is None else None
        self.decode = None if out_channels is None else Decode(channels, out_channels, len(axes), fusion)

    def forward(self, x: Tensor, features: list[Tensor]) -> tuple[Tensor, Tensor | None]:
        """Decoder features at S and, per view, the encoder feature at S, to features at 2S and the rendering at S."""
        views = self.link(x.narrow(1, 0, self.views * self.channels), features)
        main = x.narrow(1, self.views * self.channels, self.channels) if self.fusion else None
        rendered: Tensor | None = None
        if self.head is not None:
            average = mean_of_views(views, self.views)
            rendered = self.head(average, main)
            views = average if self.fusion else views
        if self.decode is not None:
            views = self.decode(views, main)
        return views, rendered


def mean_of_views(x: Tensor, views: int) -> Tensor:
    """Average of the views' channel groups: ``(B, views * C, ...)`` to ``(B, C, ...)``."""
    parts = x.chunk(views, dim=1)
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total / views
