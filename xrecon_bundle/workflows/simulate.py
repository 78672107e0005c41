"""One chest CT to the chest frame and its two radiographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import frame
from ..datasets.cases import write_case
from ..datasets.prepare import check_size, geometry
from ..files import check_writable
from ..io.hdf5 import HDF5_SUFFIXES, read_hdf5
from ..io.readers import has_suffix, named, read_ct
from ..placement.standardize import resize_cube, standardize_ct


def simulate_case(
    ct_path: str | os.PathLike, output_dir: str | os.PathLike, spatial_size: int = 224, series: str | None = None
) -> dict[str, Any]:
    """Standardise one CT and write it with its two simulated radiographs into ``output_dir``.

    The published HDF5 is in the chest frame and only changes its size, as in
    :func:`xrecon_bundle.datasets.prepare.prepare`.

    Args:
        ct_path: see :func:`xrecon_bundle.io.readers.read_ct`.
        output_dir: see :func:`xrecon_bundle.datasets.cases.write_case`.
        spatial_size: edge of the volume in voxels and of the radiographs in pixels.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Returns:
        the record, which is also written as ``source.json``: the CT's path, its ``format``, geometry and, of DICOM, the
        series that was read, ``other_series``, and ``notes`` and ``warnings`` on what was left out or put right.

    Raises:
        InputError: the CT cannot be used, or nothing can be written there. Nothing is written then.
    """
    check_size(spatial_size)
    check_writable(output_dir, folder=True)
    ct_path = Path(ct_path)
    if ct_path.is_file() and has_suffix(ct_path, HDF5_SUFFIXES):
        published = read_hdf5(ct_path)
        standard = resize_cube(published.ct, published.affine, spatial_size)
        found = {"format": "HDF5", **geometry(published.ct.shape, published.affine)}
    else:
        volume = read_ct(ct_path, series)
        with named(ct_path):
            standard = standardize_ct(volume.hu, volume.affine, spatial_size)
        found = {**volume.source, **geometry(volume.hu.shape, volume.affine)}
    centre = frame.grid_centre(standard.affine, standard.ct.shape)
    record = {"source": str(ct_path), **found, "centre_mm": np.round(centre, 3).tolist()}
    write_case(output_dir, standard.ct, standard.affine, source=record)
    return record
