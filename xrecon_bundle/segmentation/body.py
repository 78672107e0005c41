"""The body in a CT: one finder for PTX-Seg, the image metrics and whoever needs it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .parameters import TISSUE


def find_body(hu: np.ndarray, edge_hu: float = TISSUE.lung_edge) -> np.ndarray:
    """The largest part of a CT ``(X, Y, Z)`` denser than ``edge_hu``, filled: see :func:`filled_body`."""
    return filled_body(hu > edge_hu)


def filled_body(dense: np.ndarray) -> np.ndarray:
    """The largest connected part of a boolean ``(X, Y, Z)``, with what it encloses in axial slices (along z) filled."""
    body = largest_part(dense)
    return np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(body.shape[2])], axis=-1)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a boolean mask; an empty one stays as it is."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + np.bincount(parts.ravel())[1:].argmax()
