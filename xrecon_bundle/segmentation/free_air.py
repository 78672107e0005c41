"""Free air in a pleural cavity, told from aerated lung by density, by place and by shape.

Density proposes: air is about -1000 HU, lung beside it less dark. Near the wall every voxel is a mixture, of which the
wall's part is taken out first. Place decides: a pneumothorax lies between chest wall and lung, so that about half of
its surface or more is wall. A bulla or emphysema is surrounded by lung.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy import ndimage, special

from .distance import box_around, distance_to, opened
from .parameters import PARAMETERS, Optics, Parameters
from .pockets import Pocket, Verdict, judge, measure_pocket
from .smoothing import mean_nearby


class JudgedPocket(NamedTuple):
    """A pocket of air, and whether it counts as free air and why."""

    pocket: Pocket
    verdict: Verdict


def find_free_air(
    hu: np.ndarray,
    cavity: np.ndarray,
    other: np.ndarray,
    spacing: np.ndarray,
    blur: np.ndarray,
    numbers: Parameters = PARAMETERS,
) -> tuple[np.ndarray, list[JudgedPocket]]:
    """The free air in one pleural cavity.

    Args:
        hu: CT ``(X, Y, Z)`` in HU.
        cavity: boolean, one pleural cavity.
        other: boolean, the other one: where the two nearly meet, its air shines through the wall between.
        spacing: voxel size ``(3,)`` in mm.
        blur: sigma ``(3,)`` of the CT's blur in mm, as from ``edge_blur``.
        numbers: what to decide by.

    Returns:
        boolean mask, a part of ``cavity``; and every pocket that is not too small, the largest first. Their volumes are
        of what was surely air: the mask reaches a little further, to the middle of the edge.
    """
    found = np.zeros_like(cavity)
    judged: list[JudgedPocket] = []
    if not cavity.any():
        return found, judged
    rules = numbers.pockets
    box = box_around(cavity, spacing, numbers.optics.wall_mm)
    hu, cavity, other = hu[box].astype(np.float32), cavity[box], other[box]
    density, known, solid = _unmix(hu, cavity, other, spacing, blur, numbers)
    clear = known & ~solid
    relative = (density - numbers.tissue.air) / _contrast(density, clear, spacing, numbers)
    low = _low(relative, clear, spacing, blur, numbers)
    if not low.any():
        return found, judged
    pockets = _complete(low, known & ~low, solid, cavity, spacing, numbers.air.speck_voxels * max(spacing))
    volumes = np.bincount(pockets.ravel()) * float(np.prod(spacing)) / 1000.0
    pleural = np.zeros_like(cavity)
    around = np.ceil(rules.bulge_reach * rules.bulge_mm / spacing).astype(int)
    for number, part in enumerate(ndimage.find_objects(pockets), start=1):
        if part is None or volumes[number] < rules.least_ml:
            continue
        part = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(part, around, strict=True))
        mask = pockets[part] == number
        pocket = measure_pocket(mask, cavity[part], spacing, blur, relative[part], clear[part], rules)
        origin = [(outer.start + inner.start) * step for outer, inner, step in zip(box, part, spacing, strict=True)]
        pocket = replace(pocket, centre_mm=tuple(np.add(origin, pocket.centre_mm).tolist()))
        judged.append(JudgedPocket(pocket, judge(pocket, rules)))
        if judged[-1].verdict.kept:
            pleural[part] |= mask
    found[box] = _to_the_edge(pleural, np.where(clear, density, hu), cavity, spacing, blur, numbers)
    return found, sorted(judged, key=lambda one: -one.pocket.volume_ml)


def _low(
    relative: np.ndarray, clear: np.ndarray, spacing: np.ndarray, blur: np.ndarray, numbers: Parameters
) -> np.ndarray:
    """What may be air: clear voxels of likely density near those that surely are. ``relative``: air 0, lung 1."""
    core = clear & (relative < numbers.air.sure)
    if not core.any():
        return core
    return clear & (relative < numbers.air.likely) & (distance_to(core, spacing / blur) <= numbers.air.reach)


def _to_the_edge(
    pleural: np.ndarray,
    density: np.ndarray,
    cavity: np.ndarray,
    spacing: np.ndarray,
    blur: np.ndarray,
    numbers: Parameters = PARAMETERS,
) -> np.ndarray:
    """Free air as far as about the middle between its HU and those of the lung beside it, which may be denser than lung
    elsewhere where it is collapsed: the thresholds that find air are careful ones."""
    if not pleural.any():
        return pleural
    rules, tissue = numbers.air, numbers.tissue
    edge = rules.edge * np.maximum(blur, spacing)
    box = box_around(pleural, spacing, float(edge.max()) + 2 * rules.beside_mm)
    found, air, density, cavity = pleural.copy(), pleural[box], density[box], cavity[box]
    distance = distance_to(air, spacing / edge)
    beside = cavity & (distance > 1) & (distance <= 1 + rules.beside_mm / edge.min())
    lung = mean_nearby(density, beside, rules.beside_mm / spacing, tissue.air)
    lung = np.minimum(lung, tissue.lung_edge)  # where it is denser the chest wall shines in
    level = np.interp(blur[0], rules.pleura_blur_mm, rules.edge_level)
    found[box] |= cavity & (distance <= 1) & (density < tissue.air + level * (lung - tissue.air))
    return found


def edge_blur(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, numbers: Parameters = PARAMETERS) -> np.ndarray:
    """Gaussian sigma ``(3,)`` in mm of the CT's blur along each axis, whatever its voxels, from HU across the outline.

    Where the outline faces along z, thick slices blur it more than within a slice. Free air makes it look less.
    """
    optics = numbers.optics
    box = box_around(cavity, spacing, optics.wall_mm)
    hu, cavity = hu[box], cavity[box]
    with ThreadPoolExecutor(2) as pool:
        across = pool.submit(_across, cavity, spacing, optics.facing_mm)
        distance = distance_to(cavity, spacing)
        distance += distance_to(~cavity, spacing)  # each is zero where the other is not
        shell = distance <= optics.blur_depth_voxels * max(spacing)
        across = across.result()[shell]
    hu, cavity, distance = hu[shell], cavity[shell], distance[shell]
    blur = []
    in_the_plane, across_it = across < optics.facing[0], across > optics.facing[1]
    for facing, h in ((in_the_plane, float(np.mean(spacing[:2]))), (across_it, float(spacing[2]))):
        step = np.rint(np.where(cavity, distance, h - distance) / h)[facing].astype(int)
        blur.append(_profile_blur(hu[facing], step, h, optics))
    in_plane, across_planes = (sigma or max(filter(None, blur), default=float(max(spacing))) for sigma in blur)
    return optics.outline * np.array([in_plane, in_plane, across_planes])


def _across(cavity: np.ndarray, spacing: np.ndarray, sigma_mm: float) -> np.ndarray:
    """Sine of the angle between the axial plane and the direction in which the outline faces, at every voxel."""
    smooth = ndimage.gaussian_filter(cavity.astype(np.float32), sigma_mm / spacing, truncate=2.0)
    slope = [np.square(np.gradient(smooth, step, axis=axis)) for axis, step in enumerate(spacing)]
    return np.sqrt(slope[2] / np.maximum(sum(slope), 1e-12))


def _profile_blur(hu: np.ndarray, step: np.ndarray, h: float, optics: Optics) -> float | None:
    """Sigma in mm of the blur that fits a step near the outline to the median HU at each ``step`` of ``h`` mm inside.

    None where too little is seen of either side.
    """
    values = {number: hu[step == number] for number in range(-2, optics.blur_depth_voxels)}
    values = {number: part for number, part in values.items() if part.size >= optics.least_seen}
    if len(values) < 4 or min(values) > 0 or max(values) < 2:
        return None
    depth = np.array([(number - 0.5) * h for number in values])
    profile = np.array([np.median(part) for part in values.values()])
    best = (np.inf, h)
    for sigma in h * np.geomspace(0.3, 3.0, 30):
        for shift in sigma * np.linspace(-0.5, 0.5, 11):
            model = np.stack([np.ones(len(depth)), special.ndtr((depth - shift) / sigma)], axis=1)
            rest = profile - model @ np.linalg.lstsq(model, profile)[0]
            best = min(best, (float(rest @ rest), float(sigma)))
    return best[1]


def _unmix(
    hu: np.ndarray,
    cavity: np.ndarray,
    other: np.ndarray,
    spacing: np.ndarray,
    blur: np.ndarray,
    numbers: Parameters = PARAMETERS,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU of what is in the cavity, without noise and without the wall that shines in.

    A voxel near the wall reads ``w * wall + (1 - w) * x``: ``w`` is the outline seen through the blur of the CT, the
    wall's HU are taken from beyond the rim. ``x`` is the weighted least-squares solution in a small neighbourhood.

    Returns:
        x in HU; where it is known; what is solid (vessels, dense lung), boolean.
    """
    optics, solid_hu = numbers.optics, numbers.tissue.solid
    typical = float(np.median(hu[cavity]))
    own, wall = _share_and_wall(hu, cavity | other, typical, spacing, blur, numbers)
    # Free air meets the wall at other HU than lung does: once more, with the outline half-way between wall and content.
    deep = cavity & (own > 0.9)
    inner = mean_nearby((hu - (1 - own) * wall) / np.maximum(own, 0.9), deep, 1.5 * blur / spacing)
    edged = cavity & (deep | ~(hu >= 0.5 * (wall + inner)))
    own, wall = _share_and_wall(hu, other | edged, np.where(np.isnan(inner), typical, inner), spacing, blur, numbers)
    content = hu - (1 - own) * wall  # own * x
    solid = cavity & (own > 0.6) & (ndimage.gaussian_filter(content, 0.6 / spacing, truncate=2.0) > solid_hu * own)
    content /= np.maximum(own, optics.least_own)  # x
    weight = np.clip((solid_hu - content) / 200.0, 0.0, 1.0) * (cavity & (own > optics.least_own))
    noise = _noise_factor(hu, cavity & (own > 0.99) & ~solid, optics.ordinary_noise_hu)
    bulk = optics.bulk_mm * noise / spacing
    density = mean_nearby(content, weight * own * own, bulk, least=0.05, truncate=3.0)
    known = cavity & ~np.isnan(density)
    return np.where(known, density, 0.0), known, solid


