"""CT series from DICOM files: which slices belong together, where they stand, their Hounsfield units.

Headers are read with pydicom, compressed pixels with ITK (GDCM: JPEG, JPEG-LS, JPEG 2000). The geometry comes
from the slices' positions and orientations, never from slice numbers or thickness.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import itk
import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import RLELossless

from ..files import InputError
from .volume import LPS_TO_RAS, CTVolume

MOST_GAP_MM = 10.0  # a wider hole between slices is not filled by interpolation
OFF_LINE_MM = 1.0  # how far a slice may stand from the line through all slices
CHEST_WORDS = ("CHEST", "THORA", "LUNG", "TORSO")
HEADER_TAGS = [
    "AcquisitionNumber",
    "BodyPartExamined",
    "Columns",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "ImageType",
    "InstanceNumber",
    "Modality",
    "NumberOfFrames",
    "PatientID",
    "PerFrameFunctionalGroupsSequence",
    "PixelSpacing",
    "RescaleIntercept",
    "RescaleSlope",
    "Rows",
    "SeriesDescription",
    "SeriesInstanceUID",
    "SharedFunctionalGroupsSequence",
    "SOPInstanceUID",
    "StudyInstanceUID",
]


@dataclass(frozen=True)
class Slice:
    """One image of a series: a file, or a frame of a multi-frame file. Millimetres in DICOM's LPS axes."""

    path: Path
    frame: int
    uid: str
    number: int
    acquisition: int
    shape: tuple[int, int]
    spacing: tuple[float, float]
    position: tuple[float, float, float]
    orientation: tuple[float, float, float, float, float, float]

    @property
    def normal(self) -> np.ndarray:
        """The direction across the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])


@dataclass
class Series:
    """The slices of one DICOM series, as found in headers, in no order."""

    uid: str
    study: str
    patient: str
    modality: str
    description: str
    slices: list[Slice] = field(default_factory=list)
    localizers: int = 0
    without_geometry: int = 0

    def rank(self) -> tuple[bool, bool, int]:
        """What :func:`choose_series` maximises: axial, named after the chest, many slices."""
        axial = bool(self.slices) and abs(self.slices[0].normal[2]) > 0.7
        return axial, any(word in self.description.upper() for word in CHEST_WORDS), len(self.slices)

    def files(self) -> list[Path]:
        """The files of the slices, sorted."""
        return sorted({part.path for part in self.slices})


def is_dicom(path: Path) -> bool:
    """Whether the file has DICOM's mark after the preamble."""
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def scan_dicom(files: Iterable[Path]) -> list[Series]:
    """Group DICOM files into series by their headers; what is no readable DICOM image is left out."""
    found: dict[str, Series] = {}
    for path in sorted(files):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER_TAGS)
        except (InvalidDicomError, EOFError, OSError, ValueError):
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        if not uid or "Rows" not in header:
            continue
        series = found.setdefault(
            uid,
            Series(
                uid=uid,
                study=str(header.get("StudyInstanceUID", uid)),
                patient=str(header.get("PatientID", "") or ""),
                modality=str(header.get("Modality", "") or "?"),
                description=" ".join(
                    str(header.get(tag, "") or "") for tag in ("SeriesDescription", "BodyPartExamined")
                ).strip(),
            ),
        )
        if "LOCALIZER" in (header.get("ImageType") or []):
            series.localizers += 1
            continue
        try:
            series.slices += _slices(path, header)
        except (AttributeError, KeyError, IndexError, TypeError, ValueError):
            series.without_geometry += 1
    return list(found.values())


def choose_series(found: Sequence[Series], uid: str | None = None) -> Series:
    """The CT series to read: the one asked for, else axial before other planes, chest before others, most slices.

    Raises:
        InputError: no such series, no CT among them, or a CT whose slices say nothing about their position.
    """
    if uid is not None:
        found = [series for series in found if series.uid == uid]
        if not found:
            raise InputError(f"no series {uid} in this folder")
    cts = [series for series in found if series.modality == "CT"]
    if not cts:
        seen = ", ".join(sorted({series.modality for series in found})) or "no DICOM images"
        raise InputError(f"no CT series (found: {seen}); give a folder with the DICOM files of a chest CT")
    best = max(cts, key=lambda series: (series.rank(), series.uid))
    if len(best.slices) < 2:
        what = (
            "localizers (scout views)"
            if best.localizers
            else "images without position, orientation or pixel spacing"
            if best.without_geometry
            else "a single slice"
        )
        raise InputError(
            f"the CT series {best.uid} has only {what}; give the folder with all axial slices of the chest"
        )
    return best


