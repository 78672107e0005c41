"""The body in a CT: one finder for PTX-Seg, the image metrics and whoever needs it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from .parameters import TISSUE

THIN_WALL_HU = (-500.0, -600.0, -700.0)  # of a wall thinner than a voxel, or blurred as in a reconstruction
LEAK = 0.05  # of the body's largest section: so much lung outside the body is a leak
GAP = 0.12  # of the sections: a body that was filled above and below goes on between
RIM = 3  # voxels between what is surely lung and the wall


def find_body(hu: np.ndarray, edge_hu: float = TISSUE.lung_edge) -> np.ndarray:
    """The largest part of a CT ``(X, Y, Z)`` denser than ``edge_hu``, filled: see :func:`filled_body`.

    Where the chest wall is not that dense, as in some reconstructions, a lung is open to the outside. It belongs to the
    body if a fainter wall encloses it in its axial section, or the body above and below does.
    """
    body = filled_body(hu > edge_hu)
    lung = ~body & (hu > TISSUE.emphysema) & (hu < edge_hu)
    least = max(1.0, LEAK * body.sum(axis=(0, 1)).max(initial=0))
    leaking = []
    for z in np.flatnonzero(lung.sum(axis=(0, 1)) > least):
        thick = ndimage.binary_erosion(lung[..., z], iterations=RIM)  # than skin and clothes
        if thick.sum() <= 0.5 * least:
            continue
        around = _around(body[..., z])
        if (thick & around).sum() > 0.5 * least:  # not the table
            leaking.append(z)
            lung[..., z] &= around
    if not leaking:
        return body
    for z in leaking:
        for wall in THIN_WALL_HU:
            walled = body[..., z] | (hu[..., z] > wall)
            enclosed = ndimage.binary_fill_holes(walled)
            body[..., z] |= _large(enclosed & ~walled & lung[..., z], least) & enclosed
    half = max(1, round(GAP / 2 * hu.shape[2]))
    above, below = (
        ndimage.maximum_filter1d(body, 2 * half + 1, axis=2, origin=side, mode="constant") for side in (half, -half)
    )
    between = above & below & lung & ~body
    for z in leaking:
        body[..., z] |= _large(between[..., z], least) & above[..., z] & below[..., z]
    return body


def _around(section: np.ndarray) -> np.ndarray:
    """The convex hull of a section's mask, roughly: of every fourth pixel."""
    from skimage.morphology import convex_hull_image

    small = section[::4, ::4]
    hull = convex_hull_image(small, offset_coordinates=False) if small.any() else small
    return hull.repeat(4, axis=0).repeat(4, axis=1)[: section.shape[0], : section.shape[1]]


def _large(mask: np.ndarray, least: float) -> np.ndarray:
    """The connected parts of a section's mask of ``least`` pixels or more, with the rim around them."""
    parts, count = ndimage.label(ndimage.binary_opening(mask, iterations=RIM))
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    large = np.isin(parts, 1 + np.flatnonzero(sizes[1:] >= least))
    return ndimage.binary_dilation(large, iterations=2 * RIM) if large.any() else large


def filled_body(dense: np.ndarray) -> np.ndarray:
    """The largest connected part of a boolean ``(X, Y, Z)``, with what it encloses in axial slices (along z) filled."""
    body = largest_part(dense)
    return np.stack([ndimage.binary_fill_holes(body[..., z]) for z in range(body.shape[2])], axis=-1)


def largest_part(mask: np.ndarray) -> np.ndarray:
    """The largest connected part of a boolean mask; an empty one stays as it is."""
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + np.bincount(parts.ravel())[1:].argmax()
