from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xrecon_bundle import frame
from xrecon_bundle.projection.film import (
    DETECTOR_MM,
    Look,
    extend_scan,
    film_matrix,
    make_film,
    random_look,
    simulate_dense,
    simulate_materials,
)
from xrecon_bundle.projection.radiographs import simulate_radiographs

PIXELS = 100
SHAPE = (90, 70)


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """A body with lungs, a spine at the back and a dense ball in the patient's left upper front."""
    x, y, z = np.meshgrid(*(np.arange(32),) * 3, indexing="ij")
    hu = np.full((32, 32, 32), -1000, dtype=np.int16)
    hu[((x - 15.5) / 13) ** 2 + ((y - 15.5) / 9) ** 2 < 1] = 40
    hu[((x - 15.5) / 9) ** 2 + ((y - 14) / 6) ** 2 + ((z - 16) / 10) ** 2 < 1] = -850
    hu[(x - 15.5) ** 2 + (y - 22) ** 2 < 5] = 600
    hu[(x - 22) ** 2 + (y - 10) ** 2 + (z - 11) ** 2 < 5] = 1500
    return hu


def thickness(bright: tuple[int, int] | None = None) -> np.ndarray:
    """A wedge that grows along both axes, and a bright pixel block."""
    u, v = np.meshgrid(np.arange(PIXELS), np.arange(PIXELS), indexing="ij")
    soft = 1.0 * u + 0.5 * v
    bone = np.zeros_like(soft)
    if bright:
        bone[bright[0] - 1 : bright[0] + 2, bright[1] - 1 : bright[1] + 2] = 400
    return np.stack([soft, bone])


def plain(shape: tuple[int, int] = (PIXELS, PIXELS)) -> np.ndarray:
    return film_matrix(shape, DETECTOR_MM / PIXELS, PIXELS)


def test_materials_add_up_to_the_simulated_radiographs(chest):
    detector = frame.detector_size_mm()
    materials = simulate_materials(chest, 48, detector)
    nepers = simulate_radiographs(torch.as_tensor(np.maximum(chest, -1000), dtype=torch.float32), 48)
    np.testing.assert_allclose(frame.MU_WATER_PER_MM * materials.sum(axis=1), nepers, rtol=1e-4, atol=1e-4)


def test_a_longer_scan_goes_on_as_soft_tissue_and_narrows_to_a_neck(chest):
    margin = round(50 / frame.voxel_size(32))
    chest = chest.copy()
    chest[..., 30:] = -1000  # the scan ends before the cube
    longer = extend_scan(chest, 50)
    assert longer.shape == (32, 32, 32 + 2 * margin)
    np.testing.assert_array_equal(longer[..., margin + 1 : margin + 29], chest[..., 1:29])
    ends = longer[..., :margin], longer[..., margin + 29 :]
    assert all(end.max() <= 300 for end in ends)  # no metal, little bone
    head, feet = ((end > -500).sum(axis=(0, 1)) for end in ends)
    body = (chest[..., 15] > -1000).sum()
    assert (np.diff(head) >= 0).all()  # a neck
    assert head[0] < 0.6 * body
    assert feet == pytest.approx(np.full(len(feet), body), rel=0.15)  # a belly without gas
    assert (longer[16, 14, : margin - 2] > -200).all()
    with pytest.raises(ValueError, match="no body"):
        extend_scan(np.full((8, 8, 8), -1000))


@pytest.mark.parametrize(
    ("shift", "scale", "degrees"), [((0, 0), 1, 0), ((30, -40), 1, 0), ((0, 0), 1.25, 0), ((20, 10), 0.9, 12)]
)
def test_a_spot_is_seen_where_the_matrix_says(shift, scale, degrees):
    spot = (60, 45)
    matrix = film_matrix(SHAPE, 5.0, PIXELS, shift_mm=shift, scale=scale, degrees=degrees)
    with_spot, without = (make_film(thickness(at), matrix, SHAPE, Look(window=(0, 8))).grey for at in (spot, None))
    difference = np.abs(with_spot - without)
    found = np.array(np.unravel_index(difference.argmax(), SHAPE))
    expected = np.linalg.solve(matrix, [*spot, 1])[:2]
    assert np.abs(found - expected).max() <= 1.5


def test_the_film_matrix_by_hand():
    """Turned by a right angle from u to v and twice as large, the film's pixel to the right lies further down."""
    matrix = film_matrix((11, 11), 4.0, 50, 100.0, shift_mm=(8, -2), scale=2.0, degrees=90)
    np.testing.assert_allclose(matrix @ [5, 5, 1], [24.5 + 4, 24.5 - 1, 1])
    np.testing.assert_allclose(matrix @ [6, 5, 1] - matrix @ [5, 5, 1], [0, 1, 0], atol=1e-12)


def test_a_perfect_system_shows_the_line_integrals():
    film = make_film(thickness(), plain(), (PIXELS, PIXELS), Look())
    inside = (film.grey > 0) & (film.grey < 1)
    assert inside.mean() > 0.95
    assert np.corrcoef(film.grey[inside], thickness().sum(axis=0)[inside])[0, 1] > 0.99999
    assert film.exposed.all()


