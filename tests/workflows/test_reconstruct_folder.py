"""A folder of patients in, a folder of results out: resumable, past bad cases, nothing half-written."""

from __future__ import annotations

import csv
import functools
import json
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import torch
from radiograph_cases import grey_levels, write_dicom

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.datasets.radiograph_pairs import find_pairs
from xrecon_bundle.files import InputError
from xrecon_bundle.networks import build_generator
from xrecon_bundle.networks.weights import save_weights
from xrecon_bundle.workflows import reconstruct_folder as batch
from xrecon_bundle.workflows.predictor import Predictor

SIZE = 64


@pytest.fixture(scope="module")
def predictor(model) -> Predictor:
    return Predictor(model, SIZE)


def write_study(folder: Path, case: Path, study: str, views: dict[str, str], **tags) -> None:
    """DICOM radiographs under names that say nothing; ``views``: ViewPosition -> the view's picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (position, view) in enumerate(views.items()):
        picture = np.asarray(nibabel.load(case / f"{view}.nii.gz").dataobj)
        position = position.rstrip("+")
        options = dict(StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{number}", PatientID=study) | tags
        write_dicom(folder / f"im{number}", grey_levels(picture, 4095), ViewPosition=position, **options)


@pytest.fixture
def clinic(tmp_path: Path, case: Path) -> Path:
    """Four good patients in four layouts, and four bad ones."""
    root = tmp_path / "clinic"
    for name, suffix in (("a/png", "png"), ("a/nifti", "nii.gz")):
        (root / name).mkdir(parents=True)
        for view in ("pa", "lateral"):
            shutil.copy(case / f"{view}.{suffix}", root / name)
    (root / "biplanar").mkdir()
    shutil.copy(case / "radiographs.nii.gz", root / "biplanar")
    write_study(root / "pacs", case, "1.2.3", {"PA": "pa", "LL": "lateral"})
    (root / "pacs" / "notes.txt").write_text("seen")
    (root / "no lateral").mkdir()
    shutil.copy(case / "pa.png", root / "no lateral")
    (root / "broken").mkdir()
    for view in ("pa", "lateral"):
        (root / "broken" / f"{view}.png").write_bytes((case / f"{view}.png").read_bytes()[:300])
    write_study(root / "pacs2", case, "1.2.4", {"PA": "pa"})
    write_study(root / "pacs3", case, "1.2.5", {"PA": "pa", "LL": "lateral", "PA+": "pa"})
    return root


GOOD = ["1.2.3", "a/nifti", "a/png", "biplanar"]
BAD = {
    "1.2.4": "1 PA and 0 left lateral",
    "1.2.5": "2 PA and 1 left lateral",
    "broken": "pa.png",
    "no lateral": "no lateral file",
}


def rows_of(table: Path) -> dict[str, dict[str, str]]:
    with open(table, newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


def test_every_layout_is_found_and_bad_cases_are_listed(clinic, predictor, tmp_path) -> None:
    summary = batch.reconstruct_folder(clinic, tmp_path / "out", predictor)
    assert (summary.made, summary.reused) == (len(GOOD), 0)
    assert set(summary.failed) == set(BAD)
    for case, reason in BAD.items():
        assert reason in summary.failed[case]
    rows = rows_of(summary.table)
    assert list(rows) == sorted([*GOOD, *BAD])
    volumes = [np.asarray(nibabel.load(tmp_path / "out" / case / "ct.nii.gz").dataobj) for case in GOOD]
    for case, volume in zip(GOOD, volumes, strict=True):
        assert rows[case]["status"] == "made"
        report = json.loads((tmp_path / "out" / case / "ct.json").read_text())
        assert float(rows[case]["consistency"]) == pytest.approx(report["consistency"]["score"], abs=1e-4)
        assert rows[case]["warnings"] == "; ".join(report["warnings"])
        assert rows[case]["page"] == f"{case}/ct.html"
        assert "projected from the CT" in (tmp_path / "out" / rows[case]["page"]).read_text()
        # The same patient, through 12 or 16 bits; a DICOM file does not say where the chest's middle is.
        assert np.abs(volume - volumes[1].astype(float)).mean() < (80 if case == "1.2.3" else 5)
    for case, reason in BAD.items():
        assert rows[case]["status"] == "failed"
        assert reason in rows[case]["error"]
        assert not (tmp_path / "out" / case).exists()
    assert not list((tmp_path / "out").rglob(".*"))


def test_the_biplanar_file_gives_the_same_volume_as_its_two_views(case, predictor) -> None:
    pair, file = (
        predictor(files) for files in ([case / "pa.nii.gz", case / "lateral.nii.gz"], [case / "radiographs.nii.gz"])
    )
    np.testing.assert_allclose(pair.affine, file.affine, atol=1e-3)
    assert np.abs(pair.hu.astype(float) - file.hu).mean() < 1  # one resampling more


@pytest.fixture
def small(tmp_path: Path, case: Path) -> Path:
    for name in ("one", "two"):
        (tmp_path / "in" / name).mkdir(parents=True)
        shutil.copy(case / "radiographs.nii.gz", tmp_path / "in" / name)
    return tmp_path / "in"


def contents(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("ct.*")}


def test_finished_results_are_kept_until_files_weights_or_settings_change(small, model, case, tmp_path) -> None:
    out = tmp_path / "out"

    def run(weights: Path = model, **options) -> tuple[int, int]:
        summary = batch.reconstruct_folder(small, out, Predictor(weights, SIZE, **options))
        assert summary.failed == {}
        return summary.made, summary.reused

    shutil.rmtree(small / "one")
    assert run() == (1, 0)
    first = contents(out)
    assert run() == (0, 1)
    assert contents(out) == first
    (out / "two" / "ct.json").unlink()
    assert run() == (1, 0)
    volume = out / "two" / "ct.nii.gz"
    volume.write_bytes(volume.read_bytes()[:-100])  # a full disk, a copy cut off
    assert run() == (1, 0)
    moved = small.rename(tmp_path / "moved")
    shutil.copytree(moved, small)
    assert run() == (0, 1)
    image = nibabel.load(small / "two" / "radiographs.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(image.get_fdata(dtype=np.float32) * 1.5, image.affine), small / "two" / "radiographs.nii.gz"
    )
    assert run() == (1, 0)
    assert run(accept_any_view=True) == (1, 0)
    torch.manual_seed(1)
    save_weights(build_generator("compact", SIZE).state_dict(), tmp_path / "other.pt")
    assert run(tmp_path / "other.pt") == (1, 0)


def test_an_interrupted_batch_leaves_whole_cases_only(small, predictor, tmp_path, monkeypatch) -> None:
    written = []

    def killed_in_the_second(result, output, output_format) -> None:
        written.append(output)
        original(result, output, output_format)
        if len(written) == 2:
            raise KeyboardInterrupt

    original = batch.write_reconstruction
    monkeypatch.setattr(batch, "write_reconstruction", killed_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        batch.reconstruct_folder(small, tmp_path / "out", predictor)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    monkeypatch.undo()
    summary = batch.reconstruct_folder(small, tmp_path / "out", predictor)
    assert (summary.made, summary.reused) == (1, 1)


def test_the_users_own_files_are_never_replaced(small, predictor, tmp_path) -> None:
    before = {path: path.read_bytes() for path in small.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="give another output folder"):
        batch.reconstruct_folder(small, small.parent / "." / small.name, predictor)
    shutil.copytree(small, tmp_path / "out")
    summary = batch.reconstruct_folder(small, tmp_path / "out", predictor)
    assert set(summary.failed) == {"one", "two"}
    assert "give another output folder" in summary.failed["one"]
    for folder in (small, tmp_path / "out"):
        kept = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.suffix != ".csv"}
        assert {path.relative_to(folder): content for path, content in kept.items()} == {
            path.relative_to(small): content for path, content in before.items()
        }


@functools.cache
def synthetic_ct() -> np.ndarray:
    return synthesize_thorax(0, SIZE).ct


@pytest.mark.parametrize("output_format", ["nifti", "dicom"])
def test_with_segment_the_table_has_the_measures(output_format, small, predictor, tmp_path, monkeypatch) -> None:
    """With stand-ins: for the untrained network one that returns a CT, for PTX-Seg one that is quick."""
    chest = synthesize_thorax(0, SIZE)
    monkeypatch.setattr("xrecon_bundle.workflows.predictor.predict", lambda image, generator: chest.ct)
    monkeypatch.setattr("xrecon_bundle.segmentation.ptxseg.PTXSeg", lambda: lambda hu, spacing: chest.segmentation)
    shutil.rmtree(small / "two")
    if output_format == "dicom":
        pytest.importorskip("highdicom")
    summary = batch.reconstruct_folder(small, tmp_path / "out", predictor, output_format, segment=True)
    assert summary.failed == {}
    row = rows_of(summary.table)["one"]
    assert row["warnings"] == ""
    assert float(row["consistency"]) > 0.99
    assert "label map" in (tmp_path / "out" / row["page"]).read_text()
    assert 1000 < float(row["right_lung_ml"]) < 4000
    assert row["total_size"] == "none"
    if output_format == "nifti":
        labels = nibabel.load(tmp_path / "out" / "one" / "segmentation.nii.gz")
        right = np.count_nonzero(np.asarray(labels.dataobj) == 1) * 5.6**3 / 1000
    else:
        images = list((tmp_path / "out" / "one" / "ct").glob("*.dcm"))
        assert len(images) == SIZE
        seg = pydicom.dcmread(tmp_path / "out" / "one" / "segmentation.dcm")
        number = [
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            for frame in seg.PerFrameFunctionalGroupsSequence
        ]
        right = np.count_nonzero(seg.pixel_array[np.array(number) == 1]) * 5.6**3 / 1000
    assert right == pytest.approx(float(row["right_lung_ml"]), rel=1e-3)
    assert batch.reconstruct_folder(small, tmp_path / "out", predictor, output_format, segment=True).reused == 1
    without = batch.reconstruct_folder(small, tmp_path / "out", predictor, output_format, segment=True, view=False)
    assert without.made == 1
    assert "page" not in rows_of(without.table)["one"]
    assert not list((tmp_path / "out").rglob("*.html"))


def test_a_network_whose_weights_have_no_name_is_never_taken_for_another(small, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("xrecon_bundle.workflows.predictor.predict", lambda image, generator: synthetic_ct())
    shutil.rmtree(small / "two")
    for _ in range(2):
        unnamed = Predictor(build_generator("compact", SIZE))
        assert batch.reconstruct_folder(small, tmp_path / "out", unnamed, view=False).made == 1


def test_linked_patients_are_found_and_no_link_vanishes(small, tmp_path) -> None:
    (tmp_path / "archive").mkdir()
    shutil.copytree(small / "one", tmp_path / "archive" / "three")
    for name, target in (("linked", tmp_path / "archive" / "three"), ("lost", tmp_path / "gone"), ("ring", small)):
        (small / name).symlink_to(target)
    pairs, problems = find_pairs(small)
    assert [pair.case for pair in pairs] == ["linked", "one", "two"]
    assert set(problems) == {"lost", "ring"}
    assert "a link to nothing" in problems["lost"]


def test_a_folder_without_radiographs_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="no radiographs here"):
        find_pairs(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        find_pairs(tmp_path / "none")
