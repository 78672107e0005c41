"""Agreement statistics against published examples, scipy and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from xrecon_bundle.metrics.agreement import (
    agreement,
    bland_altman,
    cohen_kappa,
    crossed_mean,
    fleiss_kappa,
    icc_2_1,
    icc_3_1,
    pearson,
)

# Shrout & Fleiss 1979, table 2: six targets rated by four judges.
SHROUT_FLEISS = np.array([[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]])
# Bland & Altman 1986, table 1: peak flow in l/min by the Wright and the mini Wright meter (first measurements).
WRIGHT = [494, 395, 516, 434, 476, 557, 413, 442, 650, 433, 417, 656, 267, 478, 178, 423, 427]
MINI = [512, 430, 520, 428, 500, 600, 364, 380, 658, 445, 432, 626, 260, 477, 259, 350, 451]

# The example of SAS's PROC FREQ for kappa: 19 cases, three ordered categories.
SAS_TABLE = [[0, 4, 1], [0, 8, 0], [0, 1, 5]]
# Gwet 2014, Handbook of Inter-Rater Reliability, 4th edition: ectopic, abnormal and normal pregnancies by two readers.
GWET_TABLE = [[13, 0, 0], [0, 20, 7], [0, 4, 56]]
# Fleiss 1971, table 1: 30 patients, five diagnoses by six psychiatrists each (who is who is not known).
FLEISS = """444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555"""


def _readings(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Two readers' categories, one a case, of a table of counts."""
    rows, columns = np.indices(np.shape(table))
    return np.repeat(rows.ravel(), np.ravel(table)), np.repeat(columns.ravel(), np.ravel(table))


def test_icc_of_shrout_and_fleiss():
    """The paper prints ICC(2,1) = .29; the interval .02 to .76 is that of R's psych::ICC on the same table."""
    icc = icc_2_1(*SHROUT_FLEISS.T)
    assert icc.value == pytest.approx(0.29, abs=0.005)
    assert (icc.low, icc.high) == pytest.approx((0.019, 0.761), abs=0.005)


def test_icc_3_1_of_shrout_and_fleiss():
    """The paper prints ICC(3,1) = .71; the interval .34 to .95 is that of R's psych::ICC on the same table."""
    icc = icc_3_1(*SHROUT_FLEISS.T)
    assert icc.value == pytest.approx(0.71, abs=0.005)
    assert (icc.low, icc.high) == pytest.approx((0.342, 0.946), abs=0.005)


def test_icc_3_1_counts_no_constant_offset():
    assert icc_3_1([1.0, 2, 4, 8], [3.0, 4, 6, 10]).value == 1


@pytest.mark.parametrize(
    ("table", "weights", "expected"),
    [
        (SAS_TABLE, "none", (0.4842, 0.2137, 0.7547)),
        (SAS_TABLE, "linear", (0.4701, 0.1845, 0.7558)),
        (GWET_TABLE, "none", (0.796, 0.681, 0.912)),
    ],
)
def test_cohen_kappa_of_published_examples(table, weights, expected):
    """As SAS prints it. Gwet gives a standard error of 0.0589, by another formula: his interval is .680 to .913."""
    kappa = cohen_kappa(*_readings(table), weights=weights)
    assert (kappa.value, kappa.low, kappa.high) == pytest.approx(expected, abs=0.0005)


def test_quadratic_weights_count_by_the_square_of_the_distance():
    """By hand, of three ordered categories: half the distance is a quarter of the disagreement."""
    x, y = [1, 2, 3, 3], [1, 3, 3, 1]
    disagreement = (0 + 1 / 4 + 0 + 1) / 4
    chance = np.mean([((a - b) / 2) ** 2 for a in x for b in y])
    assert cohen_kappa(x, y, "quadratic").value == pytest.approx(1 - disagreement / chance)


def test_fleiss_kappa_of_fleiss():
    """The paper prints .430."""
    patients = np.array([[int(diagnosis) for diagnosis in patient] for patient in FLEISS.split()])
    assert patients.shape == (30, 6)
    assert fleiss_kappa(*patients.T).value == pytest.approx(0.430, abs=0.0005)


def test_fleiss_kappa_of_gwet():
    """R's irrCAC prints 0.7962397 with the interval .679 to .913 (rounded) for two readers."""
    kappa = fleiss_kappa(*_readings(GWET_TABLE))
    assert kappa.value == pytest.approx(0.7962397, abs=1e-6)
    assert (kappa.low, kappa.high) == pytest.approx((0.679, 0.913), abs=0.0012)


