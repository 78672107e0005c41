"""A synthetic chest CT with ground truth: training data where there is none.

A seed draws a :class:`SyntheticThorax`, the numbers that describe one patient and one scan;
:func:`synthesize_thorax` turns them into HU and labels at any size. The same patient at another size is the same
patient. A pneumothorax is made by the very code that inserts one into a real CT
(:func:`xrecon_bundle.anatomy.pneumothorax.insert_pneumothorax`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .. import frame
from . import organs
from .patient import SyntheticThorax, ThoraxLabel
from .pneumothorax import Pneumothorax, insert_pneumothorax
from .shapes import Canvas, capsule, ellipsoid, smooth_max, smooth_min, smooth_noise, triangle, true_distance
from .trees import Tree, draw_tree, grow_tree


@dataclass(frozen=True)
class ThoraxCase:
    """A synthetic CT: ``ct`` int16 HU, ``labels`` uint8 (:class:`ThoraxLabel`), ``(S, S, S)`` in the chest frame."""

    ct: np.ndarray
    labels: np.ndarray
    parameters: SyntheticThorax

    @property
    def segmentation(self) -> np.ndarray:
        """The labels 1 to 4: lungs and air-accumulated regions, else 0."""
        return np.where(self.labels <= ThoraxLabel.LEFT_AIR, self.labels, 0).astype(np.uint8)


def synthesize_thorax(
    patient: int | SyntheticThorax, spatial_size: int = 64, pneumothorax: Pneumothorax | None = None
) -> ThoraxCase:
    """Make a chest CT.

    Args:
        patient: a seed or the parameters.
        spatial_size: voxels along each edge of the cube of ``frame.EDGE_MM``.
        pneumothorax: side and occupancy of the pneumothorax, none by default.

    Returns:
        the CT in HU with its labels. The same arguments give the same case.
    """
    thorax = patient if isinstance(patient, SyntheticThorax) else SyntheticThorax.sample(int(patient))
    step = frame.voxel_size(spatial_size)
    lung_points = _lung_points(thorax)
    place = _Place(thorax, _middle(lung_points), spatial_size)
    canvas = Canvas(place.points(), step / float(np.mean(thorax.scale)), hu=-1000.0)
    rng = np.random.default_rng([thorax.seed, 1])
    texture = [smooth_noise(rng, canvas.points, length, 8) for length in (22.0, 70.0)]

    wall, _ = organs.cage(canvas.points, thorax)
    skin = _paint_trunk(canvas, thorax, wall, texture)
    _paint_abdomen(canvas, thorax, wall, rng, texture)
    _paint_heart(canvas, thorax)
    _paint_vessels(canvas, thorax)
    _paint_bones(canvas, thorax, rng)
    _paint_lungs(canvas, thorax, wall, place, lung_points, rng, texture)
    _paint_airways(canvas, thorax)

    hu, labels = canvas.hu, canvas.labels
    if pneumothorax is not None:
        lungs = np.where(labels <= ThoraxLabel.LEFT_LUNG, labels, 0).astype(np.uint8)
        hu, segmentation = insert_pneumothorax(
            hu, lungs, (step,) * 3, pneumothorax.side, pneumothorax.occupancy, seed=thorax.seed
        )
        labels = np.where(segmentation > 0, segmentation, np.where(lungs > 0, ThoraxLabel.FAT, labels))
    hu, labels = _scan(hu, labels, skin, thorax, np.random.default_rng([thorax.seed, 2, spatial_size]))
    return ThoraxCase(hu, labels, thorax)


def _lung_points(thorax: SyntheticThorax) -> tuple[np.ndarray, np.ndarray]:
    """Random points ``(N, 3)`` inside the right and the left lung, the same for every grid."""
    rng = np.random.default_rng([thorax.seed, 4])
    candidates = rng.uniform([-130, -130, -135], [130, 120, 140], (40_000, 3)).astype(np.float32)
    points = tuple(candidates.T)
    between, wall = organs.mediastinum(points, thorax), organs.cage(points, thorax)[0]
    right, left = organs.pleural_cavities(points, thorax, between, wall)
    return candidates[right < -3], candidates[left < -3]


def _middle(lung_points: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Middle of the lungs' extent, as :func:`~xrecon_bundle.placement.standardize.standardize_ct` centres a real CT."""
    return np.percentile(np.concatenate(lung_points), [0.5, 99.5], axis=0).mean(axis=0)


