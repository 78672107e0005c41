"""Free air in a pleural cavity, told from aerated lung by density, by place and by shape.

Density proposes: air is about -1000 HU, lung beside it less dark. Near the wall every voxel is a mixture, of which the
wall's part is taken out first. Place decides: a pneumothorax lies between chest wall and lung, so that about half of
its surface or more is wall. A bulla or emphysema is surrounded by lung.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import ndimage, special
from skimage.morphology import convex_hull_image

from .distance import box_around, distance_to, opened

AIR_HU = -1000.0
SOLID_HU = -600.0  # denser voxels hold wall or vessel and say nothing about air
WALL_HU = 30.0
WALL_RANGE = (-150.0, 300.0)
WALL_MM = 6.0  # as far outside the cavity the wall's HU are looked for
SURE, LIKELY = 0.35, 0.5  # shares of the way from air to the lung nearby that are surely and likely air
REACH = 2.5  # sigmas of blur as far as likely air reaches from sure air
DEEPEST = 8  # voxels below the outline as far as the blur is measured,
FACING_MM = 3.0  # sigma of the outline whose direction is taken,
FACING = (0.4, 0.85)  # sine to the axial plane, at most for an edge in it and at least for one across,
LEAST_SEEN = 20  # voxels at a depth
OUTLINE = 1.2  # an outline drawn in the CT itself follows its edges: across it they look sharper than they are
LEAST_OWN = 0.3  # voxels with less of the cavity in them tell nothing about it
BULK_MM = 1.2  # sigma within which HU are averaged,
ORDINARY_NOISE_HU = 40.0  # more where noise is stronger than this
NEIGHBOURHOOD_MM = 12.0
LEAST_ML = 8.0
EDGE = 1.5  # sigmas of blur (voxels, if more) from found air to lung that is not mixed with it
BESIDE_MM = 6.0
EDGE_LEVEL = (0.5, 0.6)  # share of the way from air to that lung at the edge: seen apart from the pleura, or with it,
PLEURA_BLUR_MM = (0.9, 1.4)  # by the sigma of the blur: a bright line thinner than it moves the edge into the air
COLLAPSED_HU = -400.0  # lung counts as no denser than this where its edge is sought
LEAST_WALL = 0.36  # share of a pocket's surface that is wall: of crescents,
LEAST_WALL_ROUND = 0.46  # of what is round,
LEAST_WALL_THICK = 0.2  # and of what is thick and does not bulge
THICK_MM = (7.0, 10.0)
BULGE_MM = 8.0  # sigma of the neighbourhood in which a pocket's inner surface is seen to bulge,
BULGE_REACH = 2.5  # in sigmas,
BULGE_DEPTH_MM = 10.0  # further from the wall than this:
MOST_BULGE = (0.55, 0.528)  # a larger share of it is lung; the nearer the wall, the less room there is for air
SOLIDITY = (0.4, 0.85)  # share of its convex hull that a pocket fills, from crescent to round
HULL_MM = 4.0  # grid on which hulls are drawn
MOST_DEEP = 1.25  # median depth of a crescent below the wall, at most, in multiples of its thickness;
MOST_REACH = 4.0  # 95th percentile of the depth of anything thin: films have 2 to 3, chains of bullae 5 and more
LEAST_STEP = 0.46  # rise of density from a thin pocket to the lung beyond it, air to lung being 1
LEAST_THICK_MM = 2.1  # twice the volume over the surface
LEAST_THICK = 1.0  # sigmas of blur: thinner, a film of air cannot be told from the rim's own errors


def find_free_air(
    hu: np.ndarray, cavity: np.ndarray, other: np.ndarray, spacing: np.ndarray, blur: np.ndarray
) -> np.ndarray:
    """The free air in one pleural cavity.

    Args:
        hu: CT ``(X, Y, Z)`` in HU.
        cavity: boolean, one pleural cavity.
        other: boolean, the other one: where the two nearly meet, its air shines through the wall between.
        spacing: voxel size ``(3,)`` in mm.
        blur: sigma ``(3,)`` of the CT's blur in mm, as from ``edge_blur``.

    Returns:
        boolean mask, a part of ``cavity``.
    """
    found = np.zeros_like(cavity)
    if not cavity.any():
        return found
    box = box_around(cavity, spacing, WALL_MM)
    hu, cavity, other = hu[box].astype(np.float32), cavity[box], other[box]
    density, known, solid = _unmix(hu, cavity, other, spacing, blur)
    clear = known & ~solid
    relative = (density - AIR_HU) / _contrast(density, clear, spacing)
    core = clear & (relative < SURE)
    if not core.any():
        return found
    low = clear & (relative < LIKELY)
    low &= distance_to(core, spacing / blur) <= REACH
    lung = known & ~low
    pockets = _complete(low, lung, solid, cavity, spacing, 1.1 * max(spacing))
    volumes = np.bincount(pockets.ravel()) * float(np.prod(spacing))
    pleural = np.zeros_like(cavity)
    around = np.ceil(BULGE_REACH * BULGE_MM / spacing).astype(int)
    layer = np.maximum(blur, spacing)
    for pocket, part in enumerate(ndimage.find_objects(pockets), start=1):
        volume = volumes[pocket]
        if part is None or volume < 1000.0 * LEAST_ML:
            continue
        part = tuple(slice(max(0, s.start - m), s.stop + m) for s, m in zip(part, around, strict=True))
        mask = pockets[part] == pocket
        wall = _contact(mask, ~cavity[part], spacing)
        inner = _contact(mask, cavity[part] & ~mask, spacing)
        thick = 2.0 * volume / (wall + inner)
        if thick <= max(LEAST_THICK_MM, LEAST_THICK * float(blur[0])):
            continue
        if thick <= THICK_MM[0] and _step(mask, relative[part], clear[part], spacing / layer) < LEAST_STEP:
            continue
        if _on_the_wall(mask, cavity[part], spacing, wall / (wall + inner), thick):
            pleural[part] |= mask
    found[box] = _to_the_edge(pleural, np.where(clear, density, hu), cavity, spacing, blur)
    return found


def _step(pocket: np.ndarray, relative: np.ndarray, clear: np.ndarray, sampling: np.ndarray) -> float:
    """Rise of the relative density from a pocket to the second layer beyond it, as thick as the CT's edges are wide.

    The darkest part of the lung's rim is no pocket of air: the lung around it is only a little denser.
    """
    distance = distance_to(pocket, sampling)
    beyond = clear & (distance > 1) & (distance <= 2)
    if not beyond.any() or not (pocket & clear).any():
        return np.inf
    return float(np.median(relative[beyond]) - np.median(relative[pocket & clear]))


def _on_the_wall(pocket: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, wall: float, thick: float) -> bool:
    """Whether enough of the surface is wall.

    The lung's outline is flat or, as in a pneumothorax, round; a bulla bulges into the lung. A thick pocket shows which
    of the two it is. Of a thin one about half the surface must be wall and no part of it be deep; a crescent, which
    lies along the wall, needs a little less.
    """
    if wall <= LEAST_WALL_THICK:
        return False
    if thick > THICK_MM[0] and (bulge := _bulge(pocket, cavity, spacing)) is not None:
        return bool(bulge < np.interp(thick, THICK_MM, MOST_BULGE))
    depth = distance_to(~cavity, spacing)[pocket]
    if np.percentile(depth, 95) > MOST_REACH * thick:
        return False
    if wall > LEAST_WALL_ROUND:
        return True
    if wall <= np.interp(_solidity(pocket, cavity, spacing), SOLIDITY, (LEAST_WALL, LEAST_WALL_ROUND)):
        return False
    return bool(np.median(depth) <= MOST_DEEP * thick)


def _bulge(pocket: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> float | None:
    """Share of lung around the surface between a pocket and lung, where that is away from the wall; None if nowhere.

    It is 0.5 where the surface is flat, less where the lung bulges into the pocket, more where the pocket bulges.
    """
    lung = cavity & ~pocket
    surface = (lung & ndimage.binary_dilation(pocket)) | (pocket & ndimage.binary_dilation(lung))
    surface &= distance_to(~cavity, spacing) > BULGE_DEPTH_MM
    if not surface.any():
        return None
    of_lung, of_cavity = (
        ndimage.gaussian_filter(mask.astype(np.float32), BULGE_MM / spacing, truncate=BULGE_REACH)[surface]
        for mask in (lung, cavity)
    )
    return float(np.mean(of_lung / of_cavity))


def _solidity(pocket: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> float:
    """Share of the convex hull, axial slice by slice and as far as it lies in the cavity, that a pocket fills."""
    every = tuple(slice(None, None, max(1, int(HULL_MM / step))) for step in spacing)
    pocket, cavity = pocket[every], cavity[every]
    hull = 0
    for z in range(pocket.shape[2]):
        area = pocket[..., z]
        hull += np.count_nonzero(convex_hull_image(area) & cavity[..., z] | area) if area.any() else 0
    return np.count_nonzero(pocket) / max(1, hull)


def _to_the_edge(
    pleural: np.ndarray, density: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, blur: np.ndarray
) -> np.ndarray:
    """Free air as far as about the middle between its HU and those of the lung beside it, which may be denser than lung
    elsewhere where it is collapsed: the thresholds that find air are careful ones."""
    if not pleural.any():
        return pleural
    edge = EDGE * np.maximum(blur, spacing)
    box = box_around(pleural, spacing, float(edge.max()) + 2 * BESIDE_MM)
    found, air, density, cavity = pleural.copy(), pleural[box], density[box], cavity[box]
    distance = distance_to(air, spacing / edge)
    beside = cavity & (distance > 1) & (distance <= 1 + BESIDE_MM / edge.min())
    lung = np.minimum(_mean_nearby(density, beside, BESIDE_MM / spacing, AIR_HU), COLLAPSED_HU)
    level = np.interp(blur[0], PLEURA_BLUR_MM, EDGE_LEVEL)
    found[box] |= cavity & (distance <= 1) & (density < AIR_HU + level * (lung - AIR_HU))
    return found


def edge_blur(hu: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Gaussian sigma ``(3,)`` in mm of the CT's blur along each axis, whatever its voxels, from HU across the outline.

    Where the outline faces along z, thick slices blur it more than within a slice. Free air makes it look less.
    """
    box = box_around(cavity, spacing, WALL_MM)
    hu, cavity = hu[box], cavity[box]
    with ThreadPoolExecutor(2) as pool:
        across = pool.submit(_across, cavity, spacing)
        distance = distance_to(cavity, spacing)
        distance += distance_to(~cavity, spacing)  # each is zero where the other is not
        shell = distance <= DEEPEST * max(spacing)
        across = across.result()[shell]
    hu, cavity, distance = hu[shell], cavity[shell], distance[shell]
    blur = []
    for facing, h in ((across < FACING[0], float(np.mean(spacing[:2]))), (across > FACING[1], float(spacing[2]))):
        step = np.rint(np.where(cavity, distance, h - distance) / h)[facing].astype(int)
        blur.append(_profile_blur(hu[facing], step, h))
    in_plane, across_planes = (sigma or max(filter(None, blur), default=float(max(spacing))) for sigma in blur)
    return OUTLINE * np.array([in_plane, in_plane, across_planes])


