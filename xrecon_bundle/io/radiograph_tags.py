"""What the DICOM tags of a radiograph say of its view, its orientation and its scale.

Tags that make no sense are not believed: they count as missing, and a doubt says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from .. import frame
from ..files import InputError
from .radiograph_files import View

MODALITIES = {"DX", "CR", "RG", "OT"}  # digital, computed and scanned radiography, secondary capture
# DICOM ViewPosition, letters only, as vendors write it.
VIEW_POSITIONS: dict[View, set[str]] = {
    "pa": {"PA", "POSTEROANTERIOR"},
    "lateral": {"LL", "LAT", "LATERAL", "LLAT", "LEFTLATERAL"},
}
# ViewCodeSequence, PS3.16 CID 4010: postero-anterior, frontal; left lateral, lateral. SRT: as written before 2017.
VIEW_CODES: dict[View, set[tuple[str, str]]] = {
    "pa": {
        *(("272479007", "SCT"), ("399033003", "SCT")),
        *(("R-40888", "SRT"), ("R-10202", "SRT"), ("R-10214", "SRT")),
    },
    "lateral": {("399173006", "SCT"), ("399067008", "SCT"), ("R-10236", "SRT"), ("R-102CD", "SRT")},
}
NAMES: dict[View, str] = {"pa": "PA", "lateral": "left lateral"}
PLAUSIBLE_DISTANCE_MM = (500.0, 5000.0)  # of the source from the detector

_AXIS = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}


def shown_view(directions: tuple[str, str]) -> View | None:
    """The view whose columns and rows run along ``directions`` (L, R, A, P, H, F), either way; None: neither."""
    axes = sorted(_AXIS.get(direction, "?") for direction in directions)
    views: dict[str, View] = {"xz": "pa", "yz": "lateral"}
    return views.get("".join(axes))


def mismatch(path: Path, reason: str, view: View) -> InputError:
    """The error for a file that says that it is not the ``view`` that is needed."""
    return InputError(
        f"{path}: {reason}, but a {NAMES[view]} chest radiograph is needed; check that PA and lateral are not swapped, "
        "or set accept_any_view if the tags are wrong"
    )


def view_code(item: Dataset) -> tuple[str, str]:
    """Value and scheme of an item of ViewCodeSequence, as in :data:`VIEW_CODES`."""
    return str(item.get("CodeValue") or ""), str(item.get("CodingSchemeDesignator") or "")


def refuse_wrong_tags(path: Path, dataset: Dataset, view: View) -> None:
    """Raise :class:`InputError` where the tags speak against a radiograph of this ``view``, ready to be looked at."""
    modality = dataset.get("Modality") or ""
    if modality and modality not in MODALITIES:
        raise mismatch(path, f"Modality is '{modality}'", view)
    if dataset.get("PresentationIntentType") == "FOR PROCESSING":
        raise InputError(
            f"{path} holds raw detector data (FOR PROCESSING); export the image FOR PRESENTATION, "
            "or set accept_any_view to take it as it is"
        )
    position = dataset.get("ViewPosition") or ""
    if position and "".join(filter(str.isalpha, position.upper())) not in VIEW_POSITIONS[view]:
        raise mismatch(path, f"ViewPosition is '{position}'", view)
    for item in dataset.get("ViewCodeSequence") or []:
        code = view_code(item)
        if code[0] and code not in VIEW_CODES[view]:
            raise mismatch(path, f"ViewCodeSequence says '{item.get('CodeMeaning') or code[0]}'", view)
    laterality = dataset.get("ImageLaterality") or dataset.get("Laterality") or ""
    if laterality in {"R", "L"} and (view == "pa" or laterality == "R"):
        raise mismatch(path, f"laterality is '{laterality}'", view)
    directions = dicom_directions(dataset)
    if directions and shown_view(directions) != view:
        raise mismatch(path, f"PatientOrientation is '{directions[0]}\\{directions[1]}'", view)


def dicom_directions(dataset: Dataset) -> tuple[str, str] | None:
    """Patient directions in which columns and rows grow; None where the file does not say.

    PatientOrientation describes the stored pixels, whatever turning or mirroring came before.
    """
    directions = tuple(str(value)[:1].upper() for value in dataset.get("PatientOrientation") or ())
    return directions if len(directions) == 2 and shown_view(directions) else None


def detector_spacing(dataset: Dataset, doubts: list[str]) -> np.ndarray | None:
    """Spacing ``(u, v)`` in mm that the image has on the chest frame's detector; None where the file does not say.

    ImagerPixelSpacing is measured on the detector. The chest's centre is taken to be as far in front of it as in the
    chest frame, so the distance of the source gives the magnification there. (DICOM's own magnification factor is
    that of the table's or bucky's surface, hence too small for the chest's centre.) A PixelSpacing that was calibrated
    is spacing in the patient already (PS3.3 10.7.1).
    """
    on_detector = _spacing(dataset, "ImagerPixelSpacing", doubts)
    spacing = _spacing(dataset, "PixelSpacing", doubts)
    corrected = spacing is not None and on_detector is not None and not np.allclose(spacing, on_detector, rtol=0.01)
    calibrated = corrected or (spacing is not None and tag_text(dataset, "PixelSpacingCalibrationType") != "")
    if spacing is None:
        spacing = on_detector
    if spacing is None:
        spacing = _spacing(dataset, "NominalScannedPixelSpacing", doubts)
    if spacing is None:
        return None
    at_centre = spacing[::-1].copy()  # DICOM gives the distance of rows first
    if not calibrated:
        at_centre /= magnification(_source_to_detector(dataset, doubts))
    return at_centre * magnification(frame.SOURCE_TO_DETECTOR_MM)


def magnification(source_to_detector: float) -> float:
    """Of the chest's centre on the detector."""
    return source_to_detector / (source_to_detector - frame.DETECTOR_TO_CENTRE_MM)


def tag_text(dataset: Dataset, name: str) -> str:
    """A tag as text, its values parted by backslashes; "" where it is missing or empty, "?" where it is damaged."""
    try:
        value: Any = dataset.get(name)
    except Exception:  # pydicom parses a value when it is asked for, and raises about anything
        return "?"
    if value is None:
        return ""
    parts = value if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else [value]
    return "\\".join(str(part) for part in parts).strip()


def _spacing(dataset: Dataset, name: str, doubts: list[str]) -> np.ndarray | None:
    text = tag_text(dataset, name)
    if not text:
        return None
    try:
        spacing = np.array([float(number) for number in text.split("\\")])
    except ValueError:
        spacing = np.zeros(0)
    if spacing.shape == (2,) and np.isfinite(spacing).all() and (spacing > 0).all():
        return spacing
    doubts.append(f"{name} is '{text}', which is no spacing: not believed")
    return None


def _source_to_detector(dataset: Dataset, doubts: list[str]) -> float:
    text = tag_text(dataset, "DistanceSourceToDetector")
    if not text:
        return frame.SOURCE_TO_DETECTOR_MM
    try:
        distance = float(text)
    except ValueError:
        distance = float("nan")
    if PLAUSIBLE_DISTANCE_MM[0] <= distance <= PLAUSIBLE_DISTANCE_MM[1]:
        return distance
    doubts.append(
        f"DistanceSourceToDetector is '{text}' mm, which is no distance of an X-ray tube: not believed, "
        f"{frame.SOURCE_TO_DETECTOR_MM:.0f} mm taken"
    )
    return frame.SOURCE_TO_DETECTOR_MM
