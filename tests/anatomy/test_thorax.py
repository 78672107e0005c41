from __future__ import annotations

import numpy as np
import pytest
import torch

from xrecon_bundle import frame
from xrecon_bundle.anatomy.patient import SyntheticThorax, ThoraxLabel
from xrecon_bundle.anatomy.pneumothorax import Pneumothorax
from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.projection.radiographs import simulate_radiographs

SEEDS = range(8)


@pytest.fixture(scope="module")
def cohort() -> list:
    return [synthesize_thorax(seed, 64) for seed in SEEDS]


def middle(mask: np.ndarray) -> np.ndarray:
    return np.argwhere(mask).mean(axis=0)


def millilitres(mask: np.ndarray) -> float:
    return np.count_nonzero(mask) * frame.voxel_size(len(mask)) ** 3 / 1000


def test_same_seed_same_chest_other_seed_another_patient(cohort):
    again = synthesize_thorax(SyntheticThorax.sample(3), 64)
    np.testing.assert_array_equal(again.ct, cohort[3].ct)
    np.testing.assert_array_equal(again.labels, cohort[3].labels)
    assert again.parameters == cohort[3].parameters
    assert (cohort[3].ct != cohort[4].ct).any()


def test_the_same_patient_at_another_size_is_the_same_patient(cohort):
    finer = synthesize_thorax(5, 96).labels
    for label in (ThoraxLabel.RIGHT_LUNG, ThoraxLabel.LEFT_LUNG, ThoraxLabel.HEART, ThoraxLabel.LIVER):
        fine, coarse = finer == label, cohort[5].labels == label
        assert millilitres(fine) == pytest.approx(millilitres(coarse), rel=0.06)
        centres = [(middle(mask) + 0.5) * frame.voxel_size(len(mask)) for mask in (fine, coarse)]
        np.testing.assert_allclose(*centres, atol=3.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_everything_lies_on_its_side(cohort, seed):
    """LPI: x grows to the patient's left, y to the back, z to the feet."""
    labels = cohort[seed].labels
    at = {label: middle(labels == label) for label in ThoraxLabel if (labels == label).any()}
    centre = 0.5 * (at[ThoraxLabel.RIGHT_LUNG] + at[ThoraxLabel.LEFT_LUNG])
    assert at[ThoraxLabel.RIGHT_LUNG][0] < centre[0] < at[ThoraxLabel.LEFT_LUNG][0]
    assert at[ThoraxLabel.LIVER][0] < centre[0] - 2
    assert at[ThoraxLabel.HEART][0] > centre[0]
    assert at[ThoraxLabel.STOMACH][0] > centre[0] + 2
    assert at[ThoraxLabel.LIVER][2] > at[ThoraxLabel.HEART][2]
    heart = np.argwhere(labels == ThoraxLabel.HEART)
    apex = heart[heart[:, 0] >= np.percentile(heart[:, 0], 95)].mean(axis=0)
    assert (apex - heart.mean(axis=0))[1] < 0, "the apex points to the front"
    assert (apex - heart.mean(axis=0))[2] > 0, "and to the feet"
    bone = middle((labels == ThoraxLabel.BONE)[24:40])
    assert bone[1] > at[ThoraxLabel.HEART][1], "the spine is behind the heart"


def test_the_right_dome_of_the_diaphragm_is_usually_the_higher(cohort):
    higher = []
    for case in cohort:
        floors = []  # how far down the lung reaches over the middle of its dome
        for label in (ThoraxLabel.RIGHT_LUNG, ThoraxLabel.LEFT_LUNG):
            x, y, _ = middle(case.labels == label).round().astype(int)
            columns = (case.labels == label)[x - 2 : x + 3, y - 2 : y + 3].reshape(25, -1)
            floors.append(np.mean([np.flatnonzero(column)[-1] for column in columns if column.any()]))
        higher.append(floors[0] < floors[1])
    assert np.mean(higher) > 0.7


def test_the_cohort_is_as_wide_as_adults_are(cohort):
    """Supine CT: 2 to 6.5 L of lung, cardiothoracic ratio 0.38 to 0.56, the right lung the larger."""
    volumes, ratios = [], []
    for case in cohort:
        lungs = np.isin(case.labels, (1, 2))
        volumes.append(millilitres(lungs) / 1000)
        width = np.ptp(np.argwhere(lungs)[:, 0])
        ratios.append(np.ptp(np.argwhere(case.labels == ThoraxLabel.HEART)[:, 0]) / width)
        assert 0.48 < millilitres(case.labels == 1) / millilitres(lungs) < 0.6
        extent = np.percentile(np.argwhere(lungs), [0.5, 99.5], axis=0).mean(axis=0)
        np.testing.assert_allclose(extent, 31.5, atol=4.5, err_msg="the lungs' middle is the cube's")
    assert min(volumes) > 2.0
    assert max(volumes) < 6.5
    assert np.std(volumes) > 0.4
    assert min(ratios) > 0.38
    assert max(ratios) < 0.56


@pytest.mark.parametrize(
    ("label", "low", "high"),
    [
        (ThoraxLabel.RIGHT_LUNG, -925, -780),
        (ThoraxLabel.LEFT_LUNG, -925, -780),
        (ThoraxLabel.MUSCLE, 0, 75),
        (ThoraxLabel.BONE, 120, 600),
        (ThoraxLabel.HEART, 25, 420),
        (ThoraxLabel.LIVER, 10, 130),
        (ThoraxLabel.SPLEEN, 15, 125),
        (ThoraxLabel.BACKGROUND, -1025, -950),
    ],
)
def test_tissues_have_their_hounsfield_units(cohort, label, low, high):
    for case in cohort:
        if (case.labels == label).any():
            assert low < np.median(case.ct[case.labels == label]) < high


def test_the_histogram_is_that_of_the_real_ct(cohort, lidc):
    """Shares of the body in coarse HU classes; the real patient lies within the cohort's range, widened a little."""
    import nibabel

    from xrecon_bundle.placement.standardize import standardize_ct

    real = nibabel.load(lidc[0])
    real = standardize_ct(np.asarray(real.dataobj), real.affine, 64).ct
    edges = [-950, -500, -150, 20, 100, 300, 3072]

    def shares(ct: np.ndarray) -> np.ndarray:
        body = ct[ct > -950]
        return np.histogram(body, edges)[0] / body.size

    synthetic = np.array([shares(case.ct) for case in cohort])
    assert (shares(real) > synthetic.min(axis=0) - 0.04).all()
    assert (shares(real) < synthetic.max(axis=0) + 0.04).all()


def test_the_radiograph_shows_lungs_dark_beside_a_bright_middle(cohort):
    pa, lateral = simulate_radiographs(torch.from_numpy(cohort[0].ct.astype(np.float32))).numpy()
    level = int(middle(np.isin(cohort[0].labels, (1, 2)))[2])
    right, centre, left = (pa[x - 2 : x + 3, level - 6 : level - 2].mean() for x in (20, 32, 44))
    assert centre > 1.5 * max(right, left)
    assert lateral.max() > 1.0


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("occupancy", [0.05, 0.1, 0.25, 0.5, 0.75, 0.9])
def test_occupancy_is_within_two_percent_of_the_asked(side, occupancy):
    labels = synthesize_thorax(21, 64, Pneumothorax(side, occupancy)).segmentation
    lung, air = {"right": (1, 3), "left": (2, 4)}[side]
    share = np.count_nonzero(labels == air) / np.count_nonzero(np.isin(labels, (lung, air)))
    assert share == pytest.approx(occupancy, rel=0.02)
    assert set(np.unique(labels)) == {0, 1, 2, air}


def test_a_pneumothorax_leaves_the_rest_of_the_patient_as_it_was(cohort):
    with_air = synthesize_thorax(2, 64, Pneumothorax("left", 0.25))
    far = cohort[2].labels == ThoraxLabel.LIVER
    far[:, :, :44] = False
    np.testing.assert_array_equal(with_air.ct[far], cohort[2].ct[far])
    np.testing.assert_array_equal(with_air.segmentation == 1, cohort[2].segmentation == 1)


def test_no_bone_and_no_lung_floats_outside_the_skin(cohort):
    for case in cohort:
        body = case.labels > 0
        organs = np.isin(case.labels, (ThoraxLabel.BONE, 1, 2))
        outside = ~body
        outside[:, :, [0, -1]] = False
        # A voxel of bone or lung never touches the air around the patient across x or y, but at the scan's own edges.
        radius = np.hypot(*np.meshgrid(*[(np.arange(64) - 31.5) * 5.6] * 2, indexing="ij"))
        inner = (radius < case.parameters.scan_radius - 12)[:, :, None] & organs
        touching = sum(np.count_nonzero(inner & np.roll(outside, shift, axis)) for axis in (0, 1) for shift in (-1, 1))
        assert touching <= 0.004 * organs.sum()
