"""Distances in a volume against SciPy's, by definition, and at the limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from xrecon_bundle.segmentation.distance import distance_to

SPACINGS = st.tuples(*[st.floats(0.3, 5.0)] * 3)


def test_distance_is_in_mm_along_each_axis():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = True
    distance = distance_to(mask, np.array([0.7, 1.5, 2.5]))
    assert distance[1, 2, 3] == 0
    assert distance[3, 2, 3] == pytest.approx(2 * 0.7)
    assert distance[1, 5, 3] == pytest.approx(3 * 1.5)
    assert distance[1, 2, 0] == pytest.approx(3 * 2.5)
    assert distance[4, 4, 4] == pytest.approx(np.sqrt((3 * 0.7) ** 2 + (2 * 1.5) ** 2 + 2.5**2))


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(*[st.integers(1, 9)] * 3)), SPACINGS)
def test_distance_equals_scipy(mask, spacing):
    expected = ndimage.distance_transform_edt(~mask, sampling=spacing) if mask.any() else np.full(mask.shape, np.inf)
    np.testing.assert_allclose(distance_to(mask, np.array(spacing)), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_part_of_a_larger_volume_in_any_memory_order(order):
    volume = np.asarray(np.random.default_rng(0).random((20, 21, 22)) < 0.01, order=order)
    part = volume[2:15, ::2, 3:]
    assert part.any()
    expected = ndimage.distance_transform_edt(~part, sampling=(1.0, 2.0, 3.0))
    np.testing.assert_allclose(distance_to(part, np.array([1.0, 2.0, 3.0])), expected, atol=1e-4)
