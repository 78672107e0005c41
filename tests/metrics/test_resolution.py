"""Edges against analytic ones: blurred, tilted, displaced, missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from xrecon_bundle.metrics import chest_resolution, edge_response

FWHM = 2.3548
SPACING = (1.5, 2.0, 1.8)
SHAPE = (44, 36, 40)
CENTRE = (35.0, 33.0, 39.0)  # mm, of the ball: not the cube's centre


def places(shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Millimetres ``(3, X, Y, Z)``."""
    return np.stack(np.meshgrid(*(np.arange(n) * d for n, d in zip(shape, SPACING, strict=True)), indexing="ij"))


def outside_plane(normal: np.ndarray) -> np.ndarray:
    """Signed distance from a plane through the middle, positive on the side that ``normal`` points to."""
    middle = (np.array(SHAPE) - 1) * SPACING / 2
    return np.tensordot(normal, places() - middle[:, None, None, None], 1)


def outside_ball(radius: float, centre: tuple[float, float, float] = CENTRE) -> np.ndarray:
    return np.linalg.norm(places() - np.array(centre)[:, None, None, None], axis=0) - radius


def edge(distance: np.ndarray, sigma: float, inside: float = -850.0, outside: float = 50.0) -> np.ndarray:
    """HU with a Gaussian line spread function of ``sigma`` mm across the surface where ``distance`` is 0."""
    return inside + (outside - inside) * ndtr(distance / sigma)


@settings(max_examples=25, deadline=None)
@given(
    sigma=st.floats(1.6, 6.0),
    contrast=st.floats(150.0, 1500.0),
    darker_inside=st.booleans(),
    normal=st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda n: np.linalg.norm(n) > 0.3),
)
def test_width_is_that_of_the_gaussian(sigma: float, contrast: float, darker_inside: bool, normal: tuple) -> None:
    distance = outside_plane(np.array(normal) / np.linalg.norm(normal))
    levels = (-900.0, -900.0 + contrast) if darker_inside else (-900.0 + contrast, -900.0)
    pred, true = edge(distance, sigma, *levels), edge(distance, 1.6, *levels)
    result = edge_response(pred, true, distance < 0, SPACING, contrast=0.9 * contrast, profiles=50)
    assert result.edges > 20
    assert result.width_mm == pytest.approx(FWHM * sigma, rel=0.02)
    assert result.true_width_mm == pytest.approx(FWHM * 1.6, rel=0.02)
    assert result.shift_mm == pytest.approx(0, abs=0.03)


@pytest.mark.parametrize("radius", [19.0, 22.0, 25.5])
def test_a_displaced_surface(radius: float) -> None:
    true = edge(outside_ball(22.0), 1.8)
    result = edge_response(edge(outside_ball(radius), 3.0), true, outside_ball(22.0) < 0, SPACING, contrast=500)
    assert result.shift_mm == pytest.approx(radius - 22.0, abs=0.1)
    assert result.distance_mm == pytest.approx(abs(radius - 22.0), abs=0.1)
    assert result.width_mm == pytest.approx(FWHM * 3.0, rel=0.04)
    assert result.shown == 1


def test_the_side_that_faces_a_direction() -> None:
    """A ball that moved to the feet is further out below, further in above."""
    ball, moved = outside_ball(20.0), outside_ball(20.0, (CENTRE[0], CENTRE[1], CENTRE[2] + 3))
    shifts = [
        edge_response(
            edge(moved, 2.0), edge(ball, 2.0), ball < 0, SPACING, contrast=500, reach_mm=15, facing=direction
        ).shift_mm
        for direction in ((0, 0, 1), (0, 0, -1), (1, 0, 0))
    ]
    assert shifts == pytest.approx([2.6, -2.6, 0], abs=0.3)


def test_only_the_surface_that_is_asked_for() -> None:
    ball, left = outside_ball(20.0), places()[0] > CENTRE[0]
    pred = np.where(left, edge(ball, 4.0), edge(ball, 2.0))
    for where, sigma in ((left, 4.0), (~left, 2.0)):
        result = edge_response(pred, edge(ball, 2.0), ball < 0, SPACING, contrast=500, reach_mm=15, where=where)
        assert result.width_mm == pytest.approx(FWHM * sigma, rel=0.08)


