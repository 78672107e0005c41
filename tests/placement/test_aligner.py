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
from xrecon_bundle.placement.aligner import PIXELS, Offset, find_offset
from xrecon_bundle.placement.place import Picture, Place, align_places
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


@pytest.mark.parametrize(
    ("lower_mm", "scale"), [(0.0, 1.0), (16.0, 1.0), (-16.0, 1.0), (0.0, 1.12), (0.0, 0.89), (12.0, 0.93)]
)
def test_the_lateral_is_found_lower_or_larger(lower_mm, scale, pairs):
    found = np.array([find_offset(np.stack([pa, moved(lateral, lower_mm, scale)])) for pa, lateral in pairs])
    assert np.median(found[:, 0]) == pytest.approx(lower_mm, abs=5)
    assert np.median(found[:, 1]) == pytest.approx(scale, abs=0.05)


def test_it_is_the_one_view_against_the_other_that_counts(pairs):
    """Moved alike they agree; the PA lower is the lateral higher. Grey scale does not matter."""
    pa, lateral = pairs[0]
    alike = find_offset(np.stack([moved(pa, 15.0, 1.05), moved(lateral, 15.0, 1.05)]))
    higher = find_offset(np.stack([moved(pa, 15.0, 1.0), lateral]))
    other_scale = find_offset(3 * np.stack([moved(pa, 15.0, 1.0), lateral]) + 7)
    assert alike.lower_mm == pytest.approx(0, abs=5)
    assert alike.scale == pytest.approx(1, abs=0.05)
    assert higher.lower_mm == pytest.approx(-15, abs=6)
    assert other_scale == pytest.approx(higher, abs=0.05)


PLACES = tuple(
    Place(np.array([0.8, 0.8 + 0.1 * view]), np.array([40.0 + 9 * view, 61.5 - 7 * view]), "typical chest", 0.1)
    for view in range(2)
)


@given(st.floats(-30, 30), st.floats(0.75, 1.3), st.tuples(st.booleans(), st.booleans()), st.floats(-150, 150))
def test_aligned_places_meet_row_by_row_and_keep_the_scale_that_is_stated(lower_mm, scale, stated, row_mm):
    window = np.zeros((2, 2))
    pictures = tuple(Picture(window, np.ones(2) if known else None, "file") for known in stated)
    aligned, _ = align_places(PLACES, Offset(lower_mm, scale), pictures)
    one_scale = all(stated)  # then it is kept, and what is in the middle meets
    rows = (0.0, lower_mm) if one_scale else (row_mm, scale * row_mm + lower_mm)
    pixels = [row / place.spacing_mm[1] + place.middle[1] for row, place in zip(rows, PLACES, strict=True)]
    found = [(pixel - place.middle[1]) * place.spacing_mm[1] for pixel, place in zip(pixels, aligned, strict=True)]
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    for place, before, known in zip(aligned, PLACES, stated, strict=True):
        ratio = place.spacing_mm / before.spacing_mm
        assert ratio[0] == pytest.approx(ratio[1])
        assert place.middle[0] == before.middle[0]  # across nothing moves
        assert not known or ratio[0] == pytest.approx(1)
    if stated[0] == stated[1]:  # neither view is believed more
        ends = [place.spacing_mm[1] / before.spacing_mm[1] for place, before in zip(aligned, PLACES, strict=True)]
        assert np.prod(ends) == pytest.approx(1)


@pytest.mark.parametrize(
    ("scale", "stated", "doubtful"),
    [
        (1.2, (True, True), True),
        (0.85, (True, True), True),
        (1.08, (True, True), False),
        (1.2, (True, False), False),
        (1.2, (False, False), False),
    ],
)
def test_scales_that_contradict_each_other_are_asked_about(scale, stated, doubtful):
    pictures = tuple(Picture(np.zeros((2, 2)), np.ones(2) if known else None, "file") for known in stated)
    _, doubts = align_places(PLACES, Offset(3.0, scale), pictures)
    assert [f"{scale:.2f} times as large" in doubt for doubt in doubts] == [True] * doubtful
