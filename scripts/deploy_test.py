"""`make deploy-test`: the MONAI Deploy application on a DICOM study, in an environment of its own (.venv-deploy).

The study has the LIDC patient's simulated PA and lateral radiograph as DX images, and beside them what a real folder
has too: a CT slice, another projection, a text file. What comes out has to be what `xrecon reconstruct` and
`xrecon segment` make of the same two images by way of NIfTI. Everything stays in build/deploy-test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import itk
import nibabel
import numpy as np
import pydicom
from deployment import SHIPPED, SIZE, run, unpacked_bundle
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid
from skimage.transform import resize
from zoo import ROOT

from xrecon_bundle.datasets.lidc import fetch_lidc, fetch_lidc_dicom
from xrecon_bundle.frame import detector_size_mm
from xrecon_bundle.io.radiograph_files import VIEW_DIRECTIONS, VIEWS, View
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.segmentation.labels import REGIONS
from xrecon_bundle.workflows.predictor import Predictor
from xrecon_bundle.workflows.reconstruct import reconstruct_files
from xrecon_bundle.workflows.segment import segment_file
from xrecon_bundle.workflows.simulate import simulate_case

WORK = ROOT / "build" / "deploy-test"
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"
APP = ROOT / "deploy" / "app.py"
PIXELS = 224  # of the radiographs
STORED_MAX = 4095
TAGS = {"PatientName": "LIDC^Test", "PatientID": "LIDC-1", "StudyDate": "20261122", "AccessionNumber": "7"}


def main() -> None:
    """Every step in turn; the first that fails ends the test."""
    shutil.rmtree(WORK, ignore_errors=True)
    bundle = unpacked_bundle(WORK)
    case = WORK / "case"
    simulate_case(fetch_lidc(ROOT / ".cache")[0], case, spatial_size=PIXELS)
    study = write_study(WORK / "study", case)

    output = WORK / "output"
    model = bundle / SHIPPED
    log = run(PYTHON, APP, "-i", study, "-o", output, "-m", model, cwd=WORK, PYTHONPATH=str(bundle))
    (WORK / "app.log").write_text(log)
    ct = read_ct(output / "ct")
    written = nibabel.as_closest_canonical(nibabel.Nifti1Image(ct.hu, ct.affine))
    predictor = Predictor(model)
    for name, files in {
        "the same DICOM files": (study / "1.dcm", study / "2.dcm"),
        "the radiographs as NIfTI": (case / "pa.nii.gz", case / "lateral.nii.gz"),
    }.items():
        path = WORK / "by_nifti.nii.gz"
        report = reconstruct_files(*files, path, predictor)
        image = nibabel.as_closest_canonical(nibabel.load(path))
        difference = np.abs(written.get_fdata() - image.get_fdata())
        print(f"  CT {written.shape}: differs by {difference.max():g} HU, mean {difference.mean():.3f}, from {name}")
        if files[0].suffix == ".dcm":  # NIfTI's grey levels are finer, and it says where the patient was
            assert difference.max() <= 1
            check_report(json.loads((output / "ct" / "reconstruction.json").read_text()), report)
            assert np.allclose(written.affine, image.affine, atol=1e-3), (written.affine, image.affine)
    check_orientation(output / "ct", case / "ct.nii.gz")
    check_tags(output / "ct", study)
    check_segmentation(output)
    refuse_half_a_study(study, model, bundle)
    print("deploy-test: all passed")


def check_report(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """The application's report is the command line's but for rounding."""
    assert found.keys() == expected.keys(), (found.keys(), expected.keys())
    for name in ("version", "code", "inputs", "spatial_size", "loading", "placement", "input_quality"):
        assert found[name] == json.loads(json.dumps(expected[name])), name
    scores = [report["consistency"]["score"] for report in (found, expected)]
    assert abs(scores[0] - scores[1]) < 1e-3, scores
    print(f"  the same report, consistency {scores[0]:.3f}")


def write_study(folder: Path, case: Path) -> Path:
    """The DX images ``1.dcm`` (PA) and ``2.dcm`` (lateral) of a simulated case, and files to be passed over."""
    folder.mkdir()
    uid = generate_uid()
    for number, view in enumerate(VIEWS, start=1):
        image = nibabel.load(case / f"{view}.nii.gz").get_fdata()
        write_dx(folder / f"{number}.dcm", image, view, StudyInstanceUID=uid, InstanceNumber=number)
    swimmers = np.random.default_rng(0).random((PIXELS, PIXELS))
    write_dx(folder / "3.dcm", swimmers, "lateral", StudyInstanceUID=uid, InstanceNumber=3, ViewPosition="RL")
    shutil.copy(fetch_lidc_dicom(ROOT / ".cache") / "1-001.dcm", folder / "ct.dcm")
    (folder / "readme.txt").write_text("no DICOM")
    return folder


def write_dx(path: Path, image: np.ndarray, view: View, **tags: object) -> None:
    """Write one view ``(U, V)`` of the chest frame, bright is dense, as a digital X-ray image of 12 bits."""
    unit = (image - image.min()) / np.ptp(image)
    stored = np.ascontiguousarray(np.rint(unit * STORED_MAX).astype("<u2").T)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "DX"
    dataset.PresentationIntentType = "FOR PRESENTATION"
    dataset.ViewPosition = {"pa": "PA", "lateral": "LL"}[view]
    dataset.PatientOrientation = list(VIEW_DIRECTIONS[view])
    dataset.Rows, dataset.Columns = stored.shape
    dataset.ImagerPixelSpacing = [detector_size_mm() / len(stored)] * 2
    dataset.DistanceSourceToDetector = 1800
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = stored.tobytes()
    for name, value in (TAGS | tags).items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def check_orientation(series: Path, true_ct: Path) -> None:
    """As ITK reads it, the series resembles the patient's own CT more than any mirror image of it does."""
    names = itk.GDCMSeriesFileNames.New(Directory=str(series))
    image = itk.imread(list(names.GetInputFileNames()), itk.F)
    assert np.allclose(itk.array_from_matrix(image.GetDirection()), np.eye(3))
    found = itk.array_from_image(image)[::-1].T  # to the left, to the back, to the feet
    true = resize(nibabel.load(true_ct).get_fdata(), found.shape, anti_aliasing=True)
    mirrored = {"none": found} | {f"axis {axis}": np.flip(found, axis) for axis in range(3)}
    likeness = {name: round(float(np.corrcoef(hu.ravel(), true.ravel())[0, 1]), 3) for name, hu in mirrored.items()}
    print(f"  correlation with the patient's CT by the axis mirrored: {likeness}")
    assert max(likeness, key=likeness.__getitem__) == "none"


