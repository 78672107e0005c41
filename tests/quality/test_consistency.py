"""The consistency score: near 1 for the radiographs of this very chest, lower for any other pair."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

from xrecon_bundle.anatomy.thorax import synthesize_thorax
from xrecon_bundle.placement.standardize import standardize_ct
from xrecon_bundle.projection.radiographs import detect_radiographs, simulate_radiographs
from xrecon_bundle.quality import reprojection_consistency

SIZE = 48


def radiographs(hu: np.ndarray) -> np.ndarray:
    return simulate_radiographs(torch.from_numpy(hu.astype(np.float32))).numpy()


@pytest.fixture(scope="module")
def chests(lidc) -> list[np.ndarray]:
    """LIDC's and a synthetic one, HU."""
    ct = nibabel.load(lidc[0])
    return [standardize_ct(np.asarray(ct.dataobj), ct.affine, SIZE).ct, synthesize_thorax(1, SIZE).ct]


def as_displayed(pair: np.ndarray) -> np.ndarray:
    """Scatter, noise, blur and a sigmoid tone curve, as on a workstation."""
    detected = detect_radiographs(torch.from_numpy(pair), 20000, 0.3, 0.5, np.random.default_rng(0))
    return torch.sigmoid(2 * (detected - 2)).numpy()


def test_a_ct_explains_its_own_radiographs(chests) -> None:
    for hu in chests:
        result = reprojection_consistency(hu, radiographs(hu))
        assert result["score"] == pytest.approx(1, abs=1e-5)
        for view in ("pa", "lateral"):
            assert result[view]["mean_absolute_difference"] == pytest.approx(0, abs=1e-5)


EXPOSURES = {
    "brighter": lambda pair: 3 * pair + 100,
    "gamma": lambda pair: np.sign(pair) * np.abs(pair / pair.max()) ** 1.8,
    "sigmoid": lambda pair: 1 / (1 + np.exp(-2 * (pair - 2))),
    "one view overexposed": lambda pair: pair * np.array([1.0, 5.0])[:, None, None],
}


@pytest.mark.parametrize("exposure", EXPOSURES)
def test_exposure_does_not_count(exposure, chests) -> None:
    for hu in chests:
        result = reprojection_consistency(hu, EXPOSURES[exposure](radiographs(hu)))
        assert result["score"] > 0.97


def test_scatter_and_noise_cost_little(chests) -> None:
    for hu in chests:
        assert reprojection_consistency(hu, as_displayed(radiographs(hu)))["score"] > 0.9


WRONG = {
    "another patient": lambda own, other: (other, {"pa", "lateral"}),
    "another patient's lateral": lambda own, other: (np.stack([own[0], other[1]]), {"lateral"}),
    "mirrored lateral": lambda own, other: (np.stack([own[0], own[1, ::-1]]), {"lateral"}),
    "exchanged views": lambda own, other: (own[::-1], {"pa", "lateral"}),
    "negative": lambda own, other: (own.max() - own, {"pa", "lateral"}),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("look", [np.asarray, as_displayed], ids=["simulated", "as displayed"])
def test_a_wrong_pair_scores_lower_in_the_views_that_are_wrong(wrong, look, chests) -> None:
    pairs = [radiographs(hu) for hu in chests]
    for hu, own, other in zip(chests, pairs, pairs[::-1], strict=True):
        right = reprojection_consistency(hu, look(own))
        pair, views = WRONG[wrong](own, other)
        result = reprojection_consistency(hu, look(np.ascontiguousarray(pair)))
        assert result["score"] < right["score"] - 0.1
        for view in ("pa", "lateral"):
            expected = view in views
            assert (result[view]["gradient_correlation"] < 0.85) == expected
            assert (
                result[view]["mean_absolute_difference"] > 0.03 + right[view]["mean_absolute_difference"]
            ) == expected


def test_radiographs_finer_than_the_volume_are_compared_at_its_size(chests) -> None:
    fine = simulate_radiographs(torch.from_numpy(chests[0].astype(np.float32)), 2 * SIZE)
    assert reprojection_consistency(chests[0], fine)["score"] > 0.99


def test_an_empty_volume_explains_nothing(chests) -> None:
    empty = np.full((SIZE,) * 3, -1024)
    assert reprojection_consistency(empty, radiographs(chests[0]))["score"] == 0


@pytest.mark.parametrize("shape", [(3, 8, 8), (2, 8, 9), (8, 8)])
def test_what_is_no_pair_is_an_error(shape) -> None:
    with pytest.raises(ValueError, match="radiographs must be"):
        reprojection_consistency(np.zeros((8, 8, 8)), np.zeros(shape))


def test_only_what_the_film_shows_is_compared(chests) -> None:
    hu = chests[0]
    cropped = radiographs(hu)
    cropped[0, :, 40:] = 100  # nonsense, if it counted
    cropped[1, :6] = 100
    assert reprojection_consistency(hu, cropped)["score"] < 0.9
    cropped[cropped == 100] = np.nan
    assert reprojection_consistency(hu, cropped)["score"] > 0.98
    fine = np.kron(cropped, np.ones((1, 2, 2), np.float32))
    assert reprojection_consistency(hu, fine)["score"] > 0.97
