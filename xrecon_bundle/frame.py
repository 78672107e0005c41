"""The canonical chest frame: one set of axes, field of view and intensity scales for the whole project.

Volumes are ``(X, Y, Z)`` arrays oriented **LPI** (nibabel axis codes: an axis code names the direction in which the
index grows): ``x`` grows to the patient's left, ``y`` to the back, ``z`` to the feet. Images saved straight from
``(x, z)`` or ``(y, z)`` therefore stand upright in the radiologist's usual view.

The volume is a cube of :data:`EDGE_MM` centred on the thorax. Patient coordinates in affines are NIfTI's RAS+
millimetres. Every intensity function works on NumPy arrays and on tensors alike and keeps the type.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

AXCODES = "LPI"
EDGE_MM = 358.4  # 224 voxels of 1.6 mm, the size of the paper's volume
HU_OFFSET = 1024.0
HU_SPAN = 2500.0  # units 0 to 1 are -1024 to 1476 HU
AIR_HU = -1024.0
# Water at 70 keV, a typical mean energy of a 120 kVp chest beam: 0.1937 cm^2/g
# (log-log interpolation of NIST XCOM's 0.2059 at 60 keV and 0.1837 at 80 keV).
MU_WATER_PER_MM = 0.01937
# Chest radiograph geometry, see architecture.md.
SOURCE_TO_DETECTOR_MM = 1800.0
DETECTOR_TO_CENTRE_MM = 200.0

MIDDLE_MM = 30.0  # of spine and breastbone, to either side

# What a radiograph's scale is set by: robust against markers, metal and the open beam.
LOWER_PERCENTILE = 0.5
UPPER_PERCENTILE = 99.5

SHEAR = 1e-5  # of a voxel's volume: axes within a quarter of a degree of right angles count as right-angled

ArrayT = TypeVar("ArrayT", np.ndarray, "Tensor")
Vector = Sequence[float] | np.ndarray  # three numbers: a place or the edges of a voxel, in mm


def voxel_size(spatial_size: int) -> float:
    """Edge of one voxel in mm of a cube with ``spatial_size`` voxels along each axis."""
    return EDGE_MM / spatial_size


def hu_to_unit(hu: ArrayT) -> ArrayT:
    """Hounsfield units to the network's units: ``clip(HU + 1024, 0, 2500) / 2500``, in [0, 1]."""
    return (hu + HU_OFFSET).clip(0.0, HU_SPAN) / HU_SPAN


def unit_to_hu(unit: ArrayT) -> ArrayT:
    """Network units back to Hounsfield units; inverse of :func:`hu_to_unit` on [-1024, 1476] HU, no clipping."""
    return unit * HU_SPAN - HU_OFFSET


def unit_to_whole_hu(unit: ArrayT) -> ArrayT:
    """Network units, clipped to [0, 1], to whole HU from -1024 to 1476: what a file of a reconstruction holds."""
    return unit_to_hu(unit.clip(0.0, 1.0)).round()


def hu_to_attenuation(hu: ArrayT) -> ArrayT:
    """Linear attenuation in 1/mm, ``mu_water * max(0, 1 + HU / 1000)``.

    Aerated lung (-850 HU) keeps 15 % of water's attenuation and free air (-1000 HU) has none: a pneumothorax is that
    very difference, so nothing is thresholded away.
    """
    return MU_WATER_PER_MM * (1.0 + hu / 1000.0).clip(0.0, None)


def parts_of_chest(x: ArrayT, y: ArrayT) -> tuple[list[ArrayT], list[ArrayT]]:
    """In front and behind, and right, middle and left: masks of places along x and y, in mm from the lungs' middle."""
    near = abs(x) < MIDDLE_MM
    return [y < 0, y >= 0], [(x < 0) & ~near, near, (x >= 0) & ~near]


def radiograph_to_unit(image: ArrayT, lower: float = LOWER_PERCENTILE, upper: float = UPPER_PERCENTILE) -> ArrayT:
    """Scale each view ``(C, U, V)`` so that its ``lower`` and ``upper`` percentiles become 0 and 1; clipped, float32.

    For line integrals in nepers and for the grey values of real films alike (bright is dense): the result does not
    change when a view is multiplied by a positive number or shifted. A constant view becomes 0. NaN, where a film shows
    nothing, does not count and stays.
    """
    views = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image, dtype=np.float32)
    percentile = np.nanpercentile if np.isnan(views).any() else np.percentile
    low, high = percentile(views, (lower, upper), axis=(-2, -1), keepdims=True).astype(np.float32)
    unit = ((views - low) / np.where(high > low, high - low, 1)).clip(0, 1)
    if not hasattr(image, "detach"):
        return unit
    import torch

    result = image.detach().to(torch.float32).clone()  # keeps a MetaTensor's affine
    return result.copy_(torch.from_numpy(unit))


