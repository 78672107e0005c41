"""Every bad or odd CT input that we know of: read right, or refused with the reason and nothing written."""

from __future__ import annotations

import copy
import gzip
from collections.abc import Callable
from pathlib import Path

import h5py
import itk
import nibabel
import numpy as np
import pydicom
import pytest
from chest_phantom import CENTRE, MARKER, dicom_slices, phantom, phantom_affine, save_dicom, save_nifti
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
    generate_uid,
)

from xrecon_bundle.files import InputError
from xrecon_bundle.io.hdf5 import read_hdf5, write_hdf5
from xrecon_bundle.io.readers import read_ct
from xrecon_bundle.placement.standardize import StandardizedCT, standardize_ct
from xrecon_bundle.workflows.simulate import simulate_case

SIZE = 32
# Slices as a scanner stores them: columns to the left, rows to the back, from the feet upwards.
AFFINE = phantom_affine() @ np.diag([1.0, 1, -1, 1])
AFFINE[2, 3] = phantom_affine()[2, 3] - 5 * 71
HU = phantom(AFFINE)


def slices(**changes) -> list[Dataset]:
    """The chest as DICOM images, with attributes changed in all of them (None removes one)."""
    parts = dicom_slices(HU, AFFINE)
    for part in parts:
        for name, value in changes.items():
            if value is None:
                delattr(part, name)
            else:
                setattr(part, name, value)
    return parts


def dicom(
    change: Callable[[list[Dataset]], list[Dataset] | None] = lambda parts: None, **changes
) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        parts = slices(**changes)
        return save_dicom(folder / "dicom", change(parts) or parts)

    return build


def nifti(hu: np.ndarray | None = None, affine: np.ndarray = AFFINE, name: str = "ct.nii.gz") -> Callable[[Path], Path]:
    return lambda folder: save_nifti(folder / name, HU if hu is None else hu, affine)


# Handled


def copies(parts: list[Dataset]) -> list[Dataset]:
    for part in parts[10:20]:
        again = copy.deepcopy(part)
        again.SOPInstanceUID = generate_uid()
        parts.append(again)
    return parts


def two_acquisitions(parts: list[Dataset]) -> list[Dataset]:
    """A second, shorter pass at the same positions with other values."""
    second = copy.deepcopy(parts[5:])
    for part in second:
        part.SOPInstanceUID, part.AcquisitionNumber = generate_uid(), 2
        part.PixelData = b"\0" * len(part.PixelData)
    return second + parts


def other_series(parts: list[Dataset]) -> list[Dataset]:
    """A longer sagittal reformat, a scout view, a radiograph and a longer axial series of another body part."""
    sagittal = dicom_slices(HU.transpose(1, 2, 0), AFFINE[:, [1, 2, 0, 3]])
    head = dicom_slices(np.repeat(HU, 2, axis=2)[:, :, :100] * 0 + 40, AFFINE)
    for part in head:
        part.SeriesDescription = "HEAD 1.0"
    radiograph = dicom_slices(HU[:, :, :1], AFFINE, modality="DX")
    return parts + sagittal + head + radiograph


def localizer(parts: list[Dataset]) -> None:
    scout = dicom_slices(HU.transpose(0, 2, 1)[:, :, 30:31], AFFINE[:, [0, 2, 1, 3]], series=parts[0].SeriesInstanceUID)
    scout[0].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    parts += scout


def stray_orientation(parts: list[Dataset]) -> None:
    parts += dicom_slices(
        HU.transpose(0, 2, 1)[:, :, 30:31], AFFINE[:, [0, 2, 1, 3]], series=parts[0].SeriesInstanceUID
    )


def padded(parts: list[Dataset]) -> None:
    for part in parts:
        pixels = np.frombuffer(part.PixelData, np.int16).reshape(part.Rows, part.Columns).copy()
        pixels[:, :3] = -2000
        part.PixelPaddingValue, part.PixelData = -2000, pixels.tobytes()


def stored_hu(parts: list[Dataset]) -> None:
    for part, level in zip(parts, np.moveaxis(HU, 2, 0), strict=True):
        del part.RescaleSlope, part.RescaleIntercept
        part.PixelData = level.T.tobytes()


def rle(parts: list[Dataset]) -> None:
    for part in parts:
        part.compress(RLELossless, generate_instance_uid=False)