def check_tags(series: Path, study: Path) -> None:
    """The series is the patient's, in the study, of its own frame of reference, and refers to both radiographs."""
    images = [pydicom.dcmread(path) for path in sorted(series.glob("*.dcm"))]
    radiographs = [pydicom.dcmread(study / f"{number}.dcm") for number in (1, 2)]
    assert len(images) == SIZE
    for name in ("StudyInstanceUID", *TAGS):
        assert {str(image[name].value) for image in images} == {str(radiographs[0][name].value)}, name
    for name in ("SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({image[name].value for image in images}) == 1, name
    referred = {item.ReferencedSOPInstanceUID for item in images[0].SourceImageSequence}
    assert referred == {image.SOPInstanceUID for image in radiographs}
    print(f"  series '{images[0].SeriesDescription}', {len(images)} images, refers to {len(referred)} radiographs")


def check_segmentation(output: Path) -> None:
    """The DICOM SEG's voxels and the measurements are those of `xrecon segment` with NIfTI output."""
    path = WORK / "segmentation.nii.gz"
    expected = segment_file(output / "ct", path)
    image = nibabel.as_closest_canonical(nibabel.load(path))
    labels = image.get_fdata()
    seg = pydicom.dcmread(output / "pneumothorax.dcm")
    frames = seg.pixel_array.reshape(-1, seg.Rows, seg.Columns).astype(bool)
    found = dict.fromkeys(REGIONS.values(), 0)
    wrong = 0
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        label = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        height = groups.PlanePositionSequence[0].ImagePositionPatient[2]
        index = round((height - image.affine[2, 3]) / image.affine[2, 2])
        found[label] += int(frame.sum())
        wrong += int((frame != (labels[::-1, ::-1, index] == label).T).sum())  # columns to the left, rows to the back
    print(f"  DICOM SEG: {found} voxels a segment, {wrong} other than in the NIfTI label map")
    assert wrong == 0
    assert found == {label: int((labels == label).sum()) for label in found}
    measured = json.loads((output / "pneumothorax.json").read_text())
    for side in ("right", "left", "total"):
        assert measured[side] == expected[side]
        print(f"  {side}: {measured[side]}")


def refuse_half_a_study(study: Path, model: Path, bundle: Path) -> None:
    """Without the lateral, the application fails, says why, and writes nothing."""
    half = WORK / "half"
    half.mkdir()
    shutil.copy(study / "1.dcm", half)
    command = [str(part) for part in (PYTHON, APP, "-i", half, "-o", WORK / "nothing", "-m", model)]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(bundle)}, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "no DICOM study with a PA and a left lateral" in result.stderr + result.stdout
    assert not list((WORK / "nothing").rglob("*"))
    print(f"  without the lateral: exit code {result.returncode}, nothing written")


if __name__ == "__main__":
    main()
