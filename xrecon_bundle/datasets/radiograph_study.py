"""Group the chest radiographs among DICOM files by study and view, by their tags."""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from pydicom.dataset import Dataset

from ..dicom.headers import read_dataset
from ..dicom.series import CHEST_WORDS
from ..files import one_line
from ..io.radiograph_files import VIEWS, View
from ..io.radiograph_tags import MODALITIES, VIEW_CODES, VIEW_POSITIONS, dicom_directions, shown_view, view_code

# In SeriesDescription and the like, for files whose own tags do not name the view.
VIEW_WORDS: dict[View, str] = {"pa": r"\b(PA|P\.A\.|POSTERO-?ANTERIOR|FRONTAL)\b", "lateral": r"\b(LAT|LATERAL|LL)\b"}
DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
TIMES = ("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "InstanceNumber")
RADIOGRAPH_CLASSES = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography, and with a suffix digital X-ray


class RadiographHeader(NamedTuple):
    """What the header of a radiograph says. Empty text: it does not say.

    ``view``: None: neither view, or it does not say. ``suitable``: of the chest, and to be looked at (no raw data).
    ``acquired`` sorts by time, then by number, then by name.
    """

    path: Path
    study: str
    patient: str
    instance: str
    view: View | None
    suitable: bool
    acquired: tuple[str | int | Path, ...]


class Study(NamedTuple):
    """The suitable radiographs of one study of one patient. ``uid`` is empty where they have none."""

    uid: str
    patient: str
    views: dict[View, list[RadiographHeader]]
    files: tuple[Path, ...]


def find_studies(paths: Iterable[Path], damaged: dict[Path, str]) -> list[Study]:
    """Group the radiographs among DICOM files by study.

    Study and patient together identify. What has no StudyInstanceUID belongs together within a folder; so does what
    has one that anonymisation made the same for all, where each folder then has one radiograph a view. Copies of an
    image count once.

    Args:
        paths: DICOM files; those of other modalities are left out.
        damaged: receives files whose headers are damaged, with the reason.
    """
    found: list[RadiographHeader] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's remarks on values that break the standard
        for path in paths:
            try:
                header = read_header(path)
            except Exception as error:  # pydicom raises what its parts raise
                damaged[path] = one_line(error)
                continue
            found += [] if header is None else [header]
    patients: dict[str, set[str]] = defaultdict(set)
    for header in found:
        patients[header.study] |= {header.patient} - {""}
    groups: dict[tuple[str, str, str], list[RadiographHeader]] = defaultdict(list)
    for header in found:
        patient, place = header.patient, str(header.path.parent)
        if header.study:
            place = ""
            if len(patients[header.study]) == 1:  # the one that some of the files name
                patient = next(iter(patients[header.study]))
        groups[header.study, patient, place].append(header)
    return [study for (uid, patient, _), headers in groups.items() for study in _studies(uid, patient, headers)]


def latest_pair(study: Study) -> tuple[Path, Path]:
    """The PA and the lateral radiograph of a study that has both; of repeated exposures the last."""
    pa, lateral = (max(study.views[view], key=lambda image: image.acquired).path for view in VIEWS)
    return pa, lateral


def read_header(path: Path) -> RadiographHeader | None:
    """The header of a DICOM radiograph; None: the file is none.

    Raises:
        Exception: of whatever type: the header is damaged.
    """
    header = read_dataset(path, stop_before_pixels=True)
    kind = str(header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or "")
    if "Rows" not in header:
        if not kind or kind == RADIOGRAPH_CLASSES or kind.startswith(f"{RADIOGRAPH_CLASSES}."):
            raise ValueError("the header is cut off or damaged")
        return None
    if header.get("Modality") not in MODALITIES:
        return None
    part = str(header.get("BodyPartExamined") or "").upper()
    chest = not part or any(word in part for word in CHEST_WORDS)
    *times, number = (header.get(name) or 0 for name in TIMES)
    return RadiographHeader(
        path=path,
        study=str(header.get("StudyInstanceUID") or "").strip(),
        patient=str(header.get("PatientID") or "").strip(),
        instance=str(header.get("SOPInstanceUID") or "").strip(),
        view=radiograph_view(header),
        suitable=chest and header.get("PresentationIntentType") != "FOR PROCESSING",
        acquired=(*(str(time) for time in times), int(number), path),
    )


def radiograph_view(header: Dataset) -> View | None:
    """Which view a radiograph's tags say that it is; None: neither, or they do not say.

    The first of these that a file has counts: ViewPosition, ViewCodeSequence, PatientOrientation, the words of its
    description.
    """
    position = "".join(filter(str.isalpha, str(header.get("ViewPosition") or "").upper()))
    if position:
        return _first(view for view in VIEWS if position in VIEW_POSITIONS[view])
    codes = [view_code(item) for item in header.get("ViewCodeSequence") or []]
    if codes:
        return _first(view for view in VIEWS if any(code in VIEW_CODES[view] for code in codes))
    directions = dicom_directions(header)
    if directions:
        return shown_view(directions)
    words = " ".join(str(header.get(name) or "") for name in DESCRIPTIONS).upper().replace("_", " ")
    said = [view for view in VIEWS if re.search(VIEW_WORDS[view], words)]
    return said[0] if len(said) == 1 else None


def _studies(uid: str, patient: str, headers: list[RadiographHeader]) -> list[Study]:
    """The headers of one group as one study, or as one a folder where that makes pairs and the group does not."""
    whole = _study(uid, patient, headers)
    folders: dict[Path, list[RadiographHeader]] = defaultdict(list)
    for header in headers:
        folders[header.path.parent].append(header)
    if len(folders) > 1 and any(len(images) > 1 for images in whole.views.values()):
        parts = [_study(uid, patient, part) for part in folders.values()]
        if all(len(images) == 1 for part in parts for images in part.views.values()):
            return parts
    return [whole]


def _study(uid: str, patient: str, headers: list[RadiographHeader]) -> Study:
    unique: dict[object, RadiographHeader] = {}
    for header in headers:  # UIDs alone do not tell copies: anonymisation may have made them the same for all
        key = (header.instance, header.view, header.acquired[:-1]) if header.instance else header.path
        unique.setdefault(key, header)
    suitable = [header for header in unique.values() if header.suitable]
    views = {view: [header for header in suitable if header.view == view] for view in VIEWS}
    return Study(uid, patient, views, tuple(header.path for header in headers))


def _first(views: Iterable[View]) -> View | None:
    return next(iter(views), None)
