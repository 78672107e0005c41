"""How sharp a reconstruction shows the surfaces of a chest, in mm, and how far it shows them from where they are.

Along the normal of a surface found in the true CT, a CT's values are its edge spread function; its derivative is the
line spread function, whose full width at half maximum is the resolution across this edge (Richard et al. 2012, Med Phys
39:4115, measure the MTF of a task so, at round inserts). Here every profile is fitted for itself with an error
function, whose place and width are free: a surface that is sharp but somewhere else is sharp, and its distance is told
apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy  # its parts are imported at first use

from ..frame import Vector
from ..segmentation.body import find_body

FWHM = 2 * math.sqrt(2 * math.log(2))  # of a Gaussian, in standard deviations
STEPS_PER_VOXEL = 2
FACING_MM = 2.5  # sigma of the outline whose normal is taken
EXPLAINED = 0.9  # R^2 from which on a profile is an edge
SHOWN = 0.5  # share of the true edge's contrast from which on a reconstruction shows it
DOWN = (0.0, 0.0, 1.0)  # in the chest frame
FACES = 0.7  # cosine from which on a surface faces a direction
BONE_HU = 200.0
NEAR_MM = 25.0  # as far from the lungs a bone is taken for a rib
ITERATIONS = 12


@dataclass(frozen=True)
class EdgeResponse:
    """How a reconstruction shows a surface; NaN where the true CT has no such edge.

    Attributes:
        width_mm: full width at half maximum of the line spread function, median of the true CT's edges; those that the
            reconstruction does not show count as the widest, so infinite means that it shows less than half of them.
        true_width_mm: the same of the true CT.
        shift_mm: median of how far the shown edges lie outside the true ones; negative: inside.
        distance_mm: median of the distance without sign.
        shown: share of the true CT's edges that are shown.
        edges: how many the true CT has among the profiles.
    """

    width_mm: float = np.nan
    true_width_mm: float = np.nan
    shift_mm: float = np.nan
    distance_mm: float = np.nan
    shown: float = np.nan
    edges: int = 0


def edge_response(
    pred: np.ndarray,
    true: np.ndarray,
    region: np.ndarray,
    spacing: Vector,
    *,
    contrast: float,
    reach_mm: float = 20.0,
    where: np.ndarray | None = None,
    facing: Vector | None = None,
    profiles: int = 2000,
    seed: int = 0,
) -> EdgeResponse:
    """How ``pred`` shows the surface of a region of the true CT.

    Args:
        pred: reconstruction in HU, ``(X, Y, Z)``.
        true: CT of the same shape.
        region: boolean, same shape; its outline only says where to look.
        spacing: voxel size in mm along x, y and z.
        contrast: HU across a true edge, at least.
        reach_mm: of a profile to either side; no edge with a larger width than 1.2 times this is found.
        where: boolean, same shape: only the surface there; None: all.
        facing: only the surface whose outward normal is within 45 degrees of this direction; None: all.
        profiles: at most so many, drawn at random.
        seed: of the draw.

    Raises:
        ValueError: the shapes differ.
    """
    if not pred.shape == true.shape == region.shape:
        raise ValueError(f"edges need volumes of one shape, got {pred.shape}, {true.shape} and {region.shape}")
    splines = _spline(pred), _spline(true)
    return _edge_response(*splines, region, spacing, contrast, reach_mm, where, facing, profiles, seed)


def _edge_response(
    pred: np.ndarray,
    true: np.ndarray,
    region: np.ndarray,
    spacing: Vector,
    contrast: float,
    reach_mm: float = 20.0,
    where: np.ndarray | None = None,
    facing: Vector | None = None,
    profiles: int = 2000,
    seed: int = 0,
) -> EdgeResponse:
    """The same of splines, which are found once."""
    steps = np.asarray(spacing, dtype=float)
    points, normals = _surface(region, steps, where, facing)
    along = np.arange(-reach_mm, reach_mm + 1e-6, steps.min() / STEPS_PER_VOXEL)
    reach = np.abs(normals) * reach_mm / steps
    inside = np.all((points >= reach) & (points <= np.array(true.shape) - 1 - reach), axis=1)
    points, normals = points[inside], normals[inside]
    if len(points) > profiles:
        drawn = np.random.default_rng(seed).choice(len(points), profiles, replace=False)
        points, normals = points[drawn], normals[drawn]
    if not len(points):
        return EdgeResponse()
    at = np.moveaxis(points[:, None] + along[:, None] * (normals / steps)[:, None], -1, 0)
    seen = _sample(true, at)
    rising = np.sign(np.median(seen[:, along > 0].mean(1) - seen[:, along < 0].mean(1))) or 1.0
    truth = _fit_edges(rising * seen, along)
    edges = truth.found(contrast, reach_mm)
    if not edges.any():
        return EdgeResponse()
    found = _fit_edges(rising * _sample(pred, at[:, edges]), along)
    truth = truth.of(edges)
    shown = found.found(SHOWN * truth.contrast, reach_mm)
    shift = (found.place - truth.place)[shown]
    return EdgeResponse(
        width_mm=FWHM * float(np.median(np.where(shown, found.sigma, np.inf))),
        true_width_mm=FWHM * float(np.median(truth.sigma)),
        shift_mm=float(np.median(shift)) if shown.any() else np.nan,
        distance_mm=float(np.median(np.abs(shift))) if shown.any() else np.nan,
        shown=float(shown.mean()),
        edges=len(shown),
    )


def chest_resolution(
    pred: np.ndarray, true: np.ndarray, cavities: np.ndarray, spacing: Vector
) -> dict[str, EdgeResponse]:
    """The :func:`edge_response` of the body, the lungs, the diaphragm (their lower surface) and the ribs.

    Args:
        pred: reconstruction in HU, chest frame ``(X, Y, Z)``.
        true: CT of the same shape.
        cavities: pleural cavities of the true CT, same shape, 0 elsewhere.
        spacing: voxel size in mm along x, y and z.
    """
    lungs, volumes = cavities > 0, (_spline(pred), _spline(true))
    # Not between the lungs or below, where contrast medium is as dense.
    near = scipy.ndimage.distance_transform_edt(~lungs, sampling=spacing) <= NEAR_MM
    beside = near & ~_between(lungs)
    return {
        "body": _edge_response(*volumes, find_body(true), spacing, contrast=500.0),
        "lungs": _edge_response(*volumes, lungs, spacing, contrast=400.0),
        "diaphragm": _edge_response(*volumes, lungs, spacing, contrast=400.0, facing=DOWN),
        "ribs": _edge_response(*volumes, true > BONE_HU, spacing, contrast=150.0, reach_mm=6.0, where=beside),
    }


@dataclass(frozen=True)
class _Edges:
    """Fitted error functions, one a profile: place and sigma in mm, contrast in HU, R^2."""

    place: np.ndarray
    sigma: np.ndarray
    contrast: np.ndarray
    explained: np.ndarray

    def found(self, contrast: float | np.ndarray, reach_mm: float) -> np.ndarray:
        fits = (np.abs(self.place) <= reach_mm / 2) & (self.sigma <= reach_mm / 2)
        return fits & (self.explained >= EXPLAINED) & (self.contrast >= contrast)

    def of(self, which: np.ndarray) -> _Edges:
        return _Edges(self.place[which], self.sigma[which], self.contrast[which], self.explained[which])


def _surface(
    region: np.ndarray, steps: np.ndarray, where: np.ndarray | None, facing: Vector | None
) -> tuple[np.ndarray, np.ndarray]:
    """Voxels at the region's surface ``(n, 3)``, and their outward normals in mm."""
    rim = region & ~scipy.ndimage.binary_erosion(region, border_value=1)
    smooth = scipy.ndimage.gaussian_filter(region.astype(np.float32), FACING_MM / steps)
    points = np.argwhere(rim if where is None else rim & where)
    normals = -np.stack([_slope(smooth, points, axis) / step for axis, step in enumerate(steps)], axis=1)
    length = np.linalg.norm(normals, axis=1)
    points, normals = points[length > 0], normals[length > 0] / length[length > 0, None]
    if facing is not None:
        kept = normals @ (np.asarray(facing) / np.linalg.norm(facing)) >= FACES
        points, normals = points[kept], normals[kept]
    return points, normals


