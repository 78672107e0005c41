"""Whole-number resampling against PyTorch's pooling and interpolation, the Gaussian mean against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from xrecon_bundle.segmentation.body import filled_body, find_body
from xrecon_bundle.segmentation.grid import block_mean, refine
from xrecon_bundle.segmentation.smoothing import mean_nearby

SHAPES = st.tuples(*[st.integers(4, 9)] * 3)
FACTORS = st.tuples(*[st.integers(1, 4)] * 3)


def volume_of(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).normal(-500, 400, shape).astype(np.float32)


@settings(max_examples=60, deadline=None)
@given(SHAPES, FACTORS)
def test_block_mean_is_average_pooling(shape, blocks):
    volume = volume_of(shape)
    expected = F.avg_pool3d(torch.from_numpy(volume)[None, None], blocks, ceil_mode=True)[0, 0].numpy()
    np.testing.assert_allclose(block_mean(volume, blocks), expected, rtol=1e-5, atol=1e-3)


@settings(max_examples=60, deadline=None)
@given(SHAPES, FACTORS)
def test_refine_is_trilinear_interpolation(shape, parts):
    volume = volume_of(shape)
    expected = F.interpolate(torch.from_numpy(volume)[None, None], scale_factor=parts, mode="trilinear")[0, 0].numpy()
    np.testing.assert_allclose(refine(volume, parts), expected, rtol=1e-4, atol=1e-2)


def test_whole_numbers_by_hand():
    row = np.array([0.0, 4.0, 8.0, 9.0, 1.0])[:, None, None]
    np.testing.assert_allclose(block_mean(row, (2, 1, 1))[:, 0, 0], [2.0, 8.5, 1.0])
    np.testing.assert_allclose(refine(row[:2], (2, 1, 1))[:, 0, 0], [0.0, 1.0, 3.0, 4.0])
    np.testing.assert_allclose(block_mean(row[:1] + 3, (2, 1, 1)), row[:1] + 3)


def test_the_mean_counts_only_where_it_is_asked_to():
    values, where = np.full((9, 9, 9), 1000.0), np.zeros((9, 9, 9), bool)
    values[2, 4, 4], values[6, 4, 4] = 10.0, 30.0
    where[2, 4, 4] = where[6, 4, 4] = True
    mean = mean_nearby(values, where, 1.5, otherwise=-1.0)
    assert mean[4, 4, 4] == pytest.approx(20.0)
    assert mean[2, 4, 4] < 20.0 < mean[6, 4, 4]
    assert mean[4, 0, 0] == -1.0


def test_the_body_is_the_largest_part_with_its_cavities_filled_slice_by_slice():
    dense = np.zeros((9, 8, 4), bool)
    dense[1:6, 1:7] = True
    dense[2:5, 2:6, 1:3] = False  # a lung, open to neither side
    dense[3, 1, 2] = False  # but here: open in this slice
    expected = dense.copy()
    expected[2:5, 2:6, 1] = True
    dense[8, 7, 0] = True  # a table
    np.testing.assert_array_equal(filled_body(dense), expected)


def chest(wall_hu: float, thin: slice) -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs on a table of foam, and where the lungs are; ``thin``: sections with another wall in front
    of the lungs."""
    x, y, z = np.ogrid[:96, :96, :50]
    everywhere = 0 * x + 0 * y + 0 * z
    body = ((x - 48) / 42) ** 2 + ((y - 40) / 30) ** 2 + everywhere < 1
    lungs = ((abs(x - 48) - 20) / 14) ** 2 + ((y - 38) / 22) ** 2 + ((z - 25) / 22) ** 2 < 1
    hu = np.full(body.shape, -1000.0)
    hu[body], hu[lungs] = 40.0, -820.0
    hu[10:86, 80:92] = -880.0
    hu[10:86, [78, 79, 92, 93]] = -200.0
    wall = body & ~lungs & (y < 36) & (abs(abs(x - 48) - 20) < 13)
    wall[..., : thin.start] = wall[..., thin.stop :] = False
    hu[wall] = wall_hu
    return hu, lungs


@pytest.mark.parametrize(
    ("wall_hu", "thin"),
    [
        (40.0, slice(20, 30)),  # a wall as everywhere
        (-470.0, slice(10, 40)),  # blurred away in part, over most of the lungs
        (-650.0, slice(10, 40)),
        (-820.0, slice(22, 28)),  # as good as none, in some sections
    ],
)
def test_lungs_behind_a_thin_wall_are_within_the_body_and_the_table_is_not(wall_hu, thin):
    hu, lungs = chest(wall_hu, thin)
    body = find_body(hu)
    assert (body & lungs).sum() > 0.97 * lungs.sum()
    assert not body[:, 76:].any()
    assert not body[hu < -990].any()


def test_a_lung_that_is_open_over_most_of_its_height_is_outside():
    hu, lungs = chest(-1000.0, slice(5, 45))
    assert (find_body(hu) & lungs).sum() < 0.5 * lungs.sum()
