"""Two views of one chest: how they stand to each other is found, and put right."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from xrecon_bundle import frame
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.placement.aligner import PIXELS, find_lower
from xrecon_bundle.placement.place import Place, level_places
from xrecon_bundle.projection.radiographs import simulate_radiographs

PIXEL_MM = frame.detector_size_mm() / PIXELS


def moved(image: np.ndarray, lower_mm: float, scale: float) -> np.ndarray:
    """A picture enlarged about its middle and moved towards the feet; NaN comes in at its edges."""
    shift = lower_mm / PIXEL_MM * 2 / PIXELS
    theta = torch.tensor([[[1 / scale, 0, -shift / scale], [0, 1 / scale, 0]]], dtype=torch.float32)
    known = torch.stack([torch.from_numpy(image), torch.ones(PIXELS, PIXELS)])[None]
    grid = F.affine_grid(theta, [1, 1, PIXELS, PIXELS], align_corners=False)
    grey, shown = F.grid_sample(known, grid, align_corners=False)[0].numpy()
    return np.where(shown > 0.99, grey, np.nan)


@pytest.fixture(scope="module")
def pairs() -> list[np.ndarray]:
    """Radiographs of synthetic chests with seeds that nothing learnt from, each of its own build."""
    chests = [synthesize_thorax(90_000 + seed, 64).ct.astype(np.float32) for seed in range(4)]
    return [simulate_radiographs(torch.from_numpy(hu), PIXELS).numpy() for hu in chests]


@pytest.mark.parametrize("lower_mm", [0.0, 16.0, -16.0, 28.0])
def test_the_lateral_is_found_lower(lower_mm, pairs):
    found = [find_lower(np.stack([pa, moved(lateral, lower_mm, 1.0)])) for pa, lateral in pairs]
    assert np.median(found) == pytest.approx(lower_mm, abs=6)


@pytest.mark.parametrize("scale", [0.9, 1.1])
def test_of_views_of_two_scales_the_diaphragms_are_compared(scale, pairs):
    found = [find_lower(np.stack([pa, moved(lateral, 0.0, scale)])) for pa, lateral in pairs]
    assert np.median(found) == pytest.approx((scale - 1) * 65, abs=5)


def test_it_is_the_one_view_against_the_other_that_counts(pairs):
    """Moved alike they agree; the PA lower is the lateral higher. Grey scale does not matter."""
    pa, lateral = pairs[0]
    higher = find_lower(np.stack([moved(pa, 15.0, 1.0), lateral]))
    assert find_lower(np.stack([moved(pa, 15.0, 1.05), moved(lateral, 15.0, 1.05)])) == pytest.approx(0, abs=6)
    assert higher == pytest.approx(-15, abs=6)
    assert find_lower(3 * np.stack([moved(pa, 15.0, 1.0), lateral]) + 7) == pytest.approx(higher, abs=0.5)


@given(st.floats(-40, 40), st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)), st.floats(-150, 150))
def test_what_was_lower_in_the_lateral_comes_to_one_height(lower_mm, steps, row_mm):
    places = tuple(
        Place(np.array([step, step]), np.array([40.0, 61.5 - 7 * view]), "file", None)
        for view, step in enumerate(steps)
    )
    levelled = level_places(places, lower_mm)
    rows = []
    for place, before, row in zip(levelled, places, (row_mm, row_mm + lower_mm), strict=True):
        pixel = row / before.spacing_mm[1] + before.middle[1]
        rows.append((pixel - place.middle[1]) * place.spacing_mm[1])
        assert place.middle[0] == before.middle[0]
        np.testing.assert_array_equal(place.spacing_mm, before.spacing_mm)
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)
    assert sum(rows) == pytest.approx(2 * row_mm + lower_mm)  # neither view is believed more
