"""Two X-ray files in, a CT volume out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..files import InputError, write_nifti
from ..frame import AIR_HU, HU_SPAN, cube_affine, grid_centre, unit_to_hu
from ..networks import XReconGenerator
from ..networks.weights import load_generator
from ..transforms import load_radiograph_pair, radiograph_to_unit


def reconstruct(image: torch.Tensor, generator: XReconGenerator) -> np.ndarray:
    """CT ``(S, S, S)`` in HU, int16, LPI, of a radiograph pair ``(2, S, S)`` of any grey scale (bright is dense)."""
    with torch.inference_mode():
        unit = generator(radiograph_to_unit(torch.as_tensor(image).float())[None])[0, 0]
    return np.rint(unit_to_hu(unit.clip(0, 1)).clip(AIR_HU, AIR_HU + HU_SPAN).numpy()).astype(np.int16)


def reconstruct_files(
    pa: str | Path, lateral: str | Path, output: str | Path, model: str | Path, spatial_size: int, **loading: object
) -> Path:
    """Write the CT of two radiograph files (PNG, JPEG, NIfTI, DICOM) to ``output`` (``.nii`` or ``.nii.gz``), in HU.

    The volume stands where the radiographs' own affine says (ours carry it), else around the origin.

    Args:
        pa: the posteroanterior view.
        lateral: the left lateral view.
        output: file to write; nothing is written when anything is wrong.
        model: weights, see :func:`xrecon_bundle.networks.load_generator`.
        spatial_size: edge of the volume that the weights were trained for.
        loading: passed to :func:`xrecon_bundle.transforms.load_radiograph_pair`.

    Raises:
        InputError: a file cannot be used; the message names it and the remedy.
    """
    output = Path(output)
    if not output.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"{output}: the CT is written as NIfTI; give a name that ends in .nii.gz")
    image = load_radiograph_pair(pa, lateral, spatial_size=spatial_size, **loading)
    volume = reconstruct(image, load_generator(model, spatial_size))
    centre = grid_centre(image.affine.numpy(), (spatial_size, spatial_size, 2))
    write_nifti(output, volume, cube_affine(spatial_size, tuple(centre)))
    return output
