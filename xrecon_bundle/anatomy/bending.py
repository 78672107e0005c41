"""A chest bent at random: shapes that nobody has whom the weights learn from.

Pseudo-patients (:mod:`.pseudo_patients`) stay near their person. A network does better for people it learnt from than
for others, and learns more about others from chests that are bent anew, and further, each time it sees them.
"""

from __future__ import annotations

import numpy as np

from .pseudo_patients import on_finer_grid

NODES = 5  # of the random displacement along each axis, a cubic spline between them


def bend_chest(
    ct: np.ndarray, labels: np.ndarray, rng: np.random.Generator, spacing_mm: float, most_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move a CT and its labels smoothly: a random elastic deformation (Simard et al., ICDAR 2003) by a coarse spline.

    Args:
        ct: ``(S, S, S)`` in HU.
        labels: integers of the same shape.
        rng: NumPy's random source; the same state bends alike.
        spacing_mm: edge of a voxel.
        most_mm: root mean square of the displacement along an axis, at most; drawn from 0 to this. Up to a thirtieth
            of the volume's edge nothing folds.

    Returns:
        the CT, float32 HU by linear interpolation, and the labels of the nearest voxels.
    """
    import torch
    from torch.nn.functional import grid_sample

    size = ct.shape[0]
    noise = rng.standard_normal((3, NODES, NODES, NODES))
    noise *= most_mm * rng.random() / np.sqrt((noise**2).mean())
    along = torch.linspace(-1, 1, size)
    place = torch.stack(torch.meshgrid(along, along, along, indexing="ij"))
    moved = place + torch.from_numpy(on_finer_grid(noise, np.array(ct.shape))) * 2 / ((size - 1) * spacing_mm)
    grid = moved.flip(0).movedim(0, -1)[None]

    def sample(values: np.ndarray, mode: str) -> np.ndarray:
        volume = torch.from_numpy(values.astype(np.float32))[None, None]
        return grid_sample(volume, grid, mode=mode, padding_mode="border", align_corners=True)[0, 0].numpy()

    return sample(ct, "bilinear"), sample(labels, "nearest").astype(labels.dtype)
