"""A volume written as DICOM: the same HU at the same place in the patient, whoever reads it; and whose it is."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import itk
import nibabel
import numpy as np
import pydicom
import pytest
from chest_phantom import CENTRE, dicom_slices, phantom, phantom_affine
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from xrecon_bundle import frame
from xrecon_bundle.dicom.write import read_source, write_ct_series
from xrecon_bundle.files import InputError, write_nifti
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.volume import LPS_TO_RAS

SHAPE = (50, 30, 36)
AFFINE = phantom_affine(10.0, SHAPE)


def tilted(affine: np.ndarray) -> np.ndarray:
    turn = np.eye(4)
    turn[:3, :3] = Rotation.from_euler("xyz", [8, -5, 12], degrees=True).as_matrix()
    return turn @ affine


AFFINES = {"chest frame": AFFINE, "oblique": tilted(AFFINE), "fine": phantom_affine(10 / 3, SHAPE)}


def same_axes(hu: np.ndarray, affine: np.ndarray, axcodes: str = "LPI") -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.Nifti1Image(np.asarray(hu, dtype=np.float32), affine)
    wanted = nibabel.orientations.axcodes2ornt(axcodes)
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted))
    return np.asarray(turned.dataobj), turned.affine


def read_itk(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """By ITK's own series reader."""
    names = itk.GDCMSeriesFileNames.New(Directory=str(folder))
    reader = itk.ImageSeriesReader[itk.Image[itk.SS, 3]].New(
        FileNames=names.GetFileNames(names.GetSeriesUIDs()[0]), ImageIO=itk.GDCMImageIO.New()
    )
    reader.Update()
    image = reader.GetOutput()
    affine = np.eye(4)
    affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.array(image.GetSpacing())
    affine[:3, 3] = np.array(image.GetOrigin())
    return itk.array_from_image(image).transpose(2, 1, 0), LPS_TO_RAS @ affine


