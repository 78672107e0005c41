"""A generator for 1.6 mm at the cost of 5.6 mm: a coarse volume, and what the full radiographs add to it.

Nearly all arithmetic of :class:`~.generator.XReconGenerator` lies in the 3D convolutions of its finest scales. Here it
runs at 64^3. What is finer comes from 2D encoders of the full radiographs, which also tell the coarse network what
64 x 64 pixels do not show: lines, and where the film shows nothing. Their features are looked up where each voxel is
seen on the detector (Yu et al., pixelNeRF, arXiv 2012.02190) and joined with the up-sampled coarse features by two
small 3D convolutions at half size and by 1x1x1 layers at full size. Every such part is local, so a training step can
compute a block of the volume. The result is the up-sampled coarse volume plus a residual, which is zero at first.
"""

from __future__ import annotations

import itertools
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frame
from ..projection.geometry import ConeBeamGeometry
from .encoder import DenseEncoder
from .generator import VIEWS, XReconGenerator, build_generator, say_size
from .norm import norm_relu

UNKNOWN = -1.0  # of the input, where a film shows nothing
LABELS = 5  # none, right lung, left lung, free air on the right and on the left
HALO = 3  # of a block at half size: two convolutions and the up-sampling
DEPTHS = 4  # voxels in a row that see one place of the radiograph
SLAB = 16  # slices that are rendered at once
LOGIT_GAIN = 10.0  # Adam moves every weight by the same small step, and logits have far to go
LOG_VARIANCE = -6.0  # at first: a deviation of 0.05, 125 HU


class CoarseRendering(NamedTuple):
    """The coarse part of a :class:`Rendering` alone.

    Attributes:
        coarse: ``(B, 1, c, c, c)`` in network units.
        coarse_labels: ``(B, 5, c, c, c)`` logits.
    """

    coarse: Tensor
    coarse_labels: Tensor


class Rendering(NamedTuple):
    """A block of a reconstruction, and the coarse volume ``c`` it rests on.

    Attributes:
        volume: ``(B, 1, x, y, z)`` in network units.
        labels: ``(B, 5, x/2, y/2, z/2)`` logits of :mod:`xrecon_bundle.segmentation.labels`.
        log_variance: ``(B, 1, x/2, y/2, z/2)`` of ``volume``'s error.
        coarse: ``(B, 1, c, c, c)`` in network units.
        coarse_labels: ``(B, 5, c, c, c)`` logits.
    """

    volume: Tensor
    labels: Tensor
    log_variance: Tensor
    coarse: Tensor
    coarse_labels: Tensor


