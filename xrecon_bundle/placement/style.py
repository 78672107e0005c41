"""Bring the grey scale of real radiographs nearer to that of simulated ones."""

from __future__ import annotations

import numpy as np
import skimage  # its parts are imported at first use
import torch
from torch import Tensor

from ..files import InputError, load_nifti
from ..frame import radiograph_to_unit


def normalise_style(image: Tensor, style: str) -> Tensor:
    """Undo what a manufacturer's tone curve did to the grey levels of a radiograph pair.

    Args:
        image: ``(2, U, V)``, any grey scale, bright is dense.
        style: ``"clahe"``: contrast-limited adaptive histogram equalisation (Zuiderveld 1994), which evens out the
            contrast from place to place; or the path of a biplanar NIfTI ``(U, V, 2)``, as the ``radiographs.nii.gz``
            of a training case: each view's histogram becomes that of the same view there.

    Returns:
        ``(2, U, V)`` float32 in [0, 1]; NaN, where a film shows nothing, stays.

    Raises:
        InputError: ``style`` is neither.
    """
    unit = np.asarray(radiograph_to_unit(image.numpy()))
    unknown = np.isnan(unit)
    unit[unknown] = 0
    if style == "clahe":
        matched = [skimage.exposure.equalize_adapthist(view) for view in unit]
    else:
        reference = np.asarray(radiograph_to_unit(_reference(style)))
        matched = [
            skimage.exposure.match_histograms(view, wanted) for view, wanted in zip(unit, reference, strict=True)
        ]
    return torch.from_numpy(np.where(unknown, np.nan, np.stack(matched)).astype(np.float32))


def _reference(path: str) -> np.ndarray:
    try:
        views = np.asarray(load_nifti(path).dataobj, dtype=np.float32)
    except Exception as error:  # missing, or not NIfTI, or damaged: nibabel, gzip and zlib each raise their own
        raise InputError(
            f"style '{path}' is neither 'clahe' nor a radiograph pair that can be read ({error}); "
            "give the radiographs.nii.gz of a simulated case"
        ) from error
    if views.ndim != 3 or views.shape[-1] != 2:
        raise InputError(f"{path} has shape {views.shape}; style needs a radiograph pair (U, V, 2)")
    return np.moveaxis(views, -1, 0)
