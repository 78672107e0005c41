"""CT series as scanners, archives and anonymisers leave them: read as the plain series, or refused with the reason.

The truth of every case is the same chest in a plain series.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chest_phantom import CENTRE, dicom_slices, phantom, save_dicom
from dicom_encodings import encoded
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from xrecon_bundle.datasets.sources import find_sources
from xrecon_bundle.files import InputError
from xrecon_bundle.io.readers import read_ct

SHAPE = (50, 30, 40)
# As a scanner stores it: columns to the left, rows to the back, slices from the feet upwards.
AFFINE = np.array([[-10.0, 0, 0, 0], [0, -10, 0, 0], [0, 0, 8, 0], [0, 0, 0, 1]])
AFFINE[:3, 3] = CENTRE - AFFINE[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
HU = phantom(AFFINE, SHAPE)

Change = Callable[[list[Dataset]], Iterable[Dataset] | None]


def plain(hu: np.ndarray = HU, affine: np.ndarray = AFFINE, series: str | None = None) -> list[Dataset]:
    return dicom_slices(hu, affine, series)


TALL = plain(np.repeat(HU, 2, axis=2), AFFINE @ np.diag([1, 1, 0.5, 1]))


def save(folder: Path, change: Change) -> Path:
    parts = plain()
    return save_dicom(folder / "ct", change(parts) or parts)


def header(values: dict[str, object], which: slice = slice(None)) -> Change:
    """Set attributes of some images; None removes one, "" leaves it empty."""

    def change(parts: list[Dataset]) -> None:
        for part in parts[which]:
            for name, value in values.items():
                if value is None:
                    delattr(part, name)
                else:
                    setattr(part, name, value)

    return change


def raw(keyword: str, vr: str, value: bytes, which: slice = slice(None)) -> Change:
    """A value that pydicom would not write by itself."""

    def change(parts: list[Dataset]) -> None:
        tag = pydicom.datadict.tag_for_keyword(keyword)
        for part in parts[which]:
            part[tag] = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True, True
            )

    return change


def pixels(part: Dataset) -> np.ndarray:
    return np.frombuffer(part.PixelData, np.int16).reshape(part.Rows, part.Columns)


def again(parts: list[Dataset], up_mm: float = 0.0, blank: bool = True, **values: object) -> list[Dataset]:
    """The same images a second time, moved up, showing other values."""
    second = copy.deepcopy(parts)
    for part in second:
        part.SOPInstanceUID = part.file_meta.MediaStorageSOPInstanceUID = uid.generate_uid()
        x, y, z = part.ImagePositionPatient
        part.ImagePositionPatient = [x, y, round(float(z) + up_mm, 4)]
        if blank:
            part.PixelData = (pixels(part) // 2).tobytes()
        for name, value in values.items():
            setattr(part, name, value)
    return second


def second_pass(up_mm: float, numbered: str = "after", **values: object) -> Change:
    """A second pass whose images are numbered after the first one's, or with them, or not at all."""

    def change(parts: list[Dataset]) -> list[Dataset]:
        more = again(parts, up_mm, **values)
        for index, (one, other) in enumerate(zip(parts, more, strict=True)):
            one.InstanceNumber, other.InstanceNumber = {
                "after": (index + 1, index + 1 + len(parts)),
                "beside": (2 * index + 1, 2 * index + 2),
                "alike": (index + 1, index + 1),
            }[numbered]
        return parts + more

    return change


def time_series(parts: list[Dataset]) -> list[Dataset]:
    header({"TemporalPositionIdentifier": 1})(parts)
    return parts + [
        image for phase in (2, 3) for image in again(parts, up_mm=0.01 * phase, TemporalPositionIdentifier=phase)
    ]


def projections(parts: list[Dataset]) -> list[Dataset]:
    return parts + again(parts[::4], ImageType=["DERIVED", "SECONDARY", "AXIAL", "MIP"])


