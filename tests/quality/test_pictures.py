"""Pictures resized and filled exactly as scikit-image does it."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import morphology, transform

from xrecon_bundle.quality.pictures import fill_basins, resize


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("before", "after"), [((97, 64), (24, 24)), ((40, 40), (57, 24)), ((2, 50, 50), (2, 21, 21))])
def test_resize_is_scikit_images(before, after, dtype):
    picture = np.random.default_rng(0).normal(size=before).astype(dtype)
    expected = transform.resize(picture, after, order=1, anti_aliasing=True)
    found = resize(picture, after)
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found, expected)


def test_a_basin_is_filled_to_its_lowest_way_out():
    picture = np.array([[9, 9, 9, 9, 9], [9, 1, 9, 2, 9], [9, 1, 9, 2, 5], [9, 9, 9, 9, 9]], dtype=float)
    assert fill_basins(picture).tolist() == [[9, 9, 9, 9, 9], [9, 9, 9, 5, 9], [9, 9, 9, 5, 5], [9, 9, 9, 9, 9]]


@pytest.mark.parametrize("seed", range(4))
def test_filling_is_scikit_images_reconstruction(seed):
    picture = np.random.default_rng(seed).integers(0, 20, (24, 24)) / 20
    inside = np.pad(np.ones((22, 22), dtype=bool), 1)
    expected = morphology.reconstruction(np.where(inside, 1.0, picture), picture, method="erosion")
    np.testing.assert_array_equal(fill_basins(picture), expected)