class _Place:
    """The map between voxels and the average anatomy: scale, rotation, scoliosis and a smooth random displacement."""

    def __init__(self, thorax: SyntheticThorax, middle: np.ndarray, spatial_size: int) -> None:
        step = frame.voxel_size(spatial_size)
        turn = Rotation.from_euler("xyz", thorax.rotation, degrees=True).as_matrix()
        linear = np.diag(1 / np.asarray(thorax.scale)) @ turn * step
        self.affine = np.eye(4)
        self.affine[:3, :3] = linear
        self.affine[:3, 3] = middle - linear @ (np.full(3, (spatial_size - 1) / 2) + np.asarray(thorax.centre) / step)
        self.size = spatial_size
        self.thorax = thorax

    def points(self) -> tuple[np.ndarray, ...]:
        axis = np.arange(self.size, dtype=np.float32)
        index = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
        plain: list[Any] = [
            sum(np.float32(self.affine[i, j]) * index[j] for j in range(3)) + np.float32(self.affine[i, 3])
            for i in range(3)
        ]
        return tuple(p + d for p, d in zip(plain, self._displacement(plain), strict=True))

    def index(self, points: np.ndarray) -> np.ndarray:
        """Voxel indices ``(N, 3)`` of anatomical points ``(N, 3)``."""
        plain = points.astype(np.float32)
        for _ in range(3):  # the displacement is small and smooth: the fixed point is there after three rounds
            plain = points - np.stack(self._displacement(list(plain.T)), axis=-1)
        return (plain - self.affine[:3, 3]) @ np.linalg.inv(self.affine[:3, :3]).T

    def _displacement(self, points: list[np.ndarray]) -> list[np.ndarray]:
        rng = np.random.default_rng([self.thorax.seed, 3])
        field = [self.thorax.irregularity * smooth_noise(rng, points, 190.0, 5) for _ in range(3)]
        field[0] = field[0] + np.float32(self.thorax.scoliosis) * np.sin(points[2] / np.float32(50.0))
        return field


def _paint_trunk(canvas: Canvas, thorax: SyntheticThorax, wall: np.ndarray, texture: list[np.ndarray]) -> np.ndarray:
    skin, muscles = organs.body(canvas.points, thorax, wall)
    skin = true_distance(skin, canvas.step)
    canvas.paint(skin, 15.0, ThoraxLabel.FAT)
    canvas.paint(skin + 2.0, -106 + 5 * texture[0])
    muscles = np.maximum(muscles, skin + 3.0)
    canvas.paint(muscles, 52 - 25 * thorax.obesity * np.abs(texture[0]) + 4 * texture[1], ThoraxLabel.MUSCLE)
    # Fat between the muscle sheets and, inside the cage, around everything.
    plane = np.abs(wall - 14.0 - 2 * texture[1]) - 0.5 - 1.2 * thorax.obesity
    canvas.paint(np.maximum(plane, muscles + 3.0), -95.0)
    canvas.paint(wall + 1.0, -98 + 6 * texture[0], ThoraxLabel.FAT)
    if thorax.breast > 0:
        x, y, z = canvas.points
        centre = organs.breast_centre(thorax)
        gland = ellipsoid((-np.abs(x), y, z), centre, (36, 14 + 10 * thorax.breast, 36)) + 7 * texture[0]
        canvas.paint(smooth_max(np.maximum(gland, skin + 5.0), -(muscles - 3.0), 3.0), 10 + 20 * texture[0])
    return skin