def colour_pages(parts: list[Dataset]) -> list[Dataset]:
    pages = again(parts[:3], blank=False)
    for page in pages:
        page.SamplesPerPixel, page.PhotometricInterpretation, page.PlanarConfiguration = 3, "RGB", 0
        page.BitsAllocated, page.BitsStored, page.HighBit, page.PixelRepresentation = 8, 8, 7, 0
        page.PixelData = bytes(3 * page.Rows * page.Columns)
    return parts + pages


def coronal_images(parts: list[Dataset]) -> list[Dataset]:
    series = parts[0].SeriesInstanceUID
    return parts + plain(HU.transpose(0, 2, 1), AFFINE[:, [0, 2, 1, 3]], series)


def twelve_bits(parts: list[Dataset], overlay: int) -> None:
    for part in parts:
        part.BitsStored, part.HighBit, part.PixelRepresentation = 12, 11, 0
        part.PixelData = (pixels(part).astype(np.uint16) | overlay).tobytes()


def jpeg2000_with_overlay(parts: list[Dataset]) -> list[Dataset]:
    header({"PixelRepresentation": 0})(parts)
    for part in parts:
        part.PixelData = (pixels(part).astype(np.uint16) | 0x4000).tobytes()
    parts = [encoded(part, "JPEG 2000 lossless") for part in parts]
    header({"BitsStored": 12, "HighBit": 11})(parts)
    return parts


def inverted_display(syntax: str) -> Change:
    """MONOCHROME1 says how to show the values, not what they are."""

    def change(parts: list[Dataset]) -> list[Dataset]:
        header({"PhotometricInterpretation": "MONOCHROME1"})(parts)
        return [encoded(part, syntax) for part in parts]

    return change


def hu_with(**values: object) -> Change:
    def change(parts: list[Dataset]) -> None:
        for part in parts:
            part.PixelData = (pixels(part) - 1024).tobytes()
        header({"RescaleIntercept": None} | values)(parts)

    return change


