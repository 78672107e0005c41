"""A radiograph's file as an array: DICOM, PNG, JPEG or NIfTI, turned to the view's axes, bright is dense."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image, ImageOps
from pydicom.sr.coding import Code

from .. import frame
from ..files import InputError
from ..frame import LOWER_PERCENTILE
from .radiograph_files import PNG_FIELD_OF_VIEW, VIEW_DIRECTIONS, View

MODALITIES = {"DX", "CR", "RG", "OT"}  # digital, computed and scanned radiography, secondary capture
# DICOM ViewPosition, letters only, as vendors write it.
VIEW_POSITIONS: dict[View, set[str]] = {
    "pa": {"PA", "POSTEROANTERIOR"},
    "lateral": {"LL", "LAT", "LATERAL", "LLAT", "LEFTLATERAL"},
}
# ViewCodeSequence, PS3.16 CID 4010.
VIEW_CODES: dict[View, list[Code]] = {
    "pa": [
        Code("272479007", "SCT", "postero-anterior"),
        Code("399033003", "SCT", "frontal"),
        Code("R-10214", "SRT", "postero-anterior"),
    ],
    "lateral": [Code("399173006", "SCT", "left lateral"), Code("399067008", "SCT", "lateral")],
}
COLOUR_TOLERANCE = 20  # of 255: what JPEG and burned-in colour marks may do to a grey picture
NAMES: dict[View, str] = {"pa": "PA", "lateral": "left lateral"}

_EDGES = ("UpperHorizontal", "LowerHorizontal", "LeftVertical", "RightVertical")  # of shutter and collimator
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
_AXIS = {"L": "x", "R": "x", "A": "y", "P": "y", "H": "z", "F": "z"}


@dataclass(frozen=True)
class Radiograph:
    """One radiograph as read.

    Attributes:
        grey: ``(U, V)`` float32, the file's grey scale, bright is dense.
        spacing_mm: along u and v, scaled to the chest frame's detector; None: the file does not say.
        centre_mm: where the chest frame's cube stands, RAS+; None: the file does not say.
        patient_id: None: the file does not say.
    """

    grey: np.ndarray
    spacing_mm: np.ndarray | None = None
    centre_mm: np.ndarray | None = None
    patient_id: str | None = None


def read_radiograph(path: str | os.PathLike, view: View, accept_any_view: bool = False) -> Radiograph:
    """Read ``path`` and turn it to the axes of ``view``. The kind of file is told by its content.

    Args:
        path: the file.
        view: which view it has to be.
        accept_any_view: do not refuse a file whose tags say that it is another view, or no radiograph.

    Raises:
        InputError: there is no such file, it cannot be read, or its tags speak against it.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the {NAMES[view]} radiograph's file")
    if not path.exists():
        raise InputError(f"{path}: no such file")
    with open(path, "rb") as file:
        head = file.read(132)
    if not head:
        raise InputError(f"{path} is empty; copy it again from its source")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path, view, accept_any_view)
    if head.startswith((b"\x89PNG", b"\xff\xd8")):
        return _read_picture(path)
    return _read_dicom(path, view, accept_any_view)


def blank_outside(grey: np.ndarray, inside: tuple[slice, slice]) -> np.ndarray:
    """``grey`` with everything outside the rectangle ``inside`` as dark as the darkest within (robustly)."""
    blank = np.full_like(grey, np.percentile(grey[inside], LOWER_PERCENTILE))
    blank[inside] = grey[inside]
    return blank


def shown_view(directions: tuple[str, str]) -> View | None:
    """The view whose columns and rows run along ``directions`` (L, R, A, P, H, F), either way; None: neither."""
    axes = sorted(_AXIS.get(direction, "?") for direction in directions)
    return {"xz": "pa", "yz": "lateral"}.get("".join(axes))


def _turn(grey: np.ndarray, spacing: np.ndarray | None, directions: tuple[str, str], view: View) -> tuple:
    """``grey`` and ``spacing``, whose axes run towards the patient's ``directions``, in the axes of ``view``."""
    if _AXIS[directions[0]] == "z":
        grey, directions = grey.T, directions[::-1]
        spacing = None if spacing is None else spacing[::-1]
    flipped = [axis for axis in range(2) if directions[axis] == _OPPOSITE[VIEW_DIRECTIONS[view][axis]]]
    return np.flip(grey, flipped), spacing


def _mismatch(path: Path, reason: str, view: View) -> InputError:
    return InputError(
        f"{path}: {reason}, but a {NAMES[view]} chest radiograph is needed; check that PA and lateral are not swapped, "
        "or set accept_any_view if the tags are wrong"
    )


# --- DICOM ---------------------------------------------------------------------------------------------------------


