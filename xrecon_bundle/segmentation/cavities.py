"""From a CT to the two pleural cavities: lung, collapsed lung and free air together, without airways and bowel gas.

All functions take a CT in HU with LPI axes on the working grid (``grid.py``) and its voxel size in mm.
"""

from __future__ import annotations

import numpy as np
import skimage  # its parts are imported at first use
from scipy import ndimage

from .body import find_body
from .distance import box_around, distance_to, opened
from .free_air import edge_blur
from .parameters import PARAMETERS, CavityRules, Parameters


def pleural_cavities(hu: np.ndarray, spacing: np.ndarray, numbers: Parameters = PARAMETERS) -> np.ndarray:
    """The two pleural cavities as a label map: 1 right, 2 left, uint8 of ``hu``'s shape; zeros if there is no lung."""
    tissue, rules = numbers.tissue, numbers.cavities
    body = find_body(hu, tissue.lung_edge)
    air = body & (hu < tissue.lung_edge)
    airway = find_airway(hu, air, body, spacing, numbers)
    parts = _cavity_parts(hu, air & ~airway, spacing, numbers)
    cavities = np.zeros(hu.shape, np.uint8)
    if np.max(parts.sum(axis=(0, 1)) / np.maximum(body.sum(axis=(0, 1)), 1)) < rules.least_share:
        return cavities
    sides = _split_sides(hu, parts, body, spacing, rules)
    dense = np.zeros_like(body)
    box = box_around(parts, spacing, 0.0)
    blur = float(edge_blur(hu, parts, spacing, numbers)[0])
    edge = max(rules.edge_mm, rules.edge_sigmas * blur, rules.edge_voxels * float(max(spacing)))
    dense[box] = _dense_lung(hu[box], (body & ~air)[box], edge, spacing, numbers)
    filled = {side: _fill(sides == side, spacing, rules.closing_mm) for side in (1, 2)}
    for side, more in _dense_lung_beside(filled, dense).items():
        one = _fill(filled[side] | more, spacing, rules.closing_mm) if more.any() else filled[side]
        cavities[one & ~airway & body & (cavities == 0) & ((sides == 0) | (sides == side))] = side
    return cavities


def find_airway(
    hu: np.ndarray, air: np.ndarray, body: np.ndarray, spacing: np.ndarray, numbers: Parameters = PARAMETERS
) -> np.ndarray:
    """Trachea and main bronchi, followed slice by slice to the feet while they stay apart from the lungs.

    The trachea is the roundish air nearest to the middle of the chest in a slice above or at the top of the lungs.
    """
    pixel = spacing[0] * spacing[1]
    airway = np.zeros_like(air)
    if not air.any():
        return airway
    rules = numbers.cavities
    middle, half = _middle(air, body, spacing, rules)
    reach = rules.airway_middle * half
    widest = int(np.argmax(air.sum(axis=(0, 1))))
    current: np.ndarray | None = None
    for z in range(hu.shape[2]):
        if current is None:
            if z > widest:
                break
            current = _round_air(hu[..., z], air[..., z], middle, reach, spacing, rules)
        else:
            current = _continue_airway(hu[..., z], air[..., z], current, pixel, numbers)
        if current is not None:
            airway[..., z] = current
    # A short run is no trachea: a bubble in the gullet, or a slice of a lung's tip.
    length = np.count_nonzero(airway.any(axis=(0, 1))) * spacing[2]
    if length < min(rules.least_airway_mm, 0.5 * hu.shape[2] * spacing[2]):
        return np.zeros_like(air)
    return ndimage.binary_dilation(airway, iterations=max(1, round(1.5 / spacing[0]))) & air


def _round_air(
    hu: np.ndarray, air: np.ndarray, middle: float, reach: float, spacing: np.ndarray, rules: CavityRules
) -> np.ndarray | None:
    pixel = spacing[0] * spacing[1]
    parts, _ = ndimage.label(air & (hu < rules.airway_hu[0]))
    best, best_distance = None, reach
    for part, box in enumerate(ndimage.find_objects(parts), start=1):
        mask = parts[box] == part
        area = np.count_nonzero(mask) * pixel
        width, depth = mask.shape[0] * spacing[0], mask.shape[1] * spacing[1]
        round_enough = (
            max(width / depth, depth / width) < rules.airway_round and area > rules.airway_fill * width * depth
        )
        distance = abs((box[0].start + box[0].stop - 1) / 2 - middle)
        if rules.airway_mm2[0] < area < rules.airway_mm2[1] and round_enough and distance < best_distance:
            best, best_distance = parts == part, distance
    return best


