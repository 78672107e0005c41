"""From a CT to the two pleural cavities: lung, collapsed lung and free air together, without airways and bowel gas.

All functions take a CT in HU with LPI axes on the working grid (``grid.py``) and its voxel size in mm.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from .distance import box_around, distance_to, opened
from .free_air import edge_blur

WALL_HU = -400.0  # half-way between aerated lung and soft tissue
TIGHT_HU = -600.0
LUNG_HU = (-940.0, -500.0)  # aerated parenchyma,
SMOOTH_MM = 2.0  # smoothed by this sigma
CLOSING_MM = 6.0  # vessels and fissures narrower than twice this belong to the cavity
LEAST_PART_ML = 15.0  # smaller islands of air are no part of a cavity
LUNG_SHARE = 0.3  # of an island's air that reads as parenchyma: it is lung,
LEAST_LUNG_ML = 100.0  # if larger than this
LEAST_LUNG = 0.1  # and than this share of the largest one: in a blurred CT, a small bubble of bowel gas reads as lung
PLEURA_MM = 6.0  # between free air and lung lies the visceral pleura, mixed voxels included
FAT_HU = -100.0
DENSE_HU = -150.0  # of collapsed lung over DENSE_MM, where nothing counts as denser than fat
DENSE_MM = 3.0  # sigma
EDGE_MM = 5.0  # half the thickness of a layer of such HU that can be the edge between air and soft tissue,
EDGE_BLUR = 2.5  # in sigmas of the CT's blur within a slice,
EDGE_VOXELS = 1.5  # and in voxels
STREAK_MM = 14.0  # half the thickness that air in the chest wall does not reach
AIRWAY_MM2 = 900.0  # trachea and main bronchi in an axial slice are smaller
AIRWAY_WALL = 0.5  # of its rim is denser than lung
AIRWAY_HU = (-500.0, -700.0, -800.0, -880.0)  # thresholds tried in turn until the airway comes apart from the lung
LEAST_SHARE = 0.08  # of the body's widest section that holds lung; bowel gas reaches 0.06, one lung 0.13
LEAST_COLUMN_MM3 = 2000.0  # of air in a sagittal slice that counts for the chest's width
ONE_LUNG = 0.5  # of half the air's width: if the body's middle is further from the air's, one side has none
MEDIASTINUM = 0.3  # of the half width of the chest: the two cavities can only meet inside


def pleural_cavities(hu: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The two pleural cavities as a label map: 1 right, 2 left, uint8 of ``hu``'s shape; zeros if there is no lung."""
    body = find_body(hu)
    air = body & (hu < WALL_HU)
    airway = find_airway(hu, air, body, spacing)
    parts = _cavity_parts(hu, air & ~airway, spacing)
    cavities = np.zeros(hu.shape, np.uint8)
    if np.max(parts.sum(axis=(0, 1)) / np.maximum(body.sum(axis=(0, 1)), 1)) < LEAST_SHARE:
        return cavities
    sides = _split_sides(hu, parts, body, spacing)
    dense = np.zeros_like(body)
    box = box_around(parts, spacing, 0.0)
    edge = max(EDGE_MM, EDGE_BLUR * float(edge_blur(hu, parts, spacing)[0]), EDGE_VOXELS * float(max(spacing)))
    dense[box] = _dense_lung(hu[box], (body & ~air)[box], edge, spacing)
    filled = {side: _fill(sides == side, spacing) for side in (1, 2)}
    for side, more in _dense_lung_beside(filled, dense).items():
        one = _fill(filled[side] | more, spacing) if more.any() else filled[side]
        cavities[one & ~airway & body & (cavities == 0) & ((sides == 0) | (sides == side))] = side
    return cavities


def find_body(hu: np.ndarray) -> np.ndarray:
    """The largest part denser than lung, with what it encloses in axial slices filled."""
    solid = hu > WALL_HU
    parts, count = ndimage.label(solid)
    if count > 1:
        solid = parts == 1 + np.bincount(parts.ravel())[1:].argmax()
    return np.stack([ndimage.binary_fill_holes(solid[..., z]) for z in range(hu.shape[2])], axis=-1)


