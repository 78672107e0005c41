"""Where things are in the synthetic chest: surfaces and centre lines, in mm of an average adult.

Coordinates are the chest frame's: x to the left, y to the back, z to the feet, origin between the lungs. The average
was set by a supine CT at inspiration; :class:`~.thorax.SyntheticThorax` scales, bends and varies it. Functions take
three coordinate arrays of any one shape and return approximate signed distances (negative inside).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from .patient import SyntheticThorax
from .shapes import capsule, ellipsoid, smooth_max, smooth_min

Points = Sequence[np.ndarray]

_CAGE_Z = [-180, -128, -118, -105, -88, -65, -43, 0, 50, 100, 130, 190]
_CAGE_HALF_WIDTH = [50, 64, 74, 87, 98, 107, 111, 115, 119, 121, 121, 116]
_CAGE_DEPTH = [45, 60, 76, 96, 119, 143, 157, 174, 172, 168, 160, 150]
VERTEBRA_Z = np.array(
    [-181, -165, -149, -131, -112, -92, -71, -49, -27, -4, 20, 44, 69, 96, 125, 156, 188], dtype=float
)
"""Lower ends of C5 to L3; T1 is the fourth body."""
_RIB_FRONT_Z = [-100, -74, -48, -22, 6, 34, 60, 84, 104, 122, 124, 138]
_RIB_FRONT_ANGLE = [150, 150, 149, 148, 147, 145, 141, 134, 124, 113, 88, 55]
_STERNUM = [(-96, 2.0), (-74, 2.0), (-40, 1.0), (-10, 0.5), (22, 0.0)]


def _table(z: np.ndarray, knots: Sequence[float], values: Sequence[float]) -> np.ndarray:
    return np.interp(z, knots, values).astype(np.float32)


def spine_y(z: np.ndarray, thorax: SyntheticThorax) -> np.ndarray:
    """y of the vertebral bodies' centres: the kyphosis."""
    above = np.clip(z - 5, -140.0, 0.0)
    below = np.maximum(z - 5, 0.0)
    neck = np.minimum(z + 135, 0.0)  # the neck bends back again
    bend = above * above + 0.75 * below * below - 140 * neck
    return (66 - thorax.kyphosis * bend).astype(np.float32)