def _paint_abdomen(
    canvas: Canvas, thorax: SyntheticThorax, wall: np.ndarray, rng: np.random.Generator, texture: list[np.ndarray]
) -> None:
    box = canvas.box((-140, -140, 0), (140, 120, 190))
    points = canvas.at(box)
    x, _, z = points
    fine, coarse = (field[box] for field in texture)
    below = organs.below_diaphragm(points, thorax)
    inside = np.maximum(below, wall[box])
    canvas.paint(inside + 0.5, 48.0, ThoraxLabel.MUSCLE, box)
    inside = inside + 3.5
    # Bowel and vessels fill the lean abdomen, fat the obese one.
    bowel = np.clip(0.65 - thorax.obesity + 0.6 * fine + (z - 110) / 120, 0.0, 0.9)
    canvas.paint(inside, -104 + 135 * bowel, ThoraxLabel.FAT, box)
    rise = -26 * thorax.expiration
    enhanced = thorax.right_blood > 100

    def organ(distance: np.ndarray, hu: float, label: int) -> None:
        canvas.paint(smooth_max(distance, inside + 0.5, 5.0), hu + 3 * coarse, label, box)

    _paint_bowel(points, fine, rng, organ)
    for side, kidney_z in ((-1, 140), (1, 128)):
        kidney = ellipsoid(points, (side * 58, 48, kidney_z + 0.5 * rise), (26, 22, 48))
        organ(kidney, 160.0 if enhanced else 32.0, ThoraxLabel.KIDNEY)
    spleen = smooth_max(
        ellipsoid(points, (78, 36, 84 + rise), (40, 48, 46)), -ellipsoid(points, (48, 6, 88 + rise), (44, 44, 46)), 8.0
    )
    organ(spleen, 110.0 if enhanced else 48.0, ThoraxLabel.SPLEEN)
    _paint_stomach(points, rise, rng, organ)
    liver = smooth_min(
        ellipsoid(points, (-62, -6, 94 + rise), (74, 94, 88)),
        ellipsoid(points, (6, -52, 78 + rise), (66, 40, 36 + rng.uniform(-6, 10))),
        25.0,
    )
    liver = smooth_max(liver, 0.6 * (z - 96 - rise) + 0.55 * (x + 40) - 20, 20.0)
    plain = rng.normal(56, 7) - 30 * (rng.random() < 0.2)  # one in five is fatty
    organ(liver, plain + (45 if enhanced else 0), ThoraxLabel.LIVER)


def _paint_bowel(
    points: Sequence[np.ndarray], texture: np.ndarray, rng: np.random.Generator, organ: Callable[..., None]
) -> None:
    """Loops in front, below liver and stomach; some hold gas above fluid."""
    for _ in range(9):
        centre = rng.uniform([-95, -70, 125], [95, -10, 185])
        loop = ellipsoid(points, centre, rng.uniform(12, 24, 3)) + 2 * texture
        organ(loop, rng.uniform(20, 50), ThoraxLabel.BOWEL)
        gas = rng.random() < 0.4
        content = np.maximum(loop + 3.0, points[1] - centre[1]) if gas else loop + 4.0
        organ(content, -950.0 if gas else rng.uniform(0, 40), ThoraxLabel.BOWEL)


def _paint_stomach(
    points: Sequence[np.ndarray], rise: float, rng: np.random.Generator, organ: Callable[..., None]
) -> None:
    stomach = smooth_min(
        ellipsoid(points, (54, -14, 76 + rise), (40, 42, 36)),
        ellipsoid(points, (30, -50, 112 + rise), (46, 26, 24)),
        14.0,
    )
    organ(stomach, 42.0, ThoraxLabel.STOMACH)
    organ(stomach + 5.0, rng.uniform(5, 40), ThoraxLabel.STOMACH)
    level = rng.uniform(-52, -10)  # supine: the gas lies in front, above a level of fluid
    organ(np.maximum(stomach + 5.0, points[1] - level), -960.0, ThoraxLabel.STOMACH)


def _paint_heart(canvas: Canvas, thorax: SyntheticThorax) -> None:
    box = canvas.box((-75, -105, -60), (120, 60, 105))
    points = canvas.at(box)
    ventricles, atria = organs.heart_parts(points, thorax)
    heart = smooth_min(ventricles, atria, 14.0)
    enhanced = max(thorax.left_blood, thorax.right_blood) > 80
    muscle = 45 + (0.2 * thorax.left_blood if enhanced else 0)
    canvas.paint(heart, muscle, ThoraxLabel.HEART, box)
    size = thorax.heart
    axes = organs.heart_axes(thorax)

    def chamber(centre: tuple, radii: tuple, hu: float, oriented: bool = False) -> None:
        place = organs.heart_place(thorax, centre)
        shape = ellipsoid(points, place, tuple(size * r for r in radii), axes if oriented else None)
        canvas.paint(smooth_max(shape, heart + 2.5, 4.0), hu, ThoraxLabel.HEART, box)

    chamber((34, -22, 16), (40, 21, 20), thorax.left_blood, True)
    chamber((12, -48, 22), (42, 22, 14), thorax.right_blood, True)
    chamber((-21, -24, 8), (20, 25, 30), 0.85 * thorax.right_blood + 6)
    chamber((4, 12, 0), (32, 17, 23), thorax.left_blood)


