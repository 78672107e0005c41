"""Nothing half-written, one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK

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


def turned(degrees: float, shear: bool) -> np.ndarray:
    """Slices tilted about the left-right axis; moved along the table (sheared) or along their normal."""
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = [-2, 0, 0], [0, -2 * cosine, 2 * sine]
    affine[:3, 2] = [0, 0, 3] if shear else [0, 3 * sine, 3 * cosine]
    affine[:3, 3] = 10, 20, 30
    return affine


@pytest.mark.parametrize("degrees", [0, 20, -30])
def test_sform_and_qform_agree_and_itk_reads_the_same_place(degrees: float, tmp_path: Path) -> None:
    affine = turned(degrees, shear=False)
    write_nifti(tmp_path / "v.nii.gz", np.zeros((4, 5, 6), np.uint8), affine)
    header = nibabel.load(tmp_path / "v.nii.gz").header
    np.testing.assert_allclose(header.get_sform(), affine, atol=1e-5)
    np.testing.assert_allclose(header.get_qform(), affine, atol=1e-5)
    corner = SimpleITK.ReadImage(tmp_path / "v.nii.gz").TransformIndexToPhysicalPoint((3, 4, 5))
    np.testing.assert_allclose(np.array(corner) * [-1, -1, 1], (affine @ [3, 4, 5, 1])[:3], atol=1e-4)


@pytest.mark.parametrize("degrees", [20, -30])
def test_a_sheared_affine_has_no_qform_and_itk_refuses_it_rather_than_misplace_it(degrees: float, tmp_path: Path):
    affine = turned(degrees, shear=True)
    write_nifti(tmp_path / "v.nii.gz", np.zeros((4, 5, 6), np.uint8), affine)
    image = nibabel.load(tmp_path / "v.nii.gz")
    assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (1, 0)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    with pytest.raises(RuntimeError, match="orthonormal"):
        SimpleITK.ReadImage(tmp_path / "v.nii.gz")