class FineGenerator(nn.Module):
    """Radiographs at full size to the volume at full size.

    Args:
        spatial_size: edge S of the volume and of the radiographs; a multiple of 32.
        coarse_size: edge of the coarse volume.
        middle_channels: of the features at half size.
        fine_channels: of the features at full size.
        image_channels: of the 2D encoders at S, S/2, ... S/16.

    Attributes:
        coarse: the generator of the coarse volume; it takes the weights of a ``compact`` one.
        unknown: the input where a film shows nothing.

    Input ``(B, 2, S, S)`` as :class:`~.generator.XReconGenerator`'s. Output ``(B, 1, S, S, S)``.

    Raises:
        ValueError: ``spatial_size`` is no positive multiple of 32.
    """

    def __init__(
        self,
        spatial_size: int = 224,
        *,
        coarse_size: int = 64,
        middle_channels: int = 32,
        fine_channels: int = 8,
        image_channels: tuple[int, ...] = (16, 32, 64, 96, 128),
    ) -> None:
        super().__init__()
        if spatial_size < 32 or spatial_size % 32:
            raise ValueError(f"spatial_size must be a multiple of 32, not {spatial_size}")
        self.spatial_size = spatial_size
        self.unknown = UNKNOWN
        self.coarse = build_generator("compact", coarse_size)
        coarse_channels = 2 * cast(int, self.coarse.scales[-1].channels)
        self.images = nn.ModuleList(ImageEncoder(image_channels) for _ in VIEWS)
        encoder_channels = cast(DenseEncoder, self.coarse.encoders[0]).channels
        self.image_to_coarse = nn.ModuleList(
            nn.ModuleList(
                nn.Conv2d(fine, coarser, 1)
                for fine, coarser in zip(image_channels[1:], encoder_channels[: len(image_channels) - 1], strict=True)
            )
            for _ in VIEWS
        )
        self.coarse_hidden = nn.Conv3d(coarse_channels + 1 + 3, coarse_channels, 1)
        self.coarse_labels = nn.Conv3d(coarse_channels, LABELS, 1)
        self.to_middle = nn.Conv3d(coarse_channels + 1, middle_channels, 1)
        self.image_to_middle = nn.ModuleList(nn.Conv2d(image_channels[1], middle_channels, 1) for _ in VIEWS)
        self.place = nn.Linear(3, middle_channels, bias=False)
        self.middle = nn.ModuleList(nn.Conv3d(middle_channels, middle_channels, 3) for _ in range(2))
        self.middle_head = nn.Conv3d(middle_channels, 1 + LABELS, 1)
        self.to_fine = nn.Conv3d(middle_channels, fine_channels, 1)
        self.image_to_fine = nn.ModuleList(nn.Conv2d(image_channels[0], fine_channels, 1) for _ in VIEWS)
        self.fine = nn.Conv3d(fine_channels, fine_channels, 1)
        self.head = nn.Conv3d(fine_channels, 1, 1)
        for layer in self.modules_that_start_at_zero():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.constant_(self.middle_head.get_parameter("bias")[:1], LOG_VARIANCE)
        self.register_state_dict_post_hook(say_size)

    def modules_that_start_at_zero(self) -> list[nn.Conv2d | nn.Conv3d]:
        """The layers by which the network at first adds nothing to its coarse one."""
        joining = [cast(nn.Conv2d, layer) for of_view in self.image_to_coarse for layer in cast(nn.ModuleList, of_view)]
        return [self.head, self.middle_head, self.coarse_labels, *joining]

    def forward(self, image: Tensor) -> Tensor:
        """Radiographs ``(B, 2, S, S)`` to the volume ``(B, 1, S, S, S)``."""
        return self.render(image).volume

    def render(self, image: Tensor, start: tuple[int, int, int] | None = None, edge: int = 0) -> Rendering:
        """The volume with all that belongs to it, or a cubic block of it.

        Args:
            image: ``(B, 2, S, S)``.
            start: first voxel of the block along x, y and z, multiples of 4; None: the whole volume.
            edge: of the block, a multiple of 4.
        """
        size = self.spatial_size
        images = self._encode(image)
        coarse, features = self._coarse(image, images)
        coarse_labels = self._label(coarse, features)
        joined = _pointwise(self.to_middle, torch.cat([features, coarse.to(features.dtype)], dim=1))
        first, extent = (start, (edge,) * 3) if start is not None else ((0, 0, 0), (size,) * 3)
        middle = self._middle(joined, [of_view[1] for of_view in images], first, extent)
        inner = middle[:, :, 1:-1, 1:-1, 1:-1]
        log_variance, labels = _pointwise(self.middle_head, inner).float().split([1, LABELS], dim=1)
        at = [torch.arange(n, device=image.device) + a // 2 for a, n in zip(first, inner.shape[2:], strict=True)]
        labels = LOGIT_GAIN * labels + upsample(coarse_labels.float(), at, size // 2)
        fine = [_pointwise(layer, of_view[0]) for layer, of_view in zip(self.image_to_fine, images, strict=True)]
        slab = extent[0] if start is not None else SLAB
        parts = []
        for x in range(0, extent[0], slab):
            # The slab at half size has one voxel more at either end, which the up-sampling needs.
            here = _pointwise(self.to_fine, middle[:, :, x // 2 : (x + slab) // 2 + 2])
            here = F.interpolate(here, scale_factor=2.0, mode="trilinear", align_corners=False)
            here = here[:, :, 2:-2, 2:-2, 2:-2]
            place = (first[0] + x, first[1], first[2])
            parts.append(self._fine(here, fine, coarse, place, (slab, *extent[1:])))
        return Rendering(torch.cat(parts, dim=2), labels, log_variance, coarse, coarse_labels)

    def render_coarse(self, image: Tensor) -> CoarseRendering:
        """The coarse part of :meth:`render`, at a fraction of the cost."""
        volume, features = self._coarse(image, self._encode(image))
        return CoarseRendering(volume, self._label(volume, features))

    def _label(self, coarse: Tensor, features: Tensor) -> Tensor:
        """Logits ``(B, 5, c, c, c)``; where a voxel is tells the right lung from the left."""
        n = coarse.shape[-1]
        along = ((torch.arange(n, device=coarse.device) + 0.5) * 2 / n - 1).to(features.dtype)
        place = torch.stack(torch.meshgrid(along, along, along, indexing="ij"))[None].expand(
            len(coarse), -1, -1, -1, -1
        )
        seen = torch.cat([features, 4 * coarse.to(features.dtype), place], dim=1)
        return LOGIT_GAIN * _pointwise(self.coarse_labels, F.leaky_relu(_pointwise(self.coarse_hidden, seen), 0.1))

    def _encode(self, image: Tensor) -> list[list[Tensor]]:
        """Of each view the features at S, S/2, ... S/16."""
        return [encoder(of_view) for encoder, of_view in zip(self.images, self._views(image), strict=True)]

    def _coarse(self, image: Tensor, images: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
        """The coarse volume and the features ``(B, C, c, c, c)`` it is rendered of."""
        coarse = self.coarse
        small = F.interpolate(
            torch.where(image < 0, coarse.unknown, image), size=(coarse.spatial_size,) * 2, mode="area"
        )
        features = []
        for view, encoder in enumerate(coarse.encoders):
            encode = encoder if torch.is_grad_enabled() else cast(DenseEncoder, encoder).precise
            of_view = encode(small[:, view : view + 1])
            for level, layer in enumerate(cast(nn.ModuleList, self.image_to_coarse[view])):
                shape = of_view[level].shape[-2:]
                added = F.interpolate(_pointwise(layer, images[view][level + 1]).float(), shape, mode="area")
                of_view[level] = of_view[level] + added
            features.append(of_view)
        volume, rendered = coarse.decode(features)
        return volume, norm_relu(rendered)

    def _views(self, image: Tensor) -> list[Tensor]:
        """Of each view its grey levels, 0 where unknown, and where it is known."""
        known = (image >= 0).to(image.dtype)
        return [torch.stack([image[:, view] * known[:, view], known[:, view]], dim=1) for view in range(len(VIEWS))]

    def _middle(
        self, joined: Tensor, images: list[Tensor], start: tuple[int, int, int], extent: tuple[int, int, int]
    ) -> Tensor:
        """Features ``(B, C, x/2 + 2, y/2 + 2, z/2 + 2)`` of a block at half size."""
        half = self.spatial_size // 2
        at = [
            torch.arange(first // 2 - HALO, (first + n) // 2 + HALO, device=joined.device)
            for first, n in zip(start, extent, strict=True)
        ]
        x = upsample(joined, at, half)
        for view, (layer, of_view) in enumerate(zip(self.image_to_middle, images, strict=True)):
            x = x + lift(_pointwise(layer, of_view), view, at, half)
        for axis, index in enumerate(at):
            share = ((index + 0.5) * 2 / half - 1)[:, None].to(x.dtype) * self.place.weight[:, axis].to(x.dtype)
            x = x + share.T.reshape(1, len(share.T), *(-1 if other == axis else 1 for other in range(3)))
        x = F.leaky_relu(x, 0.1).contiguous(memory_format=torch.channels_last_3d)
        change = self.middle[1](F.leaky_relu(self.middle[0](x), 0.1))
        return F.leaky_relu(x[:, :, 2:-2, 2:-2, 2:-2] + change, 0.1)

    def _fine(
        self,
        x: Tensor,
        images: list[Tensor],
        coarse: Tensor,
        start: tuple[int, int, int],
        extent: tuple[int, int, int],
    ) -> Tensor:
        """The volume ``(B, 1, x, y, z)`` of a block."""
        at = [torch.arange(first, first + n, device=x.device) for first, n in zip(start, extent, strict=True)]
        with torch.autocast(x.device.type, enabled=False):  # nothing to gain: reordering would cost more
            x = x.float().contiguous()
            for view, of_view in enumerate(images):
                add_lifted(x, of_view, view, at, self.spatial_size)
            x = _pointwise(self.fine, F.leaky_relu(x, 0.1))
            rendered = _pointwise(self.head, F.leaky_relu(x, 0.1))
            return rendered + upsample(coarse.float(), at, self.spatial_size)


class ImageEncoder(nn.Module):
    """A small residual U-Net of one radiograph.

    Args:
        channels: at full size, half size, a quarter and so on.
    """

    def __init__(self, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, channels[0], 5, padding=2)
        self.first = nn.ModuleList(Residual(n) for n in channels)
        self.down = nn.ModuleList(
            nn.Conv2d(finer, coarser, 3, stride=2, padding=1) for finer, coarser in itertools.pairwise(channels)
        )
        self.up = nn.ModuleList(nn.Conv2d(coarser, finer, 1) for finer, coarser in itertools.pairwise(channels))
        self.second = nn.ModuleList(Residual(n) for n in channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """``(B, 2, S, S)`` to the features at S, S/2 and so on."""
        x = self.first[0](self.stem(x.contiguous(memory_format=torch.channels_last)))
        skips = [x]
        for down, residual in zip(self.down, list(self.first)[1:], strict=True):
            x = residual(down(x))
            skips.append(x)
        x = self.second[-1](skips.pop())
        features = [x]
        for level in reversed(range(len(self.up))):
            larger = F.interpolate(self.up[level](x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = self.second[level](skips.pop() + larger)
            features.append(x)
        return features[::-1]


class Residual(nn.Module):
    """Group norm, ReLU and 3x3 conv, twice, added to the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(channels // 8, channels) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, U, V)`` to the same shape."""
        y = x
        for norm, conv in zip(self.norms, self.convs, strict=True):
            y = conv(F.relu(norm(y)))
        return x + y


def _pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution as the matrix product that it is: few channels, many voxels, no reordering."""
    weight, bias = layer.get_parameter("weight"), layer.get_parameter("bias")
    return (weight.flatten(1) @ x.flatten(2) + bias[:, None]).unflatten(2, x.shape[2:])


def lift(feature: Tensor, view: int, at: list[Tensor], size: int) -> Tensor:
    """Look up a radiograph's feature where each voxel is seen.

    Args:
        feature: ``(B, C, P, P)`` on the chest frame's detector.
        view: 0 PA, 1 lateral.
        at: voxels along x, y and z of a grid with ``size`` voxels along the cube's edge; may reach beyond it.
        size: see ``at``.

    Returns:
        ``(B, C, x, y, z)`` float32, bilinear; the detector's edge goes on beyond it.
    """
    step = frame.voxel_size(size)
    along = [(index.to(torch.float32) - (size - 1) / 2) * step for index in at]
    geometry = (ConeBeamGeometry.chest_pa, ConeBeamGeometry.chest_lateral)[view](feature.shape[-1])
    with torch.autocast(feature.device.type, enabled=False):  # half precision would blur the places
        points = torch.stack(torch.meshgrid(along, indexing="ij"), dim=-1)
        seen = geometry.project(points) * (2 / frame.detector_size_mm())  # the detector spans [-1, 1]
        grid = seen.flip(-1).flatten(0, 1)[None].expand(feature.shape[0], -1, -1, -1)
        found = F.grid_sample(
            feature.float().contiguous(), grid, mode="bilinear", padding_mode="border", align_corners=False
        )
    return found.unflatten(2, points.shape[:2])


def add_lifted(x: Tensor, feature: Tensor, view: int, at: list[Tensor], size: int) -> None:
    """Add what :func:`lift` gives, looked up once for :data:`DEPTHS` voxels along the view's depth.

    From one to the next of them magnification changes a place at the cube's edge by a tenth of a voxel.
    """
    depth = (1, 0)[view]
    middles = [index.float() for index in at]
    middles[depth] = middles[depth].unflatten(0, (-1, DEPTHS)).mean(1)
    lifted = lift(feature, view, middles, size)
    x.unflatten(2 + depth, (-1, DEPTHS)).add_(lifted.unsqueeze(3 + depth))


def upsample(volume: Tensor, at: list[Tensor], size: int) -> Tensor:
    """Trilinear values at some voxels of a finer grid of the same cube: a block of ``F.interpolate``'s result.

    Args:
        volume: ``(B, C, c, c, c)``.
        at: voxels along x, y and z of the grid with ``size`` voxels along the edge; beyond it the border goes on.
        size: see ``at``.
    """
    for index in at:
        n = volume.shape[2]
        place = ((index + 0.5) * (n / size) - 0.5).clamp(0, n - 1)
        weight = (1 - (place[:, None] - torch.arange(n, device=volume.device)).abs()).clamp(min=0).to(volume.dtype)
        volume = torch.tensordot(volume, weight, ([2], [1]))  # takes the axis away in front and adds it at the end
    return volume


def warm_start(network: FineGenerator, coarse: XReconGenerator) -> FineGenerator:
    """Give the network the weights of a coarse generator: until it is trained it does what that one does."""
    network.coarse.load_state_dict(coarse.state_dict())
    return network