LOOKS = {
    "soft beam": {"energies": (40.0, 60.0)},
    "tone curve": {"curve": 6.0, "middle": 0.4},
    "gamma": {"gamma": 0.6},
    "window": {"window": (0.2, 0.9)},
    "scatter": {"scatter": 0.5},
}


@pytest.mark.parametrize("name", LOOKS)
def test_what_is_thicker_stays_brighter(name):
    """Along a wedge of one material, tone curves and physics keep the order of grey levels."""
    wedge = thickness() + np.array([20.0, 0.0])[:, None, None]
    grey = make_film(wedge, plain(), (PIXELS, PIXELS), Look(**LOOKS[name])).grey
    assert (np.diff(grey[10:-10, 50]) >= -1e-3).all()
    assert grey[-10, 50] - grey[10, 50] > 0.3


def test_a_soft_beam_shows_bone_brighter():
    contrast = {}
    for energy in (40.0, 100.0):
        materials = np.stack([np.tile(np.linspace(0, 300, PIXELS), (PIXELS, 1)), np.zeros((PIXELS, PIXELS))])
        materials[1, 40:60, 40:60] = 10
        grey = make_film(materials, plain(), (PIXELS, PIXELS), Look(energies=(energy, energy))).grey
        contrast[energy] = grey[50, 50] - grey[20, 50]
    # what bone adds over what water attenuates, at either energy
    assert contrast[40.0] / contrast[100.0] == pytest.approx((3.24 / 0.02683) / (0.60 / 0.01707), rel=0.05)


def test_what_is_collimated_is_not_exposed():
    corners = np.array([[0.2, 0.1], [0.9, 0.1], [0.9, 0.8], [0.2, 0.8]])
    film = make_film(thickness(), plain(), (100, 100), Look(collimation=corners, border=1.0))
    expected = np.zeros((100, 100), dtype=bool)
    expected[20:91, 10:81] = True
    assert (film.exposed != expected).mean() < 0.015
    assert (film.grey[~film.exposed] == 1).all()


def test_a_letter_stands_upright_where_it_was_put():
    """An L: a stem at its left, a foot at its lower end."""
    film = make_film(thickness() * 0, plain(), (100, 100), Look(marks=[("L", 0.5, 0.2, 0.4, 1.0)]))
    ink = film.grey > 0.5
    u, v = np.nonzero(ink)
    assert u.min() >= 50
    assert v.min() >= 20
    stem, foot = ink[u.min() : u.min() + 4].sum(), ink[:, v.max() - 3 : v.max() + 1].sum()
    assert stem > ink[u.max() - 3 : u.max() + 1].sum()
    assert foot > ink[:, v.min() : v.min() + 4].sum()


@given(seed=st.integers(0, 10_000), lateral=st.booleans())
@settings(max_examples=25, deadline=None)
def test_any_look_gives_a_film_and_the_same_seed_the_same(seed, lateral):
    films = []
    for _ in range(2):
        rng = np.random.default_rng(seed)
        films.append(make_film(thickness(), plain(SHAPE), SHAPE, random_look(rng, lateral), rng))
    assert films[0].grey.shape == films[0].exposed.shape == SHAPE
    assert films[0].grey.dtype == np.float32
    assert np.isfinite(films[0].grey).all()
    assert films[0].exposed.any()
    np.testing.assert_array_equal(films[0].grey, films[1].grey)


def test_without_strength_only_crop_and_physics_remain():
    look = random_look(np.random.default_rng(3), lateral=True, strength=0.0)
    assert dataclasses.replace(look, collimation=None).marks == look.lines == look.limbs == []
    assert look.curve == 0
    assert look.gamma == 1
    assert look.window == (0, 1)


def test_bone_is_parted_in_front_and_behind_right_middle_and_left(chest):
    """The spine lies behind, in the middle; the ball in front, on the left: high along x, low along y."""
    front, behind, right, middle, left = simulate_dense(chest, (15.5, 14.0), 64)
    parts = simulate_materials(chest, 64, frame.detector_size_mm())[:, 1]
    np.testing.assert_allclose(front + behind, parts[0], atol=1e-3)
    np.testing.assert_allclose(right + middle + left, parts[1], atol=1e-3)
    u, v = np.unravel_index(front.argmax(), front.shape)
    assert u > 36  # the ball's side
    assert v < 28  # its height
    assert behind[:, 50].argmax() in (31, 32)  # the spine alone is as low as that
    assert front[:, 50].max() < 1e-3
    assert right.max() < 1e-3
    assert middle[:, 50].argmax() > 36
    assert left[:, 50].max() < 1e-3
    assert left.max() > 1


def test_contrast_agent_in_soft_tissue_counts_as_bone_beyond_150_hu():
    slab = np.full((16, 16, 16), 0, dtype=np.int16)
    slab[:, 4:8] = 350
    step = frame.voxel_size(16)
    maps = simulate_dense(slab, (7.5, 7.5), 16)
    assert maps[0, 8, 8] == pytest.approx(0.2 * 4 * step, rel=0.02)
    assert maps[1].max() == pytest.approx(0, abs=1e-4)
