from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrecon_bundle.anatomy.bending import bend_chest

SIZE, SPACING = 32, 11.2
MOST = 11.0


def ramps() -> list[np.ndarray]:
    """Volumes whose values are each voxel's place in mm along an axis."""
    return list(np.meshgrid(*[np.arange(SIZE) * SPACING] * 3, indexing="ij"))


def displacement(seed: int, most_mm: float) -> np.ndarray:
    """``(3, S, S, S)`` mm, read from what becomes of ramps."""
    none = np.zeros((SIZE,) * 3, dtype=np.uint8)
    bent = [bend_chest(ramp, none, np.random.default_rng(seed), SPACING, most_mm)[0] for ramp in ramps()]
    return np.stack(bent) - np.stack(ramps())


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_nothing_folds_and_nothing_moves_further_than_asked(seed):
    moved = displacement(seed, MOST)
    inner = moved[:, 5:-5, 5:-5, 5:-5]  # ramps end at the cube's sides
    assert np.sqrt((inner**2).mean()) < 1.5 * MOST
    for axis in range(3):
        assert (np.diff(inner[axis], axis=axis) > -SPACING).all()


def test_it_bends_along_every_axis_and_smoothly():
    moved = np.stack([displacement(seed, MOST) for seed in range(8)])[..., 8:-8, 8:-8, 8:-8]
    along = np.sqrt((moved**2).mean(axis=(0, 2, 3, 4)))
    assert (along > 2).all()
    assert (np.diff(moved, axis=-1) ** 2).mean() < 0.1 * (moved**2).mean()


def test_labels_go_where_the_ct_goes():
    """Of a chest that is not the same from any two sides."""
    labels = np.zeros((SIZE,) * 3, dtype=np.uint8)
    labels[5:12, 6:24, 4:28] = 1
    labels[18:27, 9:24, 8:22] = 4
    ct = (1000.0 * labels).astype(np.int16)
    bent, moved = bend_chest(ct, labels, np.random.default_rng(3), SPACING, 3 * MOST)
    assert moved.dtype == labels.dtype
    assert {*np.unique(moved)} == {0, 1, 4}
    assert (moved != labels).mean() > 0.02
    # Half a voxel away from an edge both agree; nearest and linear interpolation part there.
    for value in (1, 4):
        assert bent[moved == value].mean() == pytest.approx(1000 * value, rel=0.15)
    assert abs(np.corrcoef(bent.ravel(), moved.ravel())[0, 1]) > 0.95
    assert np.corrcoef(bent.ravel(), labels.ravel())[0, 1] < 0.95


def test_by_nothing_is_the_same_and_a_seed_bends_alike():
    rng = np.random.default_rng(0)
    ct, labels = rng.integers(-1000, 1000, (SIZE,) * 3), rng.integers(0, 5, (SIZE,) * 3).astype(np.uint8)
    same, kept = bend_chest(ct, labels, np.random.default_rng(1), SPACING, 0)
    np.testing.assert_allclose(same, ct, atol=0.1)
    np.testing.assert_array_equal(kept, labels)
    first, again, other = (bend_chest(ct, labels, np.random.default_rng(seed), SPACING, MOST)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
