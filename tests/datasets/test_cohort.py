from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.cases import list_cases
from xrecon_bundle.datasets.cohort import draw_patient, write_pseudo_cohort, write_synthetic_cohort
from xrecon_bundle.files import InputError


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cohort")
    write_synthetic_cohort(folder, cases=4, spatial_size=32, seed=2, pneumothorax_fraction=0.5, workers=1)
    return folder


def test_the_manifest_says_what_every_case_is(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["cases"]) == 4
    assert {case["split"] for case in manifest["cases"]} == {"train", "validation", "test"}
    for number, case in enumerate(manifest["cases"]):
        patient, pneumothorax = draw_patient(2, number, 0.5)
        assert case["parameters"]["seed"] == patient.seed
        labels = np.asarray(nibabel.load(folder / case["case"] / "segmentation.nii.gz").dataobj)
        if pneumothorax is None:
            assert case["pneumothorax"] is None
            assert set(np.unique(labels)) == {0, 1, 2}
        else:
            lung, air = {"right": (1, 3), "left": (2, 4)}[case["pneumothorax"]["side"]]
            share = np.count_nonzero(labels == air) / np.count_nonzero(np.isin(labels, (lung, air)))
            assert share == pytest.approx(case["pneumothorax"]["occupancy"], abs=0.01)


def test_the_folder_reads_as_a_dataset(folder):
    assert len(list_cases(folder)) == 4
    entry = list_cases(folder, "train")[0]
    assert nibabel.load(entry["label"]).shape == (32, 32, 32)
    assert nibabel.load(entry["image"]).shape[-1] == 2
    assert Path(entry["segmentation"]).exists()


def test_workers_and_interruptions_change_nothing(folder, tmp_path):
    write_synthetic_cohort(tmp_path, cases=2, spatial_size=32, seed=2, pneumothorax_fraction=0.5, workers=1)
    (tmp_path / "synthetic-2-00001" / "ct.nii.gz").write_bytes(b"half")  # as a crash of the disk would leave it
    write_synthetic_cohort(tmp_path, cases=4, spatial_size=32, seed=2, pneumothorax_fraction=0.5, workers=2)
    assert contents(tmp_path) == contents(folder)


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (1.0, 40)])
def test_the_fraction_with_a_pneumothorax(fraction, expected):
    drawn = [draw_patient(0, number, fraction)[1] for number in range(40)]
    assert sum(pneumothorax is not None for pneumothorax in drawn) == expected
    if expected:
        assert {pneumothorax.side for pneumothorax in drawn} == {"right", "left"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cases": 0}, "at least 1"),
        ({"cases": 1, "spatial_size": 8}, "from 16 to 512"),
        ({"cases": 1, "pneumothorax_fraction": 1.5}, "between 0 and 1"),
    ],
)
def test_impossible_wishes_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(InputError, match=message):
        write_synthetic_cohort(tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_pseudo_patients_are_the_same_person_in_another_body_with_the_recorded_pneumothorax(tmp_path):
    person = synthesize_thorax(5, 64)
    write_pseudo_cohort(person.ct, person.labels, tmp_path, cases=3, spatial_size=32, seed=1, workers=1)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert {case["pneumothorax"] is None for case in manifest["cases"]} == {True, False}
    volumes = []
    for case, entry in zip(manifest["cases"], list_cases(tmp_path), strict=True):
        labels = np.asarray(nibabel.load(entry["segmentation"]).dataobj)
        volumes.append(np.asarray(nibabel.load(entry["label"]).dataobj))
        hu = volumes[-1]
        assert set(np.unique(labels)) <= {0, 1, 2, 3, 4}
        right, left = (np.argwhere(np.isin(labels, side)).mean(axis=0)[0] for side in ((1, 3), (2, 4)))
        assert right < left  # x grows to the patient's left: nobody is mirrored
        assert hu[labels == 0].mean() > hu[labels > 0].mean()  # the labels lie on the lungs
        if case["pneumothorax"]:
            lung, air = {"right": (1, 3), "left": (2, 4)}[case["pneumothorax"]["side"]]
            share = np.count_nonzero(labels == air) / np.count_nonzero(np.isin(labels, (lung, air)))
            assert share == pytest.approx(case["pneumothorax"]["occupancy"], abs=0.04)
    assert not any(np.array_equal(volumes[0], other) for other in volumes[1:])


def test_several_folders_are_one_dataset(folder, tmp_path):
    write_synthetic_cohort(tmp_path, cases=3, spatial_size=32, seed=9, workers=1)
    assert list_cases([folder, tmp_path], "train") == list_cases(folder, "train") + list_cases(tmp_path, "train")
