"""How one person's chest becomes shaped as another's: a flow found by registration.

Made-up deformations of a few people do not show how people differ. Part of the way from one real chest to another is a
third that may well exist: the flow between them is the exponential of a stationary velocity field, as a
pseudo-patient's (:mod:`.pseudo_patients`), so a share of it can be added to the others (Arsigny et al., MICCAI 2006;
Rueckert et al., Statistical deformation models, IEEE TMI 22 (2003) 1014).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from .. import frame
from .pseudo_patients import GRID_MM, grid_nodes

if TYPE_CHECKING:
    from torch import Tensor

REACH_MM = 32.0  # from a surface within which its distance draws
SOFT_TISSUE_HU = (-150.0, 600.0)  # the middle of the grey levels that are compared, and what counts as one
CONTROL = (12, 23)  # nodes along an edge of the two grids that the velocity is the sum of
STEPS, RATE = 70, 0.2  # of Adam, in nodes
SMOOTHNESS = 0.12
SQUARINGS = 5


def velocity_between(
    hu: np.ndarray, labels: np.ndarray, other_hu: np.ndarray, other_labels: np.ndarray, spacing: frame.Vector
) -> np.ndarray:
    """The velocity whose flow makes one chest look like another: both lungs, the body's outline, bones and organs.

    Args:
        hu: CT ``(X, Y, Z)`` in HU, LPI, its ends continued (:func:`xrecon_bundle.projection.film.extend_scan`).
        labels: label map ``(X, Y, Z)``, :mod:`xrecon_bundle.segmentation.labels`.
        other_hu: the other's, of the same shape.
        other_labels: likewise.
        spacing: voxel size in mm.

    Returns:
        ``(3, x, y, z)`` in mm, on the nodes of :func:`.pseudo_patients.random_deformation`.

    Raises:
        ValueError: shapes differ.
    """
    import torch
    import torch.nn.functional as F

    if len({array.shape for array in (hu, labels, other_hu, other_labels)}) != 1:
        raise ValueError("both CTs and label maps must have one shape")
    nodes = grid_nodes(hu.shape, spacing)
    index = np.stack(np.meshgrid(*nodes, indexing="ij"))
    moving, fixed = (torch.from_numpy(_features(*ct, index)) for ct in ((hu, labels), (other_hu, other_labels)))
    size = moving.shape[1:]
    controls = [torch.zeros(1, 3, n, n, n, requires_grad=True) for n in CONTROL]
    optimizer = torch.optim.Adam(controls, lr=RATE)
    velocity = torch.zeros(3, *size)
    for _ in range(STEPS):
        velocity = sum(
            (F.interpolate(control, size=size, mode="trilinear", align_corners=True)[0] for control in controls),
            torch.zeros(3, *size),
        )
        displacement = velocity / 2**SQUARINGS
        for _ in range(SQUARINGS):
            displacement = displacement + _moved(displacement, displacement)
        roughness = sum((velocity.diff(dim=axis).square().mean() for axis in (1, 2, 3)), torch.zeros(()))
        loss = (_moved(moving, displacement) - fixed).square().mean() + SMOOTHNESS * roughness
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    step = np.array([node[1] - node[0] for node in nodes]) * np.asarray(spacing, dtype=float)
    return velocity.detach().numpy().astype(np.float32) * step[:, None, None, None].astype(np.float32)


def _features(hu: np.ndarray, labels: np.ndarray, index: np.ndarray) -> np.ndarray:
    """What is compared, ``(4, x, y, z)`` float32: distances from both lungs' and the body's surfaces, grey levels."""
    width = float(index[0, 1, 0, 0] - index[0, 0, 0, 0])

    def sampled(values: np.ndarray) -> np.ndarray:
        mean = ndimage.uniform_filter(values.astype(np.float32), max(1, round(width)))
        return ndimage.map_coordinates(mean, index, order=1, mode="nearest")

    def distance(inside: np.ndarray) -> np.ndarray:
        reach = REACH_MM / GRID_MM
        away = ndimage.distance_transform_edt(inside) - ndimage.distance_transform_edt(~inside)
        return np.clip(away, -reach, reach) / reach

    lungs = [sampled(np.isin(labels, side)) > 0.5 for side in ((1, 3), (2, 4))]
    body = ndimage.binary_fill_holes((sampled(hu > -400) > 0.5) | lungs[0] | lungs[1])
    middle, one = SOFT_TISSUE_HU
    grey = np.clip((sampled(hu) - middle) / one, -1.5, 1.5)
    return np.stack([*(distance(part) for part in (*lungs, body)), 0.7 * grey]).astype(np.float32)


def _moved(values: Tensor, displacement: Tensor) -> Tensor:
    """``values`` ``(C, x, y, z)`` at each node plus ``displacement`` ``(3, x, y, z)`` in nodes, linear."""
    import torch
    import torch.nn.functional as F

    size = torch.tensor(values.shape[1:])
    nodes = torch.stack(torch.meshgrid([torch.arange(n, dtype=torch.float32) for n in size.tolist()], indexing="ij"))
    place = (nodes + displacement) * (2 / (size - 1)).view(3, 1, 1, 1) - 1
    at = place.flip(0).movedim(0, -1)[None]
    return F.grid_sample(values[None], at, mode="bilinear", padding_mode="border", align_corners=True)[0]
