"""The conditional patch discriminator and the volume form of its condition."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from monai.networks.blocks import Convolution
from monai.networks.utils import normal_init
from torch import Tensor, nn

from .coordconv import CoordConv

if TYPE_CHECKING:
    from jaxtyping import Float


class CoordConvPatchDiscriminator(nn.Sequential):
    """PatchGAN discriminator whose first layer is a :class:`CoordConv` (X-Recon, arXiv 2407.15356).

    Defaults are the published network: 4x4x4 convolutions with padding 2; 64, 128 and 256 channels at stride 2, 512 at
    stride 1, one logit a patch. Instance norm on all but the first and the last, LeakyReLU 0.2. Weights are drawn from
    normal(0, 0.02).

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of the input: the two views as volumes (:func:`radiographs_to_volume`) and the CT.
        channels: channels after the first layer; doubled by each of the following.
        num_layers: layers between the first and the last; the last of them keeps the size, the others halve it.
        coord: False turns the first layer into an ordinary convolution (ablation).

    Input ``(B, in_channels, *spatial)``; output ``(B, 1, *patches)``, logits for a least-squares GAN, not squashed.
    """

    def __init__(
        self, spatial_dims: int = 3, in_channels: int = 3, channels: int = 64, num_layers: int = 3, coord: bool = True
    ) -> None:
        act = ("leakyrelu", {"negative_slope": 0.2})
        shared: dict[str, Any] = {"kernel_size": 4, "padding": 2}
        normed: dict[str, Any] = {"norm": "instance", "act": act, "bias": False}
        first = CoordConv(spatial_dims, in_channels, channels, coord, strides=2, norm=None, act=act, **shared)
        layers: list[nn.Module] = [first]
        for layer in range(num_layers):
            strides = 1 if layer == num_layers - 1 else 2
            layers.append(Convolution(spatial_dims, channels, 2 * channels, strides=strides, **normed, **shared))
            channels *= 2
        layers.append(Convolution(spatial_dims, channels, 1, conv_only=True, **shared))
        super().__init__(*layers)
        self.apply(normal_init)


def radiographs_to_volume(image: Float[Tensor, "b 2 s s"], spatial_size: int) -> Float[Tensor, "b 2 s s s"]:
    """The radiograph pair as two volumes: each view repeated along the direction in which it was taken.

    Args:
        image: ``(B, 2, S, S)``, PA ``(x, z)`` and lateral ``(y, z)``.
        spatial_size: S.

    Returns:
        ``(B, 2, S, S, S)`` on axes ``(x, y, z)``: PA repeated along y, lateral along x.
    """
    pa, lateral = image.unbind(1)
    size = (-1, spatial_size, spatial_size, spatial_size)
    return torch.stack([pa.unsqueeze(2).expand(size), lateral.unsqueeze(1).expand(size)], dim=1)