@pytest.mark.parametrize("kappa", [cohen_kappa, fleiss_kappa, icc_2_1, icc_3_1])
def test_readers_who_agree_and_readers_who_never_vary(kappa):
    assert kappa([0, 1, 1, 0], [0, 1, 1, 0]).value == 1
    assert np.isnan(kappa([1, 1, 1], [1, 1, 1]).value)
    with pytest.raises(ValueError, match="paired"):
        kappa([1, 2], [1, 2, 3])


@pytest.mark.parametrize("readers", [2, 4])
def test_kappa_intervals_hold_the_known_value_in_about_95_of_100_studies(readers):
    """A reader sees the truth in 80 % of the cases and guesses by its frequency in the others: kappa is 0.8^2."""
    generator = np.random.default_rng(readers)
    held = []
    for _ in range(200):
        truth = generator.random(60) < 0.4
        guesses = generator.random((readers, 60)) < 0.4
        seen = np.where(generator.random((readers, 60)) < 0.8, truth, guesses)
        kappa = cohen_kappa(*seen) if readers == 2 else fleiss_kappa(*seen)
        held.append(kappa.low <= 0.64 <= kappa.high)
    assert 0.89 <= np.mean(held) <= 0.99


@pytest.mark.parametrize(("icc", "expected"), [(icc_2_1, 4 / 5.25), (icc_3_1, 4 / 5)])
def test_icc_intervals_hold_the_known_value_in_about_95_of_100_studies(icc, expected):
    """Variances: 4 between cases, 0.25 between readers (drawn anew each study), 1 left."""
    generator = np.random.default_rng(0)
    held = []
    for _ in range(200):
        cases, offsets = 2 * generator.standard_normal((30, 1)), 0.5 * generator.standard_normal(4)
        estimate = icc(*(cases + offsets + generator.standard_normal((30, 4))).T)
        held.append(estimate.low <= expected <= estimate.high)
    assert 0.89 <= np.mean(held) <= 0.99


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


def test_crossed_mean_adds_both_variances():
    """Without interaction the variance of the mean is that of the cases' mean and that of the seeds' mean together."""
    of_cases, of_seeds = np.array([1.0, 4.0, 2.0, 8.0, 5.0]), np.array([0.3, -0.2, 0.8])
    result = crossed_mean(of_cases[:, None] + of_seeds)
    assert result.value == pytest.approx(of_cases.mean() + of_seeds.mean())
    parts = np.array([of_cases.var(ddof=1) / 5, of_seeds.var(ddof=1) / 3])
    freedom = parts.sum() ** 2 / np.sum(parts**2 / [4, 2])
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    assert (result.low, result.high) == pytest.approx((result.value - half, result.value + half))


@pytest.mark.parametrize("shape", [(6, 1), (1, 6)])
def test_crossed_mean_of_one_seed_or_one_case_is_students(shape: tuple[int, int]):
    values = np.array([3.0, 1.0, 4.0, 1.0, 5.0, 9.0])
    interval = stats.ttest_1samp(values, 0).confidence_interval()
    result = crossed_mean(values.reshape(shape))
    assert (result.value, result.low, result.high) == pytest.approx((values.mean(), *interval))


@pytest.mark.parametrize("deviations", [(1.0, 0.3, 0.3), (0.2, 1.0, 0.5), (0.0, 0.0, 1.0)])
def test_crossed_mean_covers(deviations: tuple[float, float, float]):
    """The interval holds the truth in 95 of 100 draws of cases and seeds, or in more."""
    draw = np.random.default_rng(0)
    cases, seeds, both = deviations
    inside = 0
    for _ in range(600):
        values = draw.normal(0, cases, (10, 1)) + draw.normal(0, seeds, (1, 3)) + draw.normal(0, both, (10, 3))
        interval = crossed_mean(values)
        inside += interval.low <= 0 <= interval.high
    assert inside / 600 > 0.93


def test_crossed_mean_of_too_little():
    for values in (np.zeros((0, 3)), np.zeros((1, 1))):
        assert np.isnan(crossed_mean(values).low)
    assert crossed_mean(np.full((4, 3), 2.0)) == crossed_mean(np.full((2, 2), 2.0))
    with pytest.raises(ValueError, match="cases, seeds"):
        crossed_mean(np.zeros(3))
