"""Films as training data: the geometry that is handed on is the film's, and placing by it leads back to the frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from radiograph_cases import marked_chest, marker_on_detector_mm
from scipy.ndimage import center_of_mass

from xrecon_bundle import frame
from xrecon_bundle.frame import radiograph_to_unit
from xrecon_bundle.projection.film import DETECTOR_MM
from xrecon_bundle.projection.radiographs import simulate_radiographs
from xrecon_bundle.transforms import RandFilmd, RandPlaceFilmd, SimulateMaterialsd

PIXELS, FILM = 200, 160


@pytest.fixture(scope="module")
def chest() -> torch.Tensor:
    """A light body with a dense ball at left-anterior-superior, ``(1, 64, 64, 64)`` HU."""
    return torch.from_numpy(marked_chest(64).clip(-1000, 1500))[None]


@pytest.fixture(scope="module")
def materials(chest) -> torch.Tensor:
    water = torch.where(chest > -900, chest.clamp(min=-300), chest)
    return SimulateMaterialsd(pixels=PIXELS)({"label": water})["materials"]


def spot(image: np.ndarray) -> np.ndarray:
    """Pixel of the marker; NaN counts as dark."""
    image = np.nan_to_num(image)
    return np.array(center_of_mass(image > 0.9 * image.max()))


def test_materials_are_two_views_of_two_materials(materials):
    assert materials.shape == (2, 2, PIXELS, PIXELS)
    assert materials.dtype == torch.float16
    for view, bone in zip(("pa", "lateral"), materials[:, 1].float().numpy(), strict=True):
        found = (spot(bone) - (PIXELS - 1) / 2) * DETECTOR_MM / PIXELS
        assert found == pytest.approx(marker_on_detector_mm()[view], abs=DETECTOR_MM / PIXELS)


@pytest.mark.parametrize("seed", range(8))
def test_the_marker_is_on_the_film_where_the_matrix_says(materials, seed):
    case = RandFilmd(pixels=FILM, strength=0.0).set_random_state(seed)({"materials": materials})
    for view, name in enumerate(("pa", "lateral")):
        on_detector = marker_on_detector_mm()[name] * PIXELS / DETECTOR_MM + (PIXELS - 1) / 2
        expected = np.linalg.solve(case["film_matrix"][view].numpy(), [*on_detector, 1])[:2]
        exposed = case["film_exposed"][view].numpy()
        film = np.where(exposed, case["film"][view].numpy(), 0)
        u, v = np.rint(expected).astype(int)
        if not (exposed[max(u - 12, 0) : u + 12, max(v - 12, 0) : v + 12].all() and min(u, v) > 12):
            continue  # the crop left it out
        around = film[u - 12 : u + 13, v - 12 : v + 13]
        found = np.add(center_of_mass(around > 0.97 * around.max()), np.rint(expected) - 12)
        assert np.abs(found - expected).max() < 3


@pytest.mark.parametrize("seed", range(4))
def test_a_film_placed_by_its_matrix_is_the_simulated_radiograph(materials, chest, seed):
    """But for tone: ranks agree wherever the film shows something."""
    size = 96
    case = RandFilmd(pixels=FILM, strength=0.0).set_random_state(seed)({"materials": materials})
    placed = RandPlaceFilmd(spatial_size=size, materials_pixels=PIXELS)(case)["image"].numpy()
    water = torch.where(chest > -900, chest.clamp(min=-300), chest)
    ideal = radiograph_to_unit(simulate_radiographs(water, size)).numpy()
    assert placed.shape == (2, size, size)
    rows = slice(size // 4, 3 * size // 4)  # where nothing had to be continued
    for film, expected in zip(placed[..., rows], ideal[..., rows], strict=True):
        shown = ~np.isnan(film)
        assert shown.mean() > 0.4
        assert np.corrcoef(film[shown], expected[shown])[0, 1] > 0.97


def test_what_a_film_shows_is_known_and_nothing_else(materials):
    size = 64
    for seed in range(6):
        case = RandFilmd(pixels=FILM).set_random_state(seed)({"materials": materials})
        assert case["film"].shape == case["film_exposed"].shape == (2, FILM, FILM)
        assert case["film"].dtype == torch.float32
        assert torch.isfinite(case["film"]).all()
        assert 0 <= case["film"].min() <= case["film"].max() <= 1
        place = RandPlaceFilmd(spatial_size=size, materials_pixels=PIXELS)
        placed = place(case)["image"]
        index = np.stack([*np.meshgrid(np.arange(size), np.arange(size), indexing="ij"), np.ones((size, size))])
        for view in range(2):
            to_film = np.linalg.solve(case["film_matrix"][view].numpy(), place.matrices[view])
            at = np.rint(np.einsum("ij,juv->iuv", to_film, index)[:2]).astype(int)
            inside = ((at >= 5) & (at < FILM - 5)).all(axis=0)
            exposed = case["film_exposed"][view].numpy()
            at = at.clip(5, FILM - 6)
            around = [exposed[at[0] + du, at[1] + dv] for du in (-5, 0, 5) for dv in (-5, 0, 5)]
            unknown = torch.isnan(placed[view]).numpy()
            assert not unknown[inside & np.all(around, axis=0)].any()
            assert unknown[~inside & ~np.any(around, axis=0)].all()


def test_the_same_seed_gives_the_same_films_and_each_call_another(materials):
    first, again = (RandFilmd(pixels=48).set_random_state(3) for _ in range(2))
    a, b, c = (draw({"materials": materials})["film"] for draw in (first, again, again))
    torch.testing.assert_close(a, b)
    assert not torch.equal(b, c)


def test_errors_of_placement_are_as_large_as_asked():
    place = RandPlaceFilmd(spatial_size=64, shift_mm=5.0, scale=0.03, degrees=2.0).set_random_state(1)
    exact = RandPlaceFilmd(spatial_size=64)
    exact.randomize()
    mm = DETECTOR_MM / 400
    shifts, scales, heights = [], [], []
    for _ in range(400):
        place.randomize()
        middles = [(matrix @ [31.5, 31.5, 1])[:2] - 199.5 for matrix in place.matrices]
        shifts.append(middles[0][0] * mm)
        heights.append((middles[0][1] - middles[1][1]) * mm)
        sizes = [np.sqrt(np.linalg.det(matrix[:2, :2])) for matrix in place.matrices]
        assert sizes[0] == pytest.approx(sizes[1])
        scales.append(np.log(sizes[0] / np.sqrt(np.linalg.det(exact.matrices[0][:2, :2]))))
    assert np.std(shifts) == pytest.approx(5.0, rel=0.15)
    assert np.std(heights) == pytest.approx(5.0 * np.sqrt(2) / 3, rel=0.15)
    assert np.std(scales) == pytest.approx(0.03, rel=0.15)


def test_frames_units_go_on_as_for_any_radiograph(materials):
    case = RandFilmd(pixels=FILM).set_random_state(5)({"materials": materials})
    image = RandPlaceFilmd(spatial_size=32, materials_pixels=PIXELS)(case)["image"]
    unit = radiograph_to_unit(image)
    assert torch.equal(torch.isnan(unit), torch.isnan(image))
    assert np.nanmax(unit.numpy()) == 1
    assert frame.detector_size_mm() < DETECTOR_MM
