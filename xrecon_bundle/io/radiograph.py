"""A radiograph's file as an array: DICOM, PNG, JPEG or NIfTI, turned to the view's axes, bright is dense."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
from PIL import Image, PngImagePlugin

from .. import frame
from ..dicom.grey import SAMPLE, dense_is_bright, padding
from ..dicom.pixels import stored_pixels
from ..files import InputError, check_readable, load_nifti
from ..frame import LOWER_PERCENTILE
from .radiograph_collimation import exposed_by_tags
from .radiograph_files import PNG_FIELD_OF_VIEW, VIEW_DIRECTIONS, View
from .radiograph_tags import (
    NAMES,
    detector_spacing,
    dicom_directions,
    magnification,
    mismatch,
    refuse_wrong_tags,
    shown_view,
)

COLOUR_TOLERANCE = 20  # of 255: what JPEG may do to a grey picture
COLOURED_MARKS = 0.05  # of a grey picture: arrows, the emblem of an archive
TINTED_MARKS = 0.01  # of a tinted one, which has to be told from a photograph
LEAST_UNPADDED = 0.1  # of the image
PLAUSIBLE_PNG_FIELD_MM = (50.0, 2000.0)

_SMALL = 128  # pixels along the longer side in which the colours of a picture are judged
_OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
# EXIF orientation: whether columns and rows are exchanged, then which of (u, v) are reversed.
_EXIF_TURNS: dict[int, tuple[bool, tuple[int, ...]]] = {
    1: (False, ()),
    2: (False, (0,)),
    3: (False, (0, 1)),
    4: (False, (1,)),
    5: (True, ()),
    6: (True, (0,)),
    7: (True, (0, 1)),
    8: (True, (1,)),
}


@dataclass(frozen=True)
class Radiograph:
    """One radiograph as read.

    Attributes:
        grey: ``(U, V)`` float32, the grey scale that a viewer shows, but always bright is dense. Padding and what
            tags call collimated are as dark as the darkest of the rest (robustly).
        spacing_mm: along u and v, scaled to the chest frame's detector; None: the file does not say.
        scale_from: what says the spacing.
        centre_mm: where the chest frame's cube stands, RAS+; None: the file does not say.
        patient_id: None: the file does not say.
        oriented: whether the file says how it lies, so that ``grey`` has the view's axes. Otherwise ``grey`` is as a
            viewer shows the file (u to the right, v down).
        placed: whether ``grey`` is the chest frame's detector already, as our own files are: its middle is the frame's.
        file_to_grey: ``(3, 3)``, from the file's pixel (column, row, 1) to (u, v, 1) of ``grey``; a NIfTI's first two
            indices are column and row.
        exposed: ``(U, V)`` bool, False in padding and outside the collimation in the tags; None: True everywhere.
        warnings: what the file says and is not believed, a sentence each.
    """

    grey: np.ndarray
    spacing_mm: np.ndarray | None = None
    scale_from: str = "file"
    centre_mm: np.ndarray | None = None
    patient_id: str | None = None
    oriented: bool = False
    placed: bool = False
    file_to_grey: np.ndarray = field(default_factory=lambda: np.eye(3))
    exposed: np.ndarray | None = None
    warnings: tuple[str, ...] = ()


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
    check_readable(path, "file", f"give the {NAMES[view]} radiograph's file")
    try:
        with open(path, "rb") as file:
            head = file.read(132)
    except OSError as error:
        raise InputError(f"{path} cannot be opened ({error.strerror}); check its permissions") from error
    if not head:
        raise InputError(f"{path} is empty; copy it again from its source")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path, view, accept_any_view)
    if head.startswith((b"\x89PNG", b"\xff\xd8")):
        return _read_picture(path, view)
    return _read_dicom(path, view, accept_any_view)


def blank_outside(grey: np.ndarray, inside: tuple[slice, slice]) -> np.ndarray:
    """``grey`` with everything outside the rectangle ``inside`` as dark as the darkest within (robustly)."""
    blank = np.full_like(grey, np.percentile(grey[inside], LOWER_PERCENTILE))
    blank[inside] = grey[inside]
    return blank


def _darkest(grey: np.ndarray) -> float:
    """The darkest (robustly) of pixels ``(n,)``; some tell of many."""
    step = max(1, len(grey) // SAMPLE) | 1  # odd: not always the same columns
    return float(np.percentile(grey[::step], LOWER_PERCENTILE))


def _turn(radiograph: Radiograph, directions: tuple[str, str], wanted: str) -> Radiograph:
    """A radiograph whose axes run towards the patient's ``directions``, with axes towards ``wanted``."""
    exchanged = directions[0] not in {wanted[0], _OPPOSITE[wanted[0]]}
    if exchanged:
        directions = directions[::-1]
    return rearrange(radiograph, exchanged, [axis for axis in range(2) if directions[axis] != wanted[axis]])


