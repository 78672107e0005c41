"""Files: the one error for bad input, and writing that never leaves half a file behind."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np

Format = Literal["nifti", "dicom"]  # what CTs and label maps are written as
FORMATS: tuple[Format, Format] = ("nifti", "dicom")


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file and the remedy; commands print it and exit 1."""


def check_format(output_format: str) -> None:
    """Raise :class:`InputError` unless ``output_format`` is one of :data:`FORMATS`."""
    if output_format not in FORMATS:
        raise InputError(f"format '{output_format}' is unknown; choose one of {', '.join(FORMATS)}")


@contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` with the same suffixes; rename it to ``path`` when the block succeeds.

    On an error nothing remains. Parent folders are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        temporary = Path(folder) / path.name
        yield temporary
        os.replace(temporary, path)


def file_sha256(path: str | os.PathLike) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(content: Any) -> str:
    """``content`` as indented JSON text. NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_without_nan(content), indent=2)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write ``content`` as :func:`to_json`, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(to_json(content) + "\n")


def write_nifti(path: str | os.PathLike, array: np.ndarray, affine: np.ndarray) -> None:
    """Write ``array`` (its dtype is kept) as NIfTI with an RAS+ ``affine`` in mm, atomically."""
    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _without_nan(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(key): _without_nan(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_without_nan(value) for value in content]
    if isinstance(content, np.generic):
        content = content.item()
    if isinstance(content, float) and not np.isfinite(content):
        return None
    return content
