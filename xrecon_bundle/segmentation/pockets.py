"""Pockets of air in a pleural cavity: what is measured of one, and whether it counts as a pneumothorax, and why.

A pneumothorax lies between chest wall and lung, so that about half of its surface or more is wall; the lung keeps its
round outline and bulges into it. A bulla or emphysema is surrounded by lung, and bulges into it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import skimage  # its parts are imported at first use
from scipy import ndimage

from .distance import distance_to
from .parameters import PARAMETERS, PocketRules


@dataclass(frozen=True)
class Pocket:
    """What :func:`measure_pocket` measures.

    Attributes:
        volume_ml: volume in mL.
        thickness_mm: twice the volume over the surface.
        wall: share of the surface that is wall of the cavity, 0 to 1; the rest is lung.
        depth_mm: median depth below the wall.
        reach_mm: 95th percentile of that depth.
        bulge: share of lung around the surface between pocket and lung, where that is away from the wall: 0.5 where it
            is flat, less where the lung bulges into the pocket, more where the pocket bulges; NaN if it is nowhere.
        solidity: share of its convex hull, axial slice by slice and as far as it lies in the cavity, that it fills; NaN
            if it is too thin to count whatever its shape.
        step: rise of density from it to the lung beyond it, from air to lung being 1; infinite if none is seen.
        blur_mm: sigma of the CT's blur in the axial plane.
        centre_mm: centre of gravity ``(3,)`` from the volume's first voxel, along its axes.
    """

    volume_ml: float
    thickness_mm: float
    wall: float
    depth_mm: float
    reach_mm: float
    bulge: float
    solidity: float
    step: float
    blur_mm: float
    centre_mm: tuple[float, float, float]


class Verdict(NamedTuple):
    """Whether a pocket counts as free air, and why, in a sentence."""

    kept: bool
    reason: str


def measure_pocket(
    pocket: np.ndarray,
    cavity: np.ndarray,
    spacing: np.ndarray,
    blur: np.ndarray | None = None,
    density: np.ndarray | None = None,
    clear: np.ndarray | None = None,
    rules: PocketRules = PARAMETERS.pockets,
) -> Pocket:
    """Measure a pocket of air.

    Args:
        pocket: boolean ``(X, Y, Z)``, not empty; :attr:`.PocketRules.bulge_mm` around it should be in the volume.
        cavity: boolean, the pleural cavity that it is a part of.
        spacing: voxel size ``(3,)`` in mm.
        blur: sigma ``(3,)`` of the CT's blur in mm; default: none.
        density: of what is in the cavity, air being 0 and the lung nearby 1; default: not known.
        clear: boolean, where that is known, and no vessel; goes with ``density``.
        rules: how far around the pocket is looked.
    """
    wall, inner = (_contact(pocket, other, spacing) for other in (~cavity, cavity & ~pocket))
    volume = np.count_nonzero(pocket) * float(np.prod(spacing))
    from_wall = distance_to(~cavity, spacing)
    depth = from_wall[pocket]
    blur = np.zeros(3) if blur is None else blur
    step = np.inf
    if density is not None and clear is not None:
        step = _step(pocket, density, clear, spacing / np.maximum(blur, spacing))
    thickness, blur_mm = 2.0 * volume / (wall + inner), float(blur[0])
    thin = thickness <= _least_thickness(blur_mm, rules)
    x, y, z = (float(at) for at in ndimage.center_of_mass(pocket) * np.asarray(spacing))
    return Pocket(
        volume_ml=volume / 1000.0,
        thickness_mm=thickness,
        wall=wall / (wall + inner),
        depth_mm=float(np.median(depth)),
        reach_mm=float(np.percentile(depth, 95)),
        bulge=_bulge(pocket, cavity, from_wall, spacing, rules),
        solidity=np.nan if thin else _solidity(pocket, cavity, spacing, rules.hull_mm),
        step=step,
        blur_mm=blur_mm,
        centre_mm=(x, y, z),
    )


def judge(pocket: Pocket, rules: PocketRules = PARAMETERS.pockets) -> Verdict:
    """Whether a pocket is free air between chest wall and lung.

    Too small and too thin ones cannot be told from errors of the cavity's outline. A thick one shows which way the
    surface between air and lung bulges. Of a thin one about half the surface must be wall, no part of it be deep, and
    the lung beyond be plainly denser; a crescent, which lies along the wall, needs a little less wall.
    """
    p = pocket
    least_thick = _least_thickness(p.blur_mm, rules)
    wall = f"{p.wall:.0%} of its surface is chest wall"
    if p.volume_ml < rules.least_ml:
        return Verdict(False, f"too small to be told from an error of the outline (under {rules.least_ml:g} mL)")
    if p.thickness_mm <= least_thick:
        return Verdict(False, f"too thin to be told from an error of the outline (at least {least_thick:.1f} mm)")
    if p.wall <= rules.least_wall_thick:
        return Verdict(False, f"inside the lung, as a bulla or emphysema: only {wall}")
    if p.thickness_mm > rules.thick_mm[0] and np.isfinite(p.bulge):
        most = float(np.interp(p.thickness_mm, rules.thick_mm, rules.most_bulge))
        around = f"{p.bulge:.0%} of what lies around its inner surface is lung, a pneumothorax has less than {most:.0%}"
        if p.bulge >= most:
            return Verdict(False, f"bulges into the lung, as a bulla: {around}")
        return Verdict(True, f"thick, and the lung bulges into it: {around}")
    if p.thickness_mm <= rules.thick_mm[0] and p.step < rules.least_step:
        return Verdict(False, "the lung beyond it is hardly denser: the dark rim of a healthy lung")
    if p.reach_mm > rules.most_reach * p.thickness_mm:
        return Verdict(False, f"thin, but reaches {p.reach_mm:.0f} mm deep into the lung, as a chain of bullae")
    if p.wall > rules.least_wall_round:
        return Verdict(True, f"a thin layer along the chest wall: {wall}")
    least = float(np.interp(p.solidity, rules.solidity, (rules.least_wall, rules.least_wall_round)))
    if p.wall <= least:
        return Verdict(False, f"thin, with too much lung around it: {wall}, at least {least:.0%} would have to be")
    if p.depth_mm > rules.most_deep * p.thickness_mm:
        return Verdict(False, f"thin, but {p.depth_mm:.0f} mm deep below the chest wall, not along it")
    return Verdict(True, f"a crescent along the chest wall: {wall}")


def _least_thickness(blur_mm: float, rules: PocketRules) -> float:
    """In mm; up to it a pocket cannot be told from an error of the cavity's outline."""
    return max(rules.least_thick_mm, rules.least_thick_sigmas * blur_mm)