def _continue_airway(
    hu: np.ndarray, air: np.ndarray, above: np.ndarray, pixel: float, numbers: Parameters
) -> np.ndarray | None:
    """Air in this slice that touches the airway in the slice above: each branch at the first threshold that parts it.

    A branch that no threshold parts from the lung, or that has no wall any more, ends here.
    """
    rules = numbers.cavities
    limit = min(rules.airway_mm2[1], rules.airway_growth * np.count_nonzero(above) * pixel + 100.0)
    found = np.zeros_like(air)
    for threshold in rules.airway_hu:
        parts, _ = ndimage.label(air & (hu < threshold))
        merged = np.zeros_like(air)
        for part in np.unique(parts[above & (parts > 0)]):
            mask = parts == part
            if np.count_nonzero(mask) * pixel >= limit:
                merged |= mask
            elif (hu[ndimage.binary_dilation(mask) & ~mask] > numbers.tissue.solid).mean() >= rules.airway_wall:
                found |= mask
        above = above & merged
        if not above.any():
            break
    return found if found.any() else None


def _cavity_parts(hu: np.ndarray, air: np.ndarray, spacing: np.ndarray, numbers: Parameters) -> np.ndarray:
    """Islands of air that hold lung, or lie against it or are large, at its height, beside or before it.

    Bowel gas, air in the gullet and air under the skin are none.
    """
    rules = numbers.cavities
    voxel_ml = float(np.prod(spacing)) / 1000.0
    # The diaphragm and the stomach's wall can be thinner than a voxel: take apart what hangs together by mixed voxels.
    labels, count = ndimage.label(ndimage.binary_opening(air & (hu < numbers.tissue.solid)))
    small = np.bincount(labels.ravel(), minlength=count + 1) * voxel_ml < rules.least_part_ml
    labels[small[labels]] = 0
    parts = np.zeros_like(air)
    if not labels.any():
        return parts
    islands, _ = ndimage.label(air)
    reached = air & np.isin(islands, np.unique(islands[(labels > 0) & air]))
    box = box_around(reached, spacing, 4 * rules.smooth_mm)
    hu, air, labels, reached = hu[box], air[box], labels[box], reached[box]
    nearest = ndimage.distance_transform_edt(labels == 0, return_distances=False, return_indices=True)
    labels = np.where(reached, labels[tuple(nearest)], 0)
    index = np.arange(1, count + 1)
    sizes = ndimage.sum_labels(air, labels, index) * voxel_ml
    lungs = _lungs_among(hu, air, labels, sizes, spacing, numbers)
    covered = _covered_by(lungs)
    heights = np.flatnonzero(lungs.any(axis=(0, 1)))
    kept, on_the_wall = [], []
    for part in index[sizes > rules.least_part_ml]:
        mask = labels == part
        if lungs[mask].any():
            kept.append(part)
        elif heights[0] <= ndimage.center_of_mass(mask)[2] <= heights[-1] and covered[mask].mean() < rules.most_covered:
            on_the_wall.append(part)
    if on_the_wall:
        away = distance_to(lungs, spacing)
        kept += [part for part in on_the_wall if _pleural(labels == part, away, spacing, rules)]
    parts[box] = np.isin(labels, kept)
    return parts


def _lungs_among(
    hu: np.ndarray, air: np.ndarray, labels: np.ndarray, sizes: np.ndarray, spacing: np.ndarray, numbers: Parameters
) -> np.ndarray:
    """The labelled islands of air, of ``sizes`` in mL, that are lungs: large, and filled with parenchyma. If none is,
    the largest."""
    tissue, rules = numbers.tissue, numbers.cavities
    index = np.arange(1, len(sizes) + 1)
    smooth = ndimage.gaussian_filter(hu, rules.smooth_mm / spacing)
    parenchyma = (
        (smooth > tissue.parenchyma[0]) & (smooth < tissue.parenchyma[1]) & ndimage.binary_erosion(air, iterations=2)
    )
    parenchyma_ml = ndimage.sum_labels(parenchyma, labels, index) * float(np.prod(spacing)) / 1000.0
    like_lung = parenchyma_ml > rules.lung_share * sizes
    least = max(rules.least_lung_ml, rules.least_lung * np.max(sizes[like_lung], initial=0.0))
    # Of lungs that the first slice cuts, as in a CT of the belly, only a little may be in the scan.
    large = sizes > np.where(np.isin(index, labels[..., 0]), rules.least_part_ml, least)
    lungs = np.isin(labels, index[like_lung & large])
    return lungs if lungs.any() else labels == index[np.argmax(sizes)]