def cage_section(z: np.ndarray, thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Inner surface of the rib cage at ``z``: half-width, y of its widest place, depth in front and behind of it."""
    depth = _table(z, _CAGE_Z, _CAGE_DEPTH) * thorax.depth
    back = spine_y(z, thorax) + 20
    behind = 0.42 * depth
    return _table(z, _CAGE_Z, _CAGE_HALF_WIDTH), back - behind, depth - behind, behind


def cage(points: Points, thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray]:
    """Distance to the inner surface of the rib cage and abdominal wall, and the relative radius (1 on the surface)."""
    x, y, z = points
    half_width, middle, front, behind = cage_section(z, thorax)
    along = y - middle
    u, v = np.abs(x) / half_width, np.abs(along) / np.where(along < 0, front, behind)
    relative = (u**2.3 + v**2.3) ** np.float32(1 / 2.3)
    radius = np.sqrt(x * x + along * along)
    return radius * (1 - 1 / np.maximum(relative, 0.05)), relative


def wall_point(angle: np.ndarray, z: np.ndarray, outside: float, thorax: SyntheticThorax) -> np.ndarray:
    """Points ``(N, 3)`` on the right side of the rib cage, ``outside`` mm beyond it; ``angle`` is 0 at the back."""
    half_width, middle, front, behind = cage_section(z, thorax)
    sine, cosine = np.sin(np.radians(angle)), np.cos(np.radians(angle))
    depth = np.where(cosine > 0, behind, front)
    # The angle is taken on the ellipse, so that equal steps are about equal lengths of rib.
    scale = (np.abs(sine) ** 2.3 + np.abs(cosine) ** 2.3) ** (-1 / 2.3)
    x, y = -sine * scale * half_width, cosine * scale * depth
    length = np.hypot(x, y)
    return np.stack([x * (1 + outside / length), middle + y * (1 + outside / length), z], axis=-1)


def diaphragm_z(x: np.ndarray, y: np.ndarray, thorax: SyntheticThorax) -> np.ndarray:
    """Height (z) of the diaphragm's upper surface: two domes, the right one higher, falling to the costal margin."""
    middle = 10.0
    depth = np.where(y < middle, 104 * thorax.depth, 74.0)
    square = (np.abs(x) / 119) ** 2 + ((y - middle) / depth) ** 2
    margin = 68 + 58 * np.clip((y + 85) / 95, 0, 1)
    centre = 54 - 26 * thorax.expiration
    square = np.minimum(square, 1.3)
    surface = centre + (margin - centre) * square * square * square
    right = thorax.right_dome * np.exp(-((((x + 60) / 50) ** 2) ** 2) - ((y + 2) / 64) ** 2)
    left = thorax.left_dome * np.exp(-((((x - 60) / 48) ** 2) ** 2) - ((y - 2) / 64) ** 2)
    return (surface - right - left).astype(np.float32)


def below_diaphragm(points: Points, thorax: SyntheticThorax) -> np.ndarray:
    """Distance to the abdomen (negative below the diaphragm's upper surface)."""
    x, y, z = points
    return 0.75 * (diaphragm_z(x, y, thorax) - z)


def heart(points: Points, thorax: SyntheticThorax) -> np.ndarray:
    """Distance to the heart's outline."""
    ventricles, atria = heart_parts(points, thorax)
    return smooth_min(ventricles, atria, 14.0)


def heart_parts(points: Points, thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the ventricles (with the apex to the left, the front and the feet) and to the atria."""
    size = thorax.heart
    ventricles = ellipsoid(
        points, heart_place(thorax, (24, -30, 14)), (58 * size, 41 * size, 40 * size), heart_axes(thorax)
    )
    right = ellipsoid(points, heart_place(thorax, (-20, -24, 8)), (22 * size, 27 * size, 33 * size))
    left = ellipsoid(points, heart_place(thorax, (4, 12, 0)), (34 * size, 19 * size, 25 * size))
    return ventricles, smooth_min(right, left, 10.0)


def heart_place(thorax: SyntheticThorax, point: Sequence[float]) -> np.ndarray:
    """A place in the average heart, moved with this one's size and with the diaphragm it lies on."""
    anchor = np.array([-4.0, -5.0, -18.0])
    place = anchor + (np.asarray(point, dtype=float) - anchor) * thorax.heart
    return place + np.array([0.0, (1 - thorax.depth) * 55, -14 * thorax.expiration])


def heart_axes(thorax: SyntheticThorax) -> np.ndarray:
    """Axes of the ventricles as rows; the first points to the apex."""
    tilt = np.radians(thorax.heart_tilt)
    apex = np.array([np.cos(tilt) * 0.85, -np.cos(tilt) * 0.53, np.sin(tilt)])
    second = np.cross(apex, [0.0, 1.0, 0.0])
    second /= np.linalg.norm(second)
    return np.stack([apex, np.cross(second, apex), second])


def vessel_paths(thorax: SyntheticThorax) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Centre lines ``(N, 3)`` and radii ``(N,)`` of the mediastinum's tubes, by name."""
    aorta, unfold = thorax.aorta, thorax.aorta_unfolding
    lower = [(z, 66 - thorax.kyphosis * (z - 5) ** 2 * (1 if z < 5 else 0.75) - 24) for z in (0, 50, 100, 185)]
    front = (1 - thorax.depth) * 55
    arch: list[tuple[float, float, float]] = [
        (-4, -22, -2),
        (-10, -38, -22),
        (-13, -40, -48),
        (-7, -26, -67),
        (6, -4, -74 - 5 * unfold),
    ]
    arch += [(17 + 5 * unfold, 20, -66 - 3 * unfold), (23 + 6 * unfold, 36, -44), (23 + 5 * unfold, lower[0][1], 0)]
    arch += [(17 + 3 * unfold, lower[1][1] + 1, 50), (7, lower[2][1] - 3, 100), (5, lower[3][1] - 6, 185)]
    paths = {
        "aorta": (arch, [15 * aorta, 15.5 * aorta, 15 * aorta, 13.5 * aorta, 13 * aorta, *[12 * aorta] * 3, 11, 10, 9]),
        "pulmonary_trunk": ([(14, -44, -6), (14, -34, -24), (20, -12, -36), (40, 10, -35)], [14, 14, 12, 9]),
        "right_pulmonary": ([(17, -22, -30), (-6, -6, -29), (-26, 0, -26), (-44, 4, -18)], [12, 11, 11, 8]),
        "right_lower_artery": ([(-40, 4, -20), (-46, 14, 0), (-48, 22, 22)], [8, 7.5, 5.5]),
        "left_lower_artery": ([(38, 10, -35), (44, 22, -14), (46, 28, 10)], [9, 7.5, 5.5]),
        "superior_cava": ([(-20, -30, -94), (-24, -22, -60), (-25, -18, -12)], [9, 9.5, 10]),
        "left_brachiocephalic": ([(30, -40, -108), (6, -48, -92), (-18, -32, -86)], [7, 7, 7.5]),
        "right_brachiocephalic": ([(-32, -28, -120), (-20, -30, -94)], [7.5, 8.5]),
        "inferior_cava": ([(-22, -8, 30), (-24, 2, 60), (-20, 14, 110), (-16, 10, 185)], [11, 12, 12, 11]),
        "brachiocephalic_artery": (
            [(-9, -22, -72), (-18, -16, -100), (-36, -8, -118), (-44, -4, -150)],
            [6.5, 6, 5, 4],
        ),
        "left_carotid": ([(2, -12, -76), (12, -10, -100), (24, -10, -150)], [4.5, 4, 3.6]),
        "left_subclavian": ([(11, 4, -76), (20, 6, -104), (40, 0, -122), (78, 2, -122)], [5.5, 5, 5, 4.5]),
        "right_subclavian": ([(-34, -8, -116), (-52, -2, -124), (-80, 2, -120)], [5, 4.6, 4.4]),
        "right_veins": ([(-10, 8, 2), (-32, 6, 0), (-46, 4, 8)], [8, 6.5, 5]),
        "right_upper_vein": ([(-14, 2, -8), (-34, -10, -18)], [7, 4.5]),
        "left_veins": ([(20, 14, 2), (38, 18, 6)], [8, 5]),
        "left_upper_vein": ([(20, 6, -8), (36, -10, -18)], [7, 4.5]),
        "azygos": (
            [(-6, lower[1][1], 50), (-7, lower[0][1] - 1, -30), (-12, 26, -56), (-22, -8, -62)],
            [3.5, 3.8, 4.2, 4.2],
        ),
        "oesophagus": (
            [(4, 8, -165), (6, 24, -90), (5, 34, -50), (4, 32, 0), (12, 18, 48), (26, 2, 66)],
            [7, 7, 7, 8, 8, 8],
        ),
        "trachea": ([(0, -22, -185), (-1, -14, -140), (-2, 0, -95), (-3, 12, -50)], [8.5, 8.5, 8.5, 8.8]),
        "right_bronchus": ([(-3, 12, -50), (-22, 15, -34), (-38, 17, -18)], [7.5, 7, 5.6]),
        "left_bronchus": ([(-3, 12, -50), (20, 18, -30), (38, 20, -16)], [7, 6, 5.2]),
        "right_upper_bronchus": ([(-20, 14, -36), (-40, 10, -42)], [4.6, 3.8]),
    }
    moved = {}
    for name, (line, radii) in paths.items():
        line = np.array(line, dtype=float)
        # What lies in front of the spine moves with a flatter or deeper chest.
        line[:, 1] += front * np.clip((30 - line[:, 1]) / 60, 0, 1)
        moved[name] = line, np.array(radii, dtype=float)
    return moved


AIRWAYS = ("trachea", "right_bronchus", "left_bronchus", "right_upper_bronchus")
VEINS = ("superior_cava", "left_brachiocephalic", "right_brachiocephalic", "inferior_cava", "azygos")
RIGHT_HEART = ("pulmonary_trunk", "right_pulmonary", "right_lower_artery", "left_lower_artery")


def tube(points: Points, line: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to a tube along a polyline."""
    pieces = zip(line, line[1:], radii, radii[1:], strict=False)
    return reduce(np.minimum, (capsule(points, start, end, (first, last)) for start, end, first, last in pieces))


def mediastinum(points: Points, thorax: SyntheticThorax) -> np.ndarray:
    """Distance to what separates the lungs: heart, great vessels, airways, spine and the thin folds between them."""
    x, y, z = points
    middle = 3.0 + 5.0 * thorax.heart * np.exp(-(((z - 10) / 60) ** 2)) * np.clip((20 - y) / 60, 0, 1)
    fold = np.abs(x - middle) - 3.5
    distance = smooth_min(fold, heart(points, thorax) - 3.0 - 2 * thorax.obesity, 10.0)
    for name, (line, radii) in vessel_paths(thorax).items():
        # The lungs begin where the hilum ends; the tubes beyond lie in the lung.
        if name in (
            "right_lower_artery",
            "left_lower_artery",
            "right_upper_bronchus",
            "right_upper_vein",
            "left_upper_vein",
        ):
            continue
        keep = np.abs(line[:, 0]) < 45
        if keep.sum() > 1:
            distance = smooth_min(distance, tube(points, line[keep], radii[keep] + 2.0), 9.0)
    body = np.sqrt(x * x + (y - spine_y(z, thorax)) ** 2) - 20.0
    upper = np.maximum(np.abs(x) - 18 - 2 * thorax.obesity, z + 70) * 0.9
    distance = smooth_min(distance, body, 12.0)
    sternum = np.sqrt((x * 0.6) ** 2 + (y - sternum_y(z, thorax)) ** 2) - 8.0 - 3 * thorax.obesity
    return smooth_min(smooth_min(distance, upper, 12.0), sternum, 12.0)


def pleural_cavities(
    points: Points, thorax: SyntheticThorax, between: np.ndarray, wall: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the right and the left pleural cavity, from those to the mediastinum and to the rib cage."""
    x, y, z = points
    apex = -122 + 62 * (((np.abs(x) - 46) / 72) ** 2 + ((y - 12 - (1 - thorax.depth) * 30) / 78) ** 2)
    chest = smooth_max(wall, 0.8 * (apex - z), 8.0)
    chest = smooth_max(chest, -below_diaphragm(points, thorax), 3.0)
    chest = smooth_max(chest, -between, 5.0)
    side = x - 2.0
    return np.maximum(chest, side), np.maximum(chest, -side)


def fissures(points: Points, thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray]:
    """Unsigned distances to the oblique fissures (both lungs) and to the right lung's horizontal one."""
    x, y, z = points
    wave = 5 * np.sin(x / 28 + thorax.fissure_phase)
    oblique = (z - 4 + 0.86 * (y - 0.0) * np.where(x < 0, 1.0, 1.12) + wave) * 0.74
    horizontal = z + 6 + 0.12 * y + 4 * np.cos(x / 33 + thorax.fissure_phase)
    in_front = (oblique < 0) & (x < 0)
    return np.abs(oblique), np.where(in_front, np.abs(horizontal), 99.0)


def sternum_y(z: np.ndarray, thorax: SyntheticThorax) -> np.ndarray:
    """y of the sternum's middle, just outside the cage's front."""
    _, middle, front, _ = cage_section(np.clip(z, -96, 22), thorax)
    return (middle - front - 5).astype(np.float32)


def sternum_line(thorax: SyntheticThorax) -> np.ndarray:
    """Middle line of the sternum ``(N, 3)``, head to feet."""
    z, x = np.array([s[0] for s in _STERNUM], dtype=float), np.array([s[1] for s in _STERNUM])
    return np.stack([x, sternum_y(z, thorax), z], axis=-1)


def clavicle_line(thorax: SyntheticThorax) -> np.ndarray:
    """Middle line of the right clavicle ``(4, 3)``, from the sternum to the shoulder, which raised arms lift."""
    line = sternum_line(thorax)[0] + np.array([[-18, -1, -6], [-50, 7, -19], [-80, 27, -22], [-114, 51, -20]])
    if thorax.arms_up:
        line[:, 2] += (0.0, -5.6, -9.8, -14.0)
    return line


def ribs(thorax: SyntheticThorax) -> list[tuple[np.ndarray, np.ndarray]]:
    """Twelve right ribs from the spine forwards and their cartilages, as lines ``(N, 3)``; a cartilage may be empty."""
    lines = []
    slope = thorax.rib_slope
    for number in range(12):
        head_z = VERTEBRA_Z[number + 3] - 17
        front_z = head_z + (_RIB_FRONT_Z[number] - head_z) * slope
        last = _RIB_FRONT_ANGLE[number]
        angle = np.linspace(24, last, 16 if number < 10 else 9)
        share = (angle - 24) / (last - 24)
        z = head_z + 4 + (front_z - head_z - 4) * (0.25 * share + 0.75 * np.sin(share * np.pi / 2) ** 1.6)
        if number == 0:  # short, flat and tightly curved: it does not follow the wall but closes it
            angle = np.linspace(24, 150, 12)
            z = np.linspace(head_z + 6, front_z, 12)
        bony = wall_point(angle, z, 5.5, thorax)
        if number == 0:
            bony[:, 0] *= 0.92
        head = np.array([[-17.0, spine_y(np.array(head_z), thorax) - 2, head_z]])
        neck = np.array([[-30.0, spine_y(np.array(head_z), thorax) + 19, head_z + 1]])
        bony = np.concatenate([head, neck, bony])
        cartilage = np.zeros((0, 3))
        if number < 7:
            target_z = (-92, -72, -52, -32, -12, 4, 14)[number]
            target = np.array([-14.0, float(sternum_y(np.array(float(target_z)), thorax)), target_z])
            step = np.linspace(0, 1, 6)[:, None]
            z = bony[-1, 2] + (target_z - bony[-1, 2]) * step[:, 0] ** 1.5
            angle = np.linspace(last, 173, 6)
            cartilage = wall_point(angle, z, 5.5, thorax)
            cartilage = cartilage * (1 - step**4) + target * step**4
        elif number < 10:
            cartilage = bony[-1] + np.array([[0, 0, 0], [16, -14, -8], [30, -22, -20]])
        lines.append((bony, cartilage))
    return lines


def body(points: Points, thorax: SyntheticThorax, inner: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the skin and to the outer surface of the muscles of trunk and shoulders; ``inner``: to the cage."""
    x, y, z = points
    side = np.abs(x)
    lateral = np.clip(side / 115, 0, 1)
    behind = np.clip((y - 10) / 70, 0, 1)
    upper = np.clip((20 - z) / 100, 0, 1)
    chest = np.exp(-(((side - 60) / 40) ** 2) - ((z + 60) / 45) ** 2) * np.clip((-20 - y) / 30, 0, 1)
    back = np.exp(-(((side / 52) ** 2) ** 2)) * behind
    armpit = (lateral * lateral) ** 2 * np.exp(-(((z + 80) / 70) ** 2))
    armpit *= 22 if thorax.arms_up else 14
    muscle = 9 + 10 * back + thorax.muscle * (11 * chest + 11 * back + armpit + 4 * upper * behind)
    fat = thorax.fat * (
        1 + 0.5 * behind + 0.25 * np.clip(z / 120, -0.5, 1.0) + 0.7 * lateral * np.clip((60 - z) / 120, 0, 1)
    )
    muscles = inner - muscle
    neck = np.sqrt((x * 0.95) ** 2 + (y - spine_y(z, thorax) + 10) ** 2) - 52 - 3 * thorax.muscle
    top = (-166.0 if thorax.arms_up else -146.0) + 0.09 * np.maximum(side - 40, 0)
    trunk = smooth_max(muscles, (top - z) * 0.9, 30.0)
    muscles = smooth_min(trunk, neck, 25.0)
    arm = arm_lines(thorax)
    mirrored = (-side, y, z)
    shoulder = tube(mirrored, *arm)
    muscles = smooth_min(muscles, shoulder, 28.0)
    collar = tube(mirrored, clavicle_line(thorax), np.full(4, 10.0))
    muscles = smooth_min(muscles, collar, 24.0)
    trunk = smooth_max(inner - muscle - fat, (top - fat - z) * 0.9, 30.0)
    skin = smooth_min(smooth_min(trunk, neck - 0.5 * fat, 30.0), shoulder - 0.6 * fat - 3, 40.0)
    skin = smooth_min(skin, collar - 0.5 * fat - 4, 30.0)
    if thorax.breast > 0:
        hang = thorax.breast
        centre = breast_centre(thorax)
        breast = ellipsoid(mirrored, centre, (50 + 18 * hang, 20 + 17 * hang, 50 + 16 * hang))
        skin = smooth_min(skin, breast, 30.0)
    return skin, muscles


def breast_centre(thorax: SyntheticThorax) -> tuple[float, float, float]:
    """Centre of the right breast, lying to the side as it does on the back."""
    _, middle, front, _ = cage_section(np.array(8.0), thorax)
    return -78.0 - 12 * thorax.breast, float(middle - 0.8 * front) - 8 - 0.5 * thorax.fat, 8.0


def arm_lines(thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray]:
    """Middle of the right shoulder and arm's soft tissue, and its radii."""
    if thorax.arms_up:
        line = [(-100, 40, -70), (-122, 26, -112), (-146, 14, -150), (-158, 0, -215)]
        return np.array(line, dtype=float), np.array([26, 36, 40, 38]) * (0.75 + 0.25 * thorax.muscle)
    line = [(-95, 40, -85), (-128, 26, -108), (-150, 28, -108), (-160, 30, -95)]
    return np.array(line, dtype=float), np.array([24, 34, 38, 30]) * (0.75 + 0.25 * thorax.muscle)


def scapula(thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right shoulder blade: corners of its plate ``(3, 3)``, line of its spine ``(3, 3)``, and the joint's place."""
    turn = 1.0 if thorax.arms_up else 0.0
    wall = wall_point(np.array([33.0 + 4 * turn, 52.0 + 10 * turn]), np.array([-98.0, 2.0]), 15.0, thorax)
    glenoid = np.array([-122.0 - 6 * turn, 26.0, -112.0 - 12 * turn])
    spine = np.array([0.75 * wall[0] + 0.25 * wall[1], glenoid, glenoid])
    spine += np.array([[0, 8, 0], [4, 26, -10], [-12, 4, -20]])
    return np.stack([wall[0], wall[1], glenoid]), spine, glenoid