def syntax(uid: str) -> Callable[[list[Dataset]], None]:
    def change(parts: list[Dataset]) -> None:
        for part in parts:
            part.file_meta.TransferSyntaxUID = uid
            if uid == ExplicitVRBigEndian:
                part.PixelData = np.frombuffer(part.PixelData, "<i2").astype(">i2").tobytes()
                part._read_implicit, part._read_little = False, False

    return change


def gdcm_compressed(kind: str) -> Callable[[Path], Path]:
    """JPEG lossless or JPEG 2000, encoded by GDCM slice by slice; the headers stay ours."""

    def build(folder: Path) -> Path:
        parts = slices()
        io = itk.GDCMImageIO.New()
        io.SetCompressor(kind)
        for part in parts:
            pixels = np.frombuffer(part.PixelData, np.int16).reshape(1, part.Rows, part.Columns)
            writer = itk.ImageFileWriter[itk.Image[itk.SS, 3]].New(itk.image_from_array(pixels.copy()))
            writer.SetFileName(str(folder / "slice.dcm"))
            writer.SetImageIO(io)
            writer.UseCompressionOn()
            writer.Update()
            encoded = pydicom.dcmread(folder / "slice.dcm")
            part.file_meta.TransferSyntaxUID = encoded.file_meta.TransferSyntaxUID
            part.PixelData = encapsulate(list(generate_frames(encoded.PixelData, number_of_frames=1)))
            part["PixelData"].is_undefined_length = True
        assert parts[0].file_meta.TransferSyntaxUID == {"JPEG": JPEGLosslessSV1, "JPEG2000": JPEG2000Lossless}[kind]
        return save_dicom(folder / "dicom", parts)

    return build


def enhanced(folder: Path) -> Path:
    """All slices as frames of one file, in no order, each with its own rescale."""
    parts = slices()
    order = np.random.default_rng(0).permutation(len(parts))
    whole = copy.deepcopy(parts[0])
    whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = EnhancedCTImageStorage
    frames, pixels = [], []
    for index in order:
        part, intercept = parts[index], float(index)
        frame, position, transformation = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = part.ImagePositionPatient
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = 1, intercept, "HU"
        frame.PlanePositionSequence = Sequence([position])
        frame.PixelValueTransformationSequence = Sequence([transformation])
        frames.append(frame)
        pixels.append(HU[:, :, index].T - int(intercept))
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient, measures.PixelSpacing = whole.ImageOrientationPatient, whole.PixelSpacing
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([orientation]), Sequence([measures])
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = Sequence([shared]), Sequence(frames)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(whole, name)
    whole.NumberOfFrames = len(frames)
    whole.PixelData = np.stack(pixels).astype(np.int16).tobytes()
    return save_dicom(folder / "dicom", [whole])


def with_other_files(folder: Path) -> Path:
    path = dicom()(folder)
    (path / "notes.txt").write_text("read me")
    (path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"nonsense" * 9)
    (path / "sub").mkdir()
    (path / "sub" / "annotations.xml").write_text("<xml/>")
    return path


def one_file_of(folder: Path) -> Path:
    return sorted(dicom()(folder).iterdir())[7]


def itk_file(suffix: str, vector: bool = False) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
        array = np.ascontiguousarray(HU.transpose(2, 1, 0))
        image = itk.image_from_array(np.stack([array] * 2, axis=-1) if vector else array, is_vector=vector)
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing)
        image.SetOrigin(lps[:3, 3])
        image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
        itk.imwrite(image, str(folder / f"ct.{suffix}"))
        return folder / f"ct.{suffix}"

    return build


def nifti_header(
    change: Callable[[nibabel.Nifti1Image], nibabel.Nifti1Image | None], name: str = "ct.nii.gz"
) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        image = nibabel.Nifti1Image(HU, AFFINE)
        image.header.set_xyzt_units("mm")
        image.set_qform(AFFINE, 1)
        nibabel.save(change(image) or image, folder / name)
        return folder / name

    return build


