"""Files: the one error for bad input, finding them, and writing that never leaves half a file behind."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .frame import is_sheared

if TYPE_CHECKING:
    from nibabel.spatialimages import SpatialImage

Format = Literal["nifti", "dicom"]  # what CTs and label maps are written as
FORMATS: tuple[Format, Format] = ("nifti", "dicom")
Kind = Literal["file", "folder", "file or folder"]
LONGEST_NAME = 240  # bytes; file systems take 255, and what is not finished has a longer name than the result


class InputError(ValueError):
    """What the user gave cannot be used. The message names the file and the remedy; commands print it and exit 1."""


def find_files(folder: str | os.PathLike, skip: str | os.PathLike | None = None) -> tuple[list[Path], dict[Path, str]]:
    """Every file below ``folder``, sorted, and what cannot be read there: reasons by path.

    Links are followed. A folder that a link leads to a second time is not read again, nor one that holds ``folder``
    itself: each is named among the reasons. Names that begin with a dot are passed over.

    Args:
        folder: where to look.
        skip: a folder to pass over.
    """
    folder = Path(folder)
    skipped = {os.path.realpath(skip)} if skip is not None else set()
    found: list[Path] = []
    problems: dict[Path, str] = {}
    read: dict[str, Path] = {}
    places, links = [folder], list[Path]()
    while places or links:
        # Folders before links, so that a folder is read under its own name where it has one.
        place = places.pop() if places else links.pop(0)
        real = os.path.realpath(place)
        if real in skipped and place != folder:
            continue
        if real in read:
            problems[place] = f"read already as {os.path.relpath(read[real], folder)}, to which a link leads"
            continue
        if place != folder and Path(os.path.realpath(folder)).is_relative_to(real):
            problems[place] = "a link to a folder that holds this one; link the patient's folder"
            continue
        read[real] = place
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            problems[place] = f"the folder cannot be read ({error.strerror})"
            continue
        for entry in entries:
            path = place / entry.name
            if entry.name.startswith("."):
                continue
            if os.path.isdir(path):
                (links if entry.is_symlink() else places).append(path)
            elif problem := _unreadable(entry):
                problems[path] = problem
            else:
                found.append(path)
    return sorted(found), problems


def check_readable(path: str | os.PathLike, kind: Kind = "file", remedy: str = "") -> None:
    """Raise :class:`InputError` unless ``path`` is there, and of this ``kind``; cheap, to call before anything else.

    Args:
        path: what is to be read.
        kind: what it has to be.
        remedy: what to do, in the imperative.
    """
    path = Path(path)
    remedy = remedy and f"; {remedy}"
    if not path.exists():
        raise InputError(f"{path}: no such {kind}{remedy}")
    if kind == "file" and path.is_dir():
        raise InputError(f"{path} is a folder, not a file{remedy}")
    if kind == "folder" and not path.is_dir():
        raise InputError(f"{path}: no such folder, but a file{remedy}")


def _unreadable(entry: os.DirEntry) -> str | None:
    """Why an entry that is no folder cannot be read as a file, if so."""
    if not os.path.isfile(entry.path):  # entry.is_file() fails on links that go in a circle
        return "a link to nothing" if entry.is_symlink() else "neither a file nor a folder"
    return None if os.access(entry.path, os.R_OK) else "the file cannot be read (no permission)"


def check_writable(path: str | os.PathLike, folder: bool = False, sources: Iterable[str | os.PathLike] = ()) -> None:
    """Raise :class:`InputError` unless ``path`` can be written; to call before the work begins. Leaves nothing there.

    Args:
        path: the file to write; its folder need not exist.
        folder: ``path`` is to be a folder.
        sources: what is read; ``path`` must not be one of them.
    """
    path = Path(path)
    for name in path.parts:
        if len(os.fsencode(name)) > LONGEST_NAME:
            raise InputError(
                f"{path}: a name of {len(os.fsencode(name))} bytes is too long, {LONGEST_NAME} are allowed; "
                "give a shorter one"
            )
    if folder and os.path.lexists(path) and not path.is_dir():
        raise InputError(f"{path} is a file, and a folder is to be written; give another name")
    if not folder and path.is_dir():
        raise InputError(f"{path} is a folder, and a file is to be written; give a file's name")
    if not folder and path.exists() and not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder; give another name")
    if any(path.exists() and Path(source).exists() and path.samefile(source) for source in sources):
        raise InputError(f"{path} is what is read, and would be overwritten; give another name for the output")
    parent = next(place for place in path.absolute().parents if os.path.lexists(place))
    if not parent.is_dir():
        raise InputError(f"{path} cannot be written: {parent} is no folder; give another place")
    for place in [parent, path] if folder and path.is_dir() else [parent]:
        try:
            tempfile.TemporaryDirectory(dir=place, prefix=".writable.").cleanup()
        except OSError as error:
            raise InputError(f"{path} cannot be written: {place}: {error.strerror}; give another place") from error


def check_format(output_format: str) -> Format:
    """The format of this name; raises :class:`InputError` if it is none of :data:`FORMATS`."""
    for known in FORMATS:
        if known == output_format:
            return known
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


def one_line(error: BaseException) -> str:
    """The last line of an error's message, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def to_json(content: Any) -> str:
    """``content`` as indented JSON text. NaN and infinity, which JSON does not know, become null."""
    return json.dumps(_without_nan(content), indent=2)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write ``content`` as :func:`to_json`, atomically."""
    write_text(path, to_json(content) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write ``text`` in UTF-8, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def load_nifti(path: str | os.PathLike) -> SpatialImage:
    """An image file that nibabel reads, not mapped into memory.

    Raises:
        Exception: nibabel, gzip and zlib each raise their own.
    """
    import nibabel

    image = nibabel.load(os.fspath(path), mmap=False)
    if not isinstance(image, nibabel.spatialimages.SpatialImage):
        raise nibabel.filebasedimages.ImageFileError("not an image of voxels")
    return image


def write_nifti(path: str | os.PathLike, array: np.ndarray, affine: np.ndarray) -> None:
    """Write ``array`` (its dtype is kept) as NIfTI with an RAS+ ``affine`` in mm, atomically.

    sform and qform agree. A qform cannot hold a sheared affine (gantry tilt), so then there is none: nibabel, FSL and
    others read the sform; ITK, which knows no shear, refuses the file instead of placing it wrongly.
    """
    import nibabel

    image = nibabel.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, code=1)
    if is_sheared(affine):
        image.set_qform(None, code=0)
    else:
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