def slopes_of_their_own(parts: list[Dataset]) -> None:
    for number, part in enumerate(parts):
        slope, intercept = (1, 2)[number % 2], -1024 - 2 * number
        part.RescaleSlope, part.RescaleIntercept = slope, intercept
        part.PixelData = ((pixels(part).astype(int) - 1024 - intercept) // slope).astype(np.int16).tobytes()


def frames(inside: str) -> Change:
    """One multi-frame file; the true rescale is ``inside`` each frame, shared, or at the top; elsewhere wrong ones."""

    def change(parts: list[Dataset]) -> list[Dataset]:
        whole, groups = copy.deepcopy(parts[0]), []
        whole.file_meta.MediaStorageSOPClassUID = whole.SOPClassUID = uid.EnhancedCTImageStorage
        shared = Dataset()
        for part in parts:
            frame, position = Dataset(), Dataset()
            position.ImagePositionPatient = part.ImagePositionPatient
            frame.PlanePositionSequence = Sequence([position])
            if inside == "frames":
                frame.PixelValueTransformationSequence = Sequence([transformation(1, -1024)])
            groups.append(frame)
        if inside != "top":
            shared.PixelValueTransformationSequence = Sequence(
                [transformation(*((1, -1024) if inside == "shared" else (3, 7)))]
            )
            whole.RescaleSlope, whole.RescaleIntercept = 5, 9
        measures, orientation = Dataset(), Dataset()
        measures.PixelSpacing, orientation.ImageOrientationPatient = whole.PixelSpacing, whole.ImageOrientationPatient
        shared.PixelMeasuresSequence = Sequence([measures])
        shared.PlaneOrientationSequence = Sequence([orientation])
        whole.SharedFunctionalGroupsSequence = Sequence([shared])
        whole.PerFrameFunctionalGroupsSequence = Sequence(groups)
        for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
            delattr(whole, name)
        whole.NumberOfFrames = len(parts)
        whole.PixelData = b"".join(part.PixelData for part in parts)
        return [whole]

    return change


def transformation(slope: float, intercept: float) -> Dataset:
    result = Dataset()
    result.RescaleSlope, result.RescaleIntercept, result.RescaleType = slope, intercept, "HU"
    return result


def edge_of_rounding(parts: list[Dataset]) -> None:
    for number, part in enumerate(parts):
        tiny, step = ((0.00499, 10.0025), (0.00501, 10.00249))[number % 2]
        part.ImageOrientationPatient = [1, 0, 0, 0, 1, tiny]
        part.PixelSpacing = [step, step]


READ: dict[str, tuple[Change, str | None]] = {
    "orientations and spacings at the edge of rounding": (edge_of_rounding, None),
    "MONOCHROME1": (header({"PhotometricInterpretation": "MONOCHROME1"}), None),
    "MONOCHROME1, JPEG lossless": (inverted_display("JPEG lossless SV1"), None),
    "MONOCHROME1, JPEG 2000": (inverted_display("JPEG 2000 lossless"), None),
    "an overlay in the bits above BitsStored": (lambda parts: twelve_bits(parts, 0x1000), None),
    "an overlay in the bits above BitsStored, JPEG 2000": (jpeg2000_with_overlay, None),
    "a slope and an intercept of each image's own": (slopes_of_their_own, None),
    "RescaleSlope empty": (header({"RescaleSlope": ""}), "no RescaleSlope in the header, 1 taken"),
    "RescaleIntercept missing, HU stored": (hu_with(), "no RescaleIntercept in the header, 0 taken"),
    "RescaleSlope twice the same": (raw("RescaleSlope", "DS", b"1\\1 "), None),
    "AcquisitionNumber and InstanceNumber empty": (header({"AcquisitionNumber": "", "InstanceNumber": ""}), None),
    "InstanceNumber with two values": (raw("InstanceNumber", "IS", b"1\\2 ", slice(5, 6)), None),
    "multi-frame, rescale in each frame": (frames("frames"), None),
    "multi-frame, rescale shared": (frames("shared"), None),
    "multi-frame, rescale outside": (frames("top"), None),
    "SOPInstanceUID the same everywhere": (header({"SOPInstanceUID": "1.2.3"}), None),
    "SOPInstanceUID empty": (header({"SOPInstanceUID": ""}), None),
    "SeriesInstanceUID empty": (header({"SeriesInstanceUID": ""}), None),
    "SeriesInstanceUID missing in one image": (header({"SeriesInstanceUID": None}, slice(9, 10)), None),
    "StudyInstanceUID missing": (header({"StudyInstanceUID": None}), None),
    "PatientID missing in one image": (header({"PatientID": None}, slice(9, 10)), None),
    "no UID at all": (
        header({"SeriesInstanceUID": None, "StudyInstanceUID": "", "SOPInstanceUID": "", "PatientID": ""}),
        None,
    ),
    "colour pages in the series": (colour_pages, "3 images in colour left out"),
    "projections in the series": (projections, "10 images that are projections"),
    "as many coronal as axial images in the series": (coronal_images, "30 images of another size or orientation"),
    "two passes 0.02 mm apart": (second_pass(0.02), "40 images .* left out"),
    "two passes 0.02 mm apart, numbers alternate": (second_pass(0.02, "beside"), "40 images .* something else"),
    "two passes 0.02 mm apart, the same numbers": (second_pass(0.02, "alike"), "40 images .* left out"),
    "two passes 1.3 mm apart": (second_pass(1.3), "body more than once: 40 images of pass 2 left out"),
    "two passes 1.3 mm apart, by acquisition": (
        second_pass(1.3, "beside", AcquisitionNumber=2),
        "40 images of acquisition 2 left out, acquisition 1 taken",
    ),
    "two kernels": (second_pass(0, "beside", ConvolutionKernel="B80f"), "40 images of kernel B80f left out"),
    "two kernels, the same numbers": (second_pass(0, "alike", ConvolutionKernel="B80f"), "kernel B80f left out"),
    "two series numbers": (second_pass(0, "alike", SeriesNumber=5), "series number 5 left out"),
    "copies, and one image whose kernel is not said": (
        lambda parts: (
            [*parts, *again(parts[:9], blank=False)] + (header({"ConvolutionKernel": "B30f"})(parts[1:]) or [])
        ),
        "8 images of kernel none left out, kernel B30f taken",
    ),
    "a time series": (time_series, "80 images of phase 2, 3 left out, phase 1 taken"),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_the_plain_series(name, tmp_path):
    change, warning = READ[name]
    volume = read_ct(save(tmp_path, change))
    np.testing.assert_array_equal(volume.hu, HU)
    np.testing.assert_allclose(volume.affine[:3, 3], AFFINE[:3, 3], atol=0.05)
    np.testing.assert_allclose(volume.affine[:3, :3], AFFINE[:3, :3], atol=0.06)
    warnings = volume.source["warnings"]
    assert len(warnings) == (warning is not None)
    assert warning is None or re.search(warning, warnings[0])


# Refused


def without_rescale(*names: str, which: slice) -> Change:
    return header(dict.fromkeys(names), which)


def two_pixel_sizes(parts: list[Dataset]) -> None:
    """15 of 40 images with another field of view, as where the head ends."""
    for part in parts[25:]:
        part.PixelSpacing = [9.5, 9.5]


def nearly_two_sizes(parts: list[Dataset]) -> None:
    for part in parts[::8]:
        part.PixelSpacing = [10.4, 10.4]


def colour_only(parts: list[Dataset]) -> list[Dataset]:
    return colour_pages(parts)[-3:]


RESCALE = ("RescaleSlope", "RescaleIntercept")
REFUSED: dict[str, tuple[Change, str]] = {
    "no rescale in one image": (without_rescale(*RESCALE, which=slice(30, 31)), "1 of 40 images have no RescaleSlope"),
    "no rescale in several": (without_rescale(*RESCALE, which=slice(0, 20)), "20 of 40 images have no RescaleSlope"),
    "no intercept in one": (without_rescale("RescaleIntercept", which=slice(3, 4)), "1 of 40 images have no RescaleI"),
    "an empty slope in one": (header({"RescaleSlope": ""}, slice(3, 4)), "1 of 40 images have no RescaleSlope"),
    "a slope of 0": (header({"RescaleSlope": 0}), "RescaleSlope is 0"),
    "a slope that is NaN": (raw("RescaleSlope", "DS", b"NaN "), "damaged rescale"),
    "two slopes": (raw("RescaleSlope", "DS", b"1\\2 "), "damaged rescale"),
    "two pixel sizes": (two_pixel_sizes, "two sizes in one series: 25 and 15, of 50 x 30 pixels of 10 x 10 mm and"),
    "two pixel sizes, every eighth image": (nearly_two_sizes, "two sizes in one series: 35 and 5"),
    "only colour pages": (colour_only, "only colour pictures"),
    "positions that are NaN": (raw("ImagePositionPatient", "DS", b"NaN\\0\\0 "), "without position"),
    "positions of two numbers": (raw("ImagePositionPatient", "DS", b"1\\2 "), "without position"),
    "a pixel spacing of one number": (raw("PixelSpacing", "DS", b"10"), "without position"),
    "a pixel spacing of 0": (header({"PixelSpacing": [0, 0]}), "without position"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_with_the_reason(name, tmp_path):
    change, reason = REFUSED[name]
    path = save(tmp_path, change)
    with pytest.raises(InputError, match=reason) as error:
        read_ct(path)
    assert str(path) in str(error.value)
    assert ";" in str(error.value), "the remedy"


def test_an_image_that_is_lost_is_warned_of_and_interpolated(tmp_path):
    parts = copy.deepcopy(TALL)
    raw("ImagePositionPatient", "DS", b"NaN\\0\\0 ", slice(30, 31))(parts)
    volume = read_ct(save_dicom(tmp_path / "ct", parts))
    assert len(volume.source["warnings"]) == 2
    assert "1 images without usable position" in volume.source["warnings"][0]
    assert "unevenly spaced" in volume.source["warnings"][1]
    np.testing.assert_array_equal(np.delete(volume.hu, 30, axis=2), np.delete(np.repeat(HU, 2, axis=2), 30, axis=2))


@pytest.mark.parametrize(("value", "limit"), [(-2000, -1900), (-1900, -2000), (-1950, "")])
def test_padding_is_air(value, limit, tmp_path):
    def change(parts: list[Dataset]) -> None:
        for part in parts:
            values = pixels(part).copy()
            values[:, :3] = -1950
            part.PixelPaddingValue, part.PixelPaddingRangeLimit = value, limit
            part.PixelData = values.tobytes()

    volume = read_ct(save(tmp_path, change))
    assert (volume.hu[:3] == -1024).all()
    np.testing.assert_array_equal(volume.hu[3:], HU[3:])


def test_copies_are_noted_and_not_warned_of(tmp_path):
    volume = read_ct(save(tmp_path, lambda parts: parts + again(parts[:9], blank=False)))
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.source["notes"] == ["9 images at positions already taken left out (copies)"]
    assert volume.source["warnings"] == []


def test_many_files_of_uneven_distance_ask_for_no_more_than_twice_their_memory(tmp_path):
    """Pairs 0.2 mm apart every 8 mm: a grid of 0.2 mm would be twenty times as large."""
    parts = plain()[::2]
    for number, part in enumerate(parts):
        x, y, _ = part.ImagePositionPatient
        part.ImagePositionPatient = [x, y, 8 * (number // 2) + 0.2 * (number % 2)]
    assert read_ct(save_dicom(tmp_path / "ct", parts)).hu.shape[2] <= 2 * len(parts)


# Without preamble


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_are_found_and_read(implicit, tmp_path):
    for number, part in enumerate(plain()):
        bare = pydicom.Dataset({element.tag: element for element in part})
        pydicom.dcmwrite(
            tmp_path / f"{number}.dcm", bare, implicit_vr=implicit, little_endian=True, enforce_file_format=False
        )
    assert (tmp_path / "0.dcm").read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_ct(tmp_path).hu, HU)
    np.testing.assert_array_equal(read_ct(tmp_path / "3.dcm").hu, HU)
    sources, excluded = find_sources(tmp_path)
    assert [len(source.files) for source in sources] == [40]
    assert not excluded


@pytest.mark.parametrize(
    "content",
    [b"", b"\x08", b"\x08\x00" * 80, b"a text file", bytes(600), bytes(range(256)) * 3, b"\x02\x00\x10\x00UI"],
)
def test_other_files_are_no_dicom(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(InputError, match="no CT"):
        find_sources(tmp_path)


# Which series


def described(parts: list[Dataset], description: str, *image_type: str) -> list[Dataset]:
    header({"SeriesDescription": description, "ImageType": list(image_type)})(parts)
    return parts


ORIGINAL = ("ORIGINAL", "PRIMARY", "AXIAL")
RIVALS = {
    "maximum intensity, by ImageType": described(copy.deepcopy(TALL), "CHEST", "DERIVED", "SECONDARY", "AXIAL", "MIP"),
    "maximum intensity, as a maker writes it": described(
        copy.deepcopy(TALL), "CHEST", "DERIVED", "SECONDARY", "AXIAL", "CT_SOM5 MIP"
    ),
    "minimum intensity, by its description": described(copy.deepcopy(TALL), "CHEST MinIP 10mm", *ORIGINAL),
    "a thick average that is derived": described(copy.deepcopy(TALL), "CHEST", "DERIVED", "SECONDARY", "REFORMATTED"),
    "many images at three places, to time the contrast": described(
        [image for first in [plain()[30:33]] for _ in range(30) for image in again(first)], "CHEST", *ORIGINAL
    ),
    "another body part": described(copy.deepcopy(TALL), "HEAD", *ORIGINAL),
}


@pytest.mark.parametrize("name", RIVALS)
def test_the_plain_series_is_taken_instead_of(name, tmp_path):
    parts = described(plain(), "CHEST 5.0", *ORIGINAL)
    folder = save_dicom(tmp_path / "study", parts + RIVALS[name])
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.hu, HU)
    assert volume.source["series"] == parts[0].SeriesInstanceUID
    assert volume.source["images"] == 40
    (other,) = volume.source["other_series"]
    assert other["series"] == RIVALS[name][0].SeriesInstanceUID
    assert other["images"] == len(RIVALS[name])


def test_a_projection_is_read_if_it_is_asked_for(tmp_path):
    rival = RIVALS["maximum intensity, by ImageType"]
    folder = save_dicom(tmp_path / "study", plain() + rival)
    assert read_ct(folder, rival[0].SeriesInstanceUID).hu.shape[2] == 80
    with pytest.raises(InputError, match=r"no series 1\.2\.3.*CHEST"):
        read_ct(folder, "1.2.3")


# Damaged


def encodings(folder: Path) -> dict[str, list[bytes]]:
    """A small series in each kind of encoding, as bytes of its files."""
    parts = plain(HU[::10, ::10, 20:26], AFFINE @ np.diag([10, 10, 1, 1]))
    kinds = {
        "explicit": parts,
        "implicit": [encoded(part, "implicit little endian") for part in parts],
        "JPEG lossless": [encoded(part, "JPEG lossless SV1") for part in parts],
        "multi-frame": frames("shared")(parts),
    }
    result = {}
    for name, images in kinds.items():
        save_dicom(folder / name, images)
        result[name] = [path.read_bytes() for path in sorted((folder / name).iterdir())]
    result["no preamble"] = [content[132:] for content in result["explicit"]]
    return result


@pytest.fixture(scope="module")
def series_bytes(tmp_path_factory) -> dict[str, list[bytes]]:
    return encodings(tmp_path_factory.mktemp("encodings"))


KINDS = ("explicit", "implicit", "JPEG lossless", "multi-frame", "no preamble")
HITS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)), max_size=5)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), hits=HITS, cut=st.none() | st.floats(0, 1), everywhere=st.booleans())
def test_no_damage_to_a_file_ends_in_anything_but_our_error(kind, hits, cut, everywhere, series_bytes, tmp_path):
    damage(tmp_path, series_bytes[kind], hits, cut, everywhere)
    with suppress(InputError):
        find_sources(tmp_path)
    with suppress(InputError):
        read_ct(tmp_path)


