"""One chest CT to the chest frame and its two radiographs."""

from __future__ import annotations

import os
from pathlib import Path

from ..datasets.cases import write_case
from ..datasets.prepare import check_size
from ..io.readers import named, read_ct
from ..placement.standardize import StandardizedCT, standardize_ct


def simulate_case(
    ct_path: str | os.PathLike, output_dir: str | os.PathLike, spatial_size: int = 224, series: str | None = None
) -> StandardizedCT:
    """Standardise one CT and write it with its two simulated radiographs into ``output_dir``.

    Args:
        ct_path: see :func:`xrecon_bundle.io.readers.read_ct`.
        output_dir: see :func:`xrecon_bundle.datasets.cases.write_case`.
        spatial_size: edge of the volume in voxels and of the radiographs in pixels.
        series: SeriesInstanceUID, where a DICOM folder has several.

    Raises:
        InputError: the CT cannot be used. Nothing is written then.
    """
    check_size(spatial_size)
    volume = read_ct(ct_path, series)
    with named(Path(ct_path)):
        standard = standardize_ct(volume.hu, volume.affine, spatial_size)
    write_case(output_dir, standard.ct, standard.affine)
    return standard