def _read_dicom(path: Path, view: View, accept_any_view: bool) -> Radiograph:
    try:
        dataset = pydicom.dcmread(path, force=True)
        known = "PixelData" in dataset or "SOPClassUID" in dataset
    except Exception:  # anything can happen when bytes that are not DICOM are taken for DICOM
        known = False
    if not known:
        raise InputError(f"{path} is not a DICOM, PNG, JPEG or NIfTI file; convert it to PNG or take the original")
    if "PixelData" not in dataset:
        raise InputError(f"{path} is a DICOM file without an image; give the radiograph itself")
    try:
        return _convert_dicom(path, dataset, view, accept_any_view)
    except InputError:
        raise
    except Exception as error:  # tags are parsed when they are asked for, and decoders raise about anything
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: the DICOM file cannot be read ({reason}); export it again, uncompressed") from error


def _convert_dicom(path: Path, dataset: pydicom.Dataset, view: View, accept_any_view: bool) -> Radiograph:
    if not accept_any_view:
        _refuse_wrong_tags(path, dataset, view)
    grey = _dicom_grey(path, dataset).T
    spacing = _dicom_spacing(dataset)
    directions = dicom_directions(dataset)
    if directions and shown_view(directions) == view:
        grey, spacing = _turn(grey, spacing, directions, view)
    return Radiograph(grey, spacing, patient_id=str(dataset.get("PatientID") or "") or None)


def _refuse_wrong_tags(path: Path, dataset: pydicom.Dataset, view: View) -> None:
    modality = dataset.get("Modality") or ""
    if modality and modality not in MODALITIES:
        raise _mismatch(path, f"Modality is '{modality}'", view)
    if dataset.get("PresentationIntentType") == "FOR PROCESSING":
        raise InputError(
            f"{path} holds raw detector data (FOR PROCESSING); export the image FOR PRESENTATION, "
            "or set accept_any_view to take it as it is"
        )
    position = dataset.get("ViewPosition") or ""
    if position and "".join(filter(str.isalpha, position.upper())) not in VIEW_POSITIONS[view]:
        raise _mismatch(path, f"ViewPosition is '{position}'", view)
    for item in dataset.get("ViewCodeSequence") or []:
        code = Code(item.get("CodeValue", ""), item.get("CodingSchemeDesignator", ""), item.get("CodeMeaning", ""))
        if code.value and code not in VIEW_CODES[view]:
            raise _mismatch(path, f"ViewCodeSequence says '{code.meaning or code.value}'", view)
    laterality = dataset.get("ImageLaterality") or dataset.get("Laterality") or ""
    if laterality in {"R", "L"} and (view == "pa" or laterality == "R"):
        raise _mismatch(path, f"laterality is '{laterality}'", view)
    directions = dicom_directions(dataset)
    if directions and shown_view(directions) != view:
        raise _mismatch(path, f"PatientOrientation is '{directions[0]}\\{directions[1]}'", view)


def dicom_directions(dataset: pydicom.Dataset) -> tuple[str, str] | None:
    """Patient directions in which columns and rows grow; None where the file does not say.

    PatientOrientation describes the stored pixels, whatever turning or mirroring came before.
    """
    directions = tuple(str(value)[:1].upper() for value in dataset.get("PatientOrientation") or ())
    return directions if len(directions) == 2 and shown_view(directions) else None


def _dicom_spacing(dataset: pydicom.Dataset) -> np.ndarray | None:
    """Spacing ``(u, v)`` in mm that the image has on the chest frame's detector; None where the file does not say.

    ImagerPixelSpacing is measured on the detector. The chest's centre is taken to be as far in front of it as in the
    chest frame, so the distance of the source gives the magnification there. (DICOM's own magnification factor is
    that of the table's or bucky's surface, hence too small for the chest's centre.) A PixelSpacing that was calibrated
    is spacing in the patient already (PS3.3 10.7.1).
    """
    on_detector = dataset.get("ImagerPixelSpacing")
    spacing = dataset.get("PixelSpacing") or on_detector or dataset.get("NominalScannedPixelSpacing")
    if not spacing:
        return None
    at_centre = np.array(spacing, dtype=float)[::-1]  # DICOM gives the distance of rows first
    corrected = on_detector and not np.allclose(spacing, on_detector, rtol=0.01)
    calibrated = corrected or dataset.get("PixelSpacingCalibrationType") is not None
    if not calibrated:
        distance = float(dataset.get("DistanceSourceToDetector") or frame.SOURCE_TO_DETECTOR_MM)
        at_centre /= _magnification(max(distance, 2 * frame.DETECTOR_TO_CENTRE_MM))
    return at_centre * _magnification(frame.SOURCE_TO_DETECTOR_MM)


def _magnification(source_to_detector: float) -> float:
    """Of the chest's centre on the detector."""
    return source_to_detector / (source_to_detector - frame.DETECTOR_TO_CENTRE_MM)