def _share_and_wall(
    hu: np.ndarray,
    cavities: np.ndarray,
    content: np.ndarray | float,
    spacing: np.ndarray,
    blur: np.ndarray,
    numbers: Parameters,
) -> tuple[np.ndarray, np.ndarray]:
    """The share of cavity in each voxel, and the HU of the wall nearby, into which ``content`` in HU shines."""
    tissue = numbers.tissue
    own = ndimage.gaussian_filter(cavities.astype(np.float32), blur / spacing, truncate=3.0)
    beyond = ~cavities & (own < 0.3) & (hu > tissue.solid)
    beyond_hu = np.clip((hu - own * content) / np.maximum(1 - own, 0.5), *tissue.wall_range)
    width = np.maximum(numbers.optics.wall_mm / 2, 1.5 * blur) / spacing
    return own, mean_nearby(beyond_hu, beyond, width, tissue.wall)


def _noise_factor(hu: np.ndarray, inside: np.ndarray, ordinary_hu: float) -> float:
    """How much wider to smooth than in a scan of ordinary noise, 1 to 2."""
    step = np.diff(hu, axis=0)[inside[1:] & inside[:-1]]
    if len(step) == 0:
        return 1.0
    return float(np.clip(1.05 * np.median(np.abs(step)) / ordinary_hu, 1.0, 2.0))


