"""Nothing half-written, one clear error."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import pytest
import SimpleITK

from xrecon_bundle.files import InputError, atomic_path, check_writable, find_files, write_json, write_nifti
from xrecon_bundle.frame import cube_affine

NOBODY = 65534  # a user without rights


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


def below(folder: Path) -> tuple[list[str], dict[str, str]]:
    found, problems = find_files(folder)
    return (
        [path.relative_to(folder).as_posix() for path in found],
        {path.relative_to(folder).as_posix(): reason for path, reason in problems.items()},
    )


def test_links_are_followed_once_and_nothing_vanishes(tmp_path: Path) -> None:
    """Links to a folder outside, twice; to one inside; to their own parents; to nothing; to files."""
    folder, outside = tmp_path / "cohort", tmp_path / "archive"
    for path in (folder / "ann" / "a.nii", outside / "bob" / "b.nii", outside / "cyd" / "deep" / "c.nii"):
        path.parent.mkdir(parents=True)
        path.touch()
    (folder / ".hidden").touch()
    (outside / "bob" / "self").symlink_to(outside / "bob")
    links = {
        "an_alias": folder / "ann",
        "bob": outside / "bob",
        "bob again": outside / "bob",
        "cyd": outside / "cyd" / "deep",
        "everything": tmp_path,
        "here": folder,
        "lost": tmp_path / "gone",
        "ring": folder / "ring",
        "z.nii": outside / "bob" / "b.nii",
    }
    for name, target in links.items():
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe.nii.gz")
    found, problems = below(folder)
    assert found == ["ann/a.nii", "bob/b.nii", "cyd/c.nii", "z.nii"]
    assert set(problems) == {
        *("an_alias", "bob again", "bob/self", "everything", "here", "lost", "pipe.nii.gz", "ring"),
    }
    assert problems["an_alias"] == "read already as ann, to which a link leads"
    assert problems["bob again"] == "read already as bob, to which a link leads"
    assert "holds this one" in problems["everything"]
    assert problems["lost"] == problems["ring"] == "a link to nothing"
    assert problems["pipe.nii.gz"] == "neither a file nor a folder"


def test_the_folder_to_skip_is_skipped_through_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a").touch()
    (tmp_path / "link").symlink_to("out")
    assert find_files(tmp_path, tmp_path / "out") == ([], {})


UNWRITABLE = {
    "a parent that is a file": ("file/x.nii.gz", {}, "is no folder"),
    "a grandparent that is a file": ("file/x/y/z.nii.gz", {}, "is no folder"),
    "a parent that is a device": ("/dev/null/x", {}, "is no folder"),
    "a device": ("/dev/null", {}, "neither a file nor a folder"),
    "a parent that is a link to nothing": ("link/x.nii.gz", {}, "is no folder"),
    "where nothing can be made": ("/proc/x.nii.gz", {}, "cannot be written: /proc"),
    "a long name": (f"{'x' * 250}.nii.gz", {}, "too long"),
    "a long name in bytes": (f"{'肺' * 90}.nii.gz", {}, "too long"),
    "a long name of a folder on the way": (f"{'x' * 250}/x.nii.gz", {}, "too long"),
    "a folder in the place of a file": ("folder", {}, "is a folder"),
    "a file in the place of a folder": ("file", {"folder": True}, "is a file"),
    "what is read": ("file", {"sources": ["folder/../file"]}, "is what is read"),
    "no name": ("", {}, "is a folder"),
}


@pytest.mark.parametrize("name", UNWRITABLE)
def test_what_cannot_be_written_is_refused_beforehand(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("gone")
    before = {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")}
    path, options, reason = UNWRITABLE[name]
    with pytest.raises(InputError, match=reason) as error:
        check_writable(path, **options)
    assert ";" in str(error.value)
    assert {path: path.lstat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that anyone may look into, seen by a user who is not root: root may write everywhere."""
    user = os.geteuid()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "locked").mkdir(mode=0o555)
        if user == 0:
            os.seteuid(NOBODY)
        try:
            yield Path(folder)
        finally:
            os.seteuid(user)


def test_a_folder_without_permission_is_refused_beforehand(open_folder: Path) -> None:
    for options in ({}, {"folder": True}):
        with pytest.raises(InputError, match=r"locked.*Permission denied"):
            check_writable(open_folder / "locked" / "new" / "ct.nii.gz", **options)


@pytest.mark.parametrize(("name", "folder"), [("new/deep/ct.nii.gz", False), ("file", False), ("folder", True)])
def test_what_can_be_written_is_left_as_it_is(name: str, folder: bool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    check_writable(tmp_path / name, folder=folder)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "old"
