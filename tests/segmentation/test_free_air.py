"""What tells free air from a bulla, on shapes whose measures are known, and where the edge of the air is drawn."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from xrecon_bundle.segmentation import Pocket, free_air, judge, measure_pocket

SPACING = np.array([2.0, 2.5, 3.0])
RADIUS = 60.0  # of a pleural cavity that is a ball


def ball(radius: float, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    """A ball on a grid whose middle is the origin, in mm."""
    half = np.ceil(70.0 / SPACING).astype(int)
    grid = np.meshgrid(*(np.arange(-n, n + 1) * step for n, step in zip(half, SPACING, strict=True)), indexing="ij")
    return sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True)) < radius**2


CAVITY = ball(RADIUS)
POCKETS = {
    "crescent": CAVITY & ~ball(50.0, (0, 10, 0)),
    "cap": CAVITY & (np.arange(CAVITY.shape[1]) * SPACING[1] < 35.0)[None, :, None],
    "bulla on the wall": CAVITY & ball(25.0, (0, -45, 0)),
    "bulla in the lung": ball(20.0),
}


def measured(name: str) -> Pocket:
    return measure_pocket(POCKETS[name], CAVITY, SPACING)


@pytest.mark.parametrize(
    ("name", "solidity"), [("crescent", 1 - (50 / 60) ** 3), ("cap", 1.0), ("bulla on the wall", 1.0)]
)
def test_solidity_is_the_share_of_the_hull_that_is_filled(name, solidity):
    """The crescent reaches all round the lung, so that its hull is the cavity."""
    assert measured(name).solidity == pytest.approx(solidity, abs=0.06)


@pytest.mark.parametrize("blur_mm", [3.0, 15.0])
def test_solidity_is_not_asked_of_what_is_too_thin_to_count(blur_mm):
    crescent = measure_pocket(POCKETS["crescent"], CAVITY, SPACING, blur=np.full(3, blur_mm))
    assert np.isnan(crescent.solidity) == ("too thin" in judge(crescent).reason) == (blur_mm > crescent.thickness_mm)


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("crescent", 0.44, 0.49),  # the lung is a ball
        ("cap", 0.49, 0.53),  # its surface is flat
        ("bulla on the wall", 0.56, 0.65),
        ("bulla in the lung", 0.58, 0.68),
    ],
)
def test_bulge_is_the_share_of_lung_around_the_surface(name, least, most):
    assert least < measured(name).bulge < most


def test_a_film_has_no_surface_away_from_the_wall():
    film = measure_pocket(CAVITY & ~ball(RADIUS - 6.0), CAVITY, SPACING)
    assert np.isnan(film.bulge)


@pytest.mark.parametrize(
    ("name", "pleural"),
    [("crescent", True), ("cap", True), ("bulla on the wall", False), ("bulla in the lung", False)],
)
def test_what_lies_along_the_wall_is_pleural(name, pleural):
    assert judge(measured(name)).kept is pleural


@pytest.mark.parametrize(
    ("wall", "thick", "name", "pleural"),
    [
        (0.42, 6.5, "crescent", True),
        (0.34, 6.5, "crescent", False),
        (0.42, 6.5, "cap", False),  # what is round needs more wall
        (0.48, 6.5, "cap", True),
        (0.42, 4.5, "crescent", False),  # deeper below the wall than it is thick: not along it
        (0.60, 3.0, "cap", False),  # parts of it far deeper: a chain of bullae
        (0.34, 8.0, "crescent", True),  # thick: what bulges decides
        (0.34, 8.0, "cap", True),
        (0.70, 8.0, "bulla on the wall", False),
        (0.18, 8.0, "crescent", False),
    ],
)
def test_how_much_wall_is_enough(wall, thick, name, pleural):
    pocket = replace(measured(name), wall=wall, thickness_mm=thick)
    assert judge(pocket).kept is pleural


@pytest.mark.parametrize(
    ("name", "changed", "kept", "reason"),
    [
        ("crescent", {"volume_ml": 7.0}, False, "too small"),
        ("crescent", {"thickness_mm": 2.0}, False, "too thin .*2.1 mm"),
        ("crescent", {"thickness_mm": 2.9, "blur_mm": 3.0}, False, "too thin .*3.0 mm"),
        ("bulla in the lung", {}, False, "inside the lung.*0% of its surface"),
        ("bulla on the wall", {"thickness_mm": 12.0, "wall": 0.3}, False, "bulges into the lung"),
        ("crescent", {"thickness_mm": 12.0}, True, "the lung bulges into it"),
        ("cap", {"thickness_mm": 6.5, "step": 0.4}, False, "dark rim of a healthy lung"),
        ("cap", {"thickness_mm": 3.0, "wall": 0.6}, False, "reaches .* mm deep.*chain of bullae"),
        ("cap", {"thickness_mm": 6.5, "wall": 0.48}, True, "thin layer along the chest wall"),
        ("cap", {"thickness_mm": 6.5, "wall": 0.42}, False, "too much lung around it.*46%"),
        ("crescent", {"thickness_mm": 4.5, "wall": 0.42}, False, "deep below the chest wall"),
        ("crescent", {"thickness_mm": 6.5, "wall": 0.42}, True, "crescent along the chest wall: 42%"),
    ],
)
def test_each_verdict_says_why(name, changed, kept, reason):
    verdict = judge(replace(measured(name), **changed))
    assert verdict.kept is kept
    assert re.search(reason, verdict.reason)


@pytest.mark.parametrize("lung_hu", [-850.0, -600.0, -450.0], ids=["aerated", "half collapsed", "collapsed"])
def test_the_edge_of_the_air_is_half_way_to_the_lung_beside_it(lung_hu):
    """A blurred plane of air against lung; found was only what is surely air."""
    position = (np.arange(80) - 40.2) * 1.5
    sigma, spacing = 4.0, np.full(3, 1.5)
    step = ndimage.gaussian_filter1d(np.repeat(position < 0, 20).astype(float), sigma / 1.5 * 20)[10::20]
    density = np.broadcast_to((lung_hu + step * (-1000 - lung_hu))[:, None, None], (80, 24, 24)).copy()
    sure = density < -1000 + 0.15 * (lung_hu + 1000)
    found = free_air._to_the_edge(sure, density, np.ones_like(sure), spacing, np.full(3, sigma))
    edge = position[found[:, 12, 12]].max()
    assert position[sure[:, 12, 12]].max() < -3.0
    assert -2.0 < edge < 1.5


@pytest.mark.parametrize(("sigma", "step"), [(0.6, 0.7), (1.6, 2.8), (2.4, 2.8), (2.4, 5.6)])
@pytest.mark.parametrize("lung_hu", [-700.0, -550.0])
def test_the_visceral_pleura_does_not_move_the_edge(sigma, step, lung_hu):
    """0.3 mm of it between air and lung: seen through a blur, its bright line used to move the edge 0.4 to 0.8 mm."""
    shifts = []
    for offset in np.arange(0, step, 0.2):  # of the voxels against the edge
        fine = np.arange(-60, 60, 0.1) + offset
        hu = np.select([fine < 0, fine < 0.3], [-1000.0, 0.0], lung_hu)
        every = slice(None, None, round(step / 0.1))
        hu, position = ndimage.gaussian_filter1d(hu, sigma / 0.1)[every], fine[every]
        density = np.broadcast_to(hu[:, None, None], (len(hu), 16, 16)).copy()
        sure = density < -1000 + 0.25 * (lung_hu + 1000)
        found = free_air._to_the_edge(sure, density, np.ones_like(sure), np.full(3, step), np.full(3, sigma))
        shifts.append((np.count_nonzero(found[:, 8, 8]) - np.count_nonzero(position < 0)) * step)
    assert abs(np.mean(shifts)) < 0.38


def blurred_thorax(sigma: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """An ellipsoid of lung in a wall, HU seen through ``sigma`` mm."""
    radii = np.array([45.0, 55.0, 65.0])
    half = np.ceil((radii + 15.0) / spacing).astype(int)
    grid = np.meshgrid(*(np.arange(-n, n + 1) * step for n, step in zip(half, spacing, strict=True)), indexing="ij")
    lung = sum((axis / radius) ** 2 for axis, radius in zip(grid, radii, strict=True)) < 1
    hu = ndimage.gaussian_filter(np.where(lung, -850.0, 30.0).astype(np.float32), sigma / spacing)
    return hu + np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("sigma", "spacing"),
    [
        ((1.6, 1.6, 1.6), (1.3, 1.3, 1.3)),
        ((4.0, 4.0, 4.0), (1.5, 2.5, 1.75)),
        ((1.4, 1.4, 3.5), (1.3, 1.3, 1.7)),  # thick slices
        ((3.0, 3.0, 1.6), (1.3, 1.3, 1.3)),
    ],
)
def test_the_blur_is_measured_along_each_axis(sigma, spacing):
    hu = blurred_thorax(np.array(sigma), np.array(spacing))
    drawn = ndimage.binary_opening(hu < -410)  # as in a CT, by its own HU
    found = free_air.edge_blur(hu, drawn, np.array(spacing))
    np.testing.assert_allclose(found, sigma, rtol=0.25)
    assert found[0] == found[1]


def two_cavities(septum_mm: float, sigma: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two lungs whose flat sides nearly meet: HU, the masks, the spacing."""
    spacing = np.full(3, 2.0)
    across = (np.arange(80) - 39.5) * 2.0
    other_axis = np.abs((np.arange(50) - 24.5) * 2.0) < 40.0
    square = (other_axis[:, None] & other_axis[None])[None]
    first = ((across > -65) & (across < 0))[:, None, None] & square
    second = ((across > septum_mm) & (across < 65))[:, None, None] & square
    hu = np.where(first | second, -870.0, 30.0).astype(np.float32)
    return ndimage.gaussian_filter(hu, sigma / spacing), first, second, spacing


