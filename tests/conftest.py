"""Shared fixtures: the real CT, downloaded once into ``.cache/`` of the repository."""

from __future__ import annotations

from pathlib import Path

import pytest

from xrecon_bundle.data.lidc import fetch_lidc, fetch_lidc_dicom
from xrecon_bundle.files import InputError

CACHE = Path(__file__).parents[1] / ".cache"


@pytest.fixture(scope="session")
def lidc() -> tuple[Path, Path]:
    """Paths of the LIDC CT and of its TotalSegmentator labels."""
    try:
        return fetch_lidc(CACHE)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def lidc_dicom() -> Path:
    """Folder with the LIDC CT as DICOM files."""
    try:
        return fetch_lidc_dicom(CACHE)
    except InputError as error:
        pytest.skip(str(error))
