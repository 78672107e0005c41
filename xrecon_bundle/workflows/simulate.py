"""One chest CT to the chest frame and its two radiographs."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Any

from ..datasets.cases import write_case
from ..datasets.prepare import check_size, standard_case
from ..files import check_writable
from ..io.readers import read_ct


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
    path = Path(ct_path)
    made = standard_case(path, spatial_size, partial(read_ct, path, series))
    record = {"source": str(path), **made.found}
    write_case(output_dir, made.ct, made.affine, source=record)
    return record
