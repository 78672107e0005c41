"""What lies on the grid of a CT: label maps and other volumes as NIfTI."""

from __future__ import annotations

import os

import nibabel
import numpy as np

from ..files import InputError, load_nifti
from ..volume import CTVolume


def read_on_grid(path: str | os.PathLike, ct: CTVolume, ct_path: str | os.PathLike) -> np.ndarray:
    """The array of a NIfTI on the axes of the CT on whose grid it lies, however its own axes run.

    Args:
        path: the NIfTI.
        ct: the CT, ``(X, Y, Z)``.
        ct_path: what messages call the CT.

    Returns:
        ``(X, Y, Z)``, the type as stored.

    Raises:
        InputError: the file cannot be read or lies on another grid.
    """
    try:
        image = nibabel.as_closest_canonical(load_nifti(path))
        data, affine = np.asanyarray(image.dataobj), image.affine
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file") from error
    except Exception as error:  # nibabel raises whatever a damaged header leads to
        raise InputError(f"{path} cannot be read as NIfTI ({type(error).__name__}); give a .nii.gz") from error
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), nibabel.io_orientation(ct.affine))
    if data.ndim == 3:
        affine = affine @ nibabel.orientations.inv_ornt_aff(turn, data.shape)
        data = nibabel.orientations.apply_orientation(data, turn)
    if data.shape != ct.hu.shape or not np.allclose(affine, ct.affine, atol=0.1):
        raise InputError(f"{path} is not on the grid of {ct_path}; give the one that was made of this CT")
    return data
