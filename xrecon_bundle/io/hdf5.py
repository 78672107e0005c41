"""The published HDF5 pairs: ``ct`` as HU + 1024 in (z, y, x), ``xray1`` (PA) and ``xray2`` (lateral), 8-bit.

The format has no geometry. Its axes run as the chest frame's do, transposed; its cube is taken for the chest frame's.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import h5py
import numpy as np

from .. import frame
from ..files import InputError, atomic_path
from ..frame import radiograph_to_unit

HDF5_SUFFIXES = (".h5", ".hdf5")


class PublishedCase(NamedTuple):
    """A case in our axes: ``ct`` int16 HU ``(S, S, S)``, ``radiographs`` float32 ``(2, U, V)`` 0 to 255, ``affine``."""

    ct: np.ndarray
    radiographs: np.ndarray
    affine: np.ndarray


def read_hdf5(path: str | os.PathLike) -> PublishedCase:
    """Read a published-format file.

    Raises:
        InputError: not HDF5, a dataset is missing, or the shapes are not a cube and two square images.
    """
    try:
        with h5py.File(path) as file:
            ct, pa, lateral = (np.asarray(file[name]) for name in ("ct", "xray1", "xray2"))
    except (OSError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not an HDF5 file with ct, xray1 and xray2 ({error}); make the file again") from error
    if ct.ndim != 3 or len(set(ct.shape)) != 1:
        raise InputError(f"{path}: ct has shape {ct.shape}, a cube is expected; make the file again")
    if pa.shape != lateral.shape or pa.ndim != 2 or len(set(pa.shape)) != 1:
        raise InputError(
            f"{path}: xray1 {pa.shape} and xray2 {lateral.shape} are not two equal squares; make the file again"
        )
    hu = (ct.transpose(2, 1, 0).astype(np.float32) - frame.HU_OFFSET).clip(frame.AIR_HU, np.iinfo(np.int16).max)
    radiographs = np.stack([pa.T, lateral.T]).astype(np.float32)
    return PublishedCase(np.rint(hu).astype(np.int16), radiographs, frame.cube_affine(ct.shape[0]))


def write_hdf5(path: str | os.PathLike, ct: np.ndarray, radiographs: np.ndarray) -> None:
    """Write a case in the published format, atomically.

    Args:
        path: the file to write.
        ct: ``(S, S, S)`` HU in the chest frame; stored as int16, HU + 1024, air clipped to 0.
        radiographs: ``(2, U, V)`` of any scale; stored as 8-bit, scaled by
            :func:`xrecon_bundle.frame.radiograph_to_unit`.
    """
    views = np.rint(radiograph_to_unit(np.asarray(radiographs, np.float32)) * 255).astype(np.uint8)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["ct"] = np.rint(ct + frame.HU_OFFSET).clip(0, None).astype(np.int16).transpose(2, 1, 0)
        file["xray1"], file["xray2"] = views[0].T, views[1].T
