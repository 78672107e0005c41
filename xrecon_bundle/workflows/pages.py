"""Where reports and pages lie; apart from making them, which imports much."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..files import Format

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".h5", ".hdf5", ".dcm")

NIFTI_SUFFIXES = (".nii.gz", ".nii")  # of what is written
REPORT, VIEW = "reconstruction.json", "reconstruction.html"  # in the folder of a DICOM series


def page_path(path: Path) -> Path:
    """Where the page of a CT or a label map is: beside it, under its name, with ``.html``."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.with_name(f"{path.name[: len(path.name) - len(suffix)]}.html")


def report_path(output: Path, output_format: Format) -> Path:
    """Where the JSON of a result is: beside a NIfTI under its name, in a DICOM series' folder."""
    if output_format == "dicom":
        return output / REPORT
    suffix = next(suffix for suffix in NIFTI_SUFFIXES if output.name.endswith(suffix))
    return output.with_name(f"{output.name.removesuffix(suffix)}.json")


def view_path(output: Path, output_format: Format) -> Path:
    """Where the page of a result is: beside its JSON."""
    return report_path(output, output_format).with_suffix(".html")


def report_beside(ct_path: Path) -> dict[str, Any] | None:
    """The report of a CT that is a reconstruction; None of any other, and of one that was replaced since."""
    if not ct_path.is_dir() and not ct_path.name.endswith(NIFTI_SUFFIXES):
        return None
    path = report_path(ct_path, "dicom" if ct_path.is_dir() else "nifti")
    try:
        report = json.loads(path.read_text())
        of_this_ct = ct_path.is_dir() or path.stat().st_mtime_ns >= ct_path.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    ours = isinstance(report, dict) and {"placement", "consistency", "estimates"} <= report.keys()
    return report if ours and of_this_ct else None
