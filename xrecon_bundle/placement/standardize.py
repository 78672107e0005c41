"""A CT brought into the chest frame: the patient alone, upright in LPI, in the cube centred on the thorax."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from scipy import ndimage

from .. import frame
from ..files import InputError
from ..segmentation.grid import block_mean
from ..volume import check_affine
from .body import COARSE_MM, find_lungs, find_trunk

HIGHEST_HU = 3071.0  # of a 12-bit scanner; metal above it carries no information
THIN_END = 0.05  # sections of the lungs below this share of the largest do not count for the middle


class StandardizedCT(NamedTuple):
    """A CT in the chest frame: ``ct`` int16 HU ``(S, S, S)`` LPI, its RAS+ ``affine`` in mm, and ``labels`` or None."""

    ct: np.ndarray
    affine: np.ndarray
    labels: np.ndarray | None = None


def standardize_ct(
    hu: np.ndarray, affine: np.ndarray, spatial_size: int, labels: np.ndarray | None = None
) -> StandardizedCT:
    """Keep the patient, find the thorax, resample its cube of ``frame.EDGE_MM``.

    Axes may come in any order and direction, oblique or sheared (gantry tilt): the affine decides. Table, clothes and
    arms beside the trunk become air, as does everything outside the scan. Finer input is smoothed before sampling by a
    Gaussian that matches the point spread of the new voxel (Cardoso et al., MICCAI 2015).

    Args:
        hu: CT ``(I, J, K)`` in HU, any numeric dtype. Values below -1024 and NaN (padding) count as air.
        affine: ``(4, 4)`` voxel index to RAS+ mm.
        spatial_size: edge of the result in voxels.
        labels: integer label map ``(I, J, K)``; sampled at the nearest voxel.

    Raises:
        InputError: shape or affine make no volume, or the scan shows too little thorax (the message says why).
    """
    hu, affine = np.asarray(hu), np.asarray(affine, dtype=float)
    if hu.ndim != 3 or min(hu.shape) < 2:
        raise InputError(f"a CT volume has three axes of at least 2 voxels, this array has shape {hu.shape}")
    check_affine(affine)
    if labels is not None and labels.shape != hu.shape:
        raise InputError(f"labels {labels.shape} and CT {hu.shape} differ in shape")

    to_lpi = ornt_transform(io_orientation(affine), axcodes2ornt(frame.AXCODES))
    affine = affine @ inv_ornt_aff(to_lpi, hu.shape)
    hu = _as_int16(apply_orientation(hu, to_lpi))
    spacing = frame.voxel_spacing(affine)

    factors = tuple(int(factor) for factor in np.maximum(1, np.round(COARSE_MM / spacing)))
    coarse, coarse_spacing = block_mean(hu, factors), spacing * factors
    body = find_trunk(coarse, coarse_spacing)
    lungs = find_lungs(coarse, body, coarse_spacing)
    middle = (_middle(lungs) + 0.5) * factors - 0.5
    cube = frame.cube_affine(spatial_size, affine[:3, :3] @ middle + affine[:3, 3])

    margin = np.ceil(4 * _smoothing(affine, cube)) + 1
    window = _cube_window(hu.shape, affine, cube, spatial_size, margin)
    kept = body[
        np.ix_(*(np.arange(part.start, part.stop) // factor for part, factor in zip(window, factors, strict=True)))
    ]
    patient = np.where(kept, hu[window], np.float32(frame.AIR_HU))
    start = affine.copy()
    start[:3, 3] = affine[:3, :3] @ [part.start for part in window] + affine[:3, 3]
    ct = _resample(patient, start, cube, spatial_size)
    if labels is not None:
        labels = _sample(apply_orientation(labels, to_lpi)[window], start, cube, spatial_size, order=0, outside=0)
    return StandardizedCT(ct, cube, labels)


def resize_cube(ct: np.ndarray, affine: np.ndarray, spatial_size: int) -> StandardizedCT:
    """A CT that is already in the chest frame, ``(S, S, S)`` HU, at another size; the cube stays where it stands."""
    cube = frame.cube_affine(spatial_size, frame.grid_centre(affine, ct.shape))
    return StandardizedCT(_resample(ct.astype(np.float32), affine, cube, spatial_size), cube)


def _as_int16(hu: np.ndarray) -> np.ndarray:
    """HU between air and :data:`HIGHEST_HU` as int16; NaN and padding (-2000, -2048, -3024) become air."""
    if not np.issubdtype(hu.dtype, np.integer):
        hu = np.rint(np.nan_to_num(hu, nan=frame.AIR_HU))
    return np.clip(hu, int(frame.AIR_HU), int(HIGHEST_HU)).astype(np.int16)


def _middle(lungs: np.ndarray) -> np.ndarray:
    """Middle of the lungs' extent ``(3,)`` in voxels, thin ends (trachea, recesses) left out."""
    middle = []
    for axis in range(3):
        sections = lungs.sum(axis=tuple({0, 1, 2} - {axis}))
        inside = np.flatnonzero(sections > THIN_END * sections.max())
        middle.append((inside[0] + inside[-1]) / 2)
    return np.array(middle)


