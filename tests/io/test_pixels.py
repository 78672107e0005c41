"""The stored pixels of a DICOM image are the same numbers, whatever compresses them."""

from __future__ import annotations

from io import BytesIO

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_encodings import ENCODINGS, encoded
from pydicom import uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

from xrecon_bundle.dicom.pixels import stored_pixels
from xrecon_bundle.files import InputError

ROWS, COLUMNS = 61, 80


def picture(bits: int, signed: bool = False, frames: int = 1) -> np.ndarray:
    """Smooth, asymmetric, over the whole range, with blocks of its lowest and its highest value."""
    v, u = np.mgrid[:ROWS, :COLUMNS]
    unit = np.stack([(np.sin(u / (15 + frame)) * np.cos(v / 25) + 1) / 2 for frame in range(frames)])
    unit[:, :12, :12], unit[:, -12:, -12:] = 0, 1
    values = np.rint(unit * (2**bits - 1)).astype(np.int64) - (2 ** (bits - 1) if signed else 0)
    return np.squeeze(values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}"), 0 if frames == 1 else ())


def image(stored: np.ndarray, bits: int, **tags: object) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = uid.SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = ROWS, COLUMNS
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = 8 * stored.dtype.itemsize
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    dataset.PixelData = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    if stored.ndim == 3:
        dataset.NumberOfFrames = len(stored)
    for name, value in tags.items():
        setattr(dataset, name, value)
    dataset["PixelData"].VR = "OW" if dataset.BitsAllocated > 8 else "OB"
    return dataset


def written(dataset: Dataset) -> Dataset:
    """As it comes back from a file."""
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    file.seek(0)
    return pydicom.dcmread(file)


CASES = [
    pytest.param(name, bits, signed, id=f"{name}, {bits} bits, {'signed' if signed else 'unsigned'}")
    for name, encoding in ENCODINGS.items()
    for bits in encoding.bits
    for signed in encoding.signed
]


@pytest.mark.parametrize(("name", "bits", "signed"), CASES)
def test_stored_values_are_the_same_in_every_transfer_syntax(name, bits, signed):
    expected = picture(bits, signed)
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        tags = dict(PhotometricInterpretation=photometric, RescaleSlope="2", RescaleIntercept="-1024")
        found = stored_pixels(written(encoded(image(expected, bits, **tags), name)))
        assert found.dtype == expected.dtype
        assert found.flags.writeable
        difference = np.abs(found.astype(int) - expected)
        assert difference.max() <= ENCODINGS[name].error * 2**bits


@pytest.mark.parametrize("name", ENCODINGS)
def test_frames_keep_their_places(name):
    bits = 12 if 12 in ENCODINGS[name].bits else 8
    expected = picture(bits, frames=3)
    found = stored_pixels(written(encoded(image(expected, bits), name)))
    assert found.shape == (3, ROWS, COLUMNS)
    assert np.abs(found.astype(int) - expected).max() <= ENCODINGS[name].error * 2**bits


# --- bits that are not the image's ---------------------------------------------------------------------------------

OVERLAY = np.zeros((ROWS, COLUMNS), np.uint16)
OVERLAY[20:40, 30:50] = 0x8000
OVERLAY[5, :] = 0x1000


