"""Compare two CT files."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import torch

from ..files import InputError
from ..frame import hu_to_unit
from ..metrics import image_metrics


def compare_files(pred: str | Path, true: str | Path) -> dict[str, float]:
    """:func:`xrecon_bundle.metrics.image_metrics` of two NIfTI volumes in HU on the same grid.

    Raises:
        InputError: a file cannot be read or the grids differ.
    """
    (pred_hu, pred_affine), (true_hu, true_affine) = _read(pred), _read(true)
    if pred_hu.shape != true_hu.shape:
        raise InputError(
            f"{pred} has shape {pred_hu.shape} and {true} {true_hu.shape}; resample one to the other's grid"
        )
    step = np.linalg.norm(true_affine[:3, 0])
    if not np.allclose(pred_affine, true_affine, atol=0.5 * step):
        raise InputError(
            f"{pred} and {true} do not lie in the same place (their affines differ by more than half a voxel); "
            "compare with the ct.nii.gz that `xrecon simulate` wrote beside the radiographs"
        )
    return image_metrics(torch.from_numpy(hu_to_unit(pred_hu)), torch.from_numpy(hu_to_unit(true_hu)))


def _read(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file")
    try:
        image = nibabel.load(path)
        hu = image.get_fdata(dtype=np.float32)
    except Exception as error:
        raise InputError(f"{path}: cannot be read as NIfTI ({error}); give a CT volume in HU") from error
    if hu.ndim != 3:
        raise InputError(f"{path}: a CT volume has three axes, this one has shape {hu.shape}")
    return hu, image.affine