def rearrange(radiograph: Radiograph, exchanged: bool, reversed_axes: Iterable[int]) -> Radiograph:
    """Exchange u and v if ``exchanged``, then reverse axes (0: u, 1: v); views, no copies."""
    axes, reversed_axes = [1, 0] if exchanged else [0, 1], tuple(reversed_axes)
    turned = {
        name: np.flip(picture.transpose(axes), reversed_axes)
        for name in ("grey", "exposed")
        if (picture := getattr(radiograph, name)) is not None
    }
    matrix = np.eye(3)[[*axes, 2]]
    for axis in reversed_axes:
        matrix[axis] = (turned["grey"].shape[axis] - 1) * np.eye(3)[2] - matrix[axis]
    spacing = radiograph.spacing_mm
    return replace(
        radiograph,
        **turned,
        spacing_mm=None if spacing is None else spacing[axes],
        file_to_grey=matrix @ radiograph.file_to_grey,
    )


# --- DICOM ---------------------------------------------------------------------------------------------------------


def _read_dicom(path: Path, view: View, accept_any_view: bool) -> Radiograph:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's remarks on values that break the standard
            dataset = pydicom.dcmread(path, force=True)
            known = "PixelData" in dataset or "SOPClassUID" in dataset
    except Exception:  # anything can happen when bytes that are not DICOM are taken for DICOM
        known = False
    if not known:
        raise InputError(f"{path} is not a DICOM, PNG, JPEG or NIfTI file; convert it to PNG or take the original")
    if "PixelData" not in dataset:
        raise InputError(f"{path} is a DICOM file without an image; give the radiograph itself")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _convert_dicom(path, dataset, view, accept_any_view)
    except InputError:
        raise
    except Exception as error:  # tags are parsed when they are asked for, and raise about anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: the DICOM file cannot be read ({reason}); export it again, uncompressed") from error


def _convert_dicom(path: Path, dataset: pydicom.Dataset, view: View, accept_any_view: bool) -> Radiograph:
    if not accept_any_view:
        refuse_wrong_tags(path, dataset, view)
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise InputError(f"{path} has {frames} frames; give a file with a single radiograph")
    doubts: list[str] = []
    spacing = detector_spacing(dataset, doubts)
    stored = _stored(path, dataset)
    if stored.ndim == 3:
        grey, exposed = _grey_of_colour(path, stored), None
    else:
        grey = dense_is_bright(stored, dataset, doubts)
        exposed = _exposed(stored, dataset, spacing, doubts)
        if exposed is not None:
            grey[~exposed] = _darkest(grey[exposed])
    result = Radiograph(
        grey.T,
        spacing,
        patient_id=str(dataset.get("PatientID") or "") or None,
        exposed=None if exposed is None else exposed.T,
        warnings=tuple(f"{NAMES[view]}: {doubt}" for doubt in doubts),
    )
    directions = dicom_directions(dataset)
    if directions and shown_view(directions) == view:
        return replace(_turn(result, directions, VIEW_DIRECTIONS[view]), oriented=True)
    return result