def cube_affine(spatial_size: int, centre_mm: Vector = (0.0, 0.0, 0.0)) -> np.ndarray:
    """RAS+ affine ``(4, 4)`` of the cube's voxel grid, for a cube whose centre lies at ``centre_mm`` (RAS+, mm)."""
    step = voxel_size(spatial_size)
    affine = np.diag([-step, -step, -step, 1.0])
    affine[:3, 3] = np.asarray(centre_mm, dtype=float) + step * (spatial_size - 1) / 2
    return affine


def grid_centre(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """World position ``(3,)`` of the centre of a grid of ``shape`` (its first three axes) under ``affine``."""
    middle = (np.asarray(shape[:3], dtype=float) - 1) / 2
    return np.asarray(affine, dtype=float)[:3, :3] @ middle + np.asarray(affine, dtype=float)[:3, 3]


def voxel_spacing(affine: np.ndarray, slice_axis: int = 2) -> np.ndarray:
    """Edges ``(3,)`` in mm of a right-angled voxel with the volume of ``affine``'s, which is |det|.

    They are the lengths of the affine's columns. Where it is sheared (gantry tilt), the one across the slices is
    shorter: the distance between slices, not the way along the table from one to the next.

    Args:
        affine: ``(4, 4)`` voxel index to mm.
        slice_axis: the axis that runs from slice to slice.
    """
    spacing = np.linalg.norm(np.asarray(affine, dtype=float)[:3, :3], axis=0)
    if is_sheared(affine):
        spacing[slice_axis] = abs(np.linalg.det(affine[:3, :3])) / np.prod(np.delete(spacing, slice_axis))
    return spacing


def is_sheared(affine: np.ndarray) -> bool:
    """Whether the axes of an affine do not stand at right angles, beyond rounding."""
    columns = np.asarray(affine, dtype=float)[:3, :3]
    return bool(abs(np.linalg.det(columns / np.linalg.norm(columns, axis=0))) < 1 - SHEAR)


def radiograph_affine(spatial_size: int, centre_mm: Vector = (0.0, 0.0, 0.0)) -> np.ndarray:
    """Affine ``(4, 4)`` that a file of the biplanar image ``(U, V, 2)`` carries.

    A pair of radiographs has no affine of its own. This one keeps what matters: the pixel spacing at the cube's centre
    plane (detector pixel divided by magnification) and, as the grid's centre, where the cube stands in the patient, so
    that a reconstruction is written where the CT was. Axes: u to the left, v to the feet, view to the back.
    """
    source_to_centre = SOURCE_TO_DETECTOR_MM - DETECTOR_TO_CENTRE_MM
    step = detector_size_mm() / (SOURCE_TO_DETECTOR_MM / source_to_centre) / spatial_size
    affine = np.array([[-step, 0, 0, 0], [0, 0, -step, 0], [0, -step, 0, 0], [0, 0, 0, 1]], dtype=float)
    affine[:3, 3] = np.asarray(centre_mm, dtype=float) - grid_centre(affine, (spatial_size, spatial_size, 2))
    return affine


def reconstruction_affine(radiographs: np.ndarray, pixels: int, spatial_size: int) -> np.ndarray:
    """Affine ``(4, 4)`` of the cube that a radiograph pair shows; inverse of :func:`radiograph_affine`.

    Args:
        radiographs: affine ``(4, 4)`` of the pair; its grid's centre says where the cube stands.
        pixels: along each edge of the pair.
        spatial_size: of the cube.
    """
    return cube_affine(spatial_size, tuple(grid_centre(radiographs, (pixels, pixels, 2))))


def detector_size_mm() -> float:
    """Edge in mm of the square detector on which the default geometry just shows the whole cube."""
    nearest = SOURCE_TO_DETECTOR_MM - DETECTOR_TO_CENTRE_MM - EDGE_MM / 2
    return EDGE_MM * SOURCE_TO_DETECTOR_MM / nearest