def test_what_is_not_shown() -> None:
    """Half of the surface missing is not half as sharp; all of it missing is no width."""
    ball = outside_ball(20.0)
    true = edge(ball, 2.0)
    upper = places()[2] < CENTRE[2] - 6
    partly = edge_response(np.where(upper, 50.0, true), true, ball < 0, SPACING, contrast=500, reach_mm=15)
    assert 0.5 < partly.shown < 0.8
    assert partly.width_mm == pytest.approx(FWHM * 2, rel=0.08)
    gone = edge_response(np.full(SHAPE, 50.0), true, ball < 0, SPACING, contrast=500, reach_mm=15)
    assert (gone.shown, gone.width_mm, gone.edges) == (0, np.inf, partly.edges)
    assert np.isnan(gone.shift_mm)
    faint = edge_response(edge(ball, 2.0, outside=-500.0), true, ball < 0, SPACING, contrast=500, reach_mm=15)
    assert faint.shown == 0


@pytest.mark.parametrize("region", [np.zeros(SHAPE, bool), np.ones(SHAPE, bool), outside_ball(20.0) < 0])
def test_no_surface_in_the_true_ct(region: np.ndarray) -> None:
    pred, noise = edge(outside_ball(20.0), 2.0), np.random.default_rng(0).normal(0, 20, SHAPE)
    result = edge_response(pred, noise, region, SPACING, contrast=500, reach_mm=15)
    assert result.edges == 0
    assert np.isnan([result.width_mm, result.true_width_mm, result.shift_mm, result.shown]).all()


def test_shapes_must_match() -> None:
    with pytest.raises(ValueError, match="one shape"):
        edge_response(np.zeros((8, 8, 8)), np.zeros((8, 8, 9)), np.zeros((8, 8, 8), bool), SPACING, contrast=1)


def test_surfaces_of_a_chest() -> None:
    """A cylinder with two lungs that end in flat diaphragms, a rib, and contrast medium between the lungs."""
    shape, step = (112, 80, 72), 2.0
    x, y, z = np.meshgrid(*((np.arange(n) - (n - 1) / 2) * step for n in shape), indexing="ij")

    def chest(sigma: float, diaphragm: float, ribs: bool = True) -> np.ndarray:
        body = ndtr((70 - np.hypot(x / 1.3, y)) / sigma)
        lungs = sum(
            ndtr((32 - np.hypot(x - side, y)) / sigma) * ndtr((diaphragm - z) / sigma) for side in (-44.0, 44.0)
        )
        rib = ndtr((5 - np.abs(z + 20)) / sigma) * ndtr((82 - np.abs(x)) / sigma) * ndtr((np.abs(x) - 78) / sigma)
        vessel = ndtr((6 - np.hypot(x, y)) / sigma)
        return -1000 + 1040 * body - 850 * lungs + 900 * ribs * rib * (np.abs(y) < 25) + 400 * vessel

    true, cavities = chest(1.7, 20.0), chest(1.7, 20.0) < -400
    cavities &= np.hypot(x / 1.3, y) < 60
    result = chest_resolution(chest(3.4, 16.0, ribs=False), true, cavities, (step,) * 3)
    for surface in ("body", "lungs", "diaphragm"):
        assert result[surface].width_mm == pytest.approx(FWHM * 3.4, rel=0.1)
    assert result["lungs"].shift_mm == pytest.approx(0, abs=0.3)
    assert result["diaphragm"].shift_mm == pytest.approx(-4, abs=0.2)
    assert result["diaphragm"].edges < result["lungs"].edges
    assert result["ribs"].edges > 100
    assert result["ribs"].width_mm == np.inf
    assert chest_resolution(true, chest(1.7, 20.0, ribs=False), cavities, (step,) * 3)["ribs"].edges == 0