def test_lung_beyond_a_thin_septum_makes_no_air_of_the_lung_before_it():
    """4 mm seen through a blur of 4 mm are less dense than a wall. Once, the lung beside such a septum was air."""
    hu, first, second, spacing = two_cavities(4.0, 4.0)
    for cavity, other in ((first, second), (second, first)):
        beside = cavity & ndimage.binary_dilation(other, iterations=4)
        together, alone = (
            np.median(free_air._unmix(hu, cavity, beyond, spacing, np.full(3, 4.0))[0][beside])
            for beyond in (other, np.zeros_like(other))
        )
        assert together == pytest.approx(-870, abs=3)
        assert alone < together - 15, "what the other cavity is given for"


@pytest.mark.parametrize("beyond", [0.95, 0.35])
def test_step_is_the_rise_of_density_beyond_a_pocket(beyond):
    """A layer of 6 mm at 0.1, a transition as thick as the edge's 2.5 mm, then the lung."""
    position = np.arange(40) * 0.5
    relative = np.select([position < 6, position < 8.5], [0.1, 0.5 * (0.1 + beyond)], beyond)
    relative = np.broadcast_to(relative[:, None, None], (40, 8, 8))
    pocket = np.broadcast_to((position < 6)[:, None, None], (40, 8, 8))
    everywhere, spacing = np.ones_like(pocket), np.array([0.5, 1.0, 1.0])
    everywhere[-1] = False  # the chest wall
    step = measure_pocket(pocket, everywhere, spacing, np.full(3, 2.5), relative, everywhere).step
    assert step == pytest.approx(beyond - 0.1)


def test_a_pocket_with_nothing_seen_beyond_it_is_not_judged_by_its_step():
    everything = np.ones((6, 6, 6), bool)
    everything[0] = False
    nothing = np.zeros(everything.shape)
    assert measure_pocket(everything, everything, np.ones(3), np.ones(3), nothing, everything).step == np.inf
