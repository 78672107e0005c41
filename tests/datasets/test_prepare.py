from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest
from chest_phantom import dicom_slices, phantom, phantom_affine, save_dicom, save_nifti

from xrecon_bundle.datasets.cases import list_cases
from xrecon_bundle.datasets.prepare import prepare
from xrecon_bundle.datasets.sources import find_sources
from xrecon_bundle.files import InputError
from xrecon_bundle.io.hdf5 import write_hdf5
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.workflows.simulate import simulate_case

SIZE = 32
AFFINE = phantom_affine()
BAD = 2  # CTs in the folder that cannot be used


@pytest.fixture(scope="module")
def ct_folder(tmp_path_factory) -> Path:
    """Four NIfTI (two of one patient), DICOM in the layout of LIDC-IDRI, published HDF5; and two bad files."""
    folder = tmp_path_factory.mktemp("cts")
    hu = phantom(AFFINE)
    for number, name in enumerate(["ann/first", "ann/second", "bob/ct", "cyd/ct"]):
        (folder / name).parent.mkdir(exist_ok=True)
        moved = AFFINE.copy()
        moved[0, 3] += number
        save_nifti(folder / f"{name}.nii.gz", hu, moved)
    uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001.2981"
    save_dicom(folder / "LIDC-IDRI-0007" / uid / f"{uid}79", dicom_slices(phantom(AFFINE, collapsed=True), AFFINE))
    (folder / "LIDC-IDRI-0007" / uid / "nodules.xml").write_text("<xml/>")
    cube = standardize_ct(hu, AFFINE, 40)
    write_hdf5(folder / "eve" / "ct_xray_data.h5", cube.ct, np.random.default_rng(0).uniform(0, 1, (2, 40, 40)))
    save_nifti(folder / "dan.nii.gz", np.clip(hu, 0, None), AFFINE)
    (folder / "fox.nii.gz").write_bytes(b"half a file")
    return folder