def _stored(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """``(rows, columns)``, or ``(rows, columns, 3)`` of a colour picture."""
    stored = stored_pixels(dataset)
    if dataset.get("PhotometricInterpretation") != "PALETTE COLOR":
        return stored
    from pydicom.pixels import apply_color_lut

    try:
        return apply_color_lut(stored, dataset)[..., :3]
    except (AttributeError, KeyError, ValueError) as error:  # no palette
        raise InputError(f"{path} is a colour picture, not a radiograph; give the grey original") from error


def _exposed(
    stored: np.ndarray, dataset: pydicom.Dataset, spacing: np.ndarray | None, doubts: list[str]
) -> np.ndarray | None:
    """``(rows, columns)``, see :class:`Radiograph`."""
    inside = exposed_by_tags(dataset, stored.shape, spacing, doubts)
    padded = padding(stored, dataset)
    if padded is not None and padded.mean() > 1 - LEAST_UNPADDED:
        doubts.append(f"the padding value covers {padded.mean():.0%} of the image: not believed")
        padded = None
    if padded is None:
        return inside
    exposed = ~padded if inside is None else inside & ~padded
    return exposed if exposed.any() else None


# --- PNG, JPEG and NIfTI -------------------------------------------------------------------------------------------


def _read_picture(path: Path, view: View) -> Radiograph:
    try:
        with Image.open(path) as image:
            field_of_view = image.info.get(PNG_FIELD_OF_VIEW)
            orientation = image.getexif().get(0x0112)
            array = _pixels(path, image)
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError ... on damaged files
        raise InputError(f"{path}: the picture cannot be read ({error}); export it again") from error
    exposed = None
    if array.ndim == 3 and array.shape[-1] in (2, 4):
        visible = array[..., -1] > 0
        exposed = None if visible.all() or not visible.any() else visible
        array = array[..., 0] if array.shape[-1] == 2 else array[..., :3]
    grey = array.astype(np.float32) if array.ndim == 2 else _grey_of_colour(path, array)
    if exposed is not None:
        grey[~exposed] = _darkest(grey[exposed])
    doubts: list[str] = []
    spacing = _png_spacing(field_of_view, grey.shape, doubts)
    ours = spacing is not None and np.allclose(grey.shape * spacing, frame.detector_size_mm(), rtol=1e-4)
    result = Radiograph(
        grey.T,
        spacing,
        oriented=ours,
        placed=ours,
        exposed=None if exposed is None else exposed.T,
        warnings=tuple(f"{NAMES[view]}: {doubt}" for doubt in doubts),
    )
    return rearrange(result, *_EXIF_TURNS.get(orientation or 1, _EXIF_TURNS[1]))


def _pixels(path: Path, image: Image.Image) -> np.ndarray:
    """``(rows, columns)`` or ``(rows, columns, channels)`` in all their bits; grey, grey and alpha, RGB, RGBA."""
    if isinstance(image, PngImagePlugin.PngImageFile) and image.mode in {"RGB", "RGBA", "LA"}:
        import imagecodecs

        return imagecodecs.png_decode(path.read_bytes())  # Pillow keeps 8 bits of 16 where there are channels
    if image.mode in {"L", "I", "I;16", "1"}:
        return np.asarray(image)
    return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))


def _png_spacing(field_of_view: str | None, shape: tuple[int, ...], doubts: list[str]) -> np.ndarray | None:
    if field_of_view is None:
        return None
    try:
        length = float(str(field_of_view).strip().replace(",", "."))  # programs re-save texts in their own language
    except ValueError:
        length = float("nan")
    if PLAUSIBLE_PNG_FIELD_MM[0] <= length <= PLAUSIBLE_PNG_FIELD_MM[1]:
        return np.full(2, length / max(shape))
    doubts.append(f"the PNG's text '{PNG_FIELD_OF_VIEW}' is '{field_of_view}', which is no length: not believed")
    return None