def _across(cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Sine of the angle between the axial plane and the direction in which the outline faces, at every voxel."""
    smooth = ndimage.gaussian_filter(cavity.astype(np.float32), FACING_MM / spacing, truncate=2.0)
    slope = [np.square(np.gradient(smooth, step, axis=axis)) for axis, step in enumerate(spacing)]
    return np.sqrt(slope[2] / np.maximum(sum(slope), 1e-12))


def _profile_blur(hu: np.ndarray, step: np.ndarray, h: float) -> float | None:
    """Sigma in mm of the blur that fits a step near the outline to the median HU at each ``step`` of ``h`` mm inside.

    None where too little is seen of either side.
    """
    values = {number: hu[step == number] for number in range(-2, DEEPEST)}
    values = {number: part for number, part in values.items() if part.size >= LEAST_SEEN}
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
    hu: np.ndarray, cavity: np.ndarray, other: np.ndarray, spacing: np.ndarray, blur: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU of what is in the cavity, without noise and without the wall that shines in.

    A voxel near the wall reads ``w * wall + (1 - w) * x``: ``w`` is the outline seen through the blur of the CT, the
    wall's HU are taken from beyond the rim. ``x`` is the weighted least-squares solution in a small neighbourhood.

    Returns:
        x in HU; where it is known; what is solid (vessels, dense lung), boolean.
    """
    typical = float(np.median(hu[cavity]))
    own, wall = _share_and_wall(hu, cavity | other, typical, spacing, blur)
    # Free air meets the wall at other HU than lung does: once more, with the outline half-way between wall and content.
    deep = cavity & (own > 0.9)
    inner = _mean_nearby((hu - (1 - own) * wall) / np.maximum(own, 0.9), deep, 1.5 * blur / spacing, np.nan)
    edged = cavity & (deep | ~(hu >= 0.5 * (wall + inner)))
    own, wall = _share_and_wall(hu, other | edged, np.where(np.isnan(inner), typical, inner), spacing, blur)
    content = hu - (1 - own) * wall  # own * x
    solid = cavity & (own > 0.6) & (ndimage.gaussian_filter(content, 0.6 / spacing, truncate=2.0) > SOLID_HU * own)
    weight = np.clip((SOLID_HU - content / np.maximum(own, 0.3)) / 200.0, 0.0, 1.0) * (cavity & (own > LEAST_OWN))
    bulk = BULK_MM * _noise_factor(hu, cavity & (own > 0.99) & ~solid) / spacing
    share = ndimage.gaussian_filter(weight * own * own, bulk, truncate=3.0)
    mean = ndimage.gaussian_filter(weight * own * content, bulk, truncate=3.0)
    known = cavity & (share > 0.05)
    return np.where(known, mean / np.maximum(share, 0.05), 0.0), known, solid


def _share_and_wall(
    hu: np.ndarray, cavities: np.ndarray, content: np.ndarray | float, spacing: np.ndarray, blur: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The share of cavity in each voxel, and the HU of the wall nearby, into which ``content`` in HU shines."""
    own = ndimage.gaussian_filter(cavities.astype(np.float32), blur / spacing, truncate=3.0)
    beyond = ~cavities & (own < 0.3) & (hu > SOLID_HU)
    beyond_hu = np.clip((hu - own * content) / np.maximum(1 - own, 0.5), *WALL_RANGE)
    return own, _mean_nearby(beyond_hu, beyond, np.maximum(WALL_MM / 2, 1.5 * blur) / spacing, WALL_HU)


def _mean_nearby(values: np.ndarray, where: np.ndarray, width: np.ndarray, otherwise: float) -> np.ndarray:
    """Gaussian mean of ``values`` over the voxels ``where``, at every voxel; ``otherwise`` where there are none."""
    where = where.astype(np.float32)
    share = ndimage.gaussian_filter(where, width, truncate=2.0)
    mean = ndimage.gaussian_filter(values * where, width, truncate=2.0)
    return np.where(share > 1e-3, mean / np.maximum(share, 1e-3), otherwise)


def _noise_factor(hu: np.ndarray, inside: np.ndarray) -> float:
    """How much wider to smooth than in a scan of ordinary noise, 1 to 2."""
    step = np.diff(hu, axis=0)[inside[1:] & inside[:-1]]
    if len(step) == 0:
        return 1.0
    return float(np.clip(1.05 * np.median(np.abs(step)) / ORDINARY_NOISE_HU, 1.0, 2.0))


def _contrast(density: np.ndarray, cavity: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """HU from air to the lung nearby, at most to what is typical of the cavity's lung."""
    lung = cavity & (density < SOLID_HU) & (density > AIR_HU + 50.0)
    typical = float(np.median(density[lung])) if lung.any() else -700.0
    every = tuple(slice(None, None, max(1, int(4.0 / step))) for step in spacing)
    coarse = spacing * [max(1, int(4.0 / step)) for step in spacing]
    inside = (lung[every] & (density[every] > AIR_HU + 0.5 * (typical - AIR_HU))).astype(np.float32)
    share = ndimage.gaussian_filter(inside, NEIGHBOURHOOD_MM / coarse)
    mean = ndimage.gaussian_filter(inside * density[every], NEIGHBOURHOOD_MM / coarse)
    local = np.where(share > 0.02, mean / np.maximum(share, 0.02), typical)
    zoom = np.divide(density.shape, local.shape)
    local = ndimage.affine_transform(local, 1.0 / zoom, output_shape=density.shape, order=1, mode="nearest")
    return np.minimum(local, typical) - AIR_HU


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


def _contact(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> float:
    """Area in mm^2 of the voxel faces between two masks."""
    area = 0.0
    for axis in range(3):
        a, b = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
        faces = np.count_nonzero(a[1:] & b[:-1]) + np.count_nonzero(a[:-1] & b[1:])
        area += faces * float(np.prod(spacing)) / spacing[axis]
    return area