def _paint_vessels(canvas: Canvas, thorax: SyntheticThorax) -> None:
    for name, (line, radii) in organs.vessel_paths(thorax).items():
        if name in organs.AIRWAYS:
            continue
        box = canvas.box(line.min(axis=0), line.max(axis=0), 20.0)
        distance = organs.tube(canvas.at(box), line, radii)
        if name == "oesophagus":
            canvas.paint(distance, 40.0, ThoraxLabel.OESOPHAGUS, box)
            continue
        right = name in organs.VEINS or name in organs.RIGHT_HEART
        canvas.paint(distance, thorax.right_blood if right else thorax.left_blood, ThoraxLabel.VESSEL, box)


def _paint_bones(canvas: Canvas, thorax: SyntheticThorax, rng: np.random.Generator) -> None:
    marrow, cortex = thorax.bone, 650 + 1.2 * thorax.bone
    _paint_spine(canvas, thorax, cortex, marrow, rng)
    cartilage_hu = rng.uniform(70, 320)  # calcified more or less

    def bone(distance: np.ndarray, box: tuple[slice, ...], thickness: float = 1.4) -> None:
        canvas.paint_bone(distance, cortex, marrow, thickness, ThoraxLabel.BONE, box)

    def cartilage(distance: np.ndarray, box: tuple[slice, ...]) -> None:
        canvas.paint(distance, cartilage_hu, ThoraxLabel.CARTILAGE, box)

    mirror = np.array([-1.0, 1.0, 1.0])
    for of_bone, of_cartilage in organs.ribs(thorax):
        for line in (of_bone, of_bone * mirror):
            _paint_chain(canvas, line, np.full(len(line), 3.7), (1.0, 1.0, 0.6), bone)
        for line in (of_cartilage, of_cartilage * mirror):
            if len(line) > 1:
                _paint_chain(canvas, line, np.full(len(line), 3.9), (1.0, 1.0, 0.7), cartilage)
    sternum = organs.sternum_line(thorax)
    _paint_chain(canvas, sternum, np.array([5.4, 5.0, 4.4, 4.4, 3.4]), (0.32, 1.0, 1.0), bone)
    for flip in (np.ones(3), mirror):
        _paint_shoulder(canvas, thorax, flip, bone)


def _paint_shoulder(canvas: Canvas, thorax: SyntheticThorax, flip: np.ndarray, bone: Callable) -> None:
    """Scapula, humerus and clavicle of one side: the left one, or with ``flip`` ``(3,)`` the right one."""
    thick = (1.0, 1.0, 1.0)
    corners, spine, glenoid = organs.scapula(thorax)
    corners, spine = corners * flip, spine * flip
    box = canvas.box(corners.min(axis=0), corners.max(axis=0), 14.0)
    bone(triangle(canvas.at(box), corners) - 2.0, box, 1.2)
    _paint_chain(canvas, spine, np.array([3.0, 4.5, 5.5]), thick, bone)
    _paint_chain(canvas, np.stack([corners[1], glenoid * flip]), np.array([3.5, 5.0]), thick, bone)
    head = (glenoid + np.array([-26, 0, -8 if thorax.arms_up else 2])) * flip
    box = canvas.box(head, head, 32.0)
    bone(ellipsoid(canvas.at(box), head, (22, 22, 22)), box, 1.6)
    if thorax.arms_up:  # arms beside the trunk are taken away at ingest
        shaft = np.stack([head, (glenoid + np.array([-30, -14, -90])) * flip])
        _paint_chain(canvas, shaft, np.array([12.0, 10.0]), thick, partial(bone, thickness=3.5))
    _paint_chain(canvas, organs.clavicle_line(thorax) * flip, np.array([7.0, 5.2, 5.0, 6.0]), thick, bone)


