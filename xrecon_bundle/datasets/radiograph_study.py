"""Find the PA and the lateral chest radiograph in a folder of DICOM files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.sr.coding import Code

from ..files import InputError
from ..io.dicom import CHEST_WORDS
from ..io.radiograph import MODALITIES, VIEW_CODES, VIEW_POSITIONS, dicom_directions, shown_view
from ..io.radiograph_files import VIEWS, View
from ..io.readers import dicom_files

# In SeriesDescription and the like, for files whose own tags do not name the view.
VIEW_WORDS: dict[View, str] = {"pa": r"\b(PA|P\.A\.|POSTERO-?ANTERIOR|FRONTAL)\b", "lateral": r"\b(LAT|LATERAL|LL)\b"}
DESCRIPTIONS = ("SeriesDescription", "ProtocolName", "AcquisitionDeviceProcessingDescription")
TIMES = ("AcquisitionDate", "AcquisitionTime", "ContentDate", "ContentTime", "InstanceNumber")


def choose_radiographs(folder: str | Path) -> tuple[Path, Path]:
    """The PA and the lateral chest radiograph of the one study below ``folder`` that has both.

    The first of these that a file has says which view it is: ViewPosition, ViewCodeSequence, PatientOrientation, the
    words of its description. Of repeated exposures the last is taken. Other modalities, other body parts and raw data
    (FOR PROCESSING) are passed over.

    Raises:
        InputError: no study has both views, or several have; the message says what was found.
    """
    folder = Path(folder)
    studies: dict[str, dict[View, list[tuple[Dataset, Path]]]] = defaultdict(lambda: {view: [] for view in VIEWS})
    for header, path in _chest_radiographs(dicom_files(folder)):
        view = radiograph_view(header)
        if view is not None:
            studies[str(header.get("StudyInstanceUID", ""))][view].append((header, path))
    complete = [study for study in studies.values() if all(study.values())]
    if not complete:
        found = sum(len(images) for study in studies.values() for images in study.values())
        raise InputError(
            f"{folder}: no DICOM study with a PA and a left lateral chest radiograph ({found} of either view found); "
            "give both files to `xrecon reconstruct` by name if their tags do not say what they are"
        )
    if len(complete) > 1:
        raise InputError(
            f"{folder}: {len(complete)} studies with a PA and a lateral radiograph; give a folder with one study"
        )
    pa, lateral = (max(complete[0][view], key=_acquired)[1] for view in VIEWS)
    return pa, lateral


def radiograph_view(header: Dataset) -> View | None:
    """Which view a radiograph's tags say that it is; None: neither, or they do not say."""
    position = "".join(filter(str.isalpha, str(header.get("ViewPosition") or "").upper()))
    if position:
        return _first(view for view in VIEWS if position in VIEW_POSITIONS[view])
    codes = [Code(item.CodeValue, item.CodingSchemeDesignator, "") for item in header.get("ViewCodeSequence") or []]
    if codes:
        return _first(view for view in VIEWS if any(code in VIEW_CODES[view] for code in codes))
    directions = dicom_directions(header)
    if directions:
        return shown_view(directions)
    words = " ".join(str(header.get(name) or "") for name in DESCRIPTIONS).upper().replace("_", " ")
    said = [view for view in VIEWS if re.search(VIEW_WORDS[view], words)]
    return said[0] if len(said) == 1 else None


def _chest_radiographs(paths: Iterable[Path]) -> Iterable[tuple[Dataset, Path]]:
    for path in paths:
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, EOFError, OSError, ValueError):
            continue
        part = str(header.get("BodyPartExamined") or "").upper()
        if (
            "Rows" in header
            and header.get("Modality") in MODALITIES
            and header.get("PresentationIntentType") != "FOR PROCESSING"
            and (not part or any(word in part for word in CHEST_WORDS))
        ):
            yield header, path


def _acquired(image: tuple[Dataset, Path]) -> tuple[object, ...]:
    """Sorts by time, then by number, then by name."""
    header, path = image
    *times, number = (header.get(name) or 0 for name in TIMES)
    return *(str(time) for time in times), int(number), path


def _first(views: Iterable[View]) -> View | None:
    return next(iter(views), None)
