"""Where the patient is in a CT, and where the lungs are: coarse masks by thresholds and morphology.

Both work on a coarse volume (voxels of about 3 mm) with LPI axes, so that a 512 x 512 x 133 scan takes about a second.
Nothing here is a segmentation to measure with: the masks say what to keep and where to look.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..files import InputError
from ..segmentation.body import largest_part
from ..segmentation.parameters import TISSUE

COARSE_MM = 3.0
TABLE_MM = 5.0  # half the thickness of what opening takes off the skin: table tops, blankets, tubes
CHEST_WALL_GAP_MM = 9.0  # half the widest gap between ribs of a very thin chest wall that is still closed
# Aerated lung; bowel gas and a pneumothorax lie below. Coarse voxels are not averaged as PTX-Seg averages its own: a
# little darker still counts, or an abdomen's largest air would be another one.
PARENCHYMA_HU = (-960.0, TISSUE.parenchyma[1])
LEAST_AIR_ML = 500.0
LEAST_SIDE_ML = 50.0
LEAST_HEIGHT_MM = 110.0
MOST_CUT = 0.5  # of the widest lung section, on the scan's first or last slice


def find_trunk(hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The patient's trunk, filled, without table, clothes and arms: a boolean mask of ``hu``'s shape.

    Everything is done slice by axial slice: a table top is a thin sheet there, and an arm beside the trunk a separate
    island, although both touch the patient somewhere in 3D.

    Args:
        hu: coarse CT ``(X, Y, Z)`` in HU, LPI.
        spacing: voxel size ``(3,)`` in mm.

    Raises:
        InputError: nothing in the volume is dense enough to be a patient.
    """
    solid = ndimage.binary_opening(hu > TISSUE.lung_edge, _disk(TABLE_MM, spacing))
    solid = _largest_of_each_slice(_solid_part(solid))
    # Padded, as the patient may touch the edge: close gaps between the ribs of a thin chest wall, then fill the lungs.
    gap = _disk(CHEST_WALL_GAP_MM, spacing)
    margin = [(size // 2, size // 2) for size in gap.shape]
    closed = ndimage.binary_closing(np.pad(solid, margin), gap)
    filled = ndimage.binary_fill_holes(closed, _in_plane())
    filled = filled[tuple(slice(before, filled.shape[axis] - after) for axis, (before, after) in enumerate(margin))]
    return ndimage.binary_dilation(filled, _in_plane())  # the blurred edge of the skin


def find_lungs(hu: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Air inside the chest (lungs, airways and any pneumothorax) as a boolean mask, or a refusal that says why.

    The component with most aerated parenchyma is a lung. Other large components that lie at its height are the other
    lung or the gas of a pneumothorax, so that a collapsed lung does not hide its side of the chest.

    Args:
        hu: coarse CT ``(X, Y, Z)`` in HU, LPI.
        body: what :func:`find_trunk` returned.
        spacing: voxel size ``(3,)`` in mm.

    Raises:
        InputError: too little aerated lung, on one side none, or the lungs are cut by the scan's first or last slice.
    """
    voxel_ml = float(np.prod(spacing)) / 1000.0
    inner = ndimage.binary_erosion(body, _in_plane(), iterations=2, border_value=1)  # not the air beside the skin
    air = inner & (hu < TISSUE.lung_edge)
    labels, count = ndimage.label(ndimage.binary_opening(air, _in_plane()))
    if count == 0:
        raise _too_little("no air inside the body")
    index = np.arange(1, count + 1)
    parenchyma = (hu > PARENCHYMA_HU[0]) & (hu < PARENCHYMA_HU[1])
    lung = 1 + int(np.argmax(ndimage.sum_labels(parenchyma, labels, index)))
    heights = np.flatnonzero((labels == lung).any(axis=(0, 1)))
    centres = np.array(ndimage.center_of_mass(labels > 0, labels, index))[:, 2]
    sizes = ndimage.sum_labels(labels > 0, labels, index) * voxel_ml
    kept = index[(sizes >= LEAST_SIDE_ML) & (centres >= heights[0]) & (centres <= heights[-1])]
    lungs = np.isin(labels, [*kept, lung])
    _check_thorax(lungs, body, spacing, voxel_ml)
    return lungs


def _check_thorax(lungs: np.ndarray, body: np.ndarray, spacing: np.ndarray, voxel_ml: float) -> None:
    volume = lungs.sum() * voxel_ml
    if volume < LEAST_AIR_ML:
        raise _too_little(f"{volume:.0f} mL of air inside the body, lungs have at least {LEAST_AIR_ML:.0f}")
    sections = lungs.sum(axis=(0, 1))
    height = np.count_nonzero(sections) * spacing[2]
    if height < LEAST_HEIGHT_MM:
        raise _too_little(f"the lungs shown are {height:.0f} mm high, at least {LEAST_HEIGHT_MM:.0f} are needed")
    for end, name in ((0, "apices"), (-1, "bases")):
        cut = sections[end] / sections.max()
        if cut > MOST_CUT:
            raise _too_little(f"the scan cuts the lung {name} off, where the lungs are {cut:.0%} of their widest")
    level = np.flatnonzero(sections)
    across = np.flatnonzero(body[:, :, level[0] : level[-1] + 1].any(axis=(1, 2)))
    middle = (across[0] + across[-1]) // 2
    for side, part in (("right", lungs[: middle + 1]), ("left", lungs[middle + 1 :])):
        if part.sum() * voxel_ml < LEAST_SIDE_ML:
            raise _too_little(f"no air in the {side} half of the chest")


def _too_little(reason: str) -> InputError:
    return InputError(f"too little thorax: {reason}; give a CT that shows the whole thorax")


def _solid_part(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        raise InputError(
            "nothing in the volume is as dense as a patient: all values are below -400 HU; give a CT in HU"
        )
    return largest_part(mask)


def _largest_of_each_slice(mask: np.ndarray) -> np.ndarray:
    labels, count = ndimage.label(mask, _in_plane())
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    kept = [
        np.argmax(np.where(np.isin(np.arange(count + 1), np.unique(labels[:, :, z])), sizes, 0))
        for z in range(mask.shape[2])
    ]
    return (labels == np.array(kept)) & mask


def _in_plane() -> np.ndarray:
    """The cross of four neighbours in an axial slice, as SciPy's 3 x 3 x 3 structure."""
    return np.pad(ndimage.generate_binary_structure(2, 1)[:, :, None], ((0, 0), (0, 0), (1, 1)))


def _disk(radius_mm: float, spacing: np.ndarray) -> np.ndarray:
    """An axial disk of ``radius_mm`` as a footprint ``(a, b, 1)``."""
    reach = np.maximum(1, np.round(radius_mm / np.asarray(spacing[:2]))).astype(int)
    x, y = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    return ((x / reach[0]) ** 2 + (y / reach[1]) ** 2 <= 1.0)[:, :, None]
