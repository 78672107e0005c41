"""Which radiograph pairs inference finds in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xrecon_bundle.datasets.radiograph_pairs import list_radiographs
from xrecon_bundle.files import InputError, write_nifti


def pair(path: Path, shape: tuple[int, ...] = (4, 4, 2)) -> str:
    write_nifti(path, np.zeros(shape, np.float32), np.eye(4))
    return str(path)


def test_the_pairs_of_a_dataset_folder(tmp_path: Path) -> None:
    expected = [pair(tmp_path / case / "radiographs.nii.gz") for case in ("a", "b")]
    pair(tmp_path / "a" / "pa.nii.gz", (4, 4))
    pair(tmp_path / "other.nii.gz")
    assert [item["image"] for item in list_radiographs(tmp_path)] == expected


def test_any_file_of_two_views_where_none_has_the_name(tmp_path: Path) -> None:
    expected = [pair(tmp_path / name) for name in ("first.nii", "second.nii.gz")]
    pair(tmp_path / "volume.nii.gz", (4, 4, 4))
    (tmp_path / "broken.nii.gz").write_bytes(b"not gzip")
    assert [item["image"] for item in list_radiographs(tmp_path)] == expected


def test_a_folder_without_pairs_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="xrecon prepare"):
        list_radiographs(tmp_path)
