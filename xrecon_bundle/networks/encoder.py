"""The dense 2D encoder of one radiograph."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from .norm import norm_relu


class DenseLayer(nn.Module):
    """1x1 conv to ``bottleneck`` channels, norm, ReLU, 3x3 conv to ``growth_rate``; the input comes normalised."""

    def __init__(self, in_channels: int, bottleneck: int, growth_rate: int, bias: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.conv2 = nn.Conv2d(bottleneck, growth_rate, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, U, V)`` to ``(B, growth_rate, U, V)``."""
        x = norm_relu(self.conv1(x))
        if x.dtype != torch.float64:
            return self.conv2(x)
        # On a CPU PyTorch unfolds all input channels in double precision; transposed, only the few of the output.
        return F.conv_transpose2d(x, self.conv2.weight.flip(2, 3).transpose(0, 1), self.conv2.bias, padding=1)


class DenseStage(nn.Module):
    """Halve the image, grow it by dense layers, then project to ``out_channels`` or, in the last stage, pool it.

    Published, every dense layer normalises the whole concatenation again. Instance norm treats each channel alone, so
    what was normalised once stays as it is: here each feature is normalised once, and the result is the same.

    Args:
        in_channels: channels of the input.
        layers: number of dense layers.
        growth_rate: channels that each adds.
        bottleneck: channels inside a dense layer, in multiples of ``growth_rate``.
        out_channels: channels of the projection; None for the last stage, whose output is the global average.
    """

    def __init__(
        self, in_channels: int, layers: int, growth_rate: int, bottleneck: int, out_channels: int | None
    ) -> None:
        super().__init__()
        last = out_channels is None  # only here do biases reach the output: every other conv is followed by a norm
        self.down = nn.Conv2d(in_channels, in_channels, 3, stride=2, padding=1, bias=last)
        self.layers = nn.ModuleList(
            DenseLayer(in_channels + layer * growth_rate, bottleneck * growth_rate, growth_rate, last)
            for layer in range(layers)
        )
        grown = in_channels + layers * growth_rate
        self.project = nn.Identity() if out_channels is None else nn.Conv2d(grown, out_channels, 1, bias=False)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_channels, U, V)`` to ``(B, out_channels, U/2, V/2)``, or ``(B, channels)`` from the last stage."""
        new = self.down(norm_relu(x))
        averages = [new.mean((2, 3))]
        features = norm_relu(new)
        for layer in self.layers:
            new = layer(features)
            averages.append(new.mean((2, 3)))
            features = torch.cat([features, norm_relu(new)], dim=1)
        return torch.cat(averages, dim=1) if self.last else self.project(features)


class DenseEncoder(nn.Module):
    """Encoder of one view: stem and dense stages (published: 64 channels, five stages).

    Args:
        stem_channels: channels of the 7x7 stem.
        stage_layers: dense layers of each stage.
        growth_rate: channels that a dense layer adds.
        bottleneck: channels inside a dense layer, in multiples of ``growth_rate``.

    Attributes:
        channels: of the stem and of every stage; the last is the length of the pooled vector.
    """

    def __init__(self, stem_channels: int, stage_layers: tuple[int, ...], growth_rate: int, bottleneck: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, stem_channels, 7, padding=3, padding_mode="reflect", bias=False)
        self.channels = [stem_channels]
        stages = []
        for stage, layers in enumerate(stage_layers):
            grown = self.channels[-1] + layers * growth_rate
            out_channels = grown // 2 if stage < len(stage_layers) - 1 else None
            stages.append(DenseStage(self.channels[-1], layers, growth_rate, bottleneck, out_channels))
            self.channels.append(out_channels or grown)
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, 1, S, S)`` to the features at S, S/2, S/4, ... and, last, the pooled vector."""
        features = [norm_relu(self.stem(x))]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features

    @torch.jit.unused
    def precise(self, x: Tensor) -> list[Tensor]:
        """As :meth:`forward`, for inference in double precision: the many norms amplify what is rounded.

        Not on a GPU, as many are slow at it, nor under autocast, which trades precision for speed. The features have
        the type that :meth:`forward` gives them.
        """
        if not x.is_cpu or x.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
            return self(x)
        parameters = {name: parameter.double() for name, parameter in self.named_parameters()}
        return [feature.float() for feature in functional_call(self, parameters, x.double())]
