"""DICOM images as their headers describe them: which files are DICOM, where each image stands, which series it is of.

Headers come from many makers and many anonymisers. Whatever one of them holds, it costs no more than its own file.
"""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID, MediaStorageDirectoryStorage
from pydicom.valuerep import VR

from ..files import one_line

HEADER_TAGS = [
    "AcquisitionNumber",
    "BodyPartExamined",
    "Columns",
    "ConvolutionKernel",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "KVP",
    "Modality",
    "NominalPercentageOfCardiacPhase",
    "NumberOfFrames",
    "PatientID",
    "PerFrameFunctionalGroupsSequence",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SamplesPerPixel",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SharedFunctionalGroupsSequence",
    "SliceThickness",
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "TemporalPositionIdentifier",
    "VolumeBasedCalculationTechnique",
]
# Values of ImageType and of VolumeBasedCalculationTechnique of pictures made of a CT: what they show at a place is not
# the CT's own value there, but the largest along a line, say.
PROJECTIONS = {
    *("MIP", "MAX_IP", "MAXIMUM", "MINIP", "MIN_IP", "MINIMUM", "PROJECTION IMAGE", "PROJECTION"),
    *("VRT", "VR", "VOLUME_RENDER", "SSD", "SURFACE_RENDER", "CURVED_MPR", "SUBTRACTION", "PERFUSION", "SCREEN SAVE"),
}
PROJECTION_WORDS = {"MIP", "MIPS", "MINIP", "VRT"}  # in a description
DICOM_ROOT = "1.2.840.10008."
CT_CLASSES = "1.2.840.10008.5.1.4.1.1.2"  # CT Image Storage, and with a suffix its enhanced kinds


class Traits(NamedTuple):
    """What tells apart the images of two passes, reconstructions or phases that share a series."""

    series_number: str
    description: str
    image_type: str
    acquisition: str
    stack: str
    phase: str
    kernel: str
    thickness: str
    voltage: str


@dataclass(frozen=True)
class Slice:
    """One image of a series: a file, or a frame of a multi-frame file. Millimetres in DICOM's LPS axes.

    ``spacing`` has two numbers, ``position`` three, ``orientation`` six, as in the header. ``rescale`` is slope and
    intercept, None where the header has none.
    """

    path: Path
    frame: int
    uid: str
    number: int
    shape: tuple[int, int]
    spacing: tuple[float, ...]
    position: tuple[float, ...]
    orientation: tuple[float, ...]
    rescale: tuple[float | None, float | None]
    original: bool
    projection: bool
    traits: Traits

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def axial(self) -> bool:
        """Whether the slice lies across the body."""
        return bool(abs(self.normal[2]) > 0.7)


@dataclass
class Series:
    """The images of one DICOM series, as found in headers, in no order. Empty text: the headers do not say.

    Beside the slices: files with scout views, with images whose position, orientation, spacing or rescale is missing or
    makes no sense, and with colour pictures.
    """

    uid: str
    study: str
    patient: str
    modality: str
    description: str
    slices: list[Slice] = field(default_factory=list)
    localizers: list[Path] = field(default_factory=list)
    unusable: list[Path] = field(default_factory=list)
    colour: list[Path] = field(default_factory=list)

    def files(self) -> list[Path]:
        """The files of all images, sorted."""
        slices = [part.path for part in self.slices]
        return sorted({*slices, *self.localizers, *self.unusable, *self.colour})

    def name(self) -> str:
        """How people and terminals call it."""
        return f"{self.uid or 'without SeriesInstanceUID'} ({self.description or 'no description'})"


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark after the preamble, or begins, without one, as a DICOM data set does.

    A file that cannot be opened counts, so that those who read it can say so.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(512)
    except OSError:
        return True
    return head[128:132] == b"DICM" or _begins_as_data_set(head)


