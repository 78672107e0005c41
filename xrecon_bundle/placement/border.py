"""The collimation border of a radiograph."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

# A border: rows of one grey (within this share of the image's contrast) that end in a step (of that share).
BORDER_TOLERANCE = 0.03
BORDER_STEP = 0.1
# A white margin of any shape: the brightest grey (within this share of the contrast), that ends in a step (of that
# share) along most of its outline. Dense tissue that is burnt out ends gradually.
WHITE_TOLERANCE = 0.02
WHITE_STEP = 0.25
WHITE_OUTLINE = 0.6
LEAST_WHITE = 0.004  # of the picture; a smaller one is a letter
_SMALL = 256  # pixels along the longer side in which white margins are looked for


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


def white_margin(grey: np.ndarray) -> np.ndarray:
    """``(U, V)`` bool: white at the picture's edge that is no tissue, of any shape: a plate, a tilted margin."""
    block = max(1, max(grey.shape) // _SMALL)
    small = grey[block // 2 :: block, block // 2 :: block]
    low, high = np.percentile(small, (1, 99.8))
    contrast = max(float(high - low), 1e-6)
    white = small >= high - WHITE_TOLERANCE * contrast
    parts, count = ndimage.label(white)
    at_edge = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    found = np.zeros(small.shape, dtype=bool)
    for part in at_edge[at_edge > 0] if count else ():
        region = parts == part
        if region.mean() < LEAST_WHITE:
            continue
        near = ndimage.binary_dilation(region, iterations=4) & ~ndimage.binary_dilation(region, iterations=2)
        if near.any() and np.mean(small[near] < high - WHITE_STEP * contrast) > WHITE_OUTLINE:
            found |= ndimage.binary_dilation(region, iterations=2)
    rows, columns = (np.minimum(np.arange(grey.shape[axis]) // block, found.shape[axis] - 1) for axis in range(2))
    return found[np.ix_(rows, columns)]


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