def load_series(series: Series) -> CTVolume:
    """Read a series as a volume. Slices are sorted by position, doubles dropped, small gaps filled by interpolation.

    Gantry tilt is kept as a sheared affine: each slice stands where its position says.

    Raises:
        InputError: a file is damaged, or the slices make no volume (a gap over 10 mm, positions off one line).
    """
    notes: list[str] = []
    slices = _without_doubles(_one_geometry(series.slices, notes), notes)
    first, last = slices[0], slices[-1]
    heights = np.array([np.dot(part.position, first.normal) for part in slices])
    if len(slices) < 2 or heights[-1] == heights[0]:
        raise InputError("the slices all stand at one position; give the folder with all slices of the chest")
    across = (np.array(last.position) - first.position) / (heights[-1] - heights[0])
    strays = [
        np.linalg.norm(np.array(first.position) + (at - heights[0]) * across - part.position)
        for part, at in zip(slices, heights, strict=True)
    ]
    if max(strays) > OFF_LINE_MM:
        raise InputError(
            f"slices stand up to {max(strays):.1f} mm off one line (a moved table or tilt?); export one acquisition"
        )
    hu, without_rescale = _read_hu(slices)
    hu, step = _evenly(hu, heights, notes)
    if abs(np.dot(across / np.linalg.norm(across), first.normal)) < 0.9999:
        notes.append("gantry tilt kept in the affine")

    affine = np.eye(4)
    affine[:3, 0] = np.array(first.orientation[:3]) * first.spacing[1]  # along a row: from column to column
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = across * step
    affine[:3, 3] = first.position
    if without_rescale:
        notes.append("no RescaleSlope and RescaleIntercept in the header")
    source = {"format": "DICOM", "series": series.uid, "description": series.description, "notes": notes}
    return CTVolume(hu.transpose(2, 1, 0), LPS_TO_RAS @ affine, source)


def _slices(path: Path, header: Dataset) -> list[Slice]:
    shared, frames = Dataset(), [Dataset()]
    if "PerFrameFunctionalGroupsSequence" in header:
        frames = header.PerFrameFunctionalGroupsSequence
        shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]

    def value(frame: Dataset, group: str, tag: str) -> tuple[float, ...]:
        for place in (frame, shared):
            if group in place:
                return tuple(float(number) for number in place[group].value[0][tag].value)
        return tuple(float(number) for number in header[tag].value)

    result = []
    for number, frame in enumerate(frames):
        part = Slice(
            path=path,
            frame=number,
            uid=f"{header.SOPInstanceUID}/{number}",
            number=int(header.get("InstanceNumber") or 0),
            acquisition=int(header.get("AcquisitionNumber") or 0),
            shape=(int(header.Rows), int(header.Columns)),
            spacing=value(frame, "PixelMeasuresSequence", "PixelSpacing"),
            position=value(frame, "PlanePositionSequence", "ImagePositionPatient"),
            orientation=value(frame, "PlaneOrientationSequence", "ImageOrientationPatient"),
        )
        if (
            not np.isfinite(part.position).all()
            or abs(np.linalg.norm(part.normal) - 1) > 0.01
            or min(part.spacing) <= 0
        ):
            raise ValueError("no usable geometry")
        result.append(part)
    return result


def _one_geometry(slices: Sequence[Slice], notes: list[str]) -> list[Slice]:
    """The largest group of slices with one size, spacing and orientation."""

    def geometry(part: Slice) -> tuple[Any, ...]:
        return part.shape, tuple(np.round(part.spacing, 3)), tuple(np.round(part.orientation, 2) + 0.0)

    groups = Counter(geometry(part) for part in slices)
    chosen, count = groups.most_common(1)[0]
    if count < len(slices):
        notes.append(f"{len(slices) - count} images of another size or orientation left out")
    return [part for part in slices if geometry(part) == chosen]


def _without_doubles(slices: list[Slice], notes: list[str]) -> list[Slice]:
    """Slices in order along their normal, one for each position; of several acquisitions the one with most slices."""
    normal = slices[0].normal
    unique = {part.uid: part for part in slices}.values()  # copies of a file

    def key(part: Slice) -> float:
        return round(float(np.dot(part.position, normal)), 2)

    acquisitions = defaultdict(list)
    for part in unique:
        acquisitions[part.acquisition].append(part)
    largest = max(acquisitions.values(), key=len)
    positions = {key(part) for part in unique}
    if len(positions) < len(unique) and len({key(part) for part in largest}) >= 0.9 * len(positions):
        unique = largest
    ordered = sorted(unique, key=lambda part: (key(part), part.number, part.path, part.frame))
    kept = [
        part
        for before, part in zip([None, *ordered], ordered, strict=False)
        if before is None or key(before) != key(part)
    ]
    if len(kept) < len(slices):
        notes.append(f"{len(slices) - len(kept)} images at positions already taken left out")
    return kept