def _step(pocket: np.ndarray, density: np.ndarray, clear: np.ndarray, sampling: np.ndarray) -> float:
    """Rise of the density from a pocket to the second layer beyond it, as thick as the CT's edges are wide.

    The darkest part of the lung's rim is no pocket of air: the lung around it is only a little denser.
    """
    distance = distance_to(pocket, sampling)
    beyond = clear & (distance > 1) & (distance <= 2)
    if not beyond.any() or not (pocket & clear).any():
        return np.inf
    return float(np.median(density[beyond]) - np.median(density[pocket & clear]))


def _bulge(
    pocket: np.ndarray, cavity: np.ndarray, from_wall: np.ndarray, spacing: np.ndarray, rules: PocketRules
) -> float:
    lung = cavity & ~pocket
    surface = (lung & ndimage.binary_dilation(pocket)) | (pocket & ndimage.binary_dilation(lung))
    surface &= from_wall > rules.bulge_depth_mm
    if not surface.any():
        return np.nan
    of_lung, of_cavity = (
        ndimage.gaussian_filter(mask.astype(np.float32), rules.bulge_mm / spacing, truncate=rules.bulge_reach)[surface]
        for mask in (lung, cavity)
    )
    return float(np.mean(of_lung / of_cavity))


def _solidity(pocket: np.ndarray, cavity: np.ndarray, spacing: np.ndarray, grid_mm: float) -> float:
    every = tuple(slice(None, None, max(1, int(grid_mm / step))) for step in spacing)
    pocket, cavity = pocket[every], cavity[every]
    hull = 0
    for z in range(pocket.shape[2]):
        area = pocket[..., z]
        if area.any():
            hull += int(np.count_nonzero(skimage.morphology.convex_hull_image(area) & cavity[..., z] | area))
    return np.count_nonzero(pocket) / max(1, hull)


def _contact(first: np.ndarray, second: np.ndarray, spacing: np.ndarray) -> float:
    """Area in mm^2 of the voxel faces between two masks."""
    area = 0.0
    for axis in range(3):
        a, b = np.moveaxis(first, axis, 0), np.moveaxis(second, axis, 0)
        faces = np.count_nonzero(a[1:] & b[:-1]) + np.count_nonzero(a[:-1] & b[1:])
        area += faces * float(np.prod(spacing)) / spacing[axis]
    return area
