"""Agreement statistics against published examples, scipy and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xrecon_bundle.metrics.agreement import agreement, bland_altman, icc_2_1, pearson

# Shrout & Fleiss 1979, table 2: six targets rated by four judges.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
# Bland & Altman 1986, table 1: peak flow in l/min by the Wright and the mini Wright meter (first measurements).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]


def test_icc_of_shrout_and_fleiss():
    """The paper prints ICC(2,1) = .29; the interval .02 to .76 is that of R's psych::ICC on the same table."""
    icc = icc_2_1(*SHROUT_FLEISS.T)
    assert icc.value == pytest.approx(0.29, abs=0.005)
    assert (icc.low, icc.high) == pytest.approx((0.019, 0.761), abs=0.005)


def test_icc_counts_a_constant_offset_and_pearson_does_not():
    x = np.array([10.0, 20, 30, 40, 55])
    y = x + 10
    # By hand: rows = 2 * var(x), columns = 5 * 10^2 / 2, error = 0.
    rows, columns = 2 * x.var(ddof=1), 250.0
    assert pearson(x, y).value == pytest.approx(1)
    assert icc_2_1(x, y).value == pytest.approx(rows / (rows + 2 * columns / 5))
    assert icc_2_1(x, x).value == 1


def test_bland_altman_of_bland_and_altman():
    """The paper: bias -2.1 l/min (large minus mini), standard deviation 38.8, limits -79.7 and 75.5 with 2 SD."""
    limits = bland_altman(MINI, WRIGHT)
    assert limits.bias.value == pytest.approx(-2.1, abs=0.05)
    deviation = (limits.upper.value - limits.lower.value) / (2 * 1.96)
    assert deviation == pytest.approx(38.8, abs=0.05)
    # The paper's intervals (its t is 2.12; its error of a limit is sqrt(3 s^2 / n)): -22.0 to 17.8, and 42 wide halves.
    assert (limits.bias.low, limits.bias.high) == pytest.approx((-22.0, 17.8), abs=0.15)
    assert limits.upper.high - limits.upper.value == pytest.approx(2.12 * np.sqrt(3 * 38.8**2 / 17), rel=0.02)


def test_pearson_interval_by_fisher_z():
    r, z = stats.pearsonr(WRIGHT, MINI).statistic, np.arctanh(stats.pearsonr(WRIGHT, MINI).statistic)
    half = stats.norm.ppf(0.975) / np.sqrt(len(WRIGHT) - 3)
    estimate = pearson(WRIGHT, MINI)
    assert estimate.value == pytest.approx(np.corrcoef(WRIGHT, MINI)[0, 1]) == pytest.approx(r)
    assert (estimate.low, estimate.high) == pytest.approx((np.tanh(z - half), np.tanh(z + half)))


@pytest.mark.parametrize(("x", "y"), [([], []), ([1.0], [2.0]), ([1.0, 1.0], [1.0, 1.0]), ([1.0, 2, 3], [5.0, 5, 5])])
def test_too_little_to_say_gives_nan_not_an_error(x, y):
    assert np.isnan(agreement(x, y)["pearson"]["value"])


def test_unpaired_values_are_refused():
    with pytest.raises(ValueError, match="paired"):
        bland_altman([1, 2, 3], [1, 2])
