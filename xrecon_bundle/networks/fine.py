"""A generator for 1.6 mm at the cost of 5.6 mm: a coarse volume, what 2D networks see, and what full radiographs add.

Nearly all arithmetic of :class:`~.generator.XReconGenerator` lies in the 3D convolutions of its finest scales. Here it
runs at 64^3. 2D networks (:class:`~.thickness.ThicknessNet`) see what 64 x 64 pixels do not show: a pneumothorax, and
the bones. Each of these learns first, alone. The maps and features of lung and free air are looked up where each voxel
is seen on the detector (Yu et al., pixelNeRF, arXiv 2012.02190), and a 3D U-Net puts them and the coarse volume
together: labels, and a better coarse volume. Before and after it the coarse volume is projected again, and what it
lacks to explain its radiographs (:mod:`.data_consistency`) is what the U-Net and a small refinement are told.

What is finer comes from 2D encoders of the full radiographs, which see what the projected coarse volume lacks of them,
and from the bones' features, looked up likewise and joined with the U-Net's features by two small 3D convolutions at
half size and by 1x1x1 layers at full size; and from what the coarse volume lacks at half size and the bones that both
views show (:mod:`.skeleton`), of which they decide how much is believed at each place.

These parts are local, so a training step can compute a block of the volume. The result is the up-sampled coarse volume
plus a residual; all residuals are zero at first. Where the labels say free air, it is put there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frame
from ..projection.geometry import ConeBeamGeometry
from .data_consistency import DEPTH, match_greys, missing, reproject
from .generator import VIEWS, XReconGenerator, build_generator, say_size
from .skeleton import bone_volume
from .thickness import BONES, UNKNOWN, ThicknessNet, bone_net, reduced
from .unet import Residual, UNet

MISSING = 1 + len(VIEWS)  # channels of what a volume lacks
BANDS = 3  # of what a volume lacks at half size: coarse and fine detail, and bones
NOISE = 0.02  # of the radiographs at half size
BAND_VOXELS = 9  # of half size, parted by an average over so many
NOT_SHOWN = -0.25  # to the generator of the coarse volume, where a film shows nothing; beside a body it is 0
LABELS = 5  # none, right lung, left lung, free air on the right and on the left
FADING = 9  # pixels; over half of them what a film shows fades at its end
HALO = 3  # of a block at half size: two convolutions and the up-sampling
DEPTHS = 4  # voxels in a row that see one place of the radiograph
SLAB = 16  # slices that are rendered at once; larger tensors are new memory each time, which costs more than the work
LOGIT_GAIN = 10.0  # Adam moves every weight by the same small step, and logits have far to go
JOIN_GAIN, CHANGE_GAIN = 4.0, 0.3  # of the coarse volume as it goes into the U-Net, of the change that comes out
MISSING_GAIN, DIFFERENCE_GAIN = 8.0, 16.0  # of what is missing in it, and of its radiographs' difference
PLACE_GAIN = 0.3  # of places, which a discriminator shall not look at before all else
FREE_AIR = (-1000.0 - frame.AIR_HU) / frame.HU_SPAN  # in network units
LOG_VARIANCE = -6.0  # at first: a deviation of 0.05, 125 HU
# The children of a FineGenerator that are its coarse part, and those that learn on their own (thickness_weights.py).
JOIN = ("join", "join_norm", "join_head", "refine", "refine_head")
SEEING = ("thickness", "bones")

Part = Literal["first", "coarse", "fine"]


class CoarseRendering(NamedTuple):
    """The coarse part of a :class:`Rendering` alone.

    Attributes:
        coarse: ``(B, 1, c, c, c)`` in network units.
        coarse_labels: ``(B, 5, c, c, c)`` logits.
    """

    coarse: Tensor
    coarse_labels: Tensor


class CoarsePart(NamedTuple):
    """What the coarse part hands to the fine one.

    Attributes:
        coarse: ``(B, 1, c, c, c)`` in network units, without free air.
        labels: ``(B, 5, c, c, c)`` logits.
        features: ``(B, C, c, c, c)``.
        lacking: ``(B, BANDS, S/2, S/2, S/2)``, what the coarse volume lacks to explain its radiographs, and the bones.
        bones: of each view their maps and the features of these, ``(B, C, S/2, S/2)``.
    """

    coarse: Tensor
    labels: Tensor
    features: Tensor
    lacking: Tensor
    bones: list[Tensor]


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
        coarse_channels: of the 3D U-Net at the coarse size, half of it and so on.
        middle_channels: of the features at half size.
        fine_channels: of the features at full size.
        image_channels: of the 2D encoders at S, S/2, ... S/16.

    Attributes:
        coarse: the generator of the coarse volume, a ``compact`` one; with weights of its own training, frozen.
        thickness, bones: likewise.
        learning: the part that learns, see :meth:`learn`.
        interval: ``(3,)``: by how much the lungs' volume in ml, the free air's in ml and the occupancy, counted in the
            coarse labels, are wrong at most in 9 of 10 cases (split-conformal); NaN until that is known.
        deviation_factor: ``()``: what the standard deviation of :class:`Rendering` is multiplied by to be calibrated; 1
            until that is known, and in weights that do not have it.
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
        coarse_channels: tuple[int, ...] = (16, 32, 64, 96),
        middle_channels: int = 32,
        fine_channels: int = 8,
        image_channels: tuple[int, ...] = (16, 32, 64, 96, 128),
    ) -> None:
        super().__init__()
        if spatial_size < 32 or spatial_size % 32:
            raise ValueError(f"spatial_size must be a multiple of 32, not {spatial_size}")
        self.spatial_size = spatial_size
        self.unknown = UNKNOWN
        self.learning: Part = "fine"
        self.coarse = build_generator("compact", coarse_size).requires_grad_(False).eval()
        self.thickness = ThicknessNet().requires_grad_(False).eval()
        self.bones = bone_net().requires_grad_(False).eval()
        lifted = sum(self.thickness.channels)
        self.join = UNet(nn.Conv3d(1 + lifted + 3 + MISSING, coarse_channels[0], 1), coarse_channels, 3)
        self.join_norm = nn.GroupNorm(coarse_channels[0] // 8, coarse_channels[0])
        self.join_head = nn.Conv3d(coarse_channels[0], 1 + LABELS, 1)
        self.refine = nn.Sequential(
            nn.Conv3d(coarse_channels[0] + 1 + MISSING, coarse_channels[0], 1), Residual(coarse_channels[0], 3)
        )
        self.refine_head = nn.Conv3d(coarse_channels[0], 1 + LABELS, 1)
        self.images = nn.ModuleList(UNet(nn.Conv2d(3, image_channels[0], 5, padding=2), image_channels) for _ in VIEWS)
        self.to_middle = nn.Conv3d(coarse_channels[0] + 1, middle_channels, 1)
        self.image_to_middle = nn.ModuleList(nn.Conv2d(image_channels[1], middle_channels, 1) for _ in VIEWS)
        self.bones_to_middle = nn.ModuleList(nn.Conv2d(n, middle_channels, 1) for n in self.bones.channels)
        self.place = nn.Linear(3, middle_channels, bias=False)
        self.middle = nn.ModuleList(nn.Conv3d(middle_channels, middle_channels, 3) for _ in range(2))
        self.lacking_to_middle = nn.Conv3d(BANDS, middle_channels, 1)
        self.middle_head = nn.Conv3d(middle_channels, 1 + LABELS + BANDS, 1)
        self.to_fine = nn.Conv3d(middle_channels, fine_channels, 1)
        self.image_to_fine = nn.ModuleList(nn.Conv2d(image_channels[0], fine_channels, 1) for _ in VIEWS)
        self.fine = nn.Conv3d(fine_channels, fine_channels, 1)
        self.head = nn.Conv3d(fine_channels, 1, 1)
        self.interval: Tensor
        self.register_buffer("interval", torch.full((3,), torch.nan))
        self.deviation_factor: Tensor
        self.register_buffer("deviation_factor", torch.ones(()))
        self.register_load_state_dict_pre_hook(add_deviation_factor)
        for layer in self.modules_that_start_at_zero():
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.get_parameter("bias"))
        nn.init.constant_(self.join_head.get_parameter("bias")[1:2], 1.0)  # no label at first
        nn.init.constant_(self.middle_head.get_parameter("bias")[:1], LOG_VARIANCE)
        self.register_state_dict_post_hook(say_size)

    def modules_that_start_at_zero(self) -> list[nn.Conv3d]:
        """The layers by which the network at first adds nothing to its coarse one."""
        return [self.head, self.middle_head, self.join_head, self.refine_head]

    def learn(self, part: Part) -> FineGenerator:
        """Train one part alone from here on.

        Args:
            part: "first", the generator of the coarse volume; "coarse", the U-Net that puts it and the maps together;
                "fine", all that follows. Each rests on those before it.

        Raises:
            ValueError: there is no such part.
        """
        if part not in get_args(Part):
            raise ValueError(f"the part that learns is one of {', '.join(get_args(Part))}, not {part!r}")
        self.learning = part
        self.requires_grad_(False)
        for name, child in self.named_children():
            of = "first" if name == "coarse" else "coarse" if name in JOIN else "fine"
            child.requires_grad_(of == part and name not in SEEING)
        return self

    def train(self, mode: bool = True) -> FineGenerator:
        """As every module's; what is frozen stays in evaluation mode."""
        super().train(mode)
        self.coarse.eval()
        self.thickness.eval()
        self.bones.eval()
        return self

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
        return self.render_fine(image, self.coarse_part(image), start, edge)

    def coarse_part(self, image: Tensor) -> CoarsePart:
        """All of :meth:`render` that does not depend on the block."""
        coarse, labels, features = self._join(image)
        lacking = self._lacking_at_half_size(_coarse_rendering(coarse, labels).coarse, image)
        bones = self._see_bones(image)
        found = self._bones_at_half_size(bones, coarse, labels)
        return CoarsePart(coarse, labels, features, torch.cat([lacking, found], dim=1), bones)

    def render_fine(
        self, image: Tensor, part: CoarsePart, start: tuple[int, int, int] | None = None, edge: int = 0
    ) -> Rendering:
        """:meth:`render` with what :meth:`coarse_part` gave."""
        size = self.spatial_size
        of_coarse = _coarse_rendering(part.coarse, part.labels)
        images = self._encode(image, of_coarse.coarse)
        joined = _pointwise(self.to_middle, torch.cat([part.features, part.coarse.to(part.features.dtype)], dim=1))
        halves, fulls = [], []
        for view, within in enumerate(_within_film(image).split(1, dim=1)):
            of_full, of_half = images[view][:2]
            of_bones = _pointwise(self.bones_to_middle[view], part.bones[view])
            halves.append(F.avg_pool2d(within, 2) * (_pointwise(self.image_to_middle[view], of_half) + of_bones))
            fulls.append(within * _pointwise(self.image_to_fine[view], of_full))
        first, extent, rows = (start, (edge,) * 3, edge) if start is not None else ((0, 0, 0), (size,) * 3, SLAB)
        if start is None and torch.compiler.is_compiling():
            rows = size // 4  # the steps of each slab are written down
        full, half, inner = (
            [
                torch.arange(a // step - halo, (a + n) // step + halo, device=image.device)
                for a, n in zip(first, extent, strict=True)
            ]
            for step, halo in ((1, 0), (2, HALO), (2, 1))
        )
        places = zip(
            full[0].split(rows),
            half[0].split([rows // 2 + 2 * HALO, *[rows // 2] * (extent[0] // rows - 1)]),
            inner[0].unfold(0, rows // 2 + 2, rows // 2),
            strict=True,
        )
        seen, changed, rendered = (_Slabs(overlap) for overlap in (4, 2, 2))
        parts = []
        for x, new, around in places:
            features = seen(self._features(joined, halves, part.lacking, [new, *half[1:]]))
            change = changed(F.leaky_relu_(self.middle[0](features[:, :, -len(new) - 2 :]), 0.1))
            change = self.middle[1](change) + features[:, :, 2:-2, 2:-2, 2:-2]
            middle = rendered(F.leaky_relu_(change, 0.1))
            parts.append(self._fine(middle, fulls, part, [around, *inner[1:]], [x, *full[1:]]))
        volume, labels, log_variance = (torch.cat(slabs, dim=2) for slabs in zip(*parts, strict=True))
        return Rendering(volume, labels, log_variance, *of_coarse)

    def first_volume(self, image: Tensor) -> Tensor:
        """What the generator of the coarse volume alone makes of a pair.

        Args:
            image: ``(B, 2, S, S)``.

        Returns:
            ``(B, 1, c, c, c)`` in network units.
        """
        size = (self.coarse.spatial_size,) * 2
        small = F.interpolate(torch.where(image < 0, NOT_SHOWN, image), size=size, mode="area")
        return self.coarse(small).float()

    def render_coarse(self, image: Tensor, disturb: Callable[[Tensor], Tensor] | None = None) -> CoarseRendering:
        """The coarse part of :meth:`render`, at a fraction of the cost.

        Args:
            image: ``(B, 2, S, S)``.
            disturb: in training, what becomes of the frozen generator's volume ``(B, 1, c, c, c)``.
        """
        return _coarse_rendering(*self._join(image, disturb)[:2])

    def _join(self, image: Tensor, disturb: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The coarse volume without free air, the labels' logits, and the features ``(B, C, c, c, c)`` of both."""
        with torch.no_grad():
            coarse, seen = self._see(image, disturb)
            pair = self._small(image, coarse.shape[-1])
            seen = torch.cat([seen, self._lacking(coarse, *pair)], dim=1)
        features = F.relu(self.join_norm(self.join(seen)[0]))
        change, labels = self.join_head(features).float().split([1, LABELS], dim=1)
        coarse, labels = coarse + CHANGE_GAIN * change, LOGIT_GAIN * labels
        with torch.no_grad():
            so_far = _coarse_rendering(coarse, labels).coarse
            lacking = self._lacking(so_far, *pair)
        refined = self.refine(torch.cat([features, JOIN_GAIN * so_far, lacking], dim=1))
        change, more = self.refine_head(F.relu(refined)).float().split([1, LABELS], dim=1)
        return coarse + CHANGE_GAIN * change, labels + LOGIT_GAIN * more, features

    def _small(self, image: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """A pair's grey levels at a smaller size, and where they are wholly known."""
        small = reduced(image, size)
        known = (small >= 0).float()
        return small * known, known

    def _lacking(self, volume: Tensor, grey: Tensor, known: Tensor) -> Tensor:
        """``(B, MISSING, c, c, c)``: what a coarse volume lacks to explain its radiographs."""
        with _without_autocast(volume):
            change, difference = missing(volume.float(), grey, known)
            n = volume.shape[-1]
            at = [torch.arange(n, device=volume.device)] * 3
            lifted = [lift(DIFFERENCE_GAIN * difference[:, view, None], view, at, n) for view in range(len(VIEWS))]
        return torch.cat([MISSING_GAIN * change, *lifted], dim=1)

    def _see(self, image: Tensor, disturb: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
        """What the frozen parts make of a pair: their coarse volume, and all that the U-Net takes, at the same size."""
        coarse = self.first_volume(image)
        coarse = disturb(coarse) if disturb else coarse
        n = coarse.shape[-1]
        at = [torch.arange(n, device=image.device)] * 3
        lifted = [
            lift(torch.cat([maps, features], dim=1), view, at, n)
            for view, (maps, features) in enumerate(zip(*self.thickness.look(reduced(image)), strict=True))
        ]
        along = (at[0] + 0.5) * 2 / n - 1
        place = torch.stack(torch.meshgrid(along, along, along, indexing="ij")).expand(len(coarse), -1, -1, -1, -1)
        return coarse, torch.cat([JOIN_GAIN * coarse, *lifted, place], dim=1)

    def _lacking_at_half_size(self, volume: Tensor, image: Tensor) -> Tensor:
        """``(B, 2, S/2, S/2, S/2)``: what the coarse volume lacks at half size, its coarse and its fine detail."""
        half = self.spatial_size // 2
        with torch.no_grad(), _without_autocast(volume):
            at = [torch.arange(half, device=volume.device)] * 3
            change, _ = missing(upsample(volume.float(), at, half), *self._small(image, half), 1, NOISE)
            low = change
            for axis in range(3):
                window = [BAND_VOXELS if axis == other else 1 for other in range(3)]
                low = F.avg_pool3d(low, window, 1, [n // 2 for n in window], count_include_pad=False)
            return torch.cat([low, change - low], dim=1)

    def _encode(self, image: Tensor, coarse: Tensor) -> list[list[Tensor]]:
        """Of each view the features at S, S/2, ... S/16."""
        return [encoder(of_view) for encoder, of_view in zip(self.images, self._views(image, coarse), strict=True)]

    def _see_bones(self, image: Tensor) -> list[Tensor]:
        """Of each view the maps of bone and the features that they are made of, at S/2; 0 where a film ends."""
        with torch.no_grad():
            within = F.avg_pool2d(_within_film(image), 2).split(1, dim=1)
            return [part * torch.cat(both, 1) for part, *both in zip(within, *self.bones.look(image), strict=True)]

    def _bones_at_half_size(self, bones: list[Tensor], coarse: Tensor, labels: Tensor) -> Tensor:
        """``(B, 1, S/2, S/2, S/2)``: the bones that explain their maps."""
        half = self.spatial_size // 2
        with torch.no_grad(), _without_autocast(coarse):
            at = [torch.arange(half, device=coarse.device)] * 3
            lungs = labels.float().softmax(1)[:, 1:].sum(1, keepdim=True)
            maps = [of_view[:, : len(parts)].float() for of_view, parts in zip(bones, BONES.values(), strict=True)]
            return bone_volume(maps, upsample(lungs, at, half), upsample(coarse.float(), at, half))

    def _views(self, image: Tensor, coarse: Tensor) -> list[Tensor]:
        """Of each view its grey levels, 0 where unknown, where it is known, and what the coarse volume lacks of it."""
        known = (image >= 0).to(image.dtype)
        grey = image * known
        with torch.no_grad(), _without_autocast(image):
            projected = reproject(coarse.float().clamp(min=0), image.shape[-1])
            difference = known * (match_greys(grey, projected, known) - projected)
        parts = torch.stack([grey, known, DIFFERENCE_GAIN * difference], dim=2)
        return [parts[:, view] for view in range(len(VIEWS))]

    def _features(self, joined: Tensor, images: list[Tensor], lacking: Tensor, at: list[Tensor]) -> Tensor:
        """What the middle convolutions take, ``(B, C, ...)`` at some voxels of half size."""
        half = self.spatial_size // 2
        x = lift(images[0], 0, at, half)
        x += lift(images[1], 1, at, half)
        x += upsample(joined, at, half)
        x += _pointwise(self.lacking_to_middle, MISSING_GAIN * _block(lacking, at))
        for axis, index in enumerate(at):
            share = ((index + 0.5) * 2 / half - 1)[:, None].to(x.dtype) * self.place.weight[:, axis].to(x.dtype)
            x += share.T.reshape(1, len(share.T), *(-1 if other == axis else 1 for other in range(3)))
        return F.leaky_relu_(x, 0.1).contiguous(memory_format=torch.channels_last_3d)

    def _fine(
        self, middle: Tensor, images: list[Tensor], part: CoarsePart, half: list[Tensor], full: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The volume, labels and log variance of a :class:`Rendering`.

        Args:
            middle: ``(B, C, x/2 + 2, y/2 + 2, z/2 + 2)``: one voxel more at either end, which the up-sampling needs.
            images: features of each view at full size.
            part: see :class:`CoarsePart`.
            half: voxels of ``middle``.
            full: voxels of the volume.
        """
        told = _pointwise(self.middle_head, middle).float()
        log_variance, labels, believed = told.split([1, LABELS, BANDS], dim=1)
        labels = LOGIT_GAIN * labels + upsample(part.labels, half, self.spatial_size // 2)
        air = _doubled(_free_air(labels))
        change = _doubled((believed * _block(part.lacking, half)).sum(1, keepdim=True))
        with _without_autocast(middle):  # nothing to gain: reordering would cost more
            x = _doubled(_pointwise(self.to_fine, middle.float()))
            for view, of_view in enumerate(images):
                add_lifted(x, of_view, view, full, self.spatial_size)
            x = _pointwise(self.fine, F.leaky_relu_(x, 0.1))
            volume = _pointwise(self.head, F.leaky_relu_(x, 0.1))
            volume += upsample(part.coarse.float(), full, self.spatial_size)
        inside = (..., *(slice(1, -1),) * 3)
        return _with_air(volume + change, air), labels[inside], log_variance[inside]


def _within_film(image: Tensor) -> Tensor:
    """``(B, 2, S, S)``: 1 where a film shows something, falling to 0 over the last pixels before it ends.

    A film's end is no surface, but looks like one to a convolution.
    """
    known = (image >= 0).to(image.dtype)
    share = F.avg_pool2d(known, FADING, 1, FADING // 2, count_include_pad=False)
    return (2 * share - 1).clamp(min=0)


class _Slabs:
    """Slabs of a volume ``(B, C, x, y, z)``, one after the other, each with the last slices of the one before it."""

    def __init__(self, overlap: int) -> None:
        self.overlap = overlap
        self.last: Tensor | None = None

    def __call__(self, slab: Tensor) -> Tensor:
        """The slab with what came before it."""
        if self.last is not None:
            slab = torch.cat([self.last, slab], dim=2)
        self.last = slab[:, :, -self.overlap :]
        return slab


def _without_autocast(x: Tensor) -> AbstractContextManager[None]:
    """For what half precision would spoil. Where it is off nothing is entered, as an exported program would hold it."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()


def _block(volume: Tensor, at: list[Tensor]) -> Tensor:
    """Some voxels of ``(B, C, n, n, n)``; beyond it the border goes on."""
    x, y, z = (index.clamp(0, volume.shape[-1] - 1) for index in at)
    return volume[:, :, x][:, :, :, y][..., z]


def _coarse_rendering(coarse: Tensor, labels: Tensor) -> CoarseRendering:
    return CoarseRendering(_with_air(coarse, _free_air(labels)), labels)


def _free_air(labels: Tensor) -> Tensor:
    """How likely a voxel is free air, ``(B, 1, ...)``, of logits ``(B, 5, ...)``."""
    return labels.softmax(1)[:, 3:].sum(1, keepdim=True)


def _with_air(volume: Tensor, air: Tensor) -> Tensor:
    """Free air where it is likely: what is expected of a voxel that may be either.

    By itself the volume learns a fifth of what a pneumothorax changes, as it hardly moves the squared error.
    """
    return volume + air * (FREE_AIR - volume)


def _doubled(x: Tensor) -> Tensor:
    """Up-sampled twice, trilinearly, without the voxel at either end."""
    for axis in (4, 3, 2):
        before, here, after = (x.narrow(axis, start, x.shape[axis] - 2) for start in range(3))
        x = torch.stack([before.lerp(here, 0.75), after.lerp(here, 0.75)], axis + 1).flatten(axis, axis + 1)
    return x


def _pointwise(layer: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution as the matrix product that it is: few channels, many voxels, no reordering."""
    weight, bias = layer.get_parameter("weight").flatten(1), layer.get_parameter("bias")
    return torch.baddbmm(bias[:, None], weight.expand(len(x), -1, -1), x.flatten(2)).unflatten(2, x.shape[2:])


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
    with _without_autocast(feature):  # half precision would blur the places
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
    depth = DEPTH[view]
    middles = [index.float() for index in at]
    middles[depth] = middles[depth].unflatten(0, (-1, DEPTHS)).mean(1)
    lifted = lift(feature, view, middles, size)
    x.unflatten(2 + depth, (-1, DEPTHS)).add_(lifted.unsqueeze(3 + depth))


def block_condition(image: Tensor, start: tuple[int, int, int], edge: int) -> Tensor:
    """What a discriminator of blocks is told: the radiographs at each voxel, and its place, as CoordConv would.

    Args:
        image: ``(B, 2, S, S)`` as :class:`FineGenerator` takes it.
        start: first voxel of the block along x, y and z, multiples of :data:`DEPTHS`.
        edge: of the block, likewise.

    Returns:
        ``(B, 5, edge, edge, edge)``: grey levels of PA and lateral, 0 where unknown; x, y and z from
        -:data:`PLACE_GAIN` to :data:`PLACE_GAIN`.
    """
    size = image.shape[-1]
    at = [torch.arange(first, first + edge, device=image.device) for first in start]
    grey = image.clamp(min=0)
    seen = torch.zeros(len(image), len(VIEWS), edge, edge, edge, device=image.device)
    for view in range(len(VIEWS)):
        add_lifted(seen[:, view : view + 1], grey[:, view : view + 1], view, at, size)
    along = [PLACE_GAIN * ((index + 0.5) * 2 / size - 1) for index in at]
    place = torch.stack(torch.meshgrid(along, indexing="ij")).expand(len(image), -1, -1, -1, -1)
    return torch.cat([seen, place], dim=1)


def upsample(volume: Tensor, at: list[Tensor], size: int) -> Tensor:
    """Trilinear values at some voxels of a finer grid of the same cube: a block of ``F.interpolate``'s result.

    Args:
        volume: ``(B, C, c, c, c)``.
        at: voxels along x, y and z of the grid with ``size`` voxels along the edge; beyond it the border goes on.
        size: see ``at``.
    """
    n = volume.shape[-1]
    x, y, z = (_weights(index, n, size).to(volume.dtype) for index in at)
    return y @ (x @ volume.flatten(3)).unflatten(3, (n, n)) @ z.T


def _weights(at: Tensor, n: int, size: int) -> Tensor:
    place = ((at + 0.5) * (n / size) - 0.5).clamp(0, n - 1)
    return (1 - (place[:, None] - torch.arange(n, device=at.device)).abs()).clamp(min=0)


def warm_start(
    network: FineGenerator, coarse: XReconGenerator, thickness: ThicknessNet, bones: ThicknessNet
) -> FineGenerator:
    """Give the network the weights of its frozen parts: until it is trained it does what the coarse generator does."""
    network.coarse.load_state_dict(coarse.state_dict())
    network.thickness.load_state_dict(thickness.state_dict())
    network.bones.load_state_dict(bones.state_dict())
    return network


def add_deviation_factor(network: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Give weights from before there was a :attr:`FineGenerator.deviation_factor` one that changes nothing."""
    state.setdefault(f"{prefix}deviation_factor", torch.ones(()))