def _paint_chain(
    canvas: Canvas, line: np.ndarray, radii: np.ndarray, scale: tuple[float, float, float], paint: Callable
) -> None:
    """Paint a bent rod. Long ones go in pieces, each in its own small box."""
    pieces = max(1, (len(line) - 1) // 3)
    for part in np.array_split(np.arange(len(line) - 1), pieces):
        low, high = line[part[0] : part[-1] + 2].min(axis=0), line[part[0] : part[-1] + 2].max(axis=0)
        box = canvas.box(low, high, float(radii.max() / min(scale)) + canvas.step + 1.5)
        points = canvas.at(box)
        if points[0].size == 0:
            continue
        distance = None
        for k in part:
            rod = capsule(points, line[k], line[k + 1], (radii[k], radii[k + 1]), scale)
            distance = rod if distance is None else np.minimum(distance, rod)
        paint(distance, box)


def _paint_spine(
    canvas: Canvas, thorax: SyntheticThorax, cortex: float, marrow: float, rng: np.random.Generator
) -> None:
    box = canvas.box((-46, -110, -185), (46, 145, 190))
    x, y, z = canvas.at(box)
    centre = organs.spine_y(z, thorax)
    level = np.interp(z, organs.VERTEBRA_Z, np.arange(len(organs.VERTEBRA_Z))).astype(np.float32)
    height = np.interp(z, organs.VERTEBRA_Z[1:], np.diff(organs.VERTEBRA_Z)).astype(np.float32)
    # A vertebra's frame is tilted with the spine: v runs along it, 0 to 1 from one disc to the next.
    slope = np.where(z < 5, 1.0, 0.75) * -2 * thorax.kyphosis * (z - 5)
    v = np.mod(level + (y - centre) * slope / height, 1.0).astype(np.float32)
    v = np.where(np.isfinite(v), v, 0.5)
    size = np.interp(z, [-150, -60, 60, 160], [0.72, 0.86, 1.0, 1.22]).astype(np.float32)
    waist = 1.0 - 0.10 * np.sin(np.pi * v) ** 2
    body = (np.sqrt((x / 17.0) ** 2 + ((y - centre) / 15.0) ** 2) / (size * waist) - 1) * 14 * size
    disc = (np.abs(v - 0.5) - 0.40) * height  # positive in the disc
    canvas.paint(body, 85.0, ThoraxLabel.CARTILAGE, box)
    canvas.paint_bone(smooth_max(body, disc, 1.5), cortex * 0.75, marrow, 1.0, ThoraxLabel.BONE, box)

    behind = y - centre
    canal = np.sqrt(x * x + (behind - 24 * size) ** 2) - 8.5
    arch = np.abs(canal - 2.5) - 3.5
    arch = np.maximum(arch, (np.abs(v - 0.48) - 0.33) * height)
    lateral = np.abs(x) - 15 * size
    process = np.sqrt((behind - 25 * size - 0.45 * np.maximum(lateral, 0)) ** 2 + ((v - 0.36) * height) ** 2) - 4.6
    process = np.maximum(process, np.abs(x) - 33)
    process = np.maximum(process, 8 - np.abs(x))
    tail = (v - 0.62) * height - 0.9 * (behind - 40 * size) * np.clip((60 - np.abs(z)) / 60, 0.25, 1)
    spinous = np.maximum(np.sqrt(x * x + (0.42 * tail) ** 2) - 3.4, np.abs(behind - 40 * size) - 11)
    posterior = smooth_min(smooth_min(arch, process, 4.0), spinous, 4.0)
    canvas.paint_bone(posterior, cortex, marrow, 1.6, ThoraxLabel.BONE, box)
    canvas.paint(canal + 1.0, 22.0 + rng.normal(0, 5), ThoraxLabel.MUSCLE, box)


def _paint_lungs(
    canvas: Canvas,
    thorax: SyntheticThorax,
    wall: np.ndarray,
    place: _Place,
    lung_points: tuple[np.ndarray, np.ndarray],
    rng: np.random.Generator,
    texture: list[np.ndarray],
) -> None:
    between = np.full(wall.shape, 60.0, dtype=np.float32)
    box = canvas.box((-85, -125, -150), (95, 125, 150))
    between[box] = organs.mediastinum(canvas.at(box), thorax)
    cavities = organs.pleural_cavities(canvas.points, thorax, between, wall)
    y = canvas.points[1]
    hu = thorax.lung + thorax.lung_gravity * (y - 10) / 80 + 9 * texture[0] + 12 * texture[1]
    oblique, horizontal = organs.fissures(canvas.points, thorax)
    sheet = (
        0.8 / canvas.step * (canvas.cover(oblique - 0.5 * canvas.step) + canvas.cover(horizontal - 0.5 * canvas.step))
    )
    hu = hu + 850 * np.minimum(sheet, 1.0) * 0.6

    for sign, cavity, points, label in zip(
        (-1, 1), cavities, lung_points, (ThoraxLabel.RIGHT_LUNG, ThoraxLabel.LEFT_LUNG), strict=True
    ):
        share = canvas.cover(true_distance(cavity, canvas.step))
        canvas.blend(share, hu, label)
        clear = points[np.minimum(*organs.fissures(tuple(points.T), thorax)) > 4]
        leaves = clear[rng.integers(len(clear), size=3072)] + rng.uniform(-3, 3, (3072, 3))
        front = (1 - thorax.depth) * 20
        hilum = np.array([sign * 42.0, 14.0 + front, -10.0])
        arteries = grow_tree(rng, hilum, leaves[:2048], 0.5 * thorax.vessels)
        veins = grow_tree(rng, hilum + np.array([-sign * 4, -12, 12]), leaves[2048:], 0.52 * thorax.vessels)
        wide = arteries.radii > 1.6
        bronchi = Tree(arteries.starts[wide], arteries.ends[wide], arteries.radii[wide])
        beside = np.array([sign * 1.0, 3.5, 0.0])
        for tree, value in (
            (bronchi.shifted(beside, 1.05), 0.0),
            (bronchi.shifted(beside, 0.7), -930.0),
            (arteries, thorax.right_blood),
            (veins, thorax.left_blood),
        ):
            tree.starts, tree.ends = place.index(tree.starts), place.index(tree.ends)
            tree.radii = tree.radii / canvas.step
            filled = draw_tree(tree, share.shape)
            canvas.blend(filled * share, value)


def _paint_airways(canvas: Canvas, thorax: SyntheticThorax) -> None:
    paths = organs.vessel_paths(thorax)
    for inner in (False, True):
        for name in organs.AIRWAYS:
            line, radii = paths[name]
            box = canvas.box(line.min(axis=0), line.max(axis=0), 16.0)
            distance = organs.tube(canvas.at(box), line, radii)
            canvas.paint(distance + 1.5 * inner, -985.0 if inner else 30.0, ThoraxLabel.AIRWAY if inner else None, box)


def _scan(
    hu: np.ndarray, labels: np.ndarray, skin: np.ndarray, thorax: SyntheticThorax, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Blur and noise of the scanner, the ends of the scanned range and the reconstructed circle."""
    size = len(hu)
    step = frame.voxel_size(size)
    hu = ndimage.gaussian_filter(hu, 0.42)  # the point spread of a voxel, as ingest gives a real CT
    # Noise averages out in larger voxels; it is correlated over about a voxel by the reconstruction kernel.
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.6)
    hu = hu + noise * np.float32(thorax.noise * min(1.0, 1.6 / step) / noise.std())
    axis = (np.arange(size) - (size - 1) / 2) * step
    lungs = axis[((labels > 0) & (labels <= ThoraxLabel.LEFT_AIR)).any(axis=(0, 1))]
    outside = skin > 5.0  # ingest takes everything around the patient away
    outside[:, :, (axis < lungs[0] - thorax.scan_top) | (axis > lungs[-1] + thorax.scan_bottom)] = True
    outside[np.hypot(axis[:, None], axis) > thorax.scan_radius] = True
    hu = np.where(outside, frame.AIR_HU, np.rint(np.clip(hu, frame.AIR_HU, 3071))).astype(np.int16)
    return hu, np.where(outside, ThoraxLabel.BACKGROUND, labels).astype(np.uint8)