def with_overlay(signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """12-bit values, and the same in 16 bits with an overlay burnt in above them."""
    clean = picture(12, signed)
    return clean, (clean.view(np.uint16) & 0x0FFF) | OVERLAY


def precise(name: str, stored: np.ndarray) -> bytes:
    """A stream of 16 bits a pixel, whatever BitsStored says."""
    if name == "JPEG lossless":
        return imagecodecs.jpeg8_encode(stored, lossless=True, predictor=1, bitspersample=16)
    if name == "JPEG-LS":
        return imagecodecs.jpegls_encode(stored)
    if name == "JPEG 2000 lossless":
        return imagecodecs.jpeg2k_encode(stored, 0, reversible=True, codecformat="j2k")
    return imagecodecs.htj2k_encode(stored, reversible=True)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", ["JPEG lossless", "JPEG-LS", "JPEG 2000 lossless", "HTJ2K lossless"])
def test_an_overlay_in_the_high_bits_of_a_stream_is_dropped(name, signed):
    clean, burnt = with_overlay(signed)
    dataset = image(clean, 12, PixelData=encapsulate([precise(name, burnt)]))
    dataset.file_meta.TransferSyntaxUID = ENCODINGS[name].syntax
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    np.testing.assert_array_equal(stored_pixels(written(dataset)), clean)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
@pytest.mark.parametrize("name", ["explicit little endian", "explicit big endian", "RLE"])
def test_an_overlay_in_the_high_bits_of_the_cells_is_dropped(name, signed):
    clean, burnt = with_overlay(signed)
    dataset = image(clean, 12, PixelData=burnt.tobytes())
    np.testing.assert_array_equal(stored_pixels(written(encoded(dataset, name))), clean)


def test_values_at_the_top_of_their_cells_come_down():
    expected = picture(12)
    old = image(expected << 4, 12, HighBit=15)
    np.testing.assert_array_equal(stored_pixels(written(old)), expected)


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_what_a_lossy_stream_overshoots_is_the_brightest_and_not_the_darkest(signed):
    expected = picture(12, signed)
    beyond = expected.astype(np.int16 if signed else np.uint16)
    limit = 2047 if signed else 4095
    beyond[expected == limit] += 9
    dataset = image(expected, 12)
    stream = imagecodecs.jpeg2k_encode(beyond, 0, reversible=True, codecformat="j2k")  # as an irreversible one decodes
    dataset.PixelData = encapsulate([stream])
    dataset.file_meta.TransferSyntaxUID = uid.JPEG2000
    dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
    np.testing.assert_array_equal(stored_pixels(written(dataset)), expected)


# --- colours, and files of other makers ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "same_as"),
    [
        ("J2K_pixelrep_mismatch.dcm", None),  # the stream is unsigned, the tags say signed
        ("693_J2KI.dcm", None),
        ("MR_small_RLE.dcm", "MR_small.dcm"),
        ("MR_small_jp2klossless.dcm", "MR_small.dcm"),
        ("MR_small_jpeg_ls_lossless.dcm", "MR_small.dcm"),
        ("MR_small_bigendian.dcm", "MR_small.dcm"),
        ("MR_small_implicit.dcm", "MR_small.dcm"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb_rle.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb_rle.dcm"),  # YBR, lossy
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb_rle.dcm"),  # RGB, lossy
        ("SC_jpeg_no_color_transform.dcm", "SC_rgb_jpeg_dcmd.dcm"),  # RGB that libjpeg would take for YBR
    ],
)
def test_files_of_other_makers(name, same_as):
    dataset = pydicom.dcmread(get_testdata_file(name, download=False))
    found = stored_pixels(dataset)
    assert found.shape[:2] == (dataset.Rows, dataset.Columns)
    if same_as is None:
        assert found.min() >= -(1 << dataset.BitsStored - 1)
        assert found.min() < 0
    else:
        expected = stored_pixels(pydicom.dcmread(get_testdata_file(same_as, download=False)))
        lossy = dataset.file_meta.TransferSyntaxUID == uid.JPEGBaseline8Bit
        assert np.abs(found.astype(int) - expected).mean() <= (3 if lossy else 0)


# --- what cannot be read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.update({"PixelData": None}),
        lambda d: d.pop("Rows"),
        lambda d: setattr(d, "BitsStored", 17),
        lambda d: setattr(d, "Columns", 65535),
        lambda d: setattr(d, "PixelData", d.PixelData[:100]),
        lambda d: setattr(d.file_meta, "TransferSyntaxUID", "1.2.840.10008.1.2.4.100"),  # MPEG-2
        lambda d: setattr(d.file_meta, "TransferSyntaxUID", uid.JPEGLossless),
    ],
    ids=["no pixels", "no rows", "too many bits", "too wide", "cut", "a film", "not what it says"],
)
def test_one_clear_error(change):
    dataset = image(picture(12), 12)
    change(dataset)
    with pytest.raises(InputError, match=r"^the DICOM file cannot be read \(.*\); export it again, uncompressed$"):
        stored_pixels(dataset)


@pytest.mark.parametrize("name", [name for name, encoding in ENCODINGS.items() if encoding.frame])
def test_a_stream_that_claims_another_size_is_refused_before_memory_is_taken(name):
    dataset = encoded(image(picture(8), 8), name)
    dataset.Rows = dataset.Columns = 65535
    with pytest.raises(InputError, match="65535 x 65535 pixels"):
        stored_pixels(dataset)


def test_a_file_without_meta_information_is_read_as_pydicom_found_it():
    file = BytesIO()
    pydicom.dcmwrite(file, image(picture(12), 12), implicit_vr=True, little_endian=True, force_encoding=True)
    content = file.getvalue()
    start = content.index(b"\x08\x00\x16\x00")  # SOPClassUID, the first tag of the data set
    dataset = pydicom.dcmread(BytesIO(content[start:]), force=True)
    np.testing.assert_array_equal(stored_pixels(dataset), picture(12))
