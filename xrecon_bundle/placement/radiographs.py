"""Real radiographs in: a PA and a left lateral file become the pair that the network expects."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .. import frame
from ..files import InputError
from ..io.radiograph import Radiograph, blank_outside, read_radiograph, rearrange
from ..io.radiograph_files import VIEWS, View, view_affine
from .biplanar import meta_tensor, place_biplanar
from .border import exposed_rectangle, white_margin
from .pair import KEEP, place_radiographs
from .resample import block_sums, resample_to_detector
from .style import normalise_style
from .turning import WAYS, to_upright, way_of

if TYPE_CHECKING:
    from monai.data import MetaTensor

SMALLEST_PIXELS = 32
ENOUGH_PIXELS = 1000  # along the longer side: twice to four times the network's; a detector has 5000
FEWEST_GREY_LEVELS = 16
PLAUSIBLE_FIELD_MM = (100.0, 1000.0)
SAME_PICTURE_CORRELATION = 0.95  # PA with lateral: 0.77 for the LIDC CT
SAME_PLACE_MM = 1.0


class PlacedPair(NamedTuple):
    """A radiograph pair on the chest frame's detector, and how it came there.

    Attributes:
        image: ``(2, S, S)`` float32: PA, lateral, any grey scale, bright is dense; NaN where a film shows nothing.
        affine: ``(4, 4)``, says where the cube stands, see :func:`xrecon_bundle.frame.reconstruction_affine`.
        record: of each view how it came there; goes into the report of a reconstruction.
        warnings: what to look at.
    """

    image: torch.Tensor
    affine: np.ndarray
    record: dict[str, Any]
    warnings: list[str]


def place_pair(files: Sequence[str | os.PathLike], spatial_size: int, **loading: Any) -> PlacedPair:
    """Read a PA and a lateral file, or one biplanar NIfTI, and place them.

    The chest is found in either picture, whatever its crop, scale, borders, turning or mirroring, and both views come
    to one scale and one height. What tags say counts; our own files, which stand in the chest frame already, stay as
    they are. docs/radiographs.md tells how, and what the record holds.

    Args:
        files: PA and lateral, or one file for :func:`~.biplanar.place_biplanar`.
        spatial_size: pixels S along each edge of the result.
        loading: for two files, any of

            - ``field_of_view_mm``: length of each file's longer side on the detector, instead of what the files say;
            - ``invert``: both files show dense as dark;
            - ``flip_lateral``: mirror the lateral left to right, and take it as it then is;
            - ``keep_orientation``: turn, mirror and exchange nothing;
            - ``orientation``: of PA and lateral, in the order given, by how many degrees (0, 90, 180, 270) the file is
              turned clockwise and whether it is then mirrored, as the record has it; instead of what is found;
            - ``accept_any_view``: do not refuse files whose tags say that they are other views, no radiographs, or two
              patients';
            - ``style``: see :func:`~.style.normalise_style`; None: the files' own grey scale.

    Raises:
        InputError: a file cannot be used, or the two cannot be a pair.
    """
    if isinstance(files, str | os.PathLike) or len(files) not in (1, 2):
        raise InputError(f"{files}: give a PA and a lateral file, or one biplanar NIfTI, in a list")
    if len(files) == 1:
        return PlacedPair(*place_biplanar(files[0], spatial_size))
    return _place_views(files, spatial_size, **loading)


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
    radiograph = _prepare(path, view, field_of_view_mm, invert, flip, accept_any_view)
    assert radiograph.spacing_mm is not None  # settled now
    centre = (0.0, 0.0, 0.0) if radiograph.centre_mm is None else radiograph.centre_mm
    affine = view_affine(view, spatial_size, centre)
    grey = resample_to_detector(radiograph.grey, radiograph.spacing_mm, spatial_size)
    return meta_tensor(torch.from_numpy(grey)[None], affine, path)


def load_radiograph_pair(
    pa: str | os.PathLike, lateral: str | os.PathLike, spatial_size: int, **loading: Any
) -> MetaTensor:
    """Load a PA and a left lateral radiograph as the network's input image, placed by :func:`place_pair`.

    Args:
        pa: the PA file.
        lateral: the left lateral file.
        spatial_size: pixels S along each edge of the result.
        loading: options of :func:`place_pair`.

    Returns:
        ``(2, S, S)`` float32: PA, lateral; what a film does not show is as dark as its darkest pixel.
        :func:`xrecon_bundle.frame.radiograph_affine` of the position that the files state, or of the origin.

    Raises:
        InputError: a file cannot be used, or the two cannot be a pair.
    """
    placed = place_pair((pa, lateral), spatial_size, **loading)
    return meta_tensor(fill_unknown(placed.image), placed.affine, pa)


def fill_unknown(image: torch.Tensor) -> torch.Tensor:
    """The radiographs with what a film does not show as dark as its darkest pixel."""
    unknown = torch.isnan(image)
    if not unknown.any():
        return image
    return torch.where(unknown, torch.where(unknown, torch.inf, image).amin((-2, -1), keepdim=True), image)


def _place_views(
    files: Sequence[str | os.PathLike],
    spatial_size: int,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    accept_any_view: bool = False,
    keep_orientation: bool = False,
    orientation: Sequence[tuple[int, bool]] | None = None,
    style: str | None = None,
) -> PlacedPair:
    keep_orientation = keep_orientation or orientation is not None
    order, pair = _read_pair(list(files), accept_any_view, keep_orientation, field_of_view_mm)
    _refuse_no_pair(order, pair, accept_any_view)
    pair = [_settle(item, invert) for item in pair]
    if flip_lateral:
        pair[1] = replace(rearrange(pair[1], False, (0,)), oriented=True)
    if orientation is not None:
        pair = [_turned(item, *asked) for item, asked in zip(pair, orientation, strict=True)]
    placed = place_radiographs((pair[0], pair[1]), spatial_size, keep_orientation)
    if placed.exchanged:
        order = order[::-1]
    image = torch.from_numpy(placed.image)
    if style is not None:
        image = normalise_style(image, style)
    exchanged = order != list(files)
    doubts = placed.doubts
    if exchanged:
        doubts = [f"{files[0]} is taken for the lateral view and {files[1]} for the PA{KEEP}", *doubts]
    centres = [item.centre_mm for item in pair if item.centre_mm is not None]
    affine = frame.radiograph_affine(spatial_size, centres[0] if centres else np.zeros(3))
    for path, view in zip(order, VIEWS, strict=True):
        placed.views[view]["file"] = str(path)
    record: dict[str, Any] = {"exchanged": exchanged, **placed.views}
    return PlacedPair(image, affine, record, doubts)


def _read_pair(
    files: list[str | os.PathLike], accept_any_view: bool, keep_orientation: bool, field_of_view_mm: float | None
) -> tuple[list[str | os.PathLike], list[Radiograph]]:
    """PA and lateral, exchanged where the tags say that they were given in the wrong order."""

    def read(paths: list[str | os.PathLike], accept: bool) -> list[Radiograph]:
        return [_read(path, view, accept, field_of_view_mm) for path, view in zip(paths, VIEWS, strict=True)]

    try:
        return files, read(files, accept_any_view)
    except InputError as refusal:
        order = files[::-1]
        try:
            pair = read(order, False)
        except InputError:
            raise refusal from None
        if keep_orientation:
            raise
        return order, pair


def _read(path: str | os.PathLike, view: View, accept_any_view: bool, field_of_view_mm: float | None) -> Radiograph:
    """The radiograph, usable, with its scale, and with no more pixels than are of use."""
    radiograph = read_radiograph(path, view, accept_any_view)
    _refuse_unusable(path, radiograph.grey)
    if field_of_view_mm is not None:
        spacing = np.full(2, field_of_view_mm / max(radiograph.grey.shape))
        radiograph = replace(radiograph, spacing_mm=spacing, scale_from="field_of_view_mm")
    if radiograph.spacing_mm is not None:
        _refuse_implausible(path, radiograph.grey, radiograph.spacing_mm)
    return _shrink(radiograph)


def _shrink(radiograph: Radiograph) -> Radiograph:
    """The means of blocks of pixels where there are very many; what fills no block at the edge is left out."""
    block = max(radiograph.grey.shape) // ENOUGH_PIXELS
    if block < 2 or radiograph.placed:
        return radiograph
    whole = tuple(slice(size // block * block) for size in radiograph.grey.shape)
    exposed = radiograph.exposed
    if exposed is not None:
        exposed = block_sums(exposed[whole].astype(np.uint16), (block, block)) > block**2 // 2
        exposed = exposed if exposed.any() else None
    to_blocks = np.diag([1 / block, 1 / block, 1])
    to_blocks[:2, 2] = (1 / block - 1) / 2
    return replace(
        radiograph,
        grey=block_sums(radiograph.grey[whole], (block, block)) / np.float32(block**2),
        exposed=exposed,
        spacing_mm=None if radiograph.spacing_mm is None else radiograph.spacing_mm * block,
        file_to_grey=to_blocks @ radiograph.file_to_grey,
    )


def _refuse_no_pair(files: Sequence[str | os.PathLike], pair: Sequence[Radiograph], accept_any_view: bool) -> None:
    patients = [radiograph.patient_id for radiograph in pair]
    if not accept_any_view and None not in patients and patients[0] != patients[1]:
        raise InputError(
            f"{files[0]} and {files[1]} are of different patients (PatientID '{patients[0]}' and '{patients[1]}'); "
            "give two views of one patient, or set accept_any_view if the tags are wrong"
        )
    centres = [radiograph.centre_mm for radiograph in pair if radiograph.centre_mm is not None]
    if len(centres) == 2 and not np.allclose(centres[0], centres[1], rtol=0, atol=SAME_PLACE_MM):
        raise InputError(
            f"{files[0]} and {files[1]} differ in position ({np.round(centres[0], 1)} and {np.round(centres[1], 1)} "
            "mm); give two views of one examination"
        )
    small = [resample_to_detector(item.grey, frame.detector_size_mm() / np.array(item.grey.shape), 64) for item in pair]
    if np.corrcoef(np.reshape(small, (2, -1)))[0, 1] > SAME_PICTURE_CORRELATION:
        raise InputError(f"{files[0]} and {files[1]} show the same picture; give the PA and the lateral view")


def _settle(radiograph: Radiograph, invert: bool) -> Radiograph:
    """The radiograph with polarity and border settled."""
    grey = radiograph.grey.max() - radiograph.grey if invert else radiograph.grey
    if radiograph.placed:  # ours, and whole
        return replace(radiograph, grey=grey)
    inside = exposed_rectangle(grey)
    exposed = np.zeros(grey.shape, dtype=bool)
    exposed[inside] = ~white_margin(grey[inside])
    if radiograph.exposed is not None:
        exposed &= radiograph.exposed
    known = exposed.any() and not exposed.all()
    return replace(radiograph, grey=grey, exposed=exposed if known else None)


def _turned(radiograph: Radiograph, degrees: int, mirrored: bool) -> Radiograph:
    """The radiograph with its file turned and mirrored so, whatever its tags say."""
    if degrees not in (0, 90, 180, 270):
        raise InputError(f"a radiograph cannot be turned by {degrees} degrees; give 0, 90, 180 or 270")
    wanted = 2 * (-degrees // 90 % 4) + bool(mirrored)
    ways = (rearrange(radiograph, *to_upright(way)) for way in range(WAYS))
    return replace(next(item for item in ways if way_of(item.file_to_grey) == wanted), oriented=True)


def _prepare(
    path: str | os.PathLike, view: View, field_of_view_mm: float | None, invert: bool, flip: bool, accept_any_view: bool
) -> Radiograph:
    """The radiograph with every doubt settled: checked, polarity, border and spacing known."""
    radiograph = read_radiograph(path, view, accept_any_view)
    grey, spacing = radiograph.grey, radiograph.spacing_mm
    _refuse_unusable(path, grey)
    if invert:
        grey = grey.max() - grey
    if flip:
        grey = grey[::-1]
    if field_of_view_mm is not None:
        spacing = np.full(2, field_of_view_mm / max(grey.shape))
    inside = exposed_rectangle(grey)
    if spacing is None:
        grey = grey[inside]
        spacing = np.full(2, frame.detector_size_mm() / max(grey.shape))
    else:
        grey = blank_outside(grey, inside)
    _refuse_implausible(path, grey, spacing)
    return replace(radiograph, grey=grey, spacing_mm=spacing)


def _refuse_implausible(path: str | os.PathLike, grey: np.ndarray, spacing: np.ndarray) -> None:
    field = np.array(grey.shape) * spacing
    if not np.all((field >= PLAUSIBLE_FIELD_MM[0]) & (field <= PLAUSIBLE_FIELD_MM[1])):
        raise InputError(
            f"{path}: {field[0]:.3g} x {field[1]:.3g} mm is no size of a chest radiograph; set field_of_view_mm to the "
            "length of the image's longer side on the detector"
        )


def _refuse_unusable(path: str | os.PathLike, grey: np.ndarray) -> None:
    if min(grey.shape) < SMALLEST_PIXELS:
        raise InputError(
            f"{path} has only {grey.shape[0]} x {grey.shape[1]} pixels; give the radiograph in full resolution"
        )
    if not np.isfinite(grey).all():
        raise InputError(f"{path} has pixels that are not finite numbers; write it again")
    some = grey[:: max(1, grey.shape[0] // 256), :: max(1, grey.shape[1] // 256)]
    if len(np.unique(some)) < FEWEST_GREY_LEVELS and len(np.unique(grey)) < FEWEST_GREY_LEVELS:
        raise InputError(
            f"{path} has fewer than {FEWEST_GREY_LEVELS} grey levels: blank, or a mask; give the radiograph"
        )
