"""Nothing half-written, one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from xrecon_bundle.files import atomic_path, write_json, write_nifti
from xrecon_bundle.frame import cube_affine


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "result.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:  # noqa: PT012
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_makes_its_folders_and_keeps_the_suffixes(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "ct.nii.gz") as temporary:
        assert temporary.name.endswith(".nii.gz")
        temporary.write_text("all")
    assert (tmp_path / "new" / "ct.nii.gz").read_text() == "all"


def test_json_has_no_nan_and_takes_numpy_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"a": np.float32(1.5), "b": [float("nan"), np.int64(2)], "c": (float("inf"),)})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1.5, "b": [None, 2], "c": [None]}


def test_nifti_keeps_dtype_and_place(tmp_path: Path) -> None:
    volume = np.arange(8, dtype=np.int16).reshape(2, 2, 2)
    write_nifti(tmp_path / "v.nii.gz", volume, cube_affine(2, (1.0, 2.0, 3.0)))
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert image.get_data_dtype() == np.int16
    assert np.array_equal(np.asarray(image.dataobj), volume)
    assert image.affine == pytest.approx(cube_affine(2, (1.0, 2.0, 3.0)))
    assert image.header.get_xyzt_units()[0] == "mm"
