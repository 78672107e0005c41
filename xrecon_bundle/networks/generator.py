"""The generator: two radiographs in, a CT volume out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
import torch.utils.checkpoint
from torch import Tensor, nn

from .encoder import DenseEncoder
from .fusion import Scale, mean_of_views
from .lifting import Base
from .streaming import Volume, stream_scale, streams

VIEWS = ("pa", "lateral")
DEPTH_AXIS = {"pa": 3, "lateral": 2}  # of a tensor (B, C, x, y, z): the PA view was taken along y, the lateral along x

PRESETS = {
    "published": {},
    "compact": {
        "stem_channels": 32,
        "stage_layers": (2, 4, 4, 4, 2),
        "growth_rate": 16,
        "decoder_channels": (128, 64, 32, 32, 16, 16),
        "base_grid": 4,
        "dropout": 0.1,
    },
}


class XReconGenerator(nn.Module):
    """X-Recon's generator (arXiv 2407.15356): dense 2D encoders, 3D decoders joined by multi-scale fusion rendering.

    The defaults are the published network, computed exactly, but without the parts that never reach its output and with
    what is constant along a view's depth computed once. Weights are drawn from normal(0, 0.02), biases are 0.

    Args:
        spatial_size: edge S of the volume and of the radiographs; a multiple of 32, at least 64.
        stem_channels: channels of the encoder's stem.
        stage_layers: dense layers of the encoder's five stages.
        growth_rate: channels that a dense layer adds.
        bottleneck: channels inside a dense layer, in multiples of ``growth_rate``.
        decoder_channels: of a 3D decoder, from the coarsest scale (S/32) to the finest (S).
        base_grid: edge of the grid that the base linear fills (None: S/32, as published). With a fixed grid the
            number of weights does not depend on S, and weights trained at one size load at another.
        dropout: of the base.
        fusion: False leaves out MFusionRen (ablation): each view decodes alone, and one head renders their average at
            full size.
        views: the views that are used, of "pa" and "lateral"; the input keeps both channels.
        activation_checkpointing: in training, recompute each scale in the backward pass, keeping no feature of it.

    Input ``(B, 2, S, S)``: channel 0 the PA radiograph (x, z), channel 1 the lateral (y, z), in [0, 1]; where a film
    shows nothing, :attr:`unknown`.
    Output ``(B, 1, S, S, S)`` on axes (x, y, z) in the units of :func:`xrecon_bundle.frame.hu_to_unit`, not clipped.

    Raises:
        ValueError: ``spatial_size`` or ``views`` is not one of those named.
    """

    def __init__(
        self,
        spatial_size: int = 224,
        *,
        stem_channels: int = 64,
        stage_layers: Sequence[int] = (4, 8, 16, 8, 4),
        growth_rate: int = 32,
        bottleneck: int = 4,
        decoder_channels: Sequence[int] = (256, 128, 64, 32, 16, 16),
        base_grid: int | None = None,
        dropout: float = 0.5,
        fusion: bool = True,
        views: Sequence[str] = VIEWS,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        if spatial_size < 64 or spatial_size % 32:
            raise ValueError(f"spatial_size must be a multiple of 32 and at least 64, not {spatial_size}")
        if not views or [view for view in VIEWS if view in views] != list(views):
            raise ValueError(f"views must be 'pa', 'lateral' or both in this order, not {views}")
        self.spatial_size = spatial_size
        self.unknown = 0.0  # of a pixel that the film does not show: air
        self.fusion = fusion
        self.activation_checkpointing = activation_checkpointing
        self.views = len(views)
        self.input_channels = [VIEWS.index(view) for view in views]
        axes = tuple(DEPTH_AXIS[view] for view in views)
        size = spatial_size // 32

        self.encoders = nn.ModuleList(
            DenseEncoder(stem_channels, tuple(stage_layers), growth_rate, bottleneck) for _ in views
        )
        *skip_channels, pooled = cast(DenseEncoder, self.encoders[0]).channels
        self.bases = nn.ModuleList(Base(pooled, decoder_channels[0], size, base_grid or size, dropout) for _ in views)
        scales = zip(decoder_channels, decoder_channels[1:], reversed(skip_channels), strict=False)
        self.scales = nn.ModuleList(
            Scale(coarser, channels, skip, axes, fusion, index == 0, index == len(skip_channels) - 1)
            for index, (coarser, channels, skip) in enumerate(scales)
        )
        self.act = nn.LeakyReLU(0.01)
        self.apply(_initialise)
        self.register_state_dict_post_hook(say_size)

    def forward(self, image: Tensor) -> Tensor:
        """Radiographs ``(B, 2, S, S)`` to the volume ``(B, 1, S, S, S)``."""
        if not torch.jit.is_scripting() and streams(image):
            return torch.cat([self._stream(sample) for sample in image.split(1)])
        features: list[list[Tensor]] = []  # of each view, coarsest last
        for view, encoder in enumerate(self.encoders):
            channel = self.input_channels[view]
            features.append(encoder(image[:, channel : channel + 1]))
        return self.decode(features)[0]

    def decode(self, features: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        """The volume ``(B, 1, S, S, S)``, and the views' features ``(B, views * C, S, S, S)`` that it is rendered of.

        Args:
            features: of each view what its encoder gives; the lists are emptied.
        """
        x = self._base(features)
        volume: Tensor | None = None
        for scale in self.scales:
            skips = [of_view.pop() for of_view in features]
            if self.activation_checkpointing and torch.is_grad_enabled() and not torch.jit.is_scripting():
                x, rendered = torch.utils.checkpoint.checkpoint(scale, x, skips, use_reentrant=False)
            else:
                x, rendered = scale(x, skips)
            if rendered is not None:
                volume = render(volume, rendered) if self.fusion else rendered
        assert volume is not None
        return self.act(volume), x

    @torch.jit.unused
    def _stream(self, image: Tensor) -> Tensor:
        """The same for one sample without gradients, see :mod:`xrecon_bundle.networks.streaming`."""
        radiographs = image[:, self.input_channels].split(1, dim=1)
        encoders = cast(list[DenseEncoder], self.encoders)
        features = [encoder.precise(of_view) for encoder, of_view in zip(encoders, radiographs, strict=True)]
        x = self._base(features)
        volumes = [Volume(x)] if self.fusion else [Volume(part) for part in x.chunk(self.views, dim=1)]
        volume: Tensor | None = None
        for scale in self.scales:
            volumes, rendered = stream_scale(cast(Scale, scale), volumes, [of_view.pop() for of_view in features])
            if rendered is not None:
                volume = render(volume, rendered) if self.fusion else rendered
        return self.act(volume).to(image.dtype)

    def _base(self, features: list[list[Tensor]]) -> Tensor:
        """Take away each view's pooled vector for the decoders' input: the bases, with fusion their average."""
        bases: list[Tensor] = []
        for view, base in enumerate(self.bases):
            bases.append(base(features[view].pop()))
        x = torch.cat(bases, dim=1)
        return mean_of_views(x, self.views) if self.fusion else x


def render(volume: Tensor | None, rendered: Tensor) -> Tensor:
    """Average the volume so far, doubled trilinearly (zero at first), with the image rendered at the next scale."""
    if volume is None:
        return rendered / 2
    return (F.interpolate(volume, scale_factor=2.0, mode="trilinear", align_corners=False) + rendered) / 2


def build_generator(preset: str, spatial_size: int, **overrides) -> XReconGenerator:
    """A generator by the name of its preset.

    Args:
        preset: "published", or "compact" (for CPUs; 5.5 M parameters at every size).
        spatial_size: edge of the volume.
        overrides: arguments of :class:`XReconGenerator` that replace the preset's.

    Raises:
        ValueError: no such preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
    return XReconGenerator(spatial_size, **{**PRESETS[preset], **overrides})


def say_size(generator: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict[str, int | str]) -> None:
    """Keep the size with a state dict, in the metadata that PyTorch has for each module: the weights do not show it.

    For ``register_state_dict_post_hook``, of any generator with the attribute ``spatial_size``.
    """
    metadata["spatial_size"] = cast(int, generator.spatial_size)


def _initialise(module: nn.Module) -> None:
    """As the paper's release: weights normal(0, 0.02), biases 0."""
    if any(parameter.is_meta for parameter in module.parameters(recurse=False)):
        return  # without values; drawing them would import torch's compiler, a second
    if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv3d, nn.ConvTranspose3d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
