"""One radiograph view as a file: which way its axes run, where it stands, and writing it as NIfTI and PNG."""

from __future__ import annotations

import os
from typing import Literal

import numpy as np
from PIL import Image, PngImagePlugin

from .. import frame
from ..files import atomic_path, write_nifti
from ..frame import radiograph_to_unit

View = Literal["pa", "lateral"]
VIEWS: tuple[View, View] = ("pa", "lateral")
# DICOM patient directions in which u (columns) and v (rows) grow: L left, P posterior, F foot.
VIEW_DIRECTIONS: dict[View, str] = {"pa": "LF", "lateral": "PF"}
# PNG text field with the length of the picture's longer side on the detector; a PNG has no other place for it.
PNG_FIELD_OF_VIEW = "Field of view (mm)"

# RAS+ directions of u, v and the beam (from the back to the front, from the right to the left).
_AFFINE_COLUMNS: dict[View, np.ndarray] = {
    "pa": np.array([[-1.0, 0, 0], [0, 0, -1], [0, 1, 0]]).T,
    "lateral": np.array([[0, -1.0, 0], [0, 0, -1], [-1, 0, 0]]).T,
}


def view_affine(view: View, spatial_size: int, centre_mm: frame.Vector = (0.0, 0.0, 0.0)) -> np.ndarray:
    """RAS+ affine ``(4, 4)`` of one view ``(U, V)`` as a file of its own.

    Spacing and position are those of :func:`xrecon_bundle.frame.radiograph_affine`; the axes are the view's own
    (PA: left, feet; lateral: back, feet; the third runs along the beam), so that a file says which view it is.
    """
    affine = np.eye(4)
    affine[:3, :3] = _AFFINE_COLUMNS[view] * abs(frame.radiograph_affine(spatial_size)[0, 0])
    affine[:3, 3] = np.asarray(centre_mm, dtype=float) - frame.grid_centre(affine, (spatial_size, spatial_size, 1))
    return affine


def display_radiograph(view_image: np.ndarray) -> np.ndarray:
    """The picture ``(V, U)``, uint16, of one view ``(U, V)`` of any scale: upright, bright is dense.

    Grey levels are :func:`~xrecon_bundle.frame.radiograph_to_unit` times 65535.
    """
    unit = radiograph_to_unit(np.asarray(view_image, dtype=np.float32)[None])[0]
    return np.rint(unit * 65535).astype(np.uint16).T


def write_radiograph_png(path: str | os.PathLike, view_image: np.ndarray) -> None:
    """Write one view ``(S, S)`` of the chest frame as an upright 16-bit PNG (rows are v, columns are u), atomically.

    The PNG also records its field of view, so that :func:`~xrecon_bundle.placement.radiographs.load_radiograph`
    restores the scale.
    """
    text = PngImagePlugin.PngInfo()
    text.add_text(PNG_FIELD_OF_VIEW, f"{frame.detector_size_mm():.3f}")
    with atomic_path(path) as temporary:
        Image.fromarray(display_radiograph(view_image)).save(temporary, format="PNG", pnginfo=text)


def write_radiograph_nifti(
    path: str | os.PathLike,
    view_image: np.ndarray,
    view: View,
    centre_mm: frame.Vector = (0.0, 0.0, 0.0),
) -> None:
    """Write one view ``(S, S)`` of the chest frame as float32 NIfTI with :func:`view_affine`, atomically."""
    array = np.asarray(view_image, dtype=np.float32)
    write_nifti(path, array, view_affine(view, array.shape[0], centre_mm))
