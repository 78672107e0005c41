"""The published HDF5 pairs: ``ct`` as HU + 1024 in (z, y, x), ``xray1`` (PA) and ``xray2`` (lateral), 8-bit.

The format has no geometry. Its axes run as the chest frame's do, transposed; its cube is taken for the chest frame's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import frame
from ..files import InputError, atomic_path
from ..frame import radiograph_to_unit
from ..volume import check_hu

HDF5_SUFFIXES = (".h5", ".hdf5")
DATASETS = ("ct", "xray1", "xray2")
MOST_MEMORY = 3 * 2**29  # bytes; the largest cube takes half of it
LARGEST_CUBE, LARGEST_IMAGE = 512, 4096  # what claims more is damaged


class PublishedCase(NamedTuple):
    """A case in our axes: ``ct`` int16 HU ``(S, S, S)``, ``radiographs`` float32 ``(2, U, V)`` 0 to 255, ``affine``."""

    ct: np.ndarray
    radiographs: np.ndarray
    affine: np.ndarray


def read_hdf5(path: str | os.PathLike) -> PublishedCase:
    """Read a published-format file.

    Raises:
        InputError: not HDF5, a dataset is missing, the shapes are not a cube and two square images, or ``ct`` is not
            HU + 1024.
    """
    import h5py

    try:
        with _bounded_memory(), h5py.File(path) as file:
            datasets = [file[name] for name in DATASETS]
            if any(item.file.filename != file.filename or item.is_virtual or item.external for item in datasets):
                raise InputError(f"{path}: its data lie in other files; make the file again with all in it")
            _check_shapes(path, *(item.shape for item in datasets))
            ct, pa, lateral = (np.asarray(item, dtype=np.float32) for item in datasets)
    except InputError:
        raise
    except Exception as error:  # HDF5 raises whatever the damaged place leads to
        raise InputError(f"{path}: not an HDF5 file with ct, xray1 and xray2 ({error}); make the file again") from error
    if not (np.isfinite(pa).all() and np.isfinite(lateral).all()):
        raise InputError(f"{path}: xray1 or xray2 has values that are NaN or infinite; make the file again")
    hu = ct.transpose(2, 1, 0) - frame.HU_OFFSET
    try:
        check_hu(hu)
    except InputError as error:
        in_hu = np.mean(ct < -500) > 0.05
        remedy = "ct seems to be in HU: add 1024" if in_hu else "in this format ct is HU + 1024"
        raise InputError(f"{path}: {error}; {remedy}") from error
    hu = np.nan_to_num(hu, nan=frame.AIR_HU).clip(frame.AIR_HU, np.iinfo(np.int16).max)
    return PublishedCase(np.rint(hu).astype(np.int16), np.stack([pa.T, lateral.T]), frame.cube_affine(ct.shape[0]))


@contextmanager
def _bounded_memory() -> Iterator[None]:
    """On Linux, let this process take no more than :data:`MOST_MEMORY` beyond what it has.

    In a damaged object header libhdf5 goes round in a circle and takes memory until the system ends the process.
    """
    pages = Path("/proc/self/statm")
    if not pages.exists():
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    wanted = int(pages.read_text().split()[0]) * resource.getpagesize() + MOST_MEMORY
    if before[0] == resource.RLIM_INFINITY or wanted < before[0]:
        resource.setrlimit(resource.RLIMIT_AS, (wanted, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def _check_shapes(path: str | os.PathLike, ct: tuple[int, ...], pa: tuple[int, ...], lateral: tuple[int, ...]) -> None:
    if len(ct) != 3 or len(set(ct)) != 1 or not 2 <= ct[0] <= LARGEST_CUBE:
        raise InputError(f"{path}: ct has shape {ct}, a cube is expected; make the file again")
    if pa != lateral or len(pa) != 2 or len(set(pa)) != 1 or not 2 <= pa[0] <= LARGEST_IMAGE:
        raise InputError(f"{path}: xray1 {pa} and xray2 {lateral} are not two equal squares; make the file again")


def write_hdf5(path: str | os.PathLike, ct: np.ndarray, radiographs: np.ndarray) -> None:
    """Write a case in the published format, atomically.

    Args:
        path: the file to write.
        ct: ``(S, S, S)`` HU in the chest frame; stored as int16, HU + 1024, air clipped to 0.
        radiographs: ``(2, U, V)`` of any scale; stored as 8-bit, scaled by
            :func:`xrecon_bundle.frame.radiograph_to_unit`.
    """
    views = np.rint(radiograph_to_unit(np.asarray(radiographs, np.float32)) * 255).astype(np.uint8)
    import h5py

    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file["ct"] = np.rint(ct + frame.HU_OFFSET).clip(0, None).astype(np.int16).transpose(2, 1, 0)
        file["xray1"], file["xray2"] = views[0].T, views[1].T
