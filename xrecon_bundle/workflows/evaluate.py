"""Compare two CT files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..files import InputError, check_readable, load_nifti
from ..frame import hu_to_unit
from ..io.readers import named
from ..metrics import image_metrics
from ..volume import check_hu


def compare_files(pred: str | Path, true: str | Path) -> dict[str, float]:
    """:func:`xrecon_bundle.metrics.image_metrics` of two NIfTI volumes in HU, voxel by voxel.

    ``offset_mm`` is how far apart the volumes stand: a reconstruction from plain images stands around the origin.

    Raises:
        InputError: a file cannot be read or has voxels that are NaN or infinite, or the grids differ in shape,
            orientation or voxel size.
    """
    (pred_hu, pred_affine), (true_hu, true_affine) = _read(pred), _read(true)
    if pred_hu.shape != true_hu.shape:
        raise InputError(
            f"{pred} has shape {pred_hu.shape} and {true} {true_hu.shape}; make the CT with `xrecon simulate` "
            "at the spatial size of the reconstruction"
        )
    if not np.allclose(pred_affine[:3, :3], true_affine[:3, :3], atol=1e-3):
        raise InputError(
            f"{pred} and {true} differ in orientation or voxel size; compare with the ct.nii.gz that "
            "`xrecon simulate` wrote beside the radiographs"
        )
    with named(Path(true)):
        check_hu(true_hu)
    metrics = image_metrics(torch.from_numpy(hu_to_unit(pred_hu)), torch.from_numpy(hu_to_unit(true_hu)))
    return metrics | {"offset_mm": float(np.linalg.norm(pred_affine[:3, 3] - true_affine[:3, 3]))}


def _read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    check_readable(path)
    try:
        image = load_nifti(path)
        hu = image.get_fdata(dtype=np.float32)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({error}); give a CT volume in HU") from error
    if hu.ndim != 3:
        raise InputError(f"{path}: a CT volume has three axes, this one has shape {hu.shape}")
    if unknown := np.count_nonzero(~np.isfinite(hu)):
        raise InputError(
            f"{path}: {unknown} of {hu.size} voxels are NaN or infinite, so nothing can be measured; "
            "write the volume again, or fill them with air (-1024)"
        )
    if not np.isfinite(image.affine).all():
        raise InputError(f"{path}: the affine is not finite; write the volume again with its position and spacing")
    return hu, image.affine
