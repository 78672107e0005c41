"""Varied anatomy from a real CT: one or a few scans become a cohort.

A pseudo-patient is the real one seen through a diffeomorphism: body size and pose (affine), and a flow of breath,
organ sizes, soft-tissue thickness and smooth random change. The flow is the exponential of a stationary velocity
field by scaling and squaring (Arsigny et al., MICCAI 2006, https://doi.org/10.1007/11866565_113), so it has no folds;
that is checked by the Jacobian determinant and the flow weakened until it holds. Nothing is mirrored: heart and liver
stay where they are. Contrast, lung density and noise vary too.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .. import frame
from .disease import add_lung_disease

GRID_MM = 8.0  # of the velocity field; what it holds is smoother
LEAST_JACOBIAN = 0.2
STANDING_DOMES_MM = (16.0, 50.0)  # by which the domes are lower, before the flow is weakened
STANDING_HEART = (0.05, 0.25)  # by which the heart is narrower
_LUNGS = (1, 2, 3, 4)


def make_pseudo_patient(
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: frame.Vector,
    seed: int,
    standing: bool = False,
    diseased: bool = False,
    spread: float = 1.0,
    towards: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Deform a CT and its labels and vary its intensities.

    Args:
        hu: CT ``(X, Y, Z)`` in HU, LPI.
        labels: label map ``(X, Y, Z)``. 1 to 4 are the pleural cavities; every other value is an organ whose size may
            change by itself.
        spacing: voxel size in mm.
        seed: same seed, same patient.
        standing: the CT's patient lay, this one stands, as for a radiograph: see :func:`random_deformation`.
        diseased: one dome of the diaphragm may be higher, and :func:`~.disease.add_lung_disease`.
        spread: of size, organs, chest wall and smooth change, in multiples of the usual one.
        towards: a share of a velocity that leads to another person's shape, :func:`.likeness.velocity_between`.

    Returns:
        CT (int16 HU) and labels (their dtype) on the same grid.

    Raises:
        ValueError: shapes differ, or the label map shows no lung.
    """
    if hu.shape != labels.shape:
        raise ValueError(f"hu {hu.shape} and labels {labels.shape} must have one shape")
    if not np.isin(labels, _LUNGS).any():
        raise ValueError("the label map holds no lung (values 1 to 4)")
    edges = np.asarray(spacing, dtype=float)
    source = random_deformation(labels, edges, seed, standing, diseased, spread, towards)
    moved = ndimage.map_coordinates(hu.astype(np.float32), source, order=3, mode="nearest")
    moved_labels = ndimage.map_coordinates(labels, source, order=0, mode="nearest")
    varied = _vary_intensity(moved, moved_labels, jacobian(source), edges, np.random.default_rng([seed, 1]))
    if diseased:
        varied, moved_labels = add_lung_disease(varied, moved_labels, spacing, np.random.default_rng([seed, 4]))
    return np.rint(np.clip(varied, frame.AIR_HU, 3071)).astype(np.int16), moved_labels


def random_deformation(
    labels: np.ndarray,
    spacing: frame.Vector,
    seed: int,
    standing: bool = False,
    diseased: bool = False,
    spread: float = 1.0,
    towards: np.ndarray | None = None,
) -> np.ndarray:
    """Where each voxel of the pseudo-patient comes from in the real one: voxel indices ``(3, X, Y, Z)``, float32.

    Arguments as :func:`make_pseudo_patient`. The Jacobian determinant of the map is positive everywhere.

    Who stands has lower domes of the diaphragm and a narrower heart, and, at deep inspiration, 10.9 % more lung on
    average, most of it in the lower lobes (Yamada et al., Respiration 99 (2020) 598, 32 volunteers). The LIDC CT's
    gains 9.8 % (six seeds); how much narrower the heart becomes is an assumption.
    """
    edges = np.asarray(spacing, dtype=float)
    rng = np.random.default_rng([seed, 0])
    nodes = grid_nodes(labels.shape, edges)
    coarse = np.array([len(node) for node in nodes])
    index = np.stack(np.meshgrid(*nodes, indexing="ij"))
    step = np.array([node[1] - node[0] for node in nodes]) * edges
    position = index * edges[:, None, None, None]
    organs = ndimage.map_coordinates(labels, index, order=0)

    velocity = _breath(organs, position, rng) + spread * _organ_sizes(organs, position, rng)
    velocity += spread * _soft_tissue(organs, position, rng) + spread * _smooth_noise(coarse, step, rng)
    if standing:
        velocity += _standing(organs, position, np.random.default_rng([seed, 2]))
    if towards is not None:
        velocity += towards
    if diseased:
        velocity += _one_dome(organs, position, np.random.default_rng([seed, 3]))
    affine, centre = _body(organs, position, rng, spread)
    for _ in range(12):
        flow = position + exponential(velocity, step)
        moved = np.einsum("ij,jxyz->ixyz", affine, flow - centre) + centre
        if jacobian(moved / step[:, None, None, None]).min() > LEAST_JACOBIAN:
            break
        velocity = 0.8 * velocity
    source = moved / edges[:, None, None, None]
    return on_finer_grid(source, np.array(labels.shape))