def _contrast(density: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, numbers: Parameters) -> np.ndarray:
    """HU from air to the lung nearby, at most to what is typical of the cavity's lung."""
    tissue = numbers.tissue
    lung = cavity & (density < tissue.solid) & (density > tissue.emphysema)
    typical = float(np.median(density[lung])) if lung.any() else tissue.lung
    every = tuple(slice(None, None, max(1, int(4.0 / step))) for step in spacing)
    coarse = spacing * [max(1, int(4.0 / step)) for step in spacing]
    inside = lung[every] & (density[every] > tissue.air + 0.5 * (typical - tissue.air))
    width = numbers.air.neighbourhood_mm / coarse
    local = mean_nearby(density[every], inside, width, typical, least=0.02, truncate=4.0)
    zoom = np.divide(density.shape, local.shape)
    local = ndimage.affine_transform(local, 1.0 / zoom, output_shape=density.shape, order=1, mode="nearest")
    return np.minimum(local, typical) - tissue.air


def _complete(
    low: np.ndarray, lung: np.ndarray, solid: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, ball: float
) -> np.ndarray:
    """Pockets of air and, between, lung: what is not known goes to the nearer of the two, specks of lung too."""
    lung = opened(lung, ball, spacing)
    pockets, _ = ndimage.label(low)
    markers = np.where(lung | solid, -1, pockets)
    nearest = ndimage.distance_transform_edt(
        markers == 0, sampling=spacing, return_distances=False, return_indices=True
    )
    markers = markers[tuple(nearest)]
    return np.where(cavity & (markers > 0), markers, 0)
