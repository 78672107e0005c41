"""What every CT reader gives, and the check that its values are Hounsfield units."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .files import InputError

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
LEAST_VOXEL_MM = 0.1
MOST_VOXEL_MM = 12.0  # the thickest slices of old chest CTs are 10 mm


class CTVolume(NamedTuple):
    """A CT as it was found.

    Attributes:
        hu: ``(I, J, K)`` float32 Hounsfield units.
        affine: ``(4, 4)`` voxel index to RAS+ mm; may be oblique or sheared (gantry tilt).
        source: what is known of it: ``format``, and for DICOM ``series``, ``description`` and ``notes`` on what was
            left out or put right.
    """

    hu: np.ndarray
    affine: np.ndarray
    source: dict[str, Any]


def check_affine(affine: np.ndarray) -> None:
    """Raise :class:`InputError` unless ``affine`` is a finite, invertible 4x4 matrix with voxels of usable size."""
    if affine.shape != (4, 4) or not np.isfinite(affine).all():
        raise InputError("the affine is not a finite 4x4 matrix; write the CT again with its position and spacing")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if spacing.min() == 0 or abs(np.linalg.det(affine[:3, :3] / np.maximum(spacing, 1e-12))) < 1e-2:
        raise InputError("the affine is singular; write the CT again with its orientation and spacing")
    if spacing.min() < LEAST_VOXEL_MM or spacing.max() > MOST_VOXEL_MM:
        voxel = " x ".join(f"{edge:.3g}" for edge in spacing)
        usable = f"usable are {LEAST_VOXEL_MM:g} to {MOST_VOXEL_MM:g} mm"
        raise InputError(f"voxels of {voxel} mm, {usable}; give thinner slices, and an affine in mm")


def check_hu(hu: np.ndarray, hint: str = "") -> None:
    """Raise :class:`InputError` with the reason when values are plainly not HU: no air, no tissue, no bone.

    A whole CT has air near -1000 HU around the patient, soft tissue around 0 and bone above 150. Looks at every third
    voxel of each axis.

    Args:
        hu: the volume.
        hint: added to the reason where air is missing, for example that a header had no rescale.
    """
    sample = hu[::3, ::3, ::3]
    sample = sample[np.isfinite(sample)]
    if sample.size < hu[::3, ::3, ::3].size / 2:
        raise InputError("not HU: more than half of the values are NaN or infinite; export the CT again")
    low, high = float(sample.min()), float(sample.max())
    if low == high:
        raise InputError(f"not HU: every value is {low:g}; export the CT again")
    if low > -500:
        raise InputError(f"not HU: {_looks_like(sample, low, high)}{hint}; give the CT in Hounsfield units")
    tissue = np.mean((sample > -250) & (sample < 250))
    if tissue < 0.02:
        raise InputError(
            f"not HU: only {tissue:.1%} of the volume is soft tissue (-250 to 250), "
            "as after a wrong or repeated rescale; give the CT in Hounsfield units"
        )
    if high < 150:
        raise InputError(f"not HU: the highest value is {high:g}, bone is cut off by a window; give the CT unwindowed")


def _looks_like(sample: np.ndarray, low: float, high: float) -> str:
    values = f"values run from {low:g} to {high:g}"
    if high - low <= 2.5:
        return f"{values}, as in a normalised volume or a mask"
    if low >= 0 and np.all(sample == np.rint(sample)) and np.unique(sample[:200_000]).size < 150 and high <= 255:
        return f"{values} with few levels, as in a label map"
    if low >= 0 and np.mean(sample > 2**16 - 1500) > 0.1:
        return f"{values}, as where values below 0 have been written as unsigned integers"
    if low >= 0 and high <= 255:
        return f"{values}, as in an 8-bit picture"
    if low < 0:
        return f"{values}, so the air is cut off by a window"
    tissue = np.mean((sample > 774) & (sample < 1274))
    if tissue > 0.1 and np.mean(sample < 300) > 0.1:
        return f"{values}, as in HU + 1024 (subtract 1024)"
    return f"{values} without air at -1000, as in MR, PET or raw detector values"