def _dicom_grey(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """``(rows, columns)`` float32 as a viewer shows it, but always bright is dense; padding and shutter are dark."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InputError(f"{path} has {frames} frames; give a file with a single radiograph")
    photometric = dataset.get("PhotometricInterpretation", "MONOCHROME2")
    if photometric == "PALETTE COLOR":
        raise InputError(f"{path} is a colour picture, not a radiograph; give the grey original")
    stored = _decode(path, dataset)
    if stored.ndim == 3:
        return _grey_of_colour(path, stored)
    grey = _apply_luts(stored, dataset)
    if photometric == "MONOCHROME1":
        grey = grey.max() - grey
    if dataset.get("PixelPaddingValue") is not None:
        limits = sorted([dataset.PixelPaddingValue, dataset.get("PixelPaddingRangeLimit", dataset.PixelPaddingValue)])
        padding = (stored >= limits[0]) & (stored <= limits[1])
        if not padding.all():
            grey[padding] = np.percentile(grey[~padding], LOWER_PERCENTILE)
    for shape in ("Collimator", "Shutter"):
        if dataset.get(f"{shape}Shape") == "RECTANGULAR":
            edges = [int(dataset[f"{shape}{edge}Edge"].value) for edge in _EDGES]
            inside = tuple(slice(max(low - 1, 0), high) for low, high in zip(edges[::2], edges[1::2], strict=True))
            if grey[inside].size:
                grey = blank_outside(grey, inside)
    return grey


def _apply_luts(stored: np.ndarray, dataset: pydicom.Dataset) -> np.ndarray:
    from pydicom.pixels import apply_modality_lut, apply_voi_lut  # new in pydicom 3, and MONAI Label keeps to 2

    grey = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        grey = np.rint(grey).astype(np.int32)
        dataset.VOILUTSequence[0].LUTDescriptor[2] = 16  # or pydicom indexes a table of 8-bit values with 8 bits
    return apply_voi_lut(grey, dataset).astype(np.float32)


def _decode(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    from pydicom.pixels import pixel_array

    try:
        return pixel_array(dataset)
    except RuntimeError:  # a compression that pydicom needs a plugin for, as lossless JPEG; ITK has it built in
        import itk

        rescaled = itk.array_from_image(itk.imread(str(path)))[0]
        slope, intercept = float(dataset.get("RescaleSlope", 1)), float(dataset.get("RescaleIntercept", 0))
        return np.rint((rescaled - intercept) / slope).astype(np.int32)


# --- PNG, JPEG and NIfTI -------------------------------------------------------------------------------------------


def _read_picture(path: Path) -> Radiograph:
    try:
        with Image.open(path) as image:
            field_of_view = image.info.get(PNG_FIELD_OF_VIEW)
            image = ImageOps.exif_transpose(image)
            grey_scale = image.mode in {"L", "I", "I;16", "1"}
            array = np.asarray(image if grey_scale else image.convert("RGB"))
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError ... on damaged files
        raise InputError(f"{path}: the picture cannot be read ({error}); export it again") from error
    array = array.swapaxes(0, 1)
    grey = array.astype(np.float32) if array.ndim == 2 else _grey_of_colour(path, array)
    spacing = None if field_of_view is None else np.full(2, float(field_of_view) / max(grey.shape))
    return Radiograph(grey, spacing)


def _grey_of_colour(path: Path, array: np.ndarray) -> np.ndarray:
    """The grey image that a colour array ``(..., 3)`` really is."""
    spread = np.ptp(array.astype(np.int32), axis=-1) / np.iinfo(array.dtype).max * 255
    if np.percentile(spread, 99) > COLOUR_TOLERANCE:
        raise InputError(f"{path} is a colour picture, not a radiograph; give the grey original")
    return array.astype(np.float32).mean(axis=-1)


def _read_nifti(path: Path, view: View, accept_any_view: bool) -> Radiograph:
    """In array order ``(u, v)``, unless the affine says how the axes lie in the patient."""
    try:
        image = nibabel.load(path, mmap=False)
        grey = np.asarray(image.dataobj, dtype=np.float32)
        names = "".join(code or "?" for code in nibabel.aff2axcodes(image.affine)).translate(str.maketrans("SI", "HF"))
    except Exception as error:  # gzip, zlib, nibabel and NumPy each raise their own
        raise InputError(f"{path}: the NIfTI file cannot be read ({error}); write it again") from error
    if grey.ndim < 2 or any(size != 1 for size in grey.shape[2:]):
        raise InputError(f"{path} has shape {grey.shape}; give one radiograph (U, V), as pa.nii.gz or lateral.nii.gz")
    grey = grey.reshape(grey.shape[:2])
    directions, zooms = (names[0], names[1]), np.array(image.header.get_zooms()[:2], dtype=float)
    shown = shown_view(directions)
    if shown is None:  # a detector's picture that knows nothing of the patient; writers put 1 mm for unknown
        return Radiograph(grey, None if np.all(zooms == 1) else zooms)
    # The pair's affine (frame.radiograph_affine) has PA's u and v for both views, and a third axis of its own.
    pair = names == "LFP"
    if shown != view and not pair and not accept_any_view:
        raise _mismatch(path, f"its affine says axes to '{names[0]}' and '{names[1]}'", view)
    centre = frame.grid_centre(image.affine, (*grey.shape, 2 if pair else 1))
    spacing = zooms * _magnification(frame.SOURCE_TO_DETECTOR_MM)
    if shown == view:
        grey, spacing = _turn(grey, spacing, directions, view)
    return Radiograph(grey, spacing, centre)