def read_dataset(path: Path, **options: Any) -> Dataset:
    """``pydicom.dcmread`` of files with and without preamble, without its remarks on values that break the standard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pydicom.dcmread(path, force=True, **options)


def scan_dicom(files: Iterable[Path], unreadable: dict[Path, str] | None = None) -> list[Series]:
    """Group the images in DICOM files into series by patient, study and series; other files are left out.

    What has no SeriesInstanceUID, or neither patient nor study, belongs together within a folder. An image whose header
    lacks one of the three joins the series that fits it, where there is only one.

    Args:
        files: any files.
        unreadable: receives the DICOM files whose headers are damaged, with the reason.
    """
    found: dict[tuple[str, ...], Series] = {}
    for path in sorted(set(files)):
        if not is_dicom(path):
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _add(found, path, read_dataset(path, stop_before_pixels=True, specific_tags=HEADER_TAGS))
        except Exception as error:  # pydicom raises what its parts raise: of 3000 damaged headers, 11 types
            if unreadable is not None:
                unreadable[path] = one_line(error)
    return _joined(found)


def _begins_as_data_set(head: bytes) -> bool:
    """Two elements in order, the first of group 2 or 8, in any of the three encodings."""
    for order in "<>":
        try:
            group, element = struct.unpack_from(f"{order}HH", head)
            if group not in (2, 8):
                continue
            if head[4:6].decode("latin-1") in VR.__members__:
                long = head[4:6] in (b"OB", b"UN", b"SQ", b"UT")
                start, length = (12, f"{order}8xI") if long else (8, f"{order}6xH")
            else:
                start, length = 8, f"{order}4xI"
            following = struct.unpack_from(f"{order}HH", head, start + struct.unpack_from(length, head)[0])
        except struct.error:
            continue
        if (group, element) < following and following[0] <= 0x0010:
            return True
    return False


def _add(found: dict[tuple[str, ...], Series], path: Path, header: Dataset) -> None:
    """Add the images of a file to their series; a file without image is passed over, one that lost it is an error."""
    if "Rows" not in header:
        if _should_have_image(header):
            raise ValueError("the header is cut off or damaged")
        return
    uid, study, patient = (_text(header.get(name)) for name in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID"))
    modality = _text(header.get("Modality"))
    key = (uid, study, patient, modality, *(() if uid and (study or patient) else (str(path.parent),)))
    if not uid:
        key = (*key, _text(header.get("SeriesNumber")))
    description = " ".join(filter(None, (_text(header.get(tag)) for tag in ("SeriesDescription", "BodyPartExamined"))))
    kinds = _words(header.get("ImageType"))
    colour = int(number(header.get("SamplesPerPixel")) or 1) != 1
    slices: list[Slice] | None = None
    if not colour and "LOCALIZER" not in kinds:
        try:
            slices = list(_slices(path, header))
        except (AttributeError, ArithmeticError, LookupError, NotImplementedError, TypeError, ValueError):
            slices = None
    series = found.setdefault(key, Series(uid, study, patient, modality or "?", description))
    if colour:
        series.colour.append(path)
    elif "LOCALIZER" in kinds:
        series.localizers.append(path)
    elif slices is None:
        series.unusable.append(path)
    else:
        series.slices += slices


def _should_have_image(header: Dataset) -> bool:
    """Whether a header without image is damaged: a CT's, or of no kind that there is."""
    if _text(header.file_meta.get("MediaStorageSOPClassUID")) == MediaStorageDirectoryStorage:
        return False
    kind = UID(_text(header.get("SOPClassUID")))
    unknown = kind.startswith(DICOM_ROOT) and kind.name == kind
    return not kind or kind.startswith(CT_CLASSES) or unknown


def _slices(path: Path, header: Dataset) -> Iterator[Slice]:
    """Each image of a file.

    Raises:
        ValueError: a position, orientation or spacing is missing or makes no sense.
    """
    frames, shared = [Dataset()], Dataset()
    if header.get("PerFrameFunctionalGroupsSequence"):
        frames = list(header.PerFrameFunctionalGroupsSequence)
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    if len(frames) != (number(header.get("NumberOfFrames")) or 1):
        raise ValueError("frames without position")
    common = [*_groups(shared), header]
    for index, frame in enumerate(frames):
        part = _slice(path, index, header, [*_groups(frame), *common])
        edges = [np.linalg.norm(edge) for edge in (part.orientation[:3], part.orientation[3:], part.normal)]
        if np.abs(np.array(edges) - 1).max() > 0.01 or min(part.spacing) <= 0 or min(part.shape) < 1:
            raise ValueError("no usable geometry")
        yield part