def in_metres(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    small = nibabel.Nifti1Image(HU, np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE)
    small.header.set_xyzt_units("meter")
    return small


def scaled(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    stored = nibabel.Nifti1Image(((HU + 1024) // 2).astype(np.uint16), AFFINE)
    stored.header.set_slope_inter(2, -1024)
    return stored


NAN_BORDER = HU.astype(np.float32)
NAN_BORDER[:3], NAN_BORDER[-2:] = np.nan, -3024

HANDLED = {
    "dicom, names in no order": dicom(),
    "dicom, one file stands for its series": one_file_of,
    "dicom, other files beside": with_other_files,
    "dicom, slices twice": dicom(copies),
    "dicom, two acquisitions at the same positions": dicom(two_acquisitions),
    "dicom, several series in the folder": dicom(other_series),
    "dicom, localizer in the series": dicom(localizer),
    "dicom, an image of another orientation in the series": dicom(stray_orientation),
    "dicom, padding value": dicom(padded),
    "dicom, HU stored without a rescale": dicom(stored_hu),
    "dicom, implicit VR": dicom(syntax(ImplicitVRLittleEndian)),
    "dicom, deflated": dicom(syntax(DeflatedExplicitVRLittleEndian)),
    "dicom, RLE": dicom(rle),
    "dicom, JPEG lossless": gdcm_compressed("JPEG"),
    "dicom, JPEG 2000": gdcm_compressed("JPEG2000"),
    "dicom, enhanced multi-frame": enhanced,
    "nifti": nifti(),
    "nifti, not compressed": nifti(name="ct.nii"),
    "nifti, fourth axis of one": nifti(HU[..., None]),
    "nifti, float64": nifti(HU.astype(np.float64)),
    "nifti, NaN and -3024 around the field of view": nifti(NAN_BORDER),
    "nifti, slope and intercept": nifti_header(scaled),
    "nifti, in metres": nifti_header(in_metres),
    "nifti, big endian": nifti_header(lambda image: nibabel.Nifti1Image(HU, AFFINE, image.header.as_byteswapped(">"))),
    "mha": itk_file("mha"),
    "mhd and raw": itk_file("mhd"),
    "nrrd": itk_file("nrrd"),
}


@pytest.fixture(scope="module")
def expected() -> StandardizedCT:
    return standardize_ct(HU, AFFINE, SIZE)


@pytest.mark.parametrize("name", HANDLED)
def test_odd_inputs_give_the_same_volume(name, expected, tmp_path):
    volume = read_ct(HANDLED[name](tmp_path))
    result = standardize_ct(volume.hu, volume.affine, SIZE)
    np.testing.assert_allclose(result.affine, expected.affine, atol=1e-3)
    assert np.abs(result.ct.astype(int) - expected.ct).max() <= 1


def test_gantry_tilt_is_put_right(tmp_path):
    """Slices tilted by 20 degrees, each moved along the table only: the stack is sheared, the patient is not."""
    tilt = np.radians(20)
    affine = np.eye(4)
    affine[:3, 0] = [-5, 0, 0]
    affine[:3, 1] = [0, -5 * np.cos(tilt), 5 * np.sin(tilt)]
    affine[:3, 2] = [0, 0, 5]
    shape = (100, 72, 90)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    volume = read_ct(save_dicom(tmp_path / "tilted", dicom_slices(phantom(affine, shape), affine)))
    assert "gantry tilt kept in the affine" in volume.source["notes"]
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)
    result = standardize_ct(volume.hu, volume.affine, 64)
    x, y, z = np.round(np.linalg.inv(result.affine)[:3] @ [*MARKER, 1]).astype(int)
    assert result.ct[x, y, z] > 700


def test_a_missing_slice_is_interpolated_where_it_was(tmp_path):
    parts = slices()
    volume = read_ct(save_dicom(tmp_path / "gap", parts[:30] + parts[31:]))
    assert volume.hu.shape == HU.shape
    assert "unevenly spaced" in volume.source["notes"][0]
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-3)
    np.testing.assert_array_equal(np.delete(volume.hu, 30, axis=2), np.delete(HU, 30, axis=2))
    np.testing.assert_allclose(volume.hu[..., 30], (HU[..., 29].astype(float) + HU[..., 31]) / 2)


def test_the_series_asked_for_is_read_and_the_chosen_one_is_named(tmp_path):
    short = dicom_slices(HU[:, :, ::2], AFFINE @ np.diag([1, 1, 2, 1.0]))
    folder = save_dicom(tmp_path / "two", slices() + short)
    assert read_ct(folder).hu.shape[2] == 72
    chosen = read_ct(folder, series=short[0].SeriesInstanceUID)
    assert chosen.hu.shape[2] == 36
    assert chosen.source["series"] == short[0].SeriesInstanceUID


def test_the_published_hdf5_is_read_back_as_written(expected, tmp_path):
    views = np.random.default_rng(0).uniform(0, 9, (2, SIZE, SIZE)).astype(np.float32)
    write_hdf5(tmp_path / "ct_xray_data.h5", expected.ct, views)
    with h5py.File(tmp_path / "ct_xray_data.h5") as file:
        assert file["ct"][3, 2, 1] == expected.ct[1, 2, 3] + 1024
        assert file["xray1"].dtype == file["xray2"].dtype == np.uint8
        assert file["xray1"].shape == (SIZE, SIZE)
    case = read_hdf5(tmp_path / "ct_xray_data.h5")
    np.testing.assert_array_equal(case.ct, expected.ct)
    assert np.corrcoef(case.radiographs[1].ravel(), views[1].ravel())[0, 1] > 0.999
    assert read_ct(tmp_path / "ct_xray_data.h5").hu.shape == (SIZE,) * 3


# Refused


def off_line(parts: list[Dataset]) -> None:
    for part in parts[40:]:
        part.ImagePositionPatient = [part.ImagePositionPatient[0] + 25, *part.ImagePositionPatient[1:]]


def truncated(parts: list[Dataset]) -> None:
    parts[20].PixelData = parts[20].PixelData[:100]


def written(name: str, content: bytes) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return build


def cut_short(build: Callable[[Path], Path]) -> Callable[[Path], Path]:
    def cut(folder: Path) -> Path:
        path = build(folder)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return cut


def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def photograph(folder: Path) -> Path:
    Image.new("RGB", (64, 64)).save(folder / "photo.jpg")
    return folder / "photo.jpg"


def without_raw(folder: Path) -> Path:
    path = itk_file("mhd")(folder)
    next(folder.glob("*raw")).unlink()
    return path


def nrrd_without_space(folder: Path) -> Path:
    path = itk_file("nrrd")(folder)
    lines = path.read_bytes().split(b"\n")
    wanted = (b"space", b"space directions", b"space origin")
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(wanted)))
    return path


