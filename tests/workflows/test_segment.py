"""From a file to a label map on its own grid, statistics and a picture."""

from __future__ import annotations

import json
import os

import nibabel
import numpy as np
import pytest
from chest_phantom import CENTRE, dicom_slices, phantom, save_dicom
from PIL import Image

from tests.segmentation.conftest import SPACING
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.segmentation import PTXSeg
from xrecon_bundle.volume import CTVolume
from xrecon_bundle.workflows.segment import in_chest_axes, segment_file


def test_label_maps_in_one_folder_keep_their_statistics(tmp_path, collapsed):
    """Of two CTs, one moved by a voxel: every file of the first stays as it was."""
    for name, hu in (("ann", collapsed.hu), ("bob", np.roll(collapsed.hu, 1, axis=2))):
        write_nifti(tmp_path / f"{name}.nii.gz", hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    segment_file(tmp_path / "ann.nii.gz", tmp_path / "ann_seg.nii.gz")
    first = {path: path.read_bytes() for path in tmp_path.iterdir()}
    segment_file(tmp_path / "bob.nii.gz", tmp_path / "bob_seg.nii.gz")
    assert {path: path.read_bytes() for path in first} == first
    assert len(list(tmp_path.glob("*_seg.json"))) == 2


CAVITIES_ML = 3400.0  # of the phantom, roughly


def report_with(interval: tuple[float, float], volume: float = 1.0) -> str:
    """A reconstruction's JSON whose network sees so many times the phantom's lungs."""
    total = {"lung_ml": volume * CAVITIES_ML, "pneumothorax_ml": 0.0, "occupancy_interval": interval}
    return json.dumps({"placement": {}, "consistency": {}, "estimates": {"total": total}})


@pytest.mark.parametrize(
    ("beside", "warned"),
    [
        (None, []),
        ('{"Modality": "CT"}', []),  # of dcm2niix
        ("[1, 2", []),
        ("[1, 2]", []),
        ('{"estimates": 7}', []),
        ('{"placement": {}, "consistency": {}, "estimates": null}', ["computed from two radiographs"]),
        (report_with((0.1, 0.5)), ["computed from two radiographs"]),
        (
            report_with((0.0, 0.4)),
            ["computed from two radiographs", "no sign of a pneumothorax: as the network sees it, 0 to 40 %"],
        ),
        (report_with((0.1, 0.5), 2.0), ["computed from two radiographs", "look at the labels"]),
    ],
)
def test_what_is_measured_in_a_reconstruction_is_qualified(tmp_path, collapsed, beside, warned):
    write_nifti(tmp_path / "ct.nii.gz", collapsed.hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    if beside is not None:
        (tmp_path / "ct.json").write_text(beside)
    statistics = segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", view=False)
    assert len(statistics["warnings"]) == len(warned)
    assert all(part in warning for part, warning in zip(warned, statistics["warnings"], strict=True))


def test_the_report_of_a_reconstruction_that_was_replaced_says_nothing(tmp_path, collapsed):
    report = tmp_path / "ct.json"
    report.write_text(report_with((0.0, 0.4)))
    write_nifti(tmp_path / "ct.nii.gz", collapsed.hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    os.utime(report, (1e9, 1e9))
    assert segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", view=False)["warnings"] == []


def test_voxels_that_are_no_numbers_are_told(tmp_path, collapsed):
    hu = collapsed.hu.astype(np.float32)
    hu[20:23, 20, 20] = np.nan
    write_nifti(tmp_path / "ct.nii.gz", hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    warnings = segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", view=False)["warnings"]
    assert [warning.startswith(f"3 of {hu.size} voxels are not numbers") for warning in warnings] == [True]


def test_no_page_of_an_earlier_label_map_is_left(tmp_path, collapsed):
    """It would show another CT, perhaps another patient's."""
    write_nifti(tmp_path / "ct.nii.gz", collapsed.hu, np.diag([-SPACING[0], SPACING[1], -SPACING[2], 1.0]))
    for view in (True, False):
        segment_file(tmp_path / "ct.nii.gz", tmp_path / "seg.nii.gz", view=view)
        assert (tmp_path / "seg.html").exists() is view


def test_label_map_statistics_and_picture(tmp_path, collapsed):
    stored = collapsed.hu[::-1].transpose(2, 0, 1)  # z to the feet first, then x to the right, y to the back
    affine = np.array([[0, SPACING[0], 0, -50], [0, 0, -SPACING[1], 20], [-SPACING[2], 0, 0, 7], [0, 0, 0, 1.0]])
    write_nifti(tmp_path / "ct.nii.gz", stored, affine)
    statistics = segment_file(tmp_path / "ct.nii.gz", tmp_path / "out" / "seg.nii.gz")

    image = nibabel.load(tmp_path / "out" / "seg.nii.gz")
    assert image.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    labels = np.asarray(image.dataobj).transpose(1, 2, 0)[::-1]
    np.testing.assert_array_equal(labels, PTXSeg()(collapsed.hu, SPACING))
    assert json.loads((tmp_path / "out" / "seg.json").read_text()) == statistics
    true = np.count_nonzero(collapsed.labels == 4) * np.prod(SPACING) / 1000
    assert statistics["left"]["pneumothorax_ml"] == pytest.approx(true, rel=0.12)
    assert statistics["right"]["pneumothorax_ml"] == 0
    picture = np.asarray(Image.open(tmp_path / "out" / "seg.png").convert("RGB")).astype(int)
    assert ((picture[..., 0] > 100) & (picture[..., 2] < picture[..., 0] - 60)).any(), "free air is drawn in orange"


def test_no_lung_is_said_so(tmp_path):
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[10:30, 10:30] = 40
    hu[18:22, 18:22] = 400
    write_nifti(tmp_path / "leg.nii.gz", hu, np.diag([3.0, 3, 3, 1]))
    with pytest.raises(InputError, match=r"leg\.nii\.gz: no lung"):
        segment_file(tmp_path / "leg.nii.gz", tmp_path / "seg.nii.gz")


def test_the_output_must_be_nifti(tmp_path):
    with pytest.raises(InputError, match=r"nii\.gz"):
        segment_file("ct.nii.gz", tmp_path / "seg.png")


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SLA", "PIR"])
def test_any_stored_axes_come_out_in_the_chest_frame(axcodes):
    """One bright voxel to the patient's left, at the back and low; voxels of three different sizes."""
    hu = np.full((5, 6, 7), -1000.0, np.float32)
    hu[0, 0, 1], hu[2, 2, 2] = 500.0, np.nan
    lpi = nibabel.Nifti1Image(hu[::-1, ::-1, ::-1], np.diag([-1.0, -2.0, -3.0, 1.0]))
    stored = nibabel.io_orientation(lpi.affine)
    turn = nibabel.orientations.ornt_transform(stored, nibabel.orientations.axcodes2ornt(axcodes))
    other = lpi.as_reoriented(turn)
    turned, spacing = in_chest_axes(CTVolume(np.asarray(other.dataobj, dtype=np.float32), other.affine, {}))
    np.testing.assert_array_equal(turned, np.nan_to_num(hu[::-1, ::-1, ::-1], nan=-1024.0))
    np.testing.assert_allclose(spacing, [1.0, 2.0, 3.0])
    assert tuple(np.argwhere(turned == 500.0)[0]) == (4, 5, 5)


@pytest.mark.parametrize("degrees", [20, -30])
def test_volumes_in_ml_do_not_depend_on_the_gantry_tilt(degrees, tmp_path):
    """Slices tilted, each moved along the table only: the stack is sheared, the patient is not."""

    def by_hu(hu: np.ndarray, spacing) -> np.ndarray:
        return np.select([hu == -850, hu == 1000], [1, 4], 0).astype(np.uint8)

    def statistics(degrees: float) -> dict:
        tilt, shape = np.radians(degrees), (80, 60, 90)
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 2] = [-5, 0, 0], [0, 0, 5]
        affine[:3, 1] = [0, -5 * np.cos(tilt), 5 * np.sin(tilt)]
        affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        folder = save_dicom(tmp_path / f"{degrees}", dicom_slices(phantom(affine, shape), affine))
        result = segment_file(folder, tmp_path / f"{degrees}.nii.gz", by_hu)
        image = nibabel.load(tmp_path / f"{degrees}.nii.gz")
        np.testing.assert_allclose(image.affine, affine, atol=1e-3)
        voxel_ml = abs(np.linalg.det(image.affine)) / 1000
        assert result["right"]["lung_ml"] == pytest.approx(np.sum(np.asarray(image.dataobj) == 1) * voxel_ml)
        return result

    tilted, upright = statistics(degrees), statistics(0)
    assert tilted["right"]["lung_ml"] == pytest.approx(upright["right"]["lung_ml"], rel=0.005)
    assert tilted["left"]["pneumothorax_ml"] == pytest.approx(upright["left"]["pneumothorax_ml"], rel=0.1)  # 7 mL
    assert "gantry tilt kept in the affine" in tilted["notes"]