def _slope(volume: np.ndarray, points: np.ndarray, axis: int) -> np.ndarray:
    """Central differences at some voxels."""
    last = volume.shape[axis] - 1
    after, before = points.copy(), points.copy()
    after[:, axis] = np.minimum(after[:, axis] + 1, last)
    before[:, axis] = np.maximum(before[:, axis] - 1, 0)
    return volume[tuple(after.T)] - volume[tuple(before.T)]


def _spline(volume: np.ndarray) -> np.ndarray:
    """Coefficients of the cubic spline through a volume: linear interpolation would blur."""
    return scipy.ndimage.spline_filter(volume, order=3, output=np.float32, mode="nearest")


def _sample(spline: np.ndarray, at: np.ndarray) -> np.ndarray:
    return scipy.ndimage.map_coordinates(spline, at, order=3, mode="nearest", prefilter=False)


def _fit_edges(profiles: np.ndarray, along: np.ndarray) -> _Edges:
    """Error functions that rise along ``profiles`` ``(n, k)``: the best of a table, then Levenberg-Marquardt."""
    reach, step = along[-1], along[1] - along[0]
    table = np.stack(np.meshgrid(np.arange(-reach, reach, 2 * step), np.geomspace(step, reach, 12)), -1).reshape(-1, 2)
    shapes = scipy.special.ndtr((along - table[:, :1]) / table[:, 1:])
    shapes -= shapes.mean(1, keepdims=True)
    centred = profiles - profiles.mean(1, keepdims=True)
    best = table[np.argmax(centred @ (shapes / np.linalg.norm(shapes, axis=1, keepdims=True)).T, axis=1)]
    place, log_sigma = best[:, 0].copy(), np.log(best[:, 1])
    damping = np.full(len(profiles), 1e-2)
    base, contrast, error = _straight(profiles, scipy.special.ndtr((along - place[:, None]) / best[:, 1:]))
    for _ in range(ITERATIONS):
        sigma = np.exp(log_sigma)[:, None]
        z = (along - place[:, None]) / sigma
        bell = contrast[:, None] * np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
        shape = scipy.special.ndtr(z)
        slopes = np.stack([np.ones_like(z), shape, -bell / sigma, -bell * z], axis=2)
        left = profiles - base[:, None] - contrast[:, None] * shape
        normal = np.einsum("nki,nkj->nij", slopes, slopes)
        normal += damping[:, None, None] * (normal * np.eye(4)) + 1e-9 * np.eye(4)
        change = np.linalg.solve(normal, np.einsum("nki,nk->ni", slopes, left)[..., None])[..., 0]
        tried_place = place + change[:, 2]
        tried_log_sigma = (log_sigma + change[:, 3].clip(-1, 1)).clip(np.log(step / 10), np.log(10 * reach))
        tried = _straight(
            profiles, scipy.special.ndtr((along - tried_place[:, None]) / np.exp(tried_log_sigma)[:, None])
        )
        better = tried[2] < error
        place, log_sigma = np.where(better, tried_place, place), np.where(better, tried_log_sigma, log_sigma)
        base, contrast, error = (
            np.where(better, new, old) for new, old in zip(tried, (base, contrast, error), strict=True)
        )
        damping = np.where(better, damping / 4, damping * 8)
    total = np.square(centred).sum(1)
    return _Edges(place, np.exp(log_sigma), contrast, 1 - error / np.where(total > 0, total, 1))


def _straight(profiles: np.ndarray, shape: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Base and contrast by which each shape fits its profile best, and the sum of squares that is left."""
    mean, middle = profiles.mean(1), shape.mean(1)
    centred, shape = profiles - mean[:, None], shape - middle[:, None]
    contrast = (centred * shape).sum(1) / np.square(shape).sum(1).clip(1e-12)
    return mean - contrast * middle, contrast, np.square(centred - contrast[:, None] * shape).sum(1)


def _between(lungs: np.ndarray) -> np.ndarray:
    """The convex hull of the lungs in every axial slice, and what lies below it: boolean, same shape."""
    from skimage.morphology import convex_hull_image

    slices = [convex_hull_image(lungs[..., z]) if lungs[..., z].any() else lungs[..., z] for z in range(lungs.shape[2])]
    return np.logical_or.accumulate(np.stack(slices, axis=-1), axis=2)
