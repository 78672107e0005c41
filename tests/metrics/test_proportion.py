"""Shares of yes: published intervals, and coverage in simulated studies with known values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from xrecon_bundle.metrics.proportion import bootstrap_cases, clustered_proportion, paired_difference, proportion


@pytest.mark.parametrize(
    ("method", "successes", "count", "low", "high"),
    [
        # Newcombe 1998 (Stat Med 17:857), table I.
        ("wilson", 81, 263, 0.2553, 0.3662),
        ("wilson", 15, 148, 0.0624, 0.1605),
        ("wilson", 0, 20, 0.0, 0.1611),
        ("wilson", 1, 29, 0.0061, 0.1718),
        ("exact", 81, 263, 0.2527, 0.3676),
        ("exact", 15, 148, 0.0578, 0.1617),
        ("exact", 0, 20, 0.0, 0.1684),
        ("exact", 1, 29, 0.0009, 0.1776),
    ],
)
def test_intervals_of_newcombe(method, successes, count, low, high):
    share = proportion(successes, count, method)
    assert share.value == successes / count
    assert (share.low, share.high) == pytest.approx((low, high), abs=6e-5)


def test_one_reading_a_case_is_about_wilson():
    alone = proportion(160, 200)
    clustered = clustered_proportion([1] * 160 + [0] * 40, [1] * 200)
    assert (clustered.low, clustered.high) == pytest.approx((alone.low, alone.high), abs=0.002)


def test_readers_who_only_repeat_each_other_add_nothing():
    once = clustered_proportion([1] * 15 + [0] * 5, [1] * 20)
    five_times = clustered_proportion([5] * 15 + [0] * 5, [5] * 20)
    assert (five_times.low, five_times.high) == pytest.approx((once.low, once.high), abs=0.002)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).map(sorted), min_size=1, max_size=12))
def test_the_interval_lies_in_0_to_1_around_the_share(clusters):
    successes, counts = np.array(clusters).T
    share = clustered_proportion(successes, counts)
    if counts.sum() == 0:
        assert np.isnan(share.value)
    else:
        assert 0 <= share.low <= share.value + 1e-12
        assert share.value - 1e-12 <= share.high <= 1


@pytest.mark.parametrize(
    ("cases", "readers", "share", "alike"), [(20, 3, 0.9, 0.4), (30, 5, 0.8, 0.3), (25, 4, 0.5, 0.8)]
)
def test_clustered_intervals_hold_the_known_share_in_about_95_of_100_studies(cases, readers, share, alike):
    """A case is as hard for every reader: probit scores of one case correlate by ``alike``."""
    generator = np.random.default_rng(1)
    held = []
    for _ in range(200):
        hard, luck = generator.standard_normal((cases, 1)), generator.standard_normal((cases, readers))
        found = np.sqrt(alike) * hard + np.sqrt(1 - alike) * luck < stats.norm.ppf(share)
        estimate = clustered_proportion(found.sum(1), np.full(cases, readers))
        held.append(estimate.low <= share <= estimate.high)
    assert 0.90 <= np.mean(held) <= 0.995


def test_paired_difference_of_newcombe():
    """His table of 36, 12, 2 and 0 pairs. By hand, method 10 (phi = -0.1147) gives 0.20 and 0.0569 to 0.3404.

    Here the interval is a little wider: Student's t for the normal quantile.
    """
    both, first_only, second_only, neither = 36, 12, 2, 0
    first = [1] * both + [1] * first_only + [0] * second_only + [0] * neither
    second = [1] * both + [0] * first_only + [1] * second_only + [0] * neither
    difference = paired_difference(second, first, [1] * 50)
    assert difference.value == pytest.approx(0.20)
    assert (difference.low, difference.high) == pytest.approx((0.0569, 0.3404), abs=0.005)


@pytest.mark.parametrize(("first", "second"), [(0.9, 0.7), (0.8, 0.8), (0.95, 0.9)])
def test_paired_intervals_hold_the_known_difference_in_about_95_of_100_studies(first, second):
    generator = np.random.default_rng(2)
    held = []
    for _ in range(200):
        hard, luck = generator.standard_normal((25, 1)), generator.standard_normal((2, 25, 3))
        score = np.sqrt(0.4) * hard + np.sqrt(0.6) * luck
        found = [(score[n] < stats.norm.ppf(share)).sum(1) for n, share in enumerate((first, second))]
        estimate = paired_difference(*found, [3] * 25)
        held.append(estimate.low <= second - first <= estimate.high)
    assert 0.90 <= np.mean(held) <= 0.995


def test_bootstrap_of_a_mean_is_about_its_normal_interval():
    values = np.random.default_rng(0).standard_normal(200)
    estimate = bootstrap_cases(lambda drawn: values[drawn].mean(), 200)
    half = 1.96 * values.std() / np.sqrt(200)
    assert estimate.value == pytest.approx(values.mean())
    assert (estimate.low, estimate.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    assert estimate == bootstrap_cases(lambda drawn: values[drawn].mean(), 200)


def test_nothing_read_is_not_known():
    assert np.isnan(proportion(0, 0).value)
    assert np.isnan(clustered_proportion([], []).value)
    assert np.isnan(paired_difference([], [], []).value)
    assert np.isnan(
        bootstrap_cases(lambda drawn: 1.0 if (drawn == [0, 1, 2, 3, 4]).all() else np.nan, 5, resamples=3).low
    )
    assert np.isnan(bootstrap_cases(lambda drawn: 1.0, 1).low)


def test_more_yes_than_readings_is_refused():
    with pytest.raises(ValueError, match="no more of those than of these"):
        clustered_proportion([2], [1])