def _covered_by(lungs: np.ndarray) -> np.ndarray:
    """Where there is lung above, or beside towards the chest wall: bowel gas lies so, free air on the wall does not."""
    middle = int(np.mean(np.flatnonzero(lungs.any(axis=(1, 2)))[[0, -1]]))
    covered = np.cumsum(lungs, axis=2) > 0
    covered[:middle] |= np.cumsum(lungs[:middle], axis=0) > 0
    covered[middle:] |= np.cumsum(lungs[: middle - 1 : -1], axis=0)[::-1] > 0
    return covered


def _pleural(island: np.ndarray, away: np.ndarray, spacing: np.ndarray, rules: CavityRules) -> bool:
    """Whether an island lies against lung, or is too thick for air between muscles or under the skin.

    A lung without any air is not seen: then its free air lies against nothing.
    """
    if np.percentile(away[island], 5) <= rules.pleura_mm:
        return True
    box = ndimage.find_objects(island.astype(np.uint8))[0]
    return bool(distance_to(~np.pad(island[box], 1), spacing).max() > rules.streak_mm)


def _middle(air: np.ndarray, body: np.ndarray, spacing: np.ndarray, rules: CavityRules) -> tuple[float, float]:
    """Where the chest's middle lies along x, and half its width, in voxels: of the air; of the body, if one lung is all
    the air that there is."""
    columns = air.sum(axis=(1, 2)) * np.prod(spacing)
    first, last = np.flatnonzero(columns > min(rules.least_column_mm3, 0.5 * columns.max()))[[0, -1]]
    middle, half = (first + last) / 2, (last - first) / 2
    columns = np.cumsum(body[..., air.any(axis=(0, 1))].sum(axis=(1, 2)))
    of_body = float(np.searchsorted(columns, 0.5 * columns[-1]))
    if abs(of_body - middle) > rules.one_lung * half:
        return of_body, max(of_body - first, last - of_body)
    return middle, half


def _split_sides(
    hu: np.ndarray, parts: np.ndarray, body: np.ndarray, spacing: np.ndarray, rules: CavityRules
) -> np.ndarray:
    """1 right and 2 left: what lies well to either side is certain; between, the cavities meet at the densest ridge."""
    middle, half = _middle(parts, body, spacing, rules)
    position = ((np.arange(hu.shape[0]) - middle) / half)[:, None, None]
    markers = np.zeros(hu.shape, np.uint8)
    markers[parts & (position < -rules.mediastinum)] = 1
    markers[parts & (position > rules.mediastinum)] = 2
    islands, count = ndimage.label(parts)
    right, left = (np.bincount(islands[markers == side], minlength=count + 1) > 0 for side in (1, 2))
    sides = (right + 2 * left).astype(np.uint8)[islands]
    # Islands wholly between the two are kept on their own side of the middle.
    lost = parts & (sides == 0)
    sides[lost & (position <= 0)] = 1
    sides[lost & (position > 0)] = 2
    both = sides == 3
    if both.any():
        ridge = ndimage.gaussian_filter(hu, 1.0 / spacing)
        between = slice(*np.searchsorted(position[:, 0, 0], (-1.2 * rules.mediastinum, 1.2 * rules.mediastinum)))
        sides[both] = markers[both]
        flooded = skimage.segmentation.watershed(ridge[between], markers[between], mask=both[between])
        sides[between][both[between]] = flooded[both[between]]
    return sides


def _dense_lung(hu: np.ndarray, where: np.ndarray, edge: float, spacing: np.ndarray, numbers: Parameters) -> np.ndarray:
    """What is darker than fat when vessels are averaged in, and broader than an edge between air and soft tissue."""
    averaged = np.minimum(hu, numbers.tissue.fat)
    averaged = ndimage.gaussian_filter(averaged, numbers.cavities.dense_mm / spacing, truncate=2.0)
    dark = where & (averaged < numbers.tissue.dense_lung)
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


def _fill(cavity: np.ndarray, spacing: np.ndarray, closing_mm: float) -> np.ndarray:
    """The cavity with its vessels, fissures and collapsed parts: closed."""
    if not cavity.any():
        return cavity
    box = ndimage.find_objects(cavity.astype(np.uint8))[0]
    margin = [int(np.ceil(closing_mm / step)) + 1 for step in spacing]
    inner = np.pad(cavity[box], [(size, size) for size in margin])
    grown = distance_to(inner, spacing) <= closing_mm
    closed = inner | (distance_to(~grown, spacing) > closing_mm)
    closed = ndimage.binary_fill_holes(closed)  # in 3D: in an axial slice lung also surrounds the dome of the liver
    filled = cavity.copy()
    filled[box] = closed[tuple(slice(size, -size) for size in margin)]
    return filled
