from __future__ import annotations

import hashlib
from collections import Counter

import nibabel
import numpy as np
import pytest

from xrecon_bundle import frame
from xrecon_bundle.datasets.cases import list_cases, split_cases, write_case
from xrecon_bundle.files import InputError, write_json

FILES = {"ct.nii.gz", "radiographs.nii.gz", "pa.nii.gz", "lateral.nii.gz", "pa.png", "lateral.png"}


@pytest.fixture(scope="module")
def ct() -> np.ndarray:
    """A water block in the patient's left upper front, air elsewhere."""
    volume = np.full((16, 16, 16), -1024, np.int16)
    volume[10:14, 2:6, 1:5] = 0
    return volume


@pytest.fixture
def dataset(ct, tmp_path):
    for name in ("b", "a", "c", "d"):
        write_case(tmp_path / name, ct, frame.cube_affine(16))
    return tmp_path


def test_a_case_has_the_files_of_the_architecture_table(ct, tmp_path):
    affine = frame.cube_affine(16, (10, 20, 30))
    write_case(tmp_path / "x", ct, affine, ct > -500)
    assert {path.name for path in (tmp_path / "x").iterdir()} == FILES | {"segmentation.nii.gz"}
    written = nibabel.load(tmp_path / "x" / "ct.nii.gz")
    assert written.get_data_dtype() == np.int16
    np.testing.assert_array_equal(written.dataobj, ct)
    np.testing.assert_allclose(written.affine, affine, atol=1e-4)
    pair = nibabel.load(tmp_path / "x" / "radiographs.nii.gz")
    assert pair.shape == (16, 16, 2)
    np.testing.assert_allclose(frame.grid_centre(pair.affine, pair.shape), (10, 20, 30), atol=1e-3)
    pa, lateral = np.moveaxis(np.asarray(pair.dataobj), -1, 0)
    assert [float(np.average(np.arange(16), weights=pa.sum(axis))) > 7.5 for axis in (1, 0)] == [
        True,
        False,
    ]  # left, up
    assert [float(np.average(np.arange(16), weights=lateral.sum(axis))) > 7.5 for axis in (1, 0)] == [False, False]


def test_writing_again_gives_the_same_bytes_and_no_stale_segmentation(ct, tmp_path):
    def digests() -> dict[str, str]:
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / "x").iterdir()}

    write_case(tmp_path / "x", ct, frame.cube_affine(16), ct > 0)
    first = digests()
    write_case(tmp_path / "x", ct, frame.cube_affine(16))
    del first["segmentation.nii.gz"]
    assert digests() == first


def test_a_case_that_fails_leaves_nothing(ct, tmp_path):
    with pytest.raises(ValueError, match="cube"):
        write_case(tmp_path / "x", ct[:, :, :8], frame.cube_affine(16))
    assert list(tmp_path.iterdir()) == []


def test_other_files_in_the_folder_stay(ct, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    write_case(tmp_path, ct, frame.cube_affine(16))
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"notes.txt"}


def test_cases_are_listed_by_name_with_their_keys(dataset):
    cases = list_cases(dataset)
    assert [case["case"] for case in cases] == ["a", "b", "c", "d"]
    assert cases[0] == {
        "image": str(dataset / "a" / "radiographs.nii.gz"),
        "label": str(dataset / "a" / "ct.nii.gz"),
        "case": "a",
    }


def test_the_manifest_decides_the_split(dataset):
    write_json(dataset / "manifest.json", {"cases": [{"case": "c", "split": "test"}, {"case": "a", "split": "train"}]})
    assert [case["case"] for case in list_cases(dataset, "test")] == ["c"]
    with pytest.raises(InputError, match="no validation case"):
        list_cases(dataset, "validation")


def test_without_a_manifest_every_case_is_in_exactly_one_split(dataset):
    found = [case["case"] for split in ("train", "validation", "test") for case in list_cases(dataset, split)]
    assert sorted(found) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_no_dataset_is_an_error_with_the_remedy(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=rf"{name}.*xrecon prepare"):
        list_cases(tmp_path / name)


@pytest.mark.parametrize(
    ("patients", "expected"),
    [(1, (1, 0, 0)), (2, (1, 1, 0)), (3, (1, 1, 1)), (10, (8, 1, 1)), (100, (80, 10, 10))],
)
def test_split_sizes(patients, expected):
    counts = Counter(split_cases([f"p{i}" for i in range(patients)]).values())
    assert tuple(counts[name] for name in ("train", "validation", "test")) == expected


def test_split_depends_on_the_seed_and_not_on_the_order():
    patients = [f"p{i}" for i in range(50)]
    assert split_cases(patients, 1) == split_cases(reversed(patients), 1)
    assert split_cases(patients, 1) != split_cases(patients, 2)
    before, after = split_cases(patients), split_cases([*patients, "new"])
    assert sum(before[name] != after[name] for name in patients) <= 2


def test_a_case_of_the_manifest_whose_files_are_gone_is_named(tmp_path):
    """Training on the rest in silence would be another cohort."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        for file in ("radiographs.nii.gz", "ct.nii.gz"):
            (tmp_path / name / file).touch()
    write_json(tmp_path / "manifest.json", {"cases": [{"case": name, "split": "train"} for name in "abc"]})
    assert len(list_cases(tmp_path, "train")) == 3
    (tmp_path / "b" / "ct.nii.gz").unlink()
    with pytest.raises(InputError, match=r"b: manifest.json lists this case, but its files are gone; make"):
        list_cases(tmp_path, "train")


def test_a_split_that_there_is_none_of_is_named(dataset):
    with pytest.raises(InputError, match="'tset': one of train, validation, test"):
        list_cases(dataset, "tset")