@pytest.fixture(scope="module")
def prepared(ct_folder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "dataset"
    prepare(ct_folder, output, SIZE, workers=1)
    return output


def content(folder: Path) -> dict[str, str]:
    """SHA-256 of every file, hidden ones included."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def finished(folder: Path) -> int:
    return len([path for path in folder.glob("*/source.json") if not path.parent.name.startswith(".")])


def test_every_usable_ct_becomes_a_case(prepared):
    names = {"ann_first", "ann_second", "bob_ct", "cyd_ct", "LIDC-IDRI-0007", "eve_ct_xray_data"}
    assert {case["case"] for case in list_cases(prepared)} == names
    assert {path.name for path in prepared.iterdir()} == names | {"manifest.json"}


def test_the_manifest_says_where_everything_comes_from(prepared, ct_folder):
    manifest = json.loads((prepared / "manifest.json").read_text())
    cases = {case["case"]: case for case in manifest["cases"]}
    assert cases["bob_ct"]["source"] == "bob/ct.nii.gz"
    assert cases["bob_ct"]["shape"] == list(phantom(AFFINE).shape)
    assert cases["bob_ct"]["spacing_mm"] == [5, 5, 5]
    assert cases["bob_ct"]["axes"] == "LPI"
    assert cases["LIDC-IDRI-0007"]["patient"] == "LIDC-IDRI-0007"
    assert cases["LIDC-IDRI-0007"]["format"] == "DICOM"
    assert [item["source"] for item in manifest["exclusions"]] == ["dan.nii.gz", "fox.nii.gz"]
    assert "not HU" in manifest["exclusions"][0]["reason"]
    assert "damaged" in manifest["exclusions"][1]["reason"]
    assert str(ct_folder) not in json.dumps(manifest)


def test_a_patient_is_in_one_split_only(prepared):
    cases = json.loads((prepared / "manifest.json").read_text())["cases"]
    splits = {name: {case["split"] for case in cases if case["patient"] == name} for name in ("ann",)}
    assert len(splits["ann"]) == 1
    assert {case["split"] for case in cases} == {"train", "validation", "test"}
    assert sum(len(list_cases(prepared, split)) for split in ("train", "validation", "test")) == len(cases)


def test_published_pairs_keep_their_own_radiographs(prepared):
    pair = nibabel.load(prepared / "eve_ct_xray_data" / "radiographs.nii.gz").get_fdata()
    assert pair.shape == (SIZE, SIZE, 2)
    assert 100 < pair.mean() < 150  # of 8-bit noise, not nepers


def test_running_again_keeps_finished_cases_and_mends_broken_ones(prepared, ct_folder):
    before = content(prepared)
    (prepared / "bob_ct" / "ct.nii.gz").write_bytes(b"damaged later")
    (prepared / "ann_first" / "source.json").unlink()
    (prepared / ".cyd_ct.partial").mkdir()
    summary = prepare(ct_folder, prepared, SIZE, workers=1)
    assert (summary.prepared, summary.reused, summary.excluded) == (2, 4, BAD)
    assert content(prepared) == before


def test_other_settings_or_another_source_make_a_case_again(ct_folder, tmp_path):
    source, output = tmp_path / "cts", tmp_path / "out"
    source.mkdir()
    save_nifti(source / "a.nii.gz", phantom(AFFINE), AFFINE)
    assert prepare(source, output, SIZE, workers=1).prepared == 1
    assert prepare(source, output, 16, workers=1).prepared == 1
    save_nifti(source / "a.nii.gz", phantom(AFFINE, collapsed=True), AFFINE)
    assert prepare(source, output, 16, workers=1).prepared == 1
    assert prepare(source, output, 16, workers=1).reused == 1


def test_two_workers_make_the_same_files(prepared, ct_folder, tmp_path):
    prepare(ct_folder, tmp_path / "dataset", SIZE, workers=2)
    assert content(tmp_path / "dataset") == content(prepared)


def test_killed_and_run_again_gives_the_same_files(prepared, ct_folder, tmp_path):
    output = tmp_path / "dataset"
    script = (
        "import sys; from xrecon_bundle.datasets.prepare import prepare; "
        "prepare(sys.argv[1], sys.argv[2], 32, workers=1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, ct_folder, output], stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not finished(output) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = finished(output)
    assert 0 < done < 6, "killed midway"
    assert not (output / "manifest.json").exists()
    summary = prepare(ct_folder, output, SIZE, workers=1)
    assert summary.reused == done
    assert content(output) == content(prepared)


def test_a_dask_cluster_makes_the_same_files(prepared, ct_folder, tmp_path):
    distributed = pytest.importorskip("distributed", reason="needs dask[distributed]")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        summary = prepare(ct_folder, tmp_path / "dataset", SIZE, cluster=cluster.scheduler_address)
    assert (summary.prepared, summary.excluded) == (6, BAD)
    assert content(tmp_path / "dataset") == content(prepared)


def test_a_copy_of_a_ct_does_not_get_into_another_split(ct_folder, tmp_path):
    hu = phantom(AFFINE)
    for name in ("a", "b"):
        (tmp_path / "in" / name).mkdir(parents=True)
    save_nifti(tmp_path / "in" / "a" / "ct.nii.gz", hu, AFFINE)
    save_dicom(tmp_path / "in" / "b" / "dicom", dicom_slices(hu, AFFINE))
    summary = prepare(tmp_path / "in", tmp_path / "out", SIZE, workers=1)
    assert (summary.prepared, summary.excluded) == (1, 1)
    manifest = json.loads(summary.manifest.read_text())
    assert manifest["exclusions"] == [{"source": "b/dicom", "reason": "the same CT as a/ct.nii.gz"}]
    assert not (tmp_path / "out" / "b_dicom").exists()


def test_the_seed_changes_the_split_and_nothing_else(prepared, ct_folder, tmp_path):
    before = content(prepared)
    manifest = json.loads((prepared / "manifest.json").read_text())
    try:
        splits = []
        for seed in range(1, 4):
            assert prepare(ct_folder, prepared, SIZE, workers=1, seed=seed).prepared == 0
            splits.append([case["split"] for case in json.loads((prepared / "manifest.json").read_text())["cases"]])
        assert any(split != [case["split"] for case in manifest["cases"]] for split in splits)
    finally:
        prepare(ct_folder, prepared, SIZE, workers=1)
    assert content(prepared) == before


@pytest.mark.parametrize(
    ("paths", "pattern", "patients"),
    [
        (["a.nii.gz", "b.nii.gz"], None, ["a", "b"]),
        (["images/a.nii.gz", "images/b.nii.gz"], None, ["images/a", "images/b"]),
        (["p1/x.nii.gz", "p1/y.nii.gz", "p2/x.mha"], None, ["p1", "p1", "p2"]),
        (["all/p1/x.nii.gz", "all/p1/y.nii.gz", "all/p2/x.nrrd"], None, ["p1", "p1", "p2"]),
        (["LIDC-IDRI-0003.1/ct.h5", "LIDC-IDRI-0003.2/ct.h5"], None, ["LIDC-IDRI-0003", "LIDC-IDRI-0003"]),
        (["s7_a.nii.gz", "s7_b.nii.gz", "s8_a.nii.gz"], r"(s\d+)_", ["s7", "s7", "s8"]),
    ],
)
def test_patients_are_known_by_their_paths(paths, pattern, patients, tmp_path):
    for path in paths:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    sources, excluded = find_sources(tmp_path, patient_pattern=pattern)
    assert [source.patient for source in sorted(sources, key=lambda source: source.path)] == patients
    assert not excluded


def test_dicom_patients_are_known_by_their_header_whose_value_stays_there(tmp_path):
    for number in range(2):
        parts = dicom_slices(np.zeros((4, 4, 3), np.int16), AFFINE)
        for part in parts:
            part.StudyInstanceUID, part.PatientID = f"1.2.3.4.5.{number}", "MRN-123"
        save_dicom(tmp_path / f"scan{number}", parts)
    sources, _ = find_sources(tmp_path)
    assert len(sources) == 2
    assert len({source.patient for source in sources}) == 1
    assert "MRN" not in sources[0].patient


@pytest.mark.parametrize("folders", [True, False], ids=["folders", "flat"])
@pytest.mark.parametrize(
    ("study", "patient", "series"),
    [
        pytest.param("1.2.3", "{}", "1.2.3.{}", id="one StudyInstanceUID"),
        pytest.param("1.2.3", "{}", "1.2.3.4", id="one StudyInstanceUID and one SeriesInstanceUID"),
        pytest.param(None, "{}", "1.2.3.{}", id="no StudyInstanceUID"),
        pytest.param("", "{}", "1.2.3.{}", id="StudyInstanceUID empty"),
        pytest.param("", "{}", "", id="no UID"),
        pytest.param("1.2.3.{}", "", "1.2.3.4", id="no PatientID, one SeriesInstanceUID"),
    ],
)
def test_patients_with_a_study_or_series_uid_in_common_are_all_there(study, patient, series, folders, tmp_path):
    for number in range(3):
        parts = dicom_slices(np.full((4, 4, 3), number, np.int16), AFFINE)
        for part in parts:
            part.PatientID, part.SeriesInstanceUID = patient.format(number), series.format(number)
            part.StudyInstanceUID = study.format(number) if study is not None else ""
            if study is None:
                del part.StudyInstanceUID
        save_dicom(tmp_path / (f"scan{number}" if folders else "flat"), parts)
    sources, excluded = find_sources(tmp_path)
    assert not excluded
    assert [len(source.files) for source in sources] == [3, 3, 3]
    assert len({source.name for source in sources}) == 3
    if folders or patient:
        assert len({source.patient for source in sources}) == 3


def test_without_patient_study_and_series_each_folder_is_a_case(tmp_path):
    for number in range(3):
        parts = dicom_slices(np.full((4, 4, 3), number, np.int16), AFFINE)
        for part in parts:
            part.PatientID = part.StudyInstanceUID = part.SeriesInstanceUID = ""
        save_dicom(tmp_path / f"scan{number}", parts)
    sources, excluded = find_sources(tmp_path)
    assert [source.path for source in sources] == ["scan0", "scan1", "scan2"]
    assert not excluded


def test_a_series_that_is_not_taken_is_listed(tmp_path):
    """One patient without PatientID, one StudyInstanceUID, two series: they might be of two patients."""
    for number in range(2):
        parts = dicom_slices(np.zeros((4, 4, 3 + number), np.int16), AFFINE)
        for part in parts:
            part.PatientID = ""
        save_dicom(tmp_path / f"scan{number}", parts)
    sources, excluded = find_sources(tmp_path)
    assert [source.path for source in sources] == ["scan1"]
    assert [item["source"] for item in excluded] == ["scan0"]
    assert sources[0].series in excluded[0]["reason"]


def test_studies_in_one_flat_folder_become_cases_of_their_own(tmp_path):
    for number in range(2):
        parts = dicom_slices(np.zeros((4, 4, 3), np.int16), AFFINE)
        for part in parts:
            part.StudyInstanceUID = f"1.2.3.4.5.{number}"
        save_dicom(tmp_path / "flat", parts)
    sources, _ = find_sources(tmp_path)
    assert len({source.name for source in sources}) == 2
    assert [len(source.files) for source in sources] == [3, 3]


def test_the_output_inside_the_source_folder_is_not_a_source(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    for _ in range(2):
        summary = prepare(tmp_path, tmp_path / "out", SIZE, workers=1)
        assert summary.excluded == 0
        assert sum(summary.splits.values()) == 1


def test_an_earlier_dataset_among_the_cts_is_no_source(tmp_path):
    """Else every patient would be there twice, under two names, in two splits."""
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    prepare(tmp_path, tmp_path / "sub" / "small", SIZE, workers=1)
    prepare(tmp_path, tmp_path / "other", SIZE, workers=1)
    assert [source.path for source in find_sources(tmp_path)[0]] == ["a.nii.gz"]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"made_by": "a downloader"}', '{"made_by": null}'])
def test_a_manifest_of_another_program_hides_no_ct(content, tmp_path):
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    (tmp_path / "manifest.json").write_text(content)
    assert [source.path for source in find_sources(tmp_path)[0]] == ["a.nii.gz"]


def test_the_output_is_not_the_source_folder(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    with pytest.raises(InputError, match="another --output_dir"):
        prepare(tmp_path, tmp_path / "x" / "..", SIZE, workers=1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"workers": 0}, "1 or more"),
        ({"workers": -1}, "1 or more"),
        ({"patient_pattern": "("}, "no regular expression"),
    ],
)
def test_options_that_cannot_be_are_one_error(options, said, tmp_path):
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    with pytest.raises(InputError, match=said):
        prepare(tmp_path, tmp_path / "out", SIZE, **options)


@pytest.mark.parametrize("make", [lambda folder: None, Path.mkdir, lambda folder: folder.write_text("a file")])
def test_no_folder_or_nothing_in_it_is_one_error_and_no_output(make, tmp_path):
    make(tmp_path / "cts")
    with pytest.raises(InputError, match="cts: no"):
        prepare(tmp_path / "cts", tmp_path / "out", SIZE)
    assert not (tmp_path / "out").exists()


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", np.clip(phantom(AFFINE), 0, None), AFFINE)
    with pytest.raises(InputError, match=r"none of 1 CTs.*a\.nii\.gz: not HU"):
        prepare(tmp_path, tmp_path / "out", SIZE, workers=1)


@pytest.mark.parametrize("size", [8, 1000, 64.5, "64"])
def test_a_size_out_of_range_is_refused(size, tmp_path):
    with pytest.raises(InputError, match="16 to 512"):
        simulate_case(tmp_path / "a.nii.gz", tmp_path / "out", size)


def test_an_unreachable_cluster_is_one_error(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", phantom(AFFINE), AFFINE)
    with pytest.raises(InputError, match="Dask"):
        prepare(tmp_path, tmp_path / "out", SIZE, cluster="tcp://127.0.0.1:9")
