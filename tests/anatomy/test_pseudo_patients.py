from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xrecon_bundle import frame
from xrecon_bundle.anatomy.patient import ThoraxLabel
from xrecon_bundle.anatomy.pseudo_patients import exponential, jacobian, make_pseudo_patient, random_deformation
from xrecon_bundle.anatomy.thorax import synthesize_thorax

SIZE = 48
SPACING = (frame.voxel_size(SIZE),) * 3


@pytest.fixture(scope="module")
def chest():
    return synthesize_thorax(5, SIZE)


LABELS = synthesize_thorax(5, SIZE).labels


@settings(deadline=None, max_examples=12, derandomize=True)
@given(seed=st.integers(0, 2**31))
def test_the_deformation_never_folds(seed):
    assert jacobian(random_deformation(LABELS, SPACING, seed)).min() > 0


def test_a_wider_spread_moves_further_and_never_folds():
    index = np.stack(np.meshgrid(*[np.arange(n) for n in LABELS.shape], indexing="ij"))
    for seed in range(4):
        usual, wide = (random_deformation(LABELS, SPACING, seed, spread=spread) for spread in (1.0, 1.8))
        assert np.abs(wide - index).mean() > 1.2 * np.abs(usual - index).mean()
        assert jacobian(wide).min() > 0


def test_the_exponential_of_a_constant_velocity_is_that_displacement():
    velocity = np.zeros((3, 12, 12, 12))
    velocity[0] = 5.0
    displacement = exponential(velocity, np.full(3, 8.0))
    np.testing.assert_allclose(displacement, velocity, atol=1e-9)


def test_the_exponential_of_a_linear_velocity_is_exponential_growth():
    """v = a x flows to x exp(a): the analytic truth of a stationary field."""
    rate, step = 0.3, 8.0
    x = (np.arange(41) - 20.0) * step
    velocity = np.zeros((3, 41, 5, 5))
    velocity[0] = (rate * x)[:, None, None]
    inner = np.abs(x) < 90  # away from the border, where the field ends
    moved = exponential(velocity, np.full(3, step))[0, inner, 2, 2]
    np.testing.assert_allclose(moved, x[inner] * (np.exp(rate) - 1), atol=0.15)


def test_jacobian_of_a_scaling_is_its_volume():
    grid = np.stack(np.meshgrid(*[np.arange(6.0)] * 3, indexing="ij"))
    np.testing.assert_allclose(jacobian(grid * np.array([2.0, 1.5, 0.5])[:, None, None, None]), 1.5)


def test_same_seed_same_patient_other_seed_another(chest):
    first, second, third = (make_pseudo_patient(chest.ct, chest.labels, SPACING, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1], second[1])
    assert (first[1] != third[1]).any()


@pytest.mark.parametrize("seed", range(6))
def test_sides_are_kept_and_labels_go_with_the_image(chest, seed):
    hu, labels = make_pseudo_patient(chest.ct, chest.labels, SPACING, seed)
    assert hu.dtype == np.int16
    assert labels.dtype == chest.labels.dtype

    def x(label: ThoraxLabel) -> float:
        return np.argwhere(labels == label)[:, 0].mean()

    assert x(ThoraxLabel.RIGHT_LUNG) < x(ThoraxLabel.HEART) < x(ThoraxLabel.LEFT_LUNG)
    assert x(ThoraxLabel.LIVER) < x(ThoraxLabel.STOMACH)
    assert -930 < np.median(hu[np.isin(labels, (1, 2))]) < -750
    assert 0 < np.median(hu[labels == ThoraxLabel.MUSCLE]) < 90
    assert hu.min() >= -1024


def test_the_cohort_of_one_patient_varies(chest):
    volumes = [
        np.count_nonzero(np.isin(make_pseudo_patient(chest.ct, chest.labels, SPACING, seed)[1], (1, 2)))
        for seed in range(6)
    ]
    assert np.std(volumes) / np.mean(volumes) > 0.06


def test_a_map_without_lungs_and_other_shapes_are_refused(chest):
    with pytest.raises(ValueError, match="no lung"):
        make_pseudo_patient(chest.ct, np.zeros_like(chest.labels), SPACING, 0)
    with pytest.raises(ValueError, match="one shape"):
        make_pseudo_patient(chest.ct, chest.labels[1:], SPACING, 0)


def test_who_stands_has_lower_domes_and_more_lung(chest):
    """The same seed, lying and standing."""
    more, lower = [], []
    for seed in range(4):
        lying, standing = (
            np.isin(make_pseudo_patient(chest.ct, chest.labels, SPACING, seed, stands)[1], (1, 2))
            for stands in (False, True)
        )
        more.append(standing.sum() / lying.sum())
        base = [np.percentile(np.argwhere(lungs)[:, 2], 90) for lungs in (lying, standing)]
        lower.append(base[1] - base[0])
    assert min(more) > 1.02
    assert 1.06 < np.mean(more) < 1.2
    assert np.mean(lower) > 0.5


def test_the_standing_deformation_does_not_fold():
    for seed in range(3):
        assert jacobian(random_deformation(LABELS, SPACING, seed, standing=True)).min() > 0