def _grey_of_colour(path: Path, array: np.ndarray) -> np.ndarray:
    """The grey image that a colour array ``(..., 3)`` really is: grey, or tinted with one hue, as films and scans are.

    Marks in colour may lie on it. In a tinted picture the colour follows from the brightness, and all colours lie along
    one line; not so in a photograph or in a colour map.
    """
    height, width = array.shape[:2]
    step = max(1, min(max(height, width) // _SMALL, height, width))
    rows, columns = height // step, width // step
    blocks = array[: rows * step, : columns * step].reshape(rows, step, columns, step, 3)
    small = blocks.mean(axis=(1, 3), dtype=np.float64).reshape(-1, 3) / np.iinfo(array.dtype).max * 255
    grey = small.mean(axis=1)
    colour = small - grey[:, None]
    if _spread(colour, COLOURED_MARKS) > COLOUR_TOLERANCE:
        hue = np.linalg.svd(colour, full_matrices=False)[2][0]
        others = colour - _following(grey, colour), colour - np.outer(colour @ hue, hue)
        if max(_spread(other, TINTED_MARKS) for other in others) > COLOUR_TOLERANCE:
            raise InputError(f"{path} is a colour picture, not a radiograph; give the grey original")
    return array.mean(axis=-1, dtype=np.float32)


def _following(grey: np.ndarray, colour: np.ndarray, steps: int = 32) -> np.ndarray:
    """For each pixel the colour that pixels of its brightness have: piecewise linear in the brightness."""
    level = np.minimum(grey / 256 * steps, steps - 1).astype(int)
    result = np.empty_like(colour)
    for step in np.unique(level):
        here = level == step
        terms = np.stack([np.ones(here.sum()), grey[here] - grey[here].mean()], axis=1)
        result[here] = terms @ np.linalg.lstsq(terms, colour[here], rcond=None)[0]
    return result


def _spread(colour: np.ndarray, marks: float) -> float:
    """How far the channels lie apart where they do most, but for a share of ``marks``."""
    return float(np.percentile(np.ptp(colour, axis=1), 100 * (1 - marks)))


def _read_nifti(path: Path, view: View, accept_any_view: bool) -> Radiograph:
    """In array order ``(u, v)``, unless the affine says how the axes lie in the patient or on the screen."""
    try:
        image = load_nifti(path)
        grey = np.asarray(image.dataobj, dtype=np.float32)
        names = "".join(code or "?" for code in nibabel.aff2axcodes(image.affine)).translate(str.maketrans("SI", "HF"))
        zooms = np.asarray(image.header.get_zooms()[:2], dtype=np.float64)
    except Exception as error:  # gzip, zlib, nibabel and NumPy each raise their own
        raise InputError(f"{path}: the NIfTI file cannot be read ({error}); write it again") from error
    if grey.ndim < 2 or any(size != 1 for size in grey.shape[2:]):
        raise InputError(f"{path} has shape {grey.shape}; give one radiograph (U, V), as pa.nii.gz or lateral.nii.gz")
    grey = grey.reshape(grey.shape[:2])
    directions = (names[0], names[1])
    shown = shown_view(directions)
    if shown is None:  # a detector's picture that knows nothing of the patient
        return _read_screen(grey, zooms, directions, view)
    # The pair's affine (frame.radiograph_affine) has PA's u and v for both views, and a third axis of its own.
    pair = names == "LFP"
    if shown != view and not pair and not accept_any_view:
        raise mismatch(path, f"its affine says axes to '{names[0]}' and '{names[1]}'", view)
    centre = frame.grid_centre(image.affine, (*grey.shape, 2 if pair else 1))
    result = Radiograph(
        grey,
        zooms * magnification(frame.SOURCE_TO_DETECTOR_MM),
        centre_mm=centre,
        oriented=shown == view or pair,
        placed=shown == view or pair,
    )
    return _turn(result, directions, VIEW_DIRECTIONS[view]) if shown == view else result


def _read_screen(grey: np.ndarray, zooms: np.ndarray, directions: tuple[str, str], view: View) -> Radiograph:
    """A picture of which the affine only says how it lies on the screen: L is to the right, P is down.

    dcm2niix and others store the lowest row first, towards A. Axes to R and A come from writers that know no axes
    (``numpy.eye``), and 1 mm from those that know no spacing.
    """
    doubts = []
    known = np.isfinite(zooms).all() and (zooms > 0).all()
    if not known:
        doubts.append(f"{NAMES[view]}: the NIfTI's spacing {zooms[0]:g} x {zooms[1]:g} mm is not believed")
    result = Radiograph(grey, zooms if known and not np.all(zooms == 1) else None, warnings=tuple(doubts))
    if directions == ("R", "A") or not set("".join(directions)) <= set("LRAP") or len({*directions}) < 2:
        return result
    return _turn(result, directions, "LP")
