"""DICOM SEG and SR of a DICOM CT: the regions where the NIfTI label map has them, on the images they refer to."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from chest_phantom import dicom_slices, phantom, phantom_affine, place_of, save_dicom, save_nifti

from xrecon_bundle.files import InputError
from xrecon_bundle.segmentation.labels import REGIONS
from xrecon_bundle.workflows.segment import segment_file

pytest.importorskip("highdicom")

SHAPE = (50, 30, 36)
AFFINE = phantom_affine(10.0, SHAPE)


def by_hu(hu: np.ndarray, spacing) -> np.ndarray:
    """A stand-in for PTX-Seg that looks at HU alone: the lungs by side, the dense ball as the left-sided air."""
    labels = np.zeros(hu.shape, np.uint8)
    half = hu.shape[0] // 2
    labels[:half][hu[:half] == -850] = REGIONS["right_lung"]
    labels[half:][hu[half:] == -850] = REGIONS["left_lung"]
    labels[hu == 1000] = REGIONS["left_pneumothorax"]
    return labels


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """A CT series whose files are in an order that means nothing, with one image twice, and another series."""
    slices = dicom_slices(phantom(AFFINE, SHAPE), AFFINE)
    folder = save_dicom(tmp_path / "ct", slices)
    slices[7].save_as(folder / "copy.dcm")
    save_dicom(folder / "scout", dicom_slices(phantom(AFFINE, SHAPE), AFFINE)[:3])
    return folder


def test_regions_lie_where_the_nifti_label_map_has_them(ct, tmp_path) -> None:
    nifti = save_nifti(tmp_path / "ct.nii.gz", phantom(AFFINE, SHAPE), AFFINE)
    expected = segment_file(nifti, tmp_path / "labels.nii.gz", by_hu)
    statistics = segment_file(ct, tmp_path / "labels.dcm", by_hu, output_format="dicom")
    for side in ("right", "left", "total"):
        assert statistics[side] == pytest.approx(expected[side])
    image = nibabel.load(tmp_path / "labels.nii.gz")
    seg = pydicom.dcmread(tmp_path / "labels.dcm")
    for region in ("right_lung", "left_lung", "left_pneumothorax"):
        voxels = np.argwhere(np.asarray(image.dataobj) == REGIONS[region])
        places = nibabel.affines.apply_affine(image.affine, voxels)
        assert place_of(seg, REGIONS[region]) == {tuple(point) for point in np.rint(places).astype(int)}


def test_it_belongs_to_the_patient_the_study_and_the_images(ct, tmp_path) -> None:
    segment_file(ct, tmp_path / "labels.dcm", by_hu, output_format="dicom")
    seg, report = (pydicom.dcmread(tmp_path / name) for name in ("labels.dcm", "labels.sr.dcm"))
    images = [pydicom.dcmread(path) for path in ct.glob("*.dcm")]
    for derived in (seg, report):
        assert derived.PatientID == images[0].PatientID
        assert derived.StudyInstanceUID == images[0].StudyInstanceUID
        assert "NOT FOR DIAGNOSIS" in derived.SeriesDescription
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {image.SOPInstanceUID for image in images}
    assert [segment.SegmentLabel for segment in seg.SegmentSequence] == list(REGIONS)
    kinds = [segment.SegmentedPropertyTypeCodeSequence[0] for segment in seg.SegmentSequence]
    assert [kind.CodeMeaning for kind in kinds] == ["Lung", "Lung", "Pneumothorax", "Pneumothorax"]
    sides = [kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning for kind in kinds]
    assert sides == ["Right", "Left", "Right", "Left"]


def test_the_report_says_what_the_json_says(ct, tmp_path) -> None:
    from highdicom.sr import srread

    segment_file(ct, tmp_path / "labels.dcm", by_hu, output_format="dicom")
    statistics = json.loads((tmp_path / "labels.json").read_text())
    groups = srread(tmp_path / "labels.sr.dcm").content.get_volumetric_roi_measurement_groups()
    found = {
        group.tracking_identifier: {item.name.meaning: item.value for item in group.get_measurements()}
        for group in groups
    }
    for region in REGIONS:
        side, kind = region.split("_")
        assert found[region]["Volume"] == pytest.approx(statistics[side][f"{kind}_ml"], abs=1e-3)
    density = found["left_lung"]["Attenuation Coefficient"]
    assert density == pytest.approx(statistics["left"]["mean_lung_hu"], abs=1e-3)


def test_the_series_asked_for_is_segmented(ct, tmp_path) -> None:
    finer = AFFINE @ np.diag([1, 1, 0.5, 1])
    other = dicom_slices(np.repeat(phantom(AFFINE, SHAPE), 2, axis=2), finer)
    save_dicom(ct / "other", other)
    uid = pydicom.dcmread(ct / "copy.dcm").SeriesInstanceUID
    assert (
        segment_file(ct, tmp_path / "labels.dcm", by_hu, output_format="dicom")["series"] == other[0].SeriesInstanceUID
    )
    assert segment_file(ct, tmp_path / "labels.dcm", by_hu, series=uid, output_format="dicom")["series"] == uid
    assert pydicom.dcmread(tmp_path / "labels.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == uid


def test_of_two_passes_it_refers_to_the_images_that_were_segmented(tmp_path) -> None:
    slices = dicom_slices(phantom(AFFINE, SHAPE), AFFINE)
    second = dicom_slices(phantom(AFFINE, SHAPE) // 2, AFFINE, slices[0].SeriesInstanceUID)
    for part in second:
        part.ConvolutionKernel = "B80f"
    statistics = segment_file(
        save_dicom(tmp_path / "ct", slices + second), tmp_path / "labels.dcm", by_hu, output_format="dicom"
    )
    assert "kernel" in statistics["warnings"][0]
    seg = pydicom.dcmread(tmp_path / "labels.dcm")
    referenced = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced <= {part.SOPInstanceUID for part in slices}


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("FrameOfReferenceUID", b"1.2.x "),
        ("PatientBirthDate", b"\xff\xfe"),
        ("StudyDate", b"2026-99-99"),
        ("PatientID", b"\xff"),
    ],
)
def test_headers_that_cannot_be_copied_end_in_our_error_or_in_a_segmentation(tag, value, tmp_path) -> None:
    slices = dicom_slices(phantom(AFFINE, SHAPE), AFFINE)
    for part in slices:
        element = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(tag))
        vr = pydicom.datadict.dictionary_VR(element)
        part[element] = pydicom.dataelem.RawDataElement(element, vr, len(value), value, 0, False, True, True)
    folder = save_dicom(tmp_path / "ct", slices)
    before = set(tmp_path.rglob("*"))
    try:
        segment_file(folder, tmp_path / "labels.dcm", by_hu, output_format="dicom")
    except InputError:
        assert set(tmp_path.rglob("*")) == before
    else:
        assert pydicom.dcmread(tmp_path / "labels.dcm").Modality == "SEG"


def test_images_without_frame_of_reference_cannot_be_referred_to(tmp_path) -> None:
    slices = dicom_slices(phantom(AFFINE, SHAPE), AFFINE)
    for part in slices:
        del part.FrameOfReferenceUID
    folder = save_dicom(tmp_path / "ct", slices)
    with pytest.raises(InputError, match="cannot refer to these images"):
        segment_file(folder, tmp_path / "labels.dcm", by_hu, output_format="dicom")


def test_images_without_uid_cannot_be_referred_to(tmp_path) -> None:
    slices = dicom_slices(phantom(AFFINE, SHAPE), AFFINE)
    for part in slices:
        part.SOPInstanceUID = ""
    folder = save_dicom(tmp_path / "ct", slices)
    with pytest.raises(InputError, match="UIDs are missing"):
        segment_file(folder, tmp_path / "labels.dcm", by_hu, output_format="dicom")


def uneven(folder: Path, steps: list[float]) -> Path:
    """The chest in axial images that stand ``steps`` mm apart."""
    heights = np.concatenate([[0], np.cumsum(steps)]) - 180 + AFFINE[2, 3] - 175
    parts = []
    for number, height in enumerate(heights, start=1):
        place = AFFINE @ np.diag([1.0, 1, -1, 1])
        place[2, 3] = height
        (part,) = dicom_slices(phantom(place, (*SHAPE[:2], 1)), place, series="1.2.3.4.5.6")
        part.FrameOfReferenceUID, part.InstanceNumber = "1.2.3.4.5.7", number
        parts.append(part)
    parts[len(parts) // 2].ImagePositionPatient[0] += 0.9  # as far off the line as a series may be
    return save_dicom(folder, parts)


def by_band(hu: np.ndarray, spacing) -> np.ndarray:
    """The lungs by side, from half-way to what is dense: also where slices have been interpolated."""
    half = hu.shape[0] // 2
    labels = ((hu > -925) & (hu < -405)).astype(np.uint8)
    labels[half:] *= REGIONS["left_lung"]
    return labels


@pytest.mark.parametrize(
    "steps",
    [
        pytest.param([6, 4] * 30, id="6 and 4 mm in turn"),
        pytest.param([3] * 50 + [5] * 30, id="3 mm, then 5 mm"),
        pytest.param([5] * 20 + [2.5] * 40 + [5] * 20, id="thin in the middle"),
        pytest.param([5] * 30 + [10] + [5] * 28, id="one image missing"),
        pytest.param([5] * 60, id="even"),
    ],
)
def test_every_image_has_its_label_slice_however_far_apart_they_are(steps, tmp_path) -> None:
    """Truth: the phantom at each image. A frame stands for the space half-way to its neighbours."""
    folder = uneven(tmp_path / "ct", steps)
    statistics = segment_file(folder, tmp_path / "labels.dcm", by_band, output_format="dicom")
    seg = pydicom.dcmread(tmp_path / "labels.dcm")
    images = sorted(map(pydicom.dcmread, folder.iterdir()), key=lambda image: image.ImagePositionPatient[2])
    heights = np.array([float(image.ImagePositionPatient[2]) for image in images])
    gaps = np.diff(heights)
    thick = (np.append(gaps[0], gaps) + np.append(gaps, gaps[-1])) / 2
    for side, label in (("right", REGIONS["right_lung"]), ("left", REGIONS["left_lung"])):
        frames = {
            round(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]), 3): pixels
            for frame, pixels in zip(seg.PerFrameFunctionalGroupsSequence, seg.pixel_array, strict=True)
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == label
        }
        own = np.array([frames.get(round(height, 3), np.zeros((30, 50))).sum() for height in heights])
        true = np.array(
            [np.count_nonzero(by_band(image.pixel_array.T[..., None] - 1024.0, None) == label) for image in images]
        )
        around = np.stack([true, np.roll(true, 1), np.roll(true, -1)])  # half a step of the volume's slices away
        assert (own >= around.min(axis=0)).all()
        assert (own <= around.max(axis=0)).all()
        assert set(np.flatnonzero(true)) - set(np.flatnonzero(own)) <= {*np.flatnonzero(true)[[0, -1]]}
        volume = (own * thick).sum() * 100 / 1000
        assert volume == pytest.approx((true * thick).sum() * 100 / 1000, rel=0.015)
        assert volume == pytest.approx(statistics[side]["lung_ml"], rel=0.015)


REFUSED = {
    "a NIfTI": ("ct.nii.gz", "labels.dcm", "no folder"),
    "no CT": ("empty", "labels.dcm", "no CT series"),
    "a name that is no DICOM file's": ("ct", "labels.nii.gz", "end in .dcm"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_segmented_leaves_nothing(name, ct, tmp_path) -> None:
    save_nifti(tmp_path / "ct.nii.gz", phantom(AFFINE, SHAPE), AFFINE)
    (tmp_path / "empty").mkdir()
    before = set(tmp_path.rglob("*"))
    source, output, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        segment_file(tmp_path / source, tmp_path / output, by_hu, output_format="dicom")
    assert set(tmp_path.rglob("*")) == before


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
def test_dciodvfy_finds_no_error(ct, tmp_path) -> None:
    segment_file(ct, tmp_path / "labels.dcm", by_hu, output_format="dicom")
    for name, kind in (("labels.dcm", "Segmentation"), ("labels.sr.dcm", "Comprehensive3DSR")):
        result = subprocess.run(["dciodvfy", tmp_path / name], capture_output=True, text=True, check=False)
        assert kind in result.stderr
        assert "Error" not in result.stderr