def _slice(path: Path, index: int, header: Dataset, places: Sequence[Dataset]) -> Slice:
    """One image; ``places`` hold what is said of it: the frame's own groups, the shared ones, the file's header."""

    def value(*tags: str) -> Any:
        """The first value that there is."""
        found = (place.get(tag) for tag in tags for place in places)
        return next((one for one in found if _text(one)), None)

    kinds = _words(value("FrameType", "ImageType")) | _words(value("VolumeBasedCalculationTechnique"))
    description = _text(header.get("SeriesDescription"))
    return Slice(
        path=path,
        frame=index,
        uid=_text(header.get("SOPInstanceUID")),
        number=int(number(header.get("InstanceNumber"), strict=False) or 0),
        shape=(int(header.Rows), int(header.Columns)),
        spacing=_numbers(value("PixelSpacing"), 2),
        position=_numbers(value("ImagePositionPatient"), 3),
        orientation=_numbers(value("ImageOrientationPatient"), 6),
        rescale=(number(value("RescaleSlope")), number(value("RescaleIntercept"))),
        original=not kinds & {"DERIVED", "SECONDARY"},
        projection=bool(kinds & PROJECTIONS or set(re.split(r"[\W_]+", description.upper())) & PROJECTION_WORDS),
        traits=Traits(
            series_number=_text(header.get("SeriesNumber")),
            description=description,
            image_type=_text(value("FrameType", "ImageType")),
            acquisition=_text(value("FrameAcquisitionNumber", "AcquisitionNumber")),
            stack=_text(value("StackID")),
            phase=_text(value("TemporalPositionIndex", "TemporalPositionIdentifier"))
            or _text(value("NominalPercentageOfCardiacPhase")),
            kernel=_text(value("ConvolutionKernel")),
            thickness=_text(value("SliceThickness")),
            voltage=_text(value("KVP")),
        ),
    )


def _groups(place: Dataset) -> list[Dataset]:
    """The functional groups of a frame, or those that all frames share."""
    return [element.value[0] for element in place if element.VR == "SQ" and element.value]


def _joined(found: dict[tuple[str, ...], Series]) -> list[Series]:
    """Series whose headers lack something join the one that fits, where there is only one."""

    def says(series: Series) -> tuple[str, ...]:
        return series.uid, series.study, series.patient, "" if series.modality == "?" else series.modality

    whole = [series for series in found.values() if all(says(series))]
    places = {id(series): {path.parent for path in series.files()} for series in whole}
    result = list(whole)
    for series in found.values():
        if all(says(series)):
            continue
        folders = {path.parent for path in series.files()}
        fitting = [
            other
            for other in whole
            if all(not own or own == its for own, its in zip(says(series), says(other), strict=True))
            and (series.uid or folders <= places[id(other)])
        ]
        if len(fitting) != 1:
            result.append(series)
            continue
        for name in ("slices", "localizers", "unusable", "colour"):
            getattr(fitting[0], name).extend(getattr(series, name))
    return result


def _text(value: Any) -> str:
    """A header's value as text; several joined by backslashes; empty where there is none."""
    if value is None:
        return ""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        return str(value).strip()
    return "\\".join(_text(one) for one in value)


def _words(value: Any) -> set[str]:
    """The values of a coded header entry, in capitals; "CSA MIP" also counts as its words."""
    values = _text(value).upper().split("\\")
    return {word for one in values for word in (one.strip(), *one.split()) if word}


def number(value: Any, strict: bool = True) -> float | None:
    """A header's one number, None where it is empty. Several that are equal count as one.

    Raises:
        ValueError: several, or not finite; None then, unless ``strict``.
    """
    numbers = {float(one) for one in _text(value).split("\\") if one}
    if len(numbers) > 1 or not all(np.isfinite(number) for number in numbers):
        if not strict:
            return None
        raise ValueError(f"{value} is no number")
    return next(iter(numbers), None)


def _numbers(value: Any, count: int) -> tuple[float, ...]:
    numbers = tuple(float(one) for one in _text(value).split("\\"))
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ValueError(f"{value} is not {count} numbers")
    return numbers