def damage(
    folder: Path, files: list[bytes], hits: list[tuple[float, bytes]], cut: float | None, everywhere: bool
) -> None:
    """Write a series, with bytes of its first file (or of all) replaced, and the file cut off."""
    for number, content in enumerate(files):
        if number == 0 or everywhere:
            content = bytearray(content)
            for place, new in hits:
                start = int(place * len(content))
                content[start : start + len(new)] = new
            content = content[: int(cut * len(content))] if cut is not None else content
        (folder / f"{number}.dcm").write_bytes(content)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(lambda content: content[:152], id="cut at 152 bytes"),
        pytest.param(lambda content: content.replace(b"UI", b"??", 4), id="unknown VR"),
    ],
)
def test_a_damaged_header_costs_its_own_file_and_is_named(broken, tmp_path):
    for patient in ("ann", "bob"):
        parts = plain()
        header({"PatientID": patient, "StudyInstanceUID": uid.generate_uid()})(parts)
        save_dicom(tmp_path / patient, parts)
    victim = sorted((tmp_path / "ann").iterdir())[12]
    (tmp_path / "ann" / "damaged.dcm").write_bytes(broken(victim.read_bytes()))
    sources, excluded = find_sources(tmp_path)
    assert [source.name for source in sources] == ["ann", "bob"]
    assert [item["source"] for item in excluded] == ["ann/damaged.dcm"]
    assert "damaged" in excluded[0]["reason"]
    volume = read_ct(tmp_path / "ann")
    np.testing.assert_array_equal(volume.hu, HU)
    (warning,) = volume.source["warnings"]
    assert "damaged.dcm" in warning