def _evenly(hu: np.ndarray, heights: np.ndarray, notes: list[str]) -> tuple[np.ndarray, float]:
    """Slices at even distance, by linear interpolation where the scan's own are not; and that distance in mm."""
    steps = np.diff(heights)
    step = float(np.median(steps))
    if np.abs(steps - step).max() < max(0.05 * step, 0.02):
        return hu, float(steps.mean())
    widest = int(np.argmax(steps))
    if steps[widest] > max(MOST_GAP_MM, 1.5 * step):
        raise InputError(
            f"slices are missing: a gap of {steps[widest]:.1f} mm after slice {widest + 1} of {len(heights)} "
            f"(slices are {step:.2f} mm apart); export the series again"
        )
    count = round((heights[-1] - heights[0]) / step) + 1
    wanted = np.linspace(heights[0], heights[-1], count)
    below = np.clip(np.searchsorted(heights, wanted, side="right") - 1, 0, len(heights) - 2)
    share = ((wanted - heights[below]) / steps[below]).astype(np.float32)
    even = np.empty((count, *hu.shape[1:]), np.float32)
    for index, (start, weight) in enumerate(zip(below, share, strict=True)):
        even[index] = (1 - weight) * hu[start] + weight * hu[start + 1]
    notes.append(
        f"slices unevenly spaced (widest gap {steps[widest]:.2f} mm), interpolated to {wanted[1] - wanted[0]:.2f} mm"
    )
    return even, float(wanted[1] - wanted[0])


def _read_hu(slices: Sequence[Slice]) -> tuple[np.ndarray, bool]:
    """Slices ``(K, rows, columns)`` in HU, and whether any file had no rescale."""
    hu = np.empty((len(slices), *slices[0].shape), np.float32)
    places = defaultdict(list)
    for index, part in enumerate(slices):
        places[part.path].append((index, part.frame))
    without_rescale = False
    for path, wanted in places.items():
        try:
            dataset = pydicom.dcmread(path)
            frames, has_rescale = _file_hu(path, dataset)
        except (AttributeError, EOFError, KeyError, OSError, RuntimeError, ValueError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
            raise InputError(f"{path}: the pixels cannot be read ({reason[0]}); export the series again") from error
        without_rescale |= not has_rescale
        for index, frame in wanted:
            hu[index] = frames[frame]
    return hu, without_rescale


def _file_hu(path: Path, dataset: Dataset) -> tuple[np.ndarray, bool]:
    """All frames ``(frames, rows, columns)`` of a file in HU, padding as air, and whether a rescale was there."""
    rescales = _rescales(dataset)
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax == RLELossless or not syntax.is_compressed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on padding bytes
            stored = dataset.pixel_array
        stored = stored.reshape(-1, *stored.shape[-2:])
        padding = dataset.get("PixelPaddingValue")
        scale = np.array([rescale or (1.0, 0.0) for rescale in rescales], np.float32)
        hu = stored * scale[:, :1, None] + scale[:, 1:, None]
        if padding is not None:
            hu[stored == padding] = -1024.0
    else:
        if len(set(rescales)) > 1:
            raise ValueError("compressed frames with different rescales")
        hu = np.asarray(itk.array_from_image(itk.imread(str(path), itk.F)))
        hu = hu.reshape(-1, *hu.shape[-2:])
    return hu, None not in rescales


def _rescales(dataset: Dataset) -> list[tuple[float, float] | None]:
    """Slope and intercept, one for all frames or one a frame; None where the header has none."""

    def rescale(place: Dataset) -> tuple[float, float] | None:
        if "PixelValueTransformationSequence" in place:
            place = place.PixelValueTransformationSequence[0]
        if place.get("RescaleIntercept") is None or place.get("RescaleSlope") is None:
            return None
        return float(place.RescaleSlope), float(place.RescaleIntercept)

    shared = (dataset.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    common = rescale(shared) or rescale(dataset)
    frames = dataset.get("PerFrameFunctionalGroupsSequence")
    return [common] if common or not frames else [rescale(part) for part in frames]