def contradiction(image: nibabel.Nifti1Image) -> None:
    image.set_qform(np.diag([-1.0, 1, 1, 1]) @ AFFINE, 1)


def raw_header(code: int, sform: float) -> Callable[[Path], Path]:
    """No qform, and an sform of this code that is one value all over; nibabel writes no such header, others do."""

    def build(folder: Path) -> Path:
        path = save_nifti(folder / "ct.nii.gz", HU, AFFINE)
        content = bytearray(gzip.decompress(path.read_bytes()))
        content[252:256] = np.array([0, code], "<i2").tobytes()
        content[280:328] = np.full(12, sform, "<f4").tobytes()
        path.write_bytes(gzip.compress(bytes(content), mtime=0))
        return path

    return build


def hdf5(**datasets: np.ndarray) -> Callable[[Path], Path]:
    def build(folder: Path) -> Path:
        with h5py.File(folder / "case.h5", "w") as file:
            for name, value in datasets.items():
                file[name] = value
        return folder / "case.h5"

    return build


def rgb(image: nibabel.Nifti1Image) -> nibabel.Nifti1Image:
    colour = np.zeros(HU.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
    return nibabel.Nifti1Image(colour, AFFINE)


HEAD = np.where((np.indices(HU.shape).T / np.array(HU.shape) - 0.5).T.__pow__(2).sum(0) < 0.09, 40, -1000).astype(
    np.int16
)
HEAD[48:52, 20:24, 30:40] = 1200
THICK = (HU[:, :, ::5], AFFINE @ np.diag([1, 1, 5, 1.0]))
SQUARE = np.zeros((8, 8), np.uint8)

REFUSED = {
    "missing path": (lambda folder: folder / "nothing.nii.gz", "no such file"),
    "empty folder": (empty_folder, "no CT series"),
    "empty file": (written("ct.nii.gz", b""), "empty"),
    "photograph": (photograph, "not a CT file"),
    "nifti, text": (written("ct.nii.gz", b"not an image at all"), "damaged"),
    "nifti, half the file": (cut_short(nifti()), "damaged"),
    "nifti, half the file, not compressed": (cut_short(nifti(name="ct.nii")), "damaged"),
    "nifti, 2D": (nifti(HU[:, :, 30]), "single image"),
    "nifti, one slice": (nifti(HU[:, :, 30:31]), "single image"),
    "nifti, time series": (nifti(np.stack([HU] * 3, axis=-1)), "series of volumes"),
    "nifti, colour": (nifti_header(rgb), "grey-level"),
    "nifti, complex": (nifti(HU.astype(np.complex64)), "grey-level"),
    "nifti, no orientation codes": (raw_header(0, 0.0), "no orientation"),
    "nifti, sform against qform": (nifti_header(contradiction), "contradict"),
    "nifti, zero affine": (raw_header(1, 0.0), "singular"),
    "nifti, NaN affine": (raw_header(1, np.nan), "finite"),
    "nifti, metres without saying so": (nifti(affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE), "affine in mm"),
    "nifti, slices 25 mm apart": (nifti(*THICK), "thinner slices"),
    "nifti, mostly NaN": (nifti(np.where(HU > -900, np.nan, HU).astype(np.float32)[30:70, 10:50]), "NaN"),
    "nifti, constant": (nifti(HU * 0), "every value is 0"),
    "nifti, 0 to 1": (nifti((HU.clip(-1000, 1000) / 2000 + 0.5).astype(np.float32)), "normalised"),
    "nifti, 0 to 255": (nifti((HU.clip(-1000, 1000) / 8 + 125).astype(np.uint8)), "8-bit picture|label map"),
    "nifti, label map": (nifti((HU > 0).astype(np.uint8) * 7 + (HU > 400)), "label map"),
    "nifti, HU + 1024": (nifti(HU + 1024), "subtract 1024"),
    "nifti, soft tissue window": (nifti(HU.clip(-160, 240)), "cut off by a window"),
    "nifti, lung window": (nifti(HU.clip(-1000, 100)), "cut off by a window"),
    "nifti, MR": (nifti((HU * 0.3 + 400).astype(np.int16).clip(0, None)), "MR, PET"),
    "nifti, rescaled twice": (nifti(HU - 1024), "soft tissue"),
    "nifti, head": (nifti(HEAD), "too little thorax"),
    "nifti, abdomen with lung bases": (nifti(HU[:, :, :30]), "too little thorax"),
    "nifti, tiny field": (nifti(HU[60:80, 20:40, 30:50]), "too little thorax|not HU"),
    "mha, half the file": (cut_short(itk_file("mha")), "damaged"),
    "mha, vectors": (itk_file("mha", vector=True), "grey-level"),
    "mhd without its raw file": (without_raw, "damaged"),
    "nrrd without a space": (nrrd_without_space, "no space"),
    "hdf5, text": (written("case.h5", b"text"), "not an HDF5 file"),
    "hdf5, no x-rays": (hdf5(ct=np.zeros((8, 8, 8))), "xray1"),
    "hdf5, no cube": (hdf5(ct=np.zeros((8, 8, 9)), xray1=SQUARE, xray2=SQUARE), "cube"),
    "dicom, MR": (dicom(Modality="MR"), "no CT series \\(found: MR\\)"),
    "dicom, one slice": (dicom(lambda parts: parts[:1]), "single slice"),
    "dicom, only localizers": (dicom(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizers"),
    "dicom, no positions": (dicom(ImagePositionPatient=None), "without position"),
    "dicom, one position": (dicom(ImagePositionPatient=[0, 0, 0]), "all stand at one position"),
    "dicom, a moved table": (dicom(off_line), "off one line"),
    "dicom, 15 mm missing": (dicom(lambda parts: parts[:30] + parts[33:]), "slices are missing: a gap of 20"),
    "dicom, no rescale": (dicom(RescaleSlope=None, RescaleIntercept=None), "no RescaleSlope"),
    "dicom, truncated pixels": (dicom(truncated), "cannot be read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_inputs_are_refused_with_the_reason_and_write_nothing(name, tmp_path):
    build, reason = REFUSED[name]
    path = build(tmp_path)
    before = {found: found.stat().st_mtime_ns for found in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=reason) as error:
        simulate_case(path, tmp_path / "out" / "case", SIZE)
    assert str(path) in str(error.value)
    assert ";" in str(error.value) or name == "missing path"  # the remedy
    assert {found: found.stat().st_mtime_ns for found in tmp_path.rglob("*")} == before


def test_the_table_is_as_long_as_promised():
    assert len(HANDLED) + len(REFUSED) >= 25