def read_pydicom(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """By the standard's words (PS3.3 C.7.6.2.1.1): the equation that maps a pixel to the patient."""
    images = sorted((pydicom.dcmread(path) for path in folder.glob("*.dcm")), key=lambda image: image.InstanceNumber)
    hu = [image.pixel_array * float(image.RescaleSlope) + float(image.RescaleIntercept) for image in images]
    first, last = (np.array(image.ImagePositionPatient, dtype=float) for image in (images[0], images[-1]))
    along_row, along_column = np.array(images[0].ImageOrientationPatient, dtype=float).reshape(2, 3)
    between_rows, between_columns = map(float, images[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = along_row * between_columns
    affine[:3, 1] = along_column * between_rows
    affine[:3, 2] = (last - first) / (len(images) - 1)
    affine[:3, 3] = first
    return np.stack(hu).transpose(2, 1, 0), LPS_TO_RAS @ affine


def read_own(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    return read_ct(folder)[:2]


@pytest.mark.parametrize("read", [read_itk, read_pydicom, read_own])
@pytest.mark.parametrize("axcodes", ["LPI", "RAS", "IRP"])
@pytest.mark.parametrize("name", AFFINES)
def test_every_reader_finds_the_same_hu_at_the_same_place_as_in_nifti(name, axcodes, read, tmp_path) -> None:
    hu, affine = same_axes(phantom(AFFINES[name], SHAPE), AFFINES[name], axcodes)
    write_nifti(tmp_path / "ct.nii.gz", hu, affine)
    write_ct_series(tmp_path / "ct", hu, affine)
    found, found_affine = same_axes(*read(tmp_path / "ct"))
    nifti = nibabel.load(tmp_path / "ct.nii.gz")
    expected, expected_affine = same_axes(nifti.get_fdata(), nifti.affine)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_allclose(found_affine, expected_affine, atol=1e-3)


def test_the_dense_ball_is_in_the_left_upper_lung_in_front(tmp_path) -> None:
    write_ct_series(tmp_path / "ct", phantom(AFFINE, SHAPE), AFFINE)
    hu, affine = read_own(tmp_path / "ct")
    ball = nibabel.affines.apply_affine(affine, np.argwhere(hu >= 1000)).mean(0) - CENTRE  # RAS+
    np.testing.assert_allclose(ball, [-70, 40, 60], atol=5)


def test_hu_survive_to_the_quantum_and_below_air_is_air(tmp_path) -> None:
    hu = np.linspace(-2000, 3071.4, 4 * 4 * 30).reshape(4, 4, 30)
    write_ct_series(tmp_path / "ct", hu, frame.cube_affine(4))
    stored, _ = same_axes(*read_pydicom(tmp_path / "ct"))
    np.testing.assert_allclose(stored, np.clip(hu, -1024, None), atol=0.5)


def radiograph(**tags) -> Dataset:
    """What matters of a DX file."""
    source = Dataset()
    defaults = dict(
        SpecificCharacterSet="ISO_IR 100",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.1.1",
        SOPInstanceUID="1.2.3.4",
        PatientName="Müller^Jürgen",
        PatientID="007",
        PatientBirthDate="19500101",
        PatientSex="M",
        StudyInstanceUID="1.2.3",
        StudyDate="20200102",
        AccessionNumber="A1",
        Modality="DX",
        SeriesInstanceUID="1.2.3.9",
    )
    for name, value in (defaults | tags).items():
        setattr(source, name, value)
    return source


def test_patient_and_study_are_the_sources_and_everything_else_is_new(tmp_path) -> None:
    sources = [radiograph(), radiograph(SOPInstanceUID="1.2.3.5", StudyInstanceUID="9.9")]
    paths = write_ct_series(tmp_path / "ct", phantom(AFFINE, SHAPE), AFFINE, sources)
    images = [pydicom.dcmread(path) for path in paths]
    for image in images:
        assert image.PatientName == "Müller^Jürgen"
        assert (image.PatientID, image.StudyInstanceUID, image.StudyDate) == ("007", "1.2.3", "20200102")
        assert image.StudyTime == ""  # the source has none, so the time of writing is not the study's
        assert [item.ReferencedSOPInstanceUID for item in image.SourceImageSequence] == ["1.2.3.4", "1.2.3.5"]
        assert image.Modality == "CT"
        assert image.ImageType == ["DERIVED", "SECONDARY", "AXIAL"]
        assert image.BurnedInAnnotation == "NO"
        assert "NOT FOR DIAGNOSIS" in image.SeriesDescription
        assert "NOT FOR DIAGNOSIS" in image.DerivationDescription
    assert len({image.SOPInstanceUID for image in images}) == len(images) == SHAPE[2]
    assert len({image.SeriesInstanceUID for image in images} - {"1.2.3.9"}) == 1
    assert len({image.FrameOfReferenceUID for image in images}) == 1


def test_two_series_share_no_uid(tmp_path) -> None:
    found = []
    for name in "ab":
        (path, *_) = write_ct_series(tmp_path / name, phantom(AFFINE, SHAPE), AFFINE)
        image = pydicom.dcmread(path)
        names = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
        found.append({image[name].value for name in names})
    assert not found[0] & found[1]


def test_only_dicom_files_are_sources(tmp_path) -> None:
    (tmp_path / "pa.png").write_bytes(b"\x89PNG")
    dicom_slices(phantom(AFFINE, SHAPE), AFFINE)[0].save_as(tmp_path / "pa.dcm")
    assert read_source(tmp_path / "pa.png") is None
    assert read_source(tmp_path / "pa.dcm").PatientID == "P1"


def test_a_folder_with_something_in_it_is_left_alone(tmp_path) -> None:
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="ct exists already; give a new folder"):
        write_ct_series(tmp_path / "ct", phantom(AFFINE, SHAPE), AFFINE)
    assert [path.name for path in tmp_path.rglob("*")] == ["ct", "note.txt"]


def test_an_interrupted_series_leaves_nothing(tmp_path, monkeypatch) -> None:
    written = []

    def fail_late(path, *arguments, **options) -> None:
        written.append(path)
        if len(written) == 5:
            raise OSError("No space left on device")
        Path(path).write_bytes(b"x")

    monkeypatch.setattr(pydicom, "dcmwrite", fail_late)
    with pytest.raises(OSError, match="No space"):
        write_ct_series(tmp_path / "ct", phantom(AFFINE, SHAPE), AFFINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (Debian package dicom3tools)")
@pytest.mark.parametrize("sources", [[], [radiograph(), radiograph(SOPInstanceUID="1.2.3.5")]], ids=["none", "two"])
def test_dciodvfy_finds_no_error(sources, tmp_path) -> None:
    paths = write_ct_series(tmp_path / "ct", phantom(AFFINE, SHAPE), AFFINE, sources)
    result = subprocess.run(["dciodvfy", paths[3]], capture_output=True, text=True, check=False)
    # SyntheticData joined the standard after dicom3tools' dictionary of 2022.
    errors = [line for line in result.stderr.splitlines() if "Error" in line and "0x0008,0x001c" not in line]
    assert "CTImage" in result.stderr
    assert errors == []
    together = subprocess.run(["dcentvfy", *paths], capture_output=True, text=True, check=False)
    assert "Error" not in together.stderr
