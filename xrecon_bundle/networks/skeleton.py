"""Where the bones are that both radiographs show: maps of their thickness, back-projected.

Each map (:data:`~.thickness.BONES`) is the projection of the bones in one part of the chest. A few steps of
expectation maximisation (Shepp and Vardi, IEEE Trans. Med. Imaging 1 (1982) 113) find a volume with these projections.
Its product form keeps bones where both views show them, and near where they are expected: around the lungs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import frame
from .data_consistency import BODY, Rays, gaussian_matrix, smoothed
from .thickness import BONE_UNIT_MM

STEPS = 5
ELSEWHERE = 0.08  # of the density around the lungs, at first
AROUND_MM = 10.0  # standard deviation of the Gaussian that says what is around the lungs
LEAST = 0.02  # of a projection, in the maps' unit: below it there is nothing to explain


def bone_volume(maps: list[Tensor], lungs: Tensor, volume: Tensor) -> Tensor:
    """The density of bone beyond that of soft tissue.

    Args:
        maps: ``(B, 2, n, n)`` and ``(B, 3, n, n)``, what :func:`~.thickness.bone_net` says of either view.
        lungs: ``(B, 1, n, n, n)``, how likely a voxel is lung or free air.
        volume: likewise, the CT as known so far, in network units.

    Returns:
        ``(B, 1, n, n, n)`` in network units.
    """
    n = volume.shape[-1]
    rays = Rays(n, n, volume)
    kernel = gaussian_matrix(n, AROUND_MM / frame.voxel_size(n), volume)
    around = (4 * smoothed(lungs, kernel) * (1 - lungs)).clamp(max=1)
    inside = ((volume > BODY) | (lungs > 0.5)).to(volume.dtype)
    bones = 0.05 * inside * (ELSEWHERE + around)
    unit = frame.EDGE_MM / BONE_UNIT_MM
    parts = _parts(lungs)
    observed = [of_part for of_view in maps for of_part in of_view.clamp(min=0).unbind(1)]
    everywhere = [rays.back_project_view(torch.ones_like(observed[view]), view) for view in (0, -1)]
    seen = everywhere[0] + everywhere[1]  # every voxel is in one part of either view
    for _ in range(STEPS):
        gain = torch.zeros_like(bones)
        for (view, part), wanted in zip(parts, observed, strict=True):
            projected = unit * rays.project_view(bones * part, view)
            gain = gain + part * rays.back_project_view(wanted / (projected + LEAST), view)
        bones = bones * gain / seen.clamp(min=1e-6)
    return bones * (1000 / frame.HU_SPAN)


def _parts(lungs: Tensor) -> list[tuple[int, Tensor]]:
    """View and place of each map: front and behind, then right, middle and left, of the middle of the lungs' box."""
    n = lungs.shape[-1]
    along = torch.arange(n, device=lungs.device)
    middles = []
    for others in ((1, 3, 4), (1, 2, 4)):
        within = (lungs > 0.5).flatten(1, 1).amax(dim=others).to(lungs.dtype)
        first, last = within.argmax(1), n - 1 - within.flip(1).argmax(1)
        middles.append(((first + last) / 2)[:, None])
    x, y = ((along - middle) * frame.voxel_size(n) for middle in middles)
    depths, sides = frame.parts_of_chest(x, y)
    parts = [
        *((0, part[:, None, None, :, None]) for part in depths),
        *((1, part[:, None, :, None, None]) for part in sides),
    ]
    return [(view, part.to(lungs.dtype)) for view, part in parts]