def grid_nodes(shape: tuple[int, ...], spacing: frame.Vector) -> list[np.ndarray]:
    """Voxel indices along each axis, about :data:`GRID_MM` apart, at which velocities are given."""
    edges = (np.array(shape) - 1) * np.asarray(spacing, dtype=float)
    counts = np.maximum(np.ceil(edges / GRID_MM).astype(int) + 1, 3)
    return [np.linspace(0, n - 1, count) for n, count in zip(shape, counts, strict=True)]


def on_finer_grid(values: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Cubic spline through ``values`` ``(3, x, y, z)`` on a grid of ``shape`` with the same corners, float32.

    As the grid is regular, each axis is interpolated by itself: a product of three small matrices.
    """
    values = values.astype(np.float32)
    for axis, count in enumerate(shape, start=1):
        nodes = values.shape[axis]
        at = np.linspace(0, nodes - 1, count)
        weights = [ndimage.map_coordinates(unit, [at], order=3, mode="nearest") for unit in np.eye(nodes)]
        moved = np.moveaxis(values, axis, -1) @ np.array(weights, dtype=np.float32)
        values = np.moveaxis(moved, -1, axis)
    return np.ascontiguousarray(values)


def exponential(velocity: np.ndarray, step: np.ndarray, squarings: int = 7) -> np.ndarray:
    """Displacement ``(3, X, Y, Z)`` in mm of the flow of a stationary ``velocity`` (mm) on a grid of ``step`` mm."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in velocity.shape[1:]), indexing="ij"))
    displacement = velocity / 2**squarings
    for _ in range(squarings):
        at = grid + displacement / step[:, None, None, None]
        displacement = displacement + np.stack(
            [ndimage.map_coordinates(part, at, order=1, mode="nearest") for part in displacement]
        )
    return displacement


def jacobian(source: np.ndarray) -> np.ndarray:
    """Determinant ``(X, Y, Z)`` of a map given as indices ``(3, X, Y, Z)`` on its own grid."""
    a, b, c = (np.gradient(part) for part in source)
    minors = [b[i] * c[j] - b[j] * c[i] for i, j in ((1, 2), (2, 0), (0, 1))]
    return a[0] * minors[0] + a[1] * minors[1] + a[2] * minors[2]


def _body(
    organs: np.ndarray, position: np.ndarray, rng: np.random.Generator, spread: float
) -> tuple[np.ndarray, np.ndarray]:
    """Size and pose, about the middle of the lungs."""
    lungs = position[:, np.isin(organs, _LUNGS)]
    centre = 0.5 * (lungs.min(axis=1) + lungs.max(axis=1))
    size = np.exp(spread * (rng.normal(0, 0.06) + rng.normal(0, 0.035, 3)))
    turn = Rotation.from_euler("xyz", rng.normal(0, [2.0, 1.5, 3.0]), degrees=True).as_matrix()
    return turn @ np.diag(size), centre[:, None, None, None]


def _breath(organs: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The diaphragm, higher or lower by up to 25 mm: most at the lungs' base, none at the chest wall and the apex."""
    x, y, z = _within_lungs(organs, position)
    return _domes(_bump(x) * _bump(y), z, rng.uniform(-22, 22))


def _within_lungs(organs: np.ndarray, position: np.ndarray) -> np.ndarray:
    """Positions ``(3, ...)`` as shares of the box around both lungs."""
    lungs = position[:, np.isin(organs, _LUNGS)]
    low, high = (edge[:, None, None, None] for edge in (lungs.min(axis=1), lungs.max(axis=1)))
    return (position - low) / (high - low)


def _domes(where: np.ndarray, z: np.ndarray, higher_mm: float) -> np.ndarray:
    velocity = np.zeros((3, *z.shape))
    velocity[2] = higher_mm * np.exp(-(((z - 0.78) / 0.3) ** 2)) * where
    return velocity


def _one_dome(organs: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In one of two the diaphragm of one side is higher: a lung that has lost volume."""
    chance, side, higher_mm = rng.random(), rng.choice((1, 2)), rng.uniform(10, 60)
    lung = position[:, organs == side]
    if chance < 0.5 or not lung.size:
        return np.zeros_like(position)
    _, y, z = _within_lungs(organs, position)
    low, high = lung[0].min(), lung[0].max()
    return _domes((_bump((position[0] - low) / (high - low)) * _bump(y)) ** 0.5, z, higher_mm)


def _standing(organs: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lower domes, and a heart that is narrower from side to side."""
    x, y, z = _within_lungs(organs, position)
    # Under all of both lungs, not only in the middle as a breath.
    velocity = _domes((_bump(x) * _bump(y)) ** 0.25, z, -rng.uniform(*STANDING_DOMES_MM))
    # Between the lungs, in front of the spine, below the hila, whether labels name the heart or not.
    heart = ~np.isin(organs, _LUNGS) & (abs(x - 0.5) < 0.25) & (abs(y - 0.35) < 0.3) & (abs(z - 0.62) < 0.15)
    places = position[:, heart]
    if places.shape[1] >= 8:
        middle, reach = places.mean(axis=1), np.maximum(places.std(axis=1) * 1.6, 2 * GRID_MM)
        offset = position - middle[:, None, None, None]
        near = np.exp(-0.5 * ((offset / reach[:, None, None, None]) ** 2).sum(axis=0))
        velocity[0] += rng.uniform(*STANDING_HEART) * offset[0] * near
    return velocity


def _organ_sizes(organs: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every organ grows or shrinks about its own middle by up to some 12 %."""
    velocity = np.zeros_like(position)
    for value in np.unique(organs[organs > 0]):
        places = position[:, organs == value]
        share = rng.uniform(-0.12, 0.12)
        if places.shape[1] < 8:
            continue
        middle, reach = places.mean(axis=1), np.maximum(places.std(axis=1) * 1.6, 2 * GRID_MM)
        offset = position - middle[:, None, None, None]
        near = np.exp(-0.5 * ((offset / reach[:, None, None, None]) ** 2).sum(axis=0))
        velocity += share * offset * near
    return velocity


def _soft_tissue(organs: np.ndarray, position: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Chest wall thicker or thinner: what lies outside the lungs' outline moves in or out, along the axial radius."""
    lungs = position[:, np.isin(organs, _LUNGS)]
    low, high = lungs.min(axis=1)[:2], lungs.max(axis=1)[:2]
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    offset = position[:2] - middle[:, None, None, None]
    radius = np.sqrt((offset**2).sum(axis=0)) + 1e-6
    outline = radius / np.maximum(np.sqrt(((offset / half[:, None, None, None]) ** 2).sum(axis=0)), 1e-3)
    beyond = np.clip(radius - outline, 0, 45.0)
    velocity = np.zeros_like(position)
    velocity[:2] = rng.uniform(-0.3, 0.35) * beyond * offset / radius
    return velocity


def _smooth_noise(coarse: np.ndarray, step: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    width = rng.uniform(26, 45) / step
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(coarse), width, mode="nearest") for _ in range(3)])
    return noise / noise.std() * rng.uniform(2.0, 5.0)


def _bump(t: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * np.clip(t, 0, 1)) ** 2


def _vary_intensity(
    hu: np.ndarray, labels: np.ndarray, determinant: np.ndarray, spacing: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Lung density by the change of volume and a factor of its own; contrast agent and bone; fat; noise."""
    lungs = np.isin(labels, (1, 2))
    tissue = hu / 1000 + 1
    factor = np.clip(determinant, 0.6, 1.6) * rng.uniform(0.92, 1.12)
    hu = np.where(lungs & (tissue < 0.6), (tissue * factor - 1) * 1000, hu)
    hu = np.where(hu > 80, 80 + (hu - 80) * rng.uniform(0.7, 1.25), hu)
    fat = np.exp(-(((hu + 100) / 60) ** 2))
    hu = hu + rng.normal(0, 5) * fat
    level = rng.uniform(0, 10) * min(1.0, 1.6 / float(np.mean(spacing)))
    noise = ndimage.gaussian_filter(rng.standard_normal(hu.shape, dtype=np.float32), 0.6)
    inside = hu > -1015  # air around the patient stays what ingest made it
    return hu + np.where(inside, noise * (level / noise.std()), 0.0)