def find_airway(hu: np.ndarray, air: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi, followed slice by slice to the feet while they stay apart from the lungs.

    The trachea is the roundish air nearest to the middle of the chest in a slice above or at the top of the lungs.
    """
    pixel = spacing[0] * spacing[1]
    airway = np.zeros_like(air)
    if not air.any():
        return airway
    middle, half = _middle(air, body, spacing)
    reach = 0.4 * half
    widest = int(np.argmax(air.sum(axis=(0, 1))))
    current: np.ndarray | None = None
    for z in range(hu.shape[2]):
        if current is None:
            if z > widest:
                break
            current = _round_air(hu[..., z], air[..., z], middle, reach, spacing)
        else:
            current = _continue_airway(hu[..., z], air[..., z], current, pixel)
        if current is not None:
            airway[..., z] = current
    # A short run is no trachea: a bubble in the gullet, or a slice of a lung's tip.
    length = np.count_nonzero(airway.any(axis=(0, 1))) * spacing[2]
    if length < min(25.0, 0.5 * hu.shape[2] * spacing[2]):
        return np.zeros_like(air)
    return ndimage.binary_dilation(airway, iterations=max(1, round(1.5 / spacing[0]))) & air


def _round_air(hu: np.ndarray, air: np.ndarray, middle: float, reach: float, spacing: np.ndarray) -> np.ndarray | None:
    pixel = spacing[0] * spacing[1]
    parts, _ = ndimage.label(air & (hu < AIRWAY_HU[0]))
    best, best_distance = None, reach
    for part, box in enumerate(ndimage.find_objects(parts), start=1):
        mask = parts[box] == part
        area = np.count_nonzero(mask) * pixel
        width, depth = mask.shape[0] * spacing[0], mask.shape[1] * spacing[1]
        round_enough = 0.5 < width / depth < 2.0 and area > 0.5 * width * depth
        distance = abs((box[0].start + box[0].stop - 1) / 2 - middle)
        if 60.0 < area < AIRWAY_MM2 and round_enough and distance < best_distance:
            best, best_distance = parts == part, distance
    return best


def _continue_airway(hu: np.ndarray, air: np.ndarray, above: np.ndarray, pixel: float) -> np.ndarray | None:
    """Air in this slice that touches the airway in the slice above: each branch at the first threshold that parts it.

    A branch that no threshold parts from the lung, or that has no wall any more, ends here.
    """
    limit = min(AIRWAY_MM2, 2.0 * np.count_nonzero(above) * pixel + 100.0)
    found = np.zeros_like(air)
    for threshold in AIRWAY_HU:
        parts, _ = ndimage.label(air & (hu < threshold))
        merged = np.zeros_like(air)
        for part in np.unique(parts[above & (parts > 0)]):
            mask = parts == part
            if np.count_nonzero(mask) * pixel >= limit:
                merged |= mask
            elif (hu[ndimage.binary_dilation(mask) & ~mask] > TIGHT_HU).mean() >= AIRWAY_WALL:
                found |= mask
        above = above & merged
        if not above.any():
            break
    return found if found.any() else None


def _cavity_parts(hu: np.ndarray, air: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Islands of air that hold lung, or lie against it or are large, at its height, beside or before it.

    Bowel gas, air in the gullet and air under the skin are none.
    """
    voxel_ml = float(np.prod(spacing)) / 1000.0
    # The diaphragm and the stomach's wall can be thinner than a voxel: take apart what hangs together by mixed voxels.
    labels, count = ndimage.label(ndimage.binary_opening(air & (hu < TIGHT_HU)))
    small = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml < LEAST_PART_ML
    labels[small[labels]] = 0
    parts = np.zeros_like(air)
    if not labels.any():
        return parts
    islands, _ = ndimage.label(air)
    reached = air & np.isin(islands, np.unique(islands[(labels > 0) & air]))
    box = box_around(reached, spacing, 4 * SMOOTH_MM)
    hu, air, labels, reached = hu[box], air[box], labels[box], reached[box]
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    labels = np.where(reached, labels[tuple(nearest)], 0)
    index = np.arange(1, count + 1)
    smooth = ndimage.gaussian_filter(hu, SMOOTH_MM / spacing)
    parenchyma = (smooth > LUNG_HU[0]) & (smooth < LUNG_HU[1]) & ndimage.binary_erosion(air, iterations=2)
    sizes = ndimage.sum_labels(air, labels, index) * voxel_ml
    lung = ndimage.sum_labels(parenchyma, labels, index) * voxel_ml
    like_lung = lung > LUNG_SHARE * sizes
    least = max(LEAST_LUNG_ML, LEAST_LUNG * np.max(sizes[like_lung], initial=0.0))
    # Of lungs that the first slice cuts, as in a CT of the belly, only a little may be in the scan.
    large = sizes > np.where(np.isin(index, labels[..., 0]), LEAST_PART_ML, least)
    lungs = np.isin(labels, index[like_lung & large])
    if not lungs.any():
        lungs = labels == index[np.argmax(sizes)]
    # Between bowel gas and the chest wall there is lung, above it or beside it; free air lies on the wall itself.
    middle = int(np.mean(np.flatnonzero(lungs.any(axis=(1, 2)))[[0, -1]]))
    covered = np.cumsum(lungs, axis=2) > 0
    covered[:middle] |= np.cumsum(lungs[:middle], axis=0) > 0
    covered[middle:] |= np.cumsum(lungs[: middle - 1 : -1], axis=0)[::-1] > 0
    heights = np.flatnonzero(lungs.any(axis=(0, 1)))
    kept, on_the_wall = [], []
    for part in index[sizes > LEAST_PART_ML]:
        mask = labels == part
        if lungs[mask].any():
            kept.append(part)
        elif heights[0] <= ndimage.center_of_mass(mask)[2] <= heights[-1] and covered[mask].mean() < 0.5:
            on_the_wall.append(part)
    if on_the_wall:
        away = distance_to(lungs, spacing)
        kept += [part for part in on_the_wall if _pleural(labels == part, away, spacing)]
    parts[box] = np.isin(labels, kept)
    return parts


def _pleural(island: np.ndarray, away: np.ndarray, spacing: np.ndarray) -> bool:
    """Whether an island lies against lung, or is too thick for air between muscles or under the skin.

    A lung without any air is not seen: then its free air lies against nothing.
    """
    if np.percentile(away[island], 5) <= PLEURA_MM:
        return True
    box = ndimage.find_objects(island.astype(np.uint8))[0]
    return bool(distance_to(~np.pad(island[box], 1), spacing).max() > STREAK_MM)


def _middle(air: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> tuple[float, float]:
    """Where the chest's middle lies along x, and half its width, in voxels: of the air; of the body, if one lung is all
    the air that there is."""
    columns = air.sum(axis=(1, 2)) * np.prod(spacing)
    first, last = np.flatnonzero(columns > min(LEAST_COLUMN_MM3, 0.5 * columns.max()))[[0, -1]]
    middle, half = (first + last) / 2, (last - first) / 2
    columns = np.cumsum(body[..., air.any(axis=(0, 1))].sum(axis=(1, 2)))
    of_body = float(np.searchsorted(columns, 0.5 * columns[-1]))
    if abs(of_body - middle) > ONE_LUNG * half:
        return of_body, max(of_body - first, last - of_body)
    return middle, half


def _split_sides(hu: np.ndarray, parts: np.ndarray, body: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """1 right and 2 left: what lies well to either side is certain; between, the cavities meet at the densest ridge."""
    middle, half = _middle(parts, body, spacing)
    position = ((np.arange(hu.shape[0]) - middle) / half)[:, None, None]
    markers = np.zeros(hu.shape, np.int32)
    markers[parts & (position < -MEDIASTINUM)] = 1
    markers[parts & (position > MEDIASTINUM)] = 2
    # Islands wholly between the two are kept on their own side of the middle.
    labels, _ = ndimage.label(parts)
    lost = parts & ~np.isin(labels, np.unique(labels[markers > 0]))
    markers[lost & (position <= 0)] = 1
    markers[lost & (position > 0)] = 2
    ridge = ndimage.gaussian_filter(hu, 1.0 / spacing)
    between = slice(*np.searchsorted(position[:, 0, 0], (-1.2 * MEDIASTINUM, 1.2 * MEDIASTINUM)))
    sides = markers.copy()
    sides[between] = watershed(ridge[between], markers[between], mask=parts[between])
    return sides


def _dense_lung(hu: np.ndarray, where: np.ndarray, edge: float, spacing: np.ndarray) -> np.ndarray:
    """What is darker than fat when vessels are averaged in, and broader than an edge between air and soft tissue."""
    dark = where & (ndimage.gaussian_filter(np.minimum(hu, FAT_HU), DENSE_MM / spacing, truncate=2.0) < DENSE_HU)
    return opened(dark, edge, spacing)


def _dense_lung_beside(cavities: dict[int, np.ndarray], dense: np.ndarray) -> dict[int, np.ndarray]:
    """By side, what lies against the cavity of lung that is collapsed or consolidated but holds some air.

    What touches both cavities, as a lung at its hilum may, is of the one it has more surface in common with.
    """
    parts, count = ndimage.label(dense)
    contact = {
        side: np.bincount(parts[ndimage.binary_dilation(cavity) & (parts > 0)], minlength=count + 1)
        for side, cavity in cavities.items()
    }
    most = np.maximum(*contact.values())
    return {side: (parts > 0) & ((shared > 0) & (shared == most))[parts] for side, shared in contact.items()}


def _fill(cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """The cavity with its vessels, fissures and collapsed parts: closed."""
    if not cavity.any():
        return cavity
    box = ndimage.find_objects(cavity.astype(np.uint8))[0]
    margin = [int(np.ceil(CLOSING_MM / step)) + 1 for step in spacing]
    inner = np.pad(cavity[box], [(size, size) for size in margin])
    grown = distance_to(inner, spacing) <= CLOSING_MM
    closed = inner | (distance_to(~grown, spacing) > CLOSING_MM)
    closed = ndimage.binary_fill_holes(closed)  # in 3D: in an axial slice lung also surrounds the dome of the liver
    filled = cavity.copy()
    filled[box] = closed[tuple(slice(size, -size) for size in margin)]
    return filled