def _cube_window(
    shape: tuple[int, ...], affine: np.ndarray, cube: np.ndarray, size: int, margin: np.ndarray
) -> tuple[slice, ...]:
    """The part of the scan's grid that holds the cube, and ``margin`` voxels more."""
    corners = np.array(np.meshgrid(*[[0, size - 1]] * 3)).reshape(3, -1)
    to_scan = np.linalg.inv(affine) @ cube
    corners = to_scan[:3, :3] @ corners + to_scan[:3, 3:]
    low = np.clip(np.floor(corners.min(axis=1) - margin), 0, None).astype(int)
    high = np.clip(np.ceil(corners.max(axis=1) + margin) + 1, None, shape).astype(int)
    return tuple(slice(int(start), int(stop)) for start, stop in zip(low, high, strict=True))


def _smoothing(affine: np.ndarray, cube: np.ndarray) -> np.ndarray:
    """Standard deviations in the scan's voxels that widen its point spread to the cube's voxel; 0 where it is wider."""
    ratio = np.linalg.norm(cube[:3, :3], axis=0).mean() / np.linalg.norm(affine[:3, :3], axis=0)
    return np.sqrt(np.maximum(ratio**2 - 1.0, 0.0) / (8 * np.log(2)))


def _resample(hu: np.ndarray, affine: np.ndarray, cube: np.ndarray, size: int) -> np.ndarray:
    """``hu`` (float32) on the cube's grid, int16, smoothed before; air outside."""
    smooth = ndimage.gaussian_filter(hu, _smoothing(affine, cube), mode="nearest")
    return np.rint(_sample(smooth, affine, cube, size, order=1, outside=frame.AIR_HU)).astype(np.int16)


def _sample(
    volume: np.ndarray, affine: np.ndarray, cube: np.ndarray, size: int, order: int, outside: float
) -> np.ndarray:
    """``volume`` on the cube's grid; ``outside`` beyond its outermost voxels' edges, not blended with them."""
    to_scan = np.linalg.inv(affine) @ cube
    matrix, offset = to_scan[:3, :3], to_scan[:3, 3]
    diagonal = np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-6)
    result = ndimage.affine_transform(
        volume,
        np.diag(matrix) if diagonal else matrix,  # a diagonal goes SciPy's separable, faster way
        offset,
        (size,) * 3,
        order=order,
        mode="nearest",
        prefilter=False,
    )
    x, y, z = np.ogrid[:size, :size, :size]
    for row, start, length in zip(matrix, offset, volume.shape, strict=True):
        position = np.float32(row[0]) * x + np.float32(row[1]) * y + (np.float32(row[2]) * z + np.float32(start))
        result[(position < -0.5) | (position > length - 0.5)] = outside
    return result
