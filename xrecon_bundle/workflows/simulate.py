"""One chest CT to the chest frame and its two radiographs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from .. import frame
from ..datasets.cases import write_case
from ..datasets.prepare import check_size, geometry
from ..io.readers import named, read_ct
from ..placement.standardize import standardize_ct


def simulate_case(
    ct_path: str | os.PathLike, output_dir: str | os.PathLike, spatial_size: int = 224, series: str | None = None
) -> dict[str, Any]:
    """Standardise one CT and write it with its two simulated radiographs into ``output_dir``.

    Args:
        ct_path: see :func:`xrecon_bundle.io.readers.read_ct`.
        output_dir: see :func:`xrecon_bundle.datasets.cases.write_case`.
        spatial_size: edge of the volume in voxels and of the radiographs in pixels.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Returns:
        the record, which is also written as ``source.json``: the CT's path, its ``format``, geometry and, of DICOM, the
        series that was read, ``other_series``, and ``notes`` and ``warnings`` on what was left out or put right.

    Raises:
        InputError: the CT cannot be used. Nothing is written then.
    """
    check_size(spatial_size)
    volume = read_ct(ct_path, series)
    with named(Path(ct_path)):
        standard = standardize_ct(volume.hu, volume.affine, spatial_size)
    centre = frame.grid_centre(standard.affine, standard.ct.shape)
    record = {
        "source": str(ct_path),
        **volume.source,
        **geometry(volume.hu.shape, volume.affine),
        "centre_mm": np.round(centre, 3).tolist(),
    }
    write_case(output_dir, standard.ct, standard.affine, source=record)
    return record
