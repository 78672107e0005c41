"""Find the radiograph pairs that inference reads."""

from __future__ import annotations

from pathlib import Path

import nibabel

from ..files import InputError, find_files
from .cases import RADIOGRAPHS


def list_radiographs(folder: str | Path) -> list[dict[str, str]]:
    """Biplanar images ``(U, V, 2)`` below ``folder``, sorted, as ``{"image": path}``.

    Files called ``radiographs.nii.gz`` (what ``xrecon prepare`` and ``xrecon simulate`` write), else every NIfTI file
    whose last axis holds two views.

    Raises:
        InputError: there are none.
    """
    folder = Path(folder)
    files = find_files(folder)[0]
    found = [path for path in files if path.name == RADIOGRAPHS]
    if not found:
        found = [path for path in files if path.name.endswith((".nii", ".nii.gz")) and _is_pair(path)]
    if not found:
        raise InputError(
            f"{folder}: no radiograph pair (radiographs.nii.gz) in this folder; "
            "make them with `xrecon simulate` or `xrecon prepare`, or use `xrecon reconstruct` for plain X-rays"
        )
    return [{"image": str(path)} for path in found]


def _is_pair(path: Path) -> bool:
    try:
        shape = nibabel.load(path).shape
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError):
        return False
    return len(shape) == 3 and shape[-1] == 2
