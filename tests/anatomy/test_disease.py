from __future__ import annotations

import numpy as np
import pytest

from xrecon_bundle.anatomy.disease import FLUID_HU, add_lung_disease
from xrecon_bundle.anatomy.pseudo_patients import jacobian, make_pseudo_patient, random_deformation
from xrecon_bundle.anatomy.thorax import synthesize_thorax

SPACING = (4.0, 5.0, 6.0)
LUNG_HU = -850
SEEDS = range(24)


@pytest.fixture(scope="module")
def chest():
    """Two lungs of unequal size in soft tissue: hu and labels."""
    hu, labels = np.full((40, 30, 30), 40.0), np.zeros((40, 30, 30), np.uint8)
    labels[4:18, 5:26, 4:26], labels[23:36, 6:25, 4:22] = 1, 2
    hu[labels > 0] = LUNG_HU
    return hu, labels


@pytest.fixture(scope="module")
def diseased(chest):
    return [add_lung_disease(*chest, SPACING, seed) for seed in SEEDS]


def test_only_lungs_change_and_stay_between_air_and_fluid(chest, diseased):
    hu, labels = chest
    for changed, _ in diseased:
        np.testing.assert_array_equal(changed[labels == 0], hu[labels == 0])
        assert changed.min() >= -1000
        assert changed.max() <= FLUID_HU + 60


def test_labels_change_only_where_fluid_takes_the_lungs_place(chest, diseased):
    for changed, labels in diseased:
        gone = labels != chest[1]
        assert (labels[gone] == 0).all()
        np.testing.assert_allclose(changed[gone], FLUID_HU, atol=60)
        assert (labels[~gone] == chest[1][~gone]).all()


def test_fluid_lies_where_it_sinks_to(chest, diseased):
    """At the feet's end (high z) or at the back (high y), whichever posture was drawn."""
    seen = 0
    for _, labels in diseased:
        for lung in (1, 2):
            whole, fluid = np.argwhere(chest[1] == lung), np.argwhere((chest[1] == lung) & (labels == 0))
            if len(fluid):
                seen += 1
                _, back, down = fluid.mean(axis=0) - whole.mean(axis=0)
                assert max(back, down) > 1
    assert seen > 5


def test_lungs_become_lighter_darker_and_uneven(chest, diseased):
    means = np.array([[changed[labels == lung].mean() for lung in (1, 2)] for changed, labels in diseased])
    assert means.min() < LUNG_HU - 30
    assert means.max() > LUNG_HU + 100
    assert np.abs(means[:, 0] - means[:, 1]).max() > 80


def test_same_seed_same_disease(chest):
    for first, second in zip(*(add_lung_disease(*chest, SPACING, 3) for _ in range(2)), strict=True):
        np.testing.assert_array_equal(first, second)


def test_no_lung_no_disease_and_other_shapes_are_refused(chest):
    hu, labels = chest
    same, _ = add_lung_disease(hu, np.zeros_like(labels), SPACING, 0)
    np.testing.assert_array_equal(same, hu)
    with pytest.raises(ValueError, match="one shape"):
        add_lung_disease(hu[1:], labels, SPACING, 0)


def test_a_diseased_pseudo_patients_dome_may_be_higher_on_one_side_without_a_fold():
    case = synthesize_thorax(5, 48)
    spacing = (358.4 / 48,) * 3
    uneven = []
    for seed in range(8):
        deformations = [random_deformation(case.labels, spacing, seed, diseased=ill) for ill in (False, True)]
        assert jacobian(deformations[1]).min() > 0
        uneven.append(np.abs(deformations[0] - deformations[1]).max())
    assert 0 < np.count_nonzero(np.array(uneven) > 1) < 8
    healthy, ill = (make_pseudo_patient(case.ct, case.labels, spacing, 1, diseased=ill) for ill in (False, True))
    assert (healthy[0] != ill[0]).any()
