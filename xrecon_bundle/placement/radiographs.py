"""Real radiographs in: a PA and a left lateral file become the pair that the network expects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import nibabel
import numpy as np
import torch
from scipy.ndimage import affine_transform, gaussian_filter
from torch.nn.functional import interpolate

from .. import frame
from ..files import InputError
from ..frame import LOWER_PERCENTILE
from ..io.radiograph import Radiograph, blank_outside, read_radiograph
from ..io.radiograph_files import VIEWS, View, view_affine
from .style import normalise_style

if TYPE_CHECKING:
    from monai.data import MetaTensor

SMALLEST_PIXELS = 32
FEWEST_GREY_LEVELS = 16
PLAUSIBLE_FIELD_MM = (100.0, 1000.0)
SAME_PICTURE_CORRELATION = 0.95  # PA with lateral: 0.77 for the LIDC CT
SAME_PLACE_MM = 1.0
# A collimation border: rows of one grey (within this share of the image's contrast) that end in a step (of that share).
BORDER_TOLERANCE = 0.03
BORDER_STEP = 0.1


class PlacedPair(NamedTuple):
    """A radiograph pair on the chest frame's detector, and how it came there.

    Attributes:
        image: ``(2, S, S)`` float32: PA, lateral, any grey scale, bright is dense; NaN where a film shows nothing.
        affine: ``(4, 4)``, says where the cube stands, see :func:`xrecon_bundle.frame.reconstruction_affine`.
        record: of each view how its size was known; goes into the report of a reconstruction.
        warnings: what to look at.
    """

    image: torch.Tensor
    affine: np.ndarray
    record: dict[str, Any]
    warnings: list[str]


def place_pair(files: Sequence[str | os.PathLike], spatial_size: int, **loading: Any) -> PlacedPair:
    """Read a PA and a lateral file, or one biplanar NIfTI, and place them.

    Args:
        files: two, for :func:`load_radiograph_pair`, or one, for :func:`load_biplanar`.
        spatial_size: pixels S along each edge of the result.
        loading: options of :func:`load_radiograph_pair`. A biplanar file needs none and takes none.

    Raises:
        InputError: a file cannot be used, or the two cannot be a pair.
    """
    if len(files) == 1:
        return PlacedPair(*_read_biplanar(files[0], spatial_size), {"size_known_by": "biplanar file"}, [])
    return _place_views(files, spatial_size, **loading)


def load_biplanar(path: str | os.PathLike, spatial_size: int) -> MetaTensor:
    """A biplanar NIfTI ``(U, V, 2)``, which is on the detector already, as ``(2, S, S)`` float32 (averaged over areas).

    The affine goes with the pixels: the grid's centre stays where it was.

    Raises:
        InputError: the file cannot be read or is no pair.
    """
    return _meta_tensor(*_read_biplanar(path, spatial_size), path)


def _read_biplanar(path: str | os.PathLike, spatial_size: int) -> tuple[torch.Tensor, np.ndarray]:
    try:
        image = nibabel.load(path, mmap=False)
        views = torch.from_numpy(np.asarray(image.dataobj, dtype=np.float32))
    except Exception as error:  # gzip, zlib, nibabel and NumPy each raise their own
        raise InputError(f"{path}: the NIfTI file cannot be read ({error}); write it again") from error
    if views.ndim != 3 or views.shape[-1] != 2:
        raise InputError(f"{path} has shape {tuple(views.shape)}; a radiograph pair is (U, V, 2)")
    larger = np.array([*views.shape[:2], spatial_size]) / spatial_size
    to_file = np.diag([*larger, 1.0])
    to_file[:2, 3] = (larger[:2] - 1) / 2
    pair = interpolate(views.permute(2, 0, 1)[None], (spatial_size, spatial_size), mode="area")[0]
    return pair, image.affine @ to_file


def _meta_tensor(image: torch.Tensor, affine: np.ndarray, path: str | os.PathLike) -> MetaTensor:
    from monai.data import MetaTensor  # seconds; the predictor goes without

    return MetaTensor(image, affine=torch.as_tensor(affine), meta={"filename_or_obj": str(path)})


def load_radiograph(
    path: str | os.PathLike,
    view: View,
    spatial_size: int,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip: bool = False,
    accept_any_view: bool = False,
) -> MetaTensor:
    """Read one radiograph (DICOM, PNG, JPEG or NIfTI) and bring it to the chest frame's detector.

    DICOM tags and a NIfTI's affine turn the image to the view's axes; without them it is taken to stand upright as
    usual (PA: the patient's left on the viewer's right; lateral: facing the viewer's left). A collimation border is
    blanked, or cut off where the scale is unknown: then the longer side of what remains is taken to span the detector.

    Args:
        path: the file.
        view: ``"pa"`` or ``"lateral"``.
        spatial_size: pixels S along each edge of the result.
        field_of_view_mm: length of the file's longer side on the detector, instead of what the file says.
        invert: the file shows dense as dark (DICOM's MONOCHROME1 is recognised without).
        flip: mirror left to right, e.g. a lateral without tags that faces the viewer's right.
        accept_any_view: do not refuse a file whose tags say that it is another view, or no radiograph.

    Returns:
        ``(1, S, S)`` float32 with :func:`~xrecon_bundle.io.radiograph_files.view_affine`, in the file's grey scale
        (nepers, if simulated), bright is dense. Its position is the file's, or the origin.

    Raises:
        InputError: the file cannot be used; the message says why and what to do.
    """
    radiograph, _ = _prepare(path, view, field_of_view_mm, invert, flip, accept_any_view)
    centre = (0.0, 0.0, 0.0) if radiograph.centre_mm is None else radiograph.centre_mm
    affine = view_affine(view, spatial_size, centre)
    grey = resample_to_detector(radiograph.grey, radiograph.spacing_mm, spatial_size)
    return _meta_tensor(torch.from_numpy(grey)[None], affine, path)


def load_radiograph_pair(
    pa: str | os.PathLike,
    lateral: str | os.PathLike,
    spatial_size: int,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    accept_any_view: bool = False,
    style: str | None = None,
) -> MetaTensor:
    """Load a PA and a left lateral radiograph as the network's input image, each as :func:`load_radiograph` does.

    Args:
        pa: the PA file.
        lateral: the left lateral file.
        spatial_size: pixels S along each edge of the result.
        field_of_view_mm: length of each file's longer side on the detector, instead of what the files say.
        invert: both files show dense as dark.
        flip_lateral: mirror the lateral left to right, because it faces the viewer's right.
        accept_any_view: do not refuse files whose tags say that they are other views, no radiographs, or two patients'.
        style: see :func:`~.style.normalise_style`; None: the files' own grey scale.

    Returns:
        ``(2, S, S)`` float32: PA, lateral. :func:`xrecon_bundle.frame.radiograph_affine` of the position that the files
        state, or of the origin.

    Raises:
        InputError: a file cannot be used, or the two cannot be a pair.
    """
    files = (pa, lateral)
    placed = _place_views(files, spatial_size, field_of_view_mm, invert, flip_lateral, accept_any_view, style)
    return _meta_tensor(placed.image, placed.affine, pa)


def _place_views(
    files: Sequence[str | os.PathLike],
    spatial_size: int,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    accept_any_view: bool = False,
    style: str | None = None,
) -> PlacedPair:
    pa, lateral = files
    prepared = [
        _prepare(path, view, field_of_view_mm, invert, flip_lateral and view == "lateral", accept_any_view)
        for path, view in zip(files, VIEWS, strict=True)
    ]
    pair = [radiograph for radiograph, _ in prepared]
    patients = [radiograph.patient_id for radiograph in pair]
    if not accept_any_view and None not in patients and patients[0] != patients[1]:
        raise InputError(
            f"{pa} and {lateral} are of different patients (PatientID '{patients[0]}' and '{patients[1]}'); "
            "give two views of one patient, or set accept_any_view if the tags are wrong"
        )
    centres = [radiograph.centre_mm for radiograph in pair if radiograph.centre_mm is not None]
    if len(centres) == 2 and not np.allclose(*centres, rtol=0, atol=SAME_PLACE_MM):
        raise InputError(
            f"{pa} and {lateral} differ in position ({np.round(centres[0], 1)} and {np.round(centres[1], 1)} mm); "
            "give two views of one examination"
        )
    views = np.stack([resample_to_detector(item.grey, item.spacing_mm, spatial_size) for item in pair])
    if np.corrcoef(views.reshape(2, -1))[0, 1] > SAME_PICTURE_CORRELATION:
        raise InputError(f"{pa} and {lateral} show the same picture; give the PA and the lateral view")
    image = torch.from_numpy(views)
    if style is not None:
        image = normalise_style(image, style)
    affine = frame.radiograph_affine(spatial_size, centres[0] if centres else (0.0, 0.0, 0.0))
    doubts = [doubt for radiograph in pair for doubt in radiograph.warnings]
    return PlacedPair(image, affine, {view: record for view, (_, record) in zip(VIEWS, prepared, strict=True)}, doubts)


def _prepare(
    path: str | os.PathLike, view: View, field_of_view_mm: float | None, invert: bool, flip: bool, accept_any_view: bool
) -> tuple[Radiograph, dict[str, Any]]:
    """The radiograph with every doubt settled (checked, polarity, border and spacing known), and how."""
    radiograph = read_radiograph(path, view, accept_any_view)
    grey, spacing = radiograph.grey, radiograph.spacing_mm
    _refuse_unusable(path, grey)
    if invert:
        grey = grey.max() - grey
    if flip:
        grey = grey[::-1]
    known_by = "assumed" if spacing is None else "file"
    if field_of_view_mm is not None:
        known_by = "field_of_view_mm"
        spacing = np.full(2, field_of_view_mm / max(grey.shape))
    inside = exposed_rectangle(grey)
    if spacing is None:
        grey = grey[inside]
        spacing = np.full(2, frame.detector_size_mm() / max(grey.shape))
    else:
        grey = blank_outside(grey, inside)
    field = grey.shape * spacing
    if not np.all((field >= PLAUSIBLE_FIELD_MM[0]) & (field <= PLAUSIBLE_FIELD_MM[1])):
        raise InputError(
            f"{path}: {field[0]:.3g} x {field[1]:.3g} mm is no size of a chest radiograph; set field_of_view_mm to the "
            "length of the image's longer side on the detector"
        )
    record = {"size_known_by": known_by, "field_mm": field.round(2).tolist()}
    return Radiograph(grey, spacing, radiograph.centre_mm, radiograph.patient_id, warnings=radiograph.warnings), record


def _refuse_unusable(path: str | os.PathLike, grey: np.ndarray) -> None:
    if min(grey.shape) < SMALLEST_PIXELS:
        raise InputError(
            f"{path} has only {grey.shape[0]} x {grey.shape[1]} pixels; give the radiograph in full resolution"
        )
    if not np.isfinite(grey).all():
        raise InputError(f"{path} has pixels that are not finite numbers; write it again")
    if len(np.unique(grey)) < FEWEST_GREY_LEVELS:
        raise InputError(
            f"{path} has fewer than {FEWEST_GREY_LEVELS} grey levels: blank, or a mask; give the radiograph"
        )


def resample_to_detector(grey: np.ndarray, spacing_mm: np.ndarray, spatial_size: int) -> np.ndarray:
    """``grey`` ``(U, V)``, its middle on the detector's middle, on the chest frame's detector of ``(S, S)`` pixels.

    Linear, after a Gaussian against aliasing (scikit-image's rule for its width) where pixels become larger. Outside
    the image it is as dark as the image's darkest (robustly): air.
    """
    shape = np.array(grey.shape)
    step = frame.detector_size_mm() / spatial_size / np.asarray(spacing_mm)
    first = (shape - 1) / 2 - step * (spatial_size - 1) / 2
    # A detector's 20 million pixels are averaged over blocks well below the Gaussian's width before it is applied.
    block = np.maximum(1, step // 4).astype(int)
    sigma = np.sqrt(np.maximum(0, (step - 1) / 2) ** 2 - (block**2 - 1) / 12) / block
    smooth = gaussian_filter(_block_means(grey, block), sigma, mode="nearest")
    offset = (first - (block - 1) / 2) / block
    result = affine_transform(smooth, step / block, offset, (spatial_size, spatial_size), order=1, mode="nearest")
    for axis in range(2):
        position = first[axis] + step[axis] * np.arange(spatial_size)
        outside = np.abs(position - (shape[axis] - 1) / 2) > shape[axis] / 2
        np.moveaxis(result, axis, 0)[outside] = np.percentile(grey, LOWER_PERCENTILE)
    return result


def _block_means(grey: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Means over blocks of pixels; the last ones are filled up with the edge."""
    if (block == 1).all():
        return grey
    missing = -np.array(grey.shape) % block
    if missing.any():
        grey = np.pad(grey, [(0, count) for count in missing], mode="edge")
    count = np.array(grey.shape) // block
    return grey.reshape(count[0], block[0], count[1], block[1]).mean(axis=(1, 3))


def exposed_rectangle(grey: np.ndarray) -> tuple[slice, slice]:
    """The part of ``grey`` ``(U, V)`` inside the collimation border, or all of it.

    A border is a band along an edge, all of one grey (black where a shutter was drawn, white where the detector was not
    exposed), that ends in a step over at least half its length. Air beside a body is no border: it ends in an outline.
    """
    contrast = float(np.ptp(np.percentile(grey, (1, 99))))
    bands = [[_uniform_rows(rows, contrast) for rows in (image, image[::-1])] for image in (grey, grey.T)]
    inside = tuple(slice(first, size - last) for (first, last), size in zip(bands, grey.shape, strict=True))
    kept = []
    for axis, image in enumerate((grey, grey.T)):
        across = image[:, inside[1 - axis]]
        size = len(image)
        first, last = (
            width if _ends_in_step(rows, width, contrast) else 0
            for rows, width in zip((across, across[::-1]), bands[axis], strict=True)
        )
        kept.append(slice(first, size - last))
    return kept[0], kept[1]


def _uniform_rows(rows: np.ndarray, contrast: float) -> int:
    """How many leading rows have one and the same grey; a few bright pixels, as of a letter, do not count."""
    low, high = np.percentile(rows, (5, 95), axis=1)
    level = np.median(rows[0])
    uniform = (low >= level - BORDER_TOLERANCE * contrast) & (high <= level + BORDER_TOLERANCE * contrast)
    return int(np.argmin(uniform)) if not uniform.all() else 0


def _ends_in_step(rows: np.ndarray, width: int, contrast: float) -> bool:
    if width == 0:
        return False
    beyond = rows[min(width + max(2, len(rows) // 100), len(rows) - 1)]
    return bool(np.mean(np.abs(beyond - np.median(rows[0])) > BORDER_STEP * contrast) >= 0.5)
