"""Where pages lie; apart from making them, which imports much."""

from __future__ import annotations

import os
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".h5", ".hdf5", ".dcm")


def page_path(path: Path) -> Path:
    """Where the page of a CT or a label map is: beside it, under its name, with ``.html``."""
    path = Path(os.path.abspath(path)) if path.name in ("", "..") else path
    suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")
    return path.with_name(f"{path.name[: len(path.name) - len(suffix)]}.html")
