"""Grey values of radiographs are what a viewer shows, dense bright, whatever the encoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_encodings import ENCODINGS, encoded
from pydicom.dataset import Dataset
from radiograph_cases import write_dicom

from xrecon_bundle.files import InputError
from xrecon_bundle.io.radiograph import Radiograph, read_radiograph

ROWS, COLUMNS = 61, 80


def picture(bits: int) -> np.ndarray:
    """Stored values, asymmetric, over the whole range of ``bits``: a ramp, waves, a dense block at the upper left."""
    v, u = np.mgrid[:ROWS, :COLUMNS]
    unit = 0.45 + 0.3 * u / COLUMNS + 0.2 * np.sin(u / 9) * np.cos(v / 13)
    unit[4:14, 6:20], unit[-12:, -15:] = 1, 0
    return np.rint(unit * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def read(path: Path) -> Radiograph:
    return read_radiograph(path, "pa")


def unit(grey: np.ndarray) -> np.ndarray:
    return (grey - grey.min()) / np.ptp(grey)


def table(entries: np.ndarray, bits: int, packed: bool = False, first: int = 0) -> list[Dataset]:
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = entries.astype("u1" if packed else "<u2").tobytes()
    return [item]


def linear_table(stored_bits: int, bits: int, packed: bool = False) -> list[Dataset]:
    return table(np.rint(np.arange(2**stored_bits) / (2**stored_bits - 1) * (2**bits - 1)), bits, packed)


# What may be done to the stored values on the way to the screen, without changing the picture: tags of the bits stored.
TABLES: dict[str, Callable[[int], dict[str, Any]]] = {
    "nothing": lambda bits: {},
    "rescale": lambda bits: dict(RescaleSlope="0.5", RescaleIntercept="-100", RescaleType="US"),
    "modality LUT": lambda bits: dict(ModalityLUTSequence=linear_table(bits, 16)),
    "VOI LUT, 16 bits": lambda bits: dict(VOILUTSequence=linear_table(bits, 16)),
    "VOI LUT, 8 bits in words": lambda bits: dict(VOILUTSequence=linear_table(bits, 8)),
    "VOI LUT, 8 bits packed": lambda bits: dict(VOILUTSequence=linear_table(bits, 8, packed=True)),
    "modality and VOI LUT": lambda bits: dict(
        ModalityLUTSequence=linear_table(bits, 10), VOILUTSequence=linear_table(10, 12)
    ),
    "window": lambda bits: dict(WindowCenter=2 ** (bits - 1), WindowWidth=2**bits),
    "several windows": lambda bits: dict(WindowCenter=[2 ** (bits - 1), 10], WindowWidth=[2**bits, 20]),
    "exact window after rescale": lambda bits: dict(
        RescaleSlope="2", RescaleIntercept="50", WindowCenter=2**bits + 49, WindowWidth=2 * (2**bits - 1),
        VOILUTFunction="LINEAR_EXACT",
    ),
    "PresentationLUTShape": lambda bits: dict(PresentationLUTShape="IDENTITY"),
    "all there and empty": lambda bits: dict(
        RescaleSlope="", RescaleIntercept="", RescaleType="", WindowCenter="", WindowWidth="", VOILUTFunction="",
        VOILUTSequence=[], ModalityLUTSequence=[], PresentationLUTShape="", PixelPaddingValue=None, ViewPosition="",
        NumberOfFrames="", PatientOrientation="", ImagerPixelSpacing="", ShutterShape="", CollimatorShape="",
    ),
}  # fmt: skip


@pytest.mark.parametrize("dark", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize("tags", TABLES)
@pytest.mark.parametrize("name", ENCODINGS)
def test_one_picture_is_one_picture_in_every_encoding(name, tags, dark, tmp_path):
    bits = 12 if 12 in ENCODINGS[name].bits else 8
    stored = 2**bits - 1 - picture(bits) if dark else picture(bits)
    options = dict(PhotometricInterpretation="MONOCHROME1" if dark else "MONOCHROME2") | TABLES[tags](bits)
    if dark and options.get("PresentationLUTShape"):
        options["PresentationLUTShape"] = "INVERSE"
    options = {key: value for key, value in options.items() if value is not None}
    write_dicom(tmp_path / "plain.dcm", stored, BitsStored=bits, HighBit=bits - 1, **options)
    dataset = pydicom.dcmread(tmp_path / "plain.dcm")
    encoded(dataset, name).save_as(tmp_path / "file.dcm")
    result = read(tmp_path / "file.dcm")
    assert result.warnings == ()
    assert result.grey.dtype == np.float32
    difference = np.abs(unit(result.grey) - unit(picture(bits).T.astype(float)))
    assert difference.max() <= ENCODINGS[name].error + (0.005 if "8 bits" in tags else 0.002)


# --- windows, tables and rescales that change the picture ----------------------------------------------------------


def shown(path: Path, values: list[int], **tags: Any) -> np.ndarray:
    """What stored ``values`` (16 bits, signed) are shown as."""
    stored = np.zeros((32, len(values)), np.int16)
    stored[:] = values
    write_dicom(path, stored, PixelRepresentation=1, **tags)
    return read(path).grey[:, 0]


LEVELS = list(range(-1000, 1001, 20))  # enough to be a picture


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        # PS3.3 C.11.2.1.2.1: x <= c - 0.5 - (w - 1) / 2 is black, x > c - 0.5 + (w - 1) / 2 white
        (dict(WindowCenter=0, WindowWidth=1001), lambda x: np.clip((x + 0.5) / 1000 + 0.5, 0, 1)),
        (
            dict(WindowCenter=100, WindowWidth=1000, VOILUTFunction="LINEAR_EXACT"),
            lambda x: np.clip((x - 100) / 1000 + 0.5, 0, 1),
        ),
        (
            dict(WindowCenter=100, WindowWidth=900, VOILUTFunction="SIGMOID"),
            lambda x: 1 / (1 + np.exp(-4 * (x - 100) / 900)),
        ),
        (
            dict(WindowCenter=0, WindowWidth=1001, RescaleSlope="-1", RescaleIntercept="100"),
            lambda x: np.clip((100 - x + 0.5) / 1000 + 0.5, 0, 1),
        ),
    ],
    ids=["linear", "linear exact", "sigmoid", "after a negative rescale"],
)  # fmt: skip
def test_a_window_is_the_standards(window, expected, tmp_path):
    found = shown(tmp_path / "x.dcm", LEVELS, **window)
    np.testing.assert_allclose(found, expected(np.array(LEVELS)), atol=1e-6)


def test_a_table_goes_on_with_its_ends_and_begins_where_it_says(tmp_path):
    entries = np.arange(40) ** 2
    found = shown(tmp_path / "x.dcm", list(range(-30, 30)), VOILUTSequence=table(entries, 16, first=-20))
    np.testing.assert_array_equal(found, np.clip(np.arange(-10, 50), 0, 39) ** 2)


def test_a_table_that_turns_the_picture_over_is_followed(tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(12), VOILUTSequence=table(4095 - np.arange(4096), 12))
    np.testing.assert_allclose(unit(read(tmp_path / "x.dcm").grey), unit(4095.0 - picture(12).T), atol=1e-6)


def test_a_window_beside_the_values_is_not_believed(tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(12), WindowCenter=60000, WindowWidth=100)
    result = read(tmp_path / "x.dcm")
    np.testing.assert_allclose(unit(result.grey), unit(picture(12).T.astype(float)), atol=1e-6)
    assert result.warnings == ("PA: the window or VOI table shows next to nothing of the image: not believed",)


@pytest.mark.parametrize(
    ("photometric", "shape", "dark", "warned"),
    [
        ("MONOCHROME1", "INVERSE", True, False),
        ("MONOCHROME2", "IDENTITY", False, False),
        ("MONOCHROME1", None, True, False),
        ("MONOCHROME1", "IDENTITY", True, True),  # they contradict each other
        ("MONOCHROME2", "INVERSE", True, True),
    ],
)
def test_one_inversion_and_a_warning_where_tags_contradict(photometric, shape, dark, warned, tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(12), PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    result = read(tmp_path / "x.dcm")
    expected = picture(12).T.astype(float)
    np.testing.assert_allclose(unit(result.grey), unit(-expected if dark else expected), atol=1e-6)
    assert bool(result.warnings) == warned


def test_padding_written_into_the_whole_cell_is_padding(tmp_path):
    stored = picture(12)
    stored[:, 60:] = 65535
    write_dicom(tmp_path / "x.dcm", stored, BitsStored=12, HighBit=11, PixelPaddingValue=65535)
    result = read(tmp_path / "x.dcm")
    assert result.grey[60:].max() <= np.percentile(result.grey[:60], 1)
    np.testing.assert_array_equal(result.exposed[:, 20], np.arange(COLUMNS) < 60)


@pytest.mark.parametrize("tags", [
    dict(WindowCenter=100, WindowWidth=0),
    dict(WindowCenter=100, WindowWidth=-5, VOILUTFunction="SIGMOID"),
    dict(WindowCenter=100, WindowWidth=50, VOILUTFunction="CURVED"),
    dict(VOILUTSequence=[Dataset()]),
    dict(RescaleSlope="0", RescaleIntercept="0"),
], ids=["no width", "negative width", "unknown function", "table without data", "slope 0"])  # fmt: skip
def test_damaged_tables_are_refused(tags, tmp_path):
    write_dicom(tmp_path / "x.dcm", picture(12), **tags)
    with pytest.raises(InputError, match=r"x\.dcm: the DICOM file cannot be read"):
        read(tmp_path / "x.dcm")
