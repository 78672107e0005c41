"""How thick lung, free air and bone are along the rays of a radiograph pair: U-Nets, each told what the other sees.

A pneumothorax is a line and a missing texture, which a 2D network sees at 2 mm and a 3D one at 64^3 does not; and the
course of a rib tells whether it lies in front or behind. Made by ``scripts/thickness_weights.py`` from simulated films;
:class:`~.fine.FineGenerator` puts what they see into the volume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import frame
from .generator import VIEWS
from .unet import UNet

PIXELS = 160
UNKNOWN = -1.0  # of the input, where a film shows nothing
PARTS = {"pa": ("right lung", "left lung", "right air", "left air"), "lateral": ("lungs", "air")}
BONES = {"pa": ("front", "back"), "lateral": ("right", "middle", "left")}  # projection.film.simulate_dense
BONE_CHANNELS = (16, 32, 48, 64)
# By how much the cube's middle plane is smaller on the detector than the detector.
REDUCED = (
    frame.detector_size_mm()
    * (frame.SOURCE_TO_DETECTOR_MM - frame.DETECTOR_TO_CENTRE_MM)
    / frame.SOURCE_TO_DETECTOR_MM
    / frame.EDGE_MM
)
NEIGHBOURHOODS = ((7, 20.0), (25, 6.0))  # width in pixels, by how much the contrast is raised
UNIT_MM = 100.0  # of the network's output
BONE_UNIT_MM = 10.0


class ThicknessNet(nn.Module):
    """Thickness of what ``parts`` names, for each view.

    Args:
        channels: of each view's U-Net at full size, half size and so on.
        parts: :data:`PARTS`, in units of :data:`UNIT_MM`, or :data:`BONES`, in units of :data:`BONE_UNIT_MM`.

    Attributes:
        channels: of what :meth:`look` gives of each view, maps and features.

    Input ``(B, 2, P, P)`` in [0, 1], -1 where a film shows nothing. Output ``(B, parts, P/2, P/2)`` of
    either view: the expected thickness, which may fall a little below 0.
    """

    def __init__(
        self, channels: tuple[int, ...] = (16, 32, 48, 64, 96), parts: Mapping[str, tuple[str, ...]] = PARTS
    ) -> None:
        super().__init__()
        self.channels = [len(parts[view]) + channels[0] for view in VIEWS]
        self.nets = nn.ModuleList(UNet(nn.Conv2d(6, channels[0], 5, 2, 2), channels) for _ in VIEWS)
        self.tell = nn.ModuleList(nn.Linear(channels[-1], channels[-1]) for _ in VIEWS)
        self.norms = nn.ModuleList(nn.GroupNorm(channels[0] // 8, channels[0]) for _ in VIEWS)
        self.heads = nn.ModuleList(nn.Conv2d(channels[0], len(names), 1) for names in parts.values())

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps of either view."""
        return self.look(image)[0]

    def look(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """The maps of either view, and the features ``(B, channels[0], P/2, P/2)`` that they are made of."""
        nets = cast(list[UNet], self.nets)
        skips = [net.encode(_seen(image[:, view])) for view, net in enumerate(nets)]
        deepest = [of_view[-1].mean((2, 3)) for of_view in skips]
        features = []
        for view, net in enumerate(nets):
            skips[view][-1] = skips[view][-1] + self.tell[view](deepest[1 - view])[:, :, None, None]
            features.append(F.relu(self.norms[view](net.decode(skips[view])[0])))
        return [head(of_view) for head, of_view in zip(self.heads, features, strict=True)], features


def bone_net() -> ThicknessNet:
    """The network of bone maps, for radiographs at full size."""
    return ThicknessNet(BONE_CHANNELS, BONES)


def thickness_maps(labels: Tensor, pixels: int = PIXELS // 2) -> list[Tensor]:
    """What the network of :data:`PARTS` should say of a label map ``(X, Y, Z)``: maps ``(4, n, n)`` and ``(2, n, n)``.

    The rays are taken to be parallel, with the magnification of the cube's middle plane: so the maps' sums are the
    volumes.
    """
    voxel_mm = frame.voxel_size(len(labels))
    regions = torch.stack([labels == value for value in (1, 2, 3, 4)]).float()
    pa = regions.sum(2)
    lateral = torch.stack([regions[:2].sum((0, 1)), regions[2:].sum((0, 1))])
    grid = F.affine_grid(torch.tensor([[[REDUCED, 0, 0], [0, REDUCED, 0.0]]]), [1, 1, pixels, pixels], False)
    return [
        F.grid_sample(of_view[None] * (voxel_mm / UNIT_MM), grid, align_corners=False)[0] for of_view in (pa, lateral)
    ]


def reduced(image: Tensor, pixels: int = PIXELS) -> Tensor:
    """A placed pair ``(B, 2, S, S)`` to a smaller size; :data:`UNKNOWN` where a pixel is not wholly known."""
    known = (image >= 0).to(image.dtype)
    grey, shown = (F.interpolate(part, size=(pixels, pixels), mode="area") for part in (image * known, known))
    return torch.where(shown > 0.99, grey / shown.clamp(min=0.5), UNKNOWN)


def _seen(view: Tensor) -> Tensor:
    """``(B, P, P)`` to ``(B, 6, P, P)``: grey levels, contrast in two neighbourhoods, what is known, and the place.

    The abdomen takes most of the grey scale; the pleural line is a hundredth of it.
    """
    known = (view >= 0).to(view.dtype)
    grey = view * known
    contrast = []
    for width, gain in NEIGHBOURHOODS:
        mean, share = (F.avg_pool2d(part[:, None], width, 1, width // 2)[:, 0] for part in (grey, known))
        contrast.append(gain * known * (grey - mean / share.clamp(min=0.05)))
    n = view.shape[-1]
    along = ((torch.arange(n, device=view.device) + 0.5) * 2 / n - 1).to(view.dtype)
    u, v = (part.expand_as(view) for part in torch.meshgrid(along, along, indexing="ij"))
    return torch.stack([grey, *contrast, known, u, v], dim=1).contiguous(memory_format=torch.channels_last)
