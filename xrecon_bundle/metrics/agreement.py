"""Agreement of measurements and of readers on the same cases: correlation, intraclass correlation, Bland-Altman, kappa.

``x`` and ``y`` are paired, one value a case, the true measurement first where there is one. Too few cases or no
variation give NaN, never an error: a report of three cases is still a report.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import scipy  # its parts are imported at first use
from numpy.typing import ArrayLike

Weights = Literal["none", "linear", "quadratic"]  # how much a disagreement counts: all alike, or by its distance


@dataclass(frozen=True)
class Estimate:
    """A number with the limits of its confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class BlandAltman:
    """Bias (mean of ``y - x``) and limits of agreement (bias -+ 1.96 standard deviations), in the unit of the data."""

    bias: Estimate
    lower: Estimate
    upper: Estimate


UNKNOWN = Estimate(np.nan, np.nan, np.nan)


def pearson(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Pearson's r with the interval of Fisher's z transformation (from four cases on; NaN limits below)."""
    x, y = _pairs(x, y)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return UNKNOWN
    result = scipy.stats.pearsonr(x, y)
    if len(x) < 4:
        return Estimate(float(result.statistic), np.nan, np.nan)
    interval = result.confidence_interval(confidence)
    return Estimate(float(result.statistic), float(interval.low), float(interval.high))


def icc_2_1(x: ArrayLike, y: ArrayLike, *more: ArrayLike, confidence: float = 0.95) -> Estimate:
    """ICC(2,1): two-way random effects, absolute agreement, single measurement.

    Shrout & Fleiss 1979 (Psychol Bull 86:420), with the interval of McGraw & Wong 1996 (Psychol Methods 1:30, table 7,
    case ICC(A,1)). Further raters may follow ``x`` and ``y``.
    """
    ratings = _stacked(x, y, *more)
    cases, raters = ratings.shape
    if cases < 2 or np.ptp(ratings) == 0:
        return UNKNOWN
    rows, columns, error = _mean_squares(ratings)
    icc = (rows - error) / (rows + (raters - 1) * error + raters * (columns - error) / cases)
    if icc == 1:
        return Estimate(1.0, 1.0, 1.0)

    # Satterthwaite's degrees of freedom of the denominator, then an F interval.
    a = raters * icc / (cases * (1 - icc))
    b = 1 + raters * icc * (cases - 1) / (cases * (1 - icc))
    freedom = (a * columns + b * error) ** 2 / (
        (a * columns) ** 2 / (raters - 1) + (b * error) ** 2 / ((cases - 1) * (raters - 1))
    )
    tail = 1 - (1 - confidence) / 2
    shared = raters * columns + (raters * cases - raters - cases) * error
    f_low = scipy.stats.f.ppf(tail, cases - 1, freedom)
    f_high = scipy.stats.f.ppf(tail, freedom, cases - 1)
    low = cases * (rows - f_low * error) / (f_low * shared + cases * rows)
    high = cases * (f_high * rows - error) / (shared + cases * f_high * rows)
    return Estimate(float(icc), float(low), float(high))


def icc_3_1(x: ArrayLike, y: ArrayLike, *more: ArrayLike, confidence: float = 0.95) -> Estimate:
    """ICC(3,1): two-way mixed effects, consistency, single measurement: a rater's constant offset does not count.

    Value and F interval of Shrout & Fleiss 1979 (Psychol Bull 86:420). Further raters may follow ``x`` and ``y``.
    """
    ratings = _stacked(x, y, *more)
    cases, raters = ratings.shape
    if cases < 2 or np.ptp(ratings) == 0:
        return UNKNOWN
    rows, _, error = _mean_squares(ratings)
    if error <= 1e-12 * rows:
        return Estimate(1.0, 1.0, 1.0)
    ratio, freedom = rows / error, (cases - 1, (cases - 1) * (raters - 1))
    tail = 1 - (1 - confidence) / 2
    ratios = (ratio, ratio / scipy.stats.f.ppf(tail, *freedom), ratio * scipy.stats.f.ppf(tail, *freedom[::-1]))
    return Estimate(*(float((f - 1) / (f + raters - 1)) for f in ratios))


def cohen_kappa(x: ArrayLike, y: ArrayLike, weights: Weights = "none", confidence: float = 0.95) -> Estimate:
    """Cohen's kappa of two readers' categories, with the large-sample interval of Fleiss, Cohen & Everitt 1969.

    (Psychol Bull 72:323.) NaN where nobody used a second category: there is no chance agreement to correct for.

    Args:
        x: one reader's categories, one a case; numbers, equally spaced where ``weights`` are asked for.
        y: the other reader's.
        weights: ``none``, or ``linear`` or ``quadratic`` for scales (Cohen 1968, Psychol Bull 70:213).
        confidence: of the interval.
    """
    x, y = _pairs(x, y)
    categories = np.unique([*x, *y])
    if len(categories) < 2:
        return UNKNOWN
    table = np.zeros((len(categories),) * 2)
    np.add.at(table, (np.searchsorted(categories, x), np.searchsorted(categories, y)), 1 / len(x))
    weight = _agreement_weights(categories, weights)
    of_x, of_y = table.sum(1), table.sum(0)
    observed, chance = np.sum(weight * table), of_x @ weight @ of_y
    kappa = (observed - chance) / (1 - chance)
    deviation = weight - ((weight @ of_y)[:, None] + (of_x @ weight)[None]) * (1 - kappa)
    variance = (np.sum(table * deviation**2) - (kappa - chance * (1 - kappa)) ** 2) / (1 - chance) ** 2 / len(x)
    return _around(kappa, np.sqrt(max(variance, 0.0)), scipy.stats.norm.ppf(1 - (1 - confidence) / 2))


def fleiss_kappa(*readers: ArrayLike, weights: Weights = "none", confidence: float = 0.95) -> Estimate:
    """Fleiss' kappa of two or more readers' categories (Fleiss 1971, Psychol Bull 76:378).

    The interval is that of Gwet 2008 (Psychometrika 73:407) with Student's t: cases are a sample, readers are these.
    NaN where nobody used a second category.

    Args:
        readers: each one's categories, one a case, as in :func:`cohen_kappa`.
        weights: as in :func:`cohen_kappa`.
        confidence: of the interval.
    """
    ratings = _stacked(*readers)
    cases, count = ratings.shape
    categories = np.unique(ratings)
    if cases < 2 or len(categories) < 2:
        return UNKNOWN
    votes = (ratings[..., None] == categories).sum(1)  # (cases, categories)
    weight = _agreement_weights(categories, weights)
    share = votes.sum(0) / votes.sum()
    observed = np.sum(votes * (votes @ weight - 1), axis=1) / (count * (count - 1))
    chance = share @ weight @ share
    kappa = (observed.mean() - chance) / (1 - chance)
    of_case = (observed - chance) / (1 - chance)
    of_case -= 2 * (1 - kappa) * (votes @ weight @ share / count - chance) / (1 - chance)
    error = np.sqrt(np.sum((of_case - kappa) ** 2) / (cases * (cases - 1)))
    return _around(kappa, error, scipy.stats.t.ppf(1 - (1 - confidence) / 2, cases - 1))


def bland_altman(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> BlandAltman:
    """Bias and 95 % limits of agreement of ``y - x`` (Bland & Altman 1986, Lancet 1:307).

    Intervals from Student's t with the standard errors of Bland & Altman 1999 (Stat Methods Med Res 8:135):
    ``s / sqrt(n)`` for the bias and ``s sqrt(1/n + 1.96^2 / (2 (n - 1)))`` for a limit.
    """
    x, y = _pairs(x, y)
    difference, count = y - x, len(x)
    if count < 2:
        bias = float(difference.mean()) if count else np.nan
        return BlandAltman(Estimate(bias, np.nan, np.nan), UNKNOWN, UNKNOWN)
    bias, spread = difference.mean(), difference.std(ddof=1)
    z, t = scipy.stats.norm.ppf(0.975), scipy.stats.t.ppf(1 - (1 - confidence) / 2, count - 1)

    def around(value: float, standard_error: float) -> Estimate:
        return Estimate(float(value), float(value - t * standard_error), float(value + t * standard_error))

    limit_error = spread * np.sqrt(1 / count + z**2 / (2 * (count - 1)))
    return BlandAltman(
        bias=around(bias, spread / np.sqrt(count)),
        lower=around(bias - z * spread, limit_error),
        upper=around(bias + z * spread, limit_error),
    )


def agreement(x: ArrayLike, y: ArrayLike) -> dict[str, Any]:
    """All of the above as nested plain values: ``n``, ``pearson``, ``icc_2_1``, ``bias``, ``lower`` and ``upper``."""
    limits = asdict(bland_altman(x, y))
    return {"n": len(np.asarray(x)), "pearson": asdict(pearson(x, y)), "icc_2_1": asdict(icc_2_1(x, y)), **limits}


def crossed_mean(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The mean of what every case gave under every seed (or reader, or scanner), where both are a sample of more.

    Two-way random effects without repetition: the variance of the mean is (MS of cases + MS of seeds - MS of the rest)
    over the number of values, at least the larger of the first two; Student's t with Satterthwaite's degrees of freedom
    (Biometrics Bull 1946, 2:110). With one seed, cases alone are a sample, and the other way round.

    Args:
        values: ``(cases, seeds)``; fewer than two in all give NaN limits.
        confidence: of the interval.
    """
    values = np.asarray(values, dtype=float)
    if values.ndim != 2:
        raise ValueError(f"a crossed mean needs values (cases, seeds), got shape {values.shape}")
    if values.size < 2:
        return Estimate(float(values.mean()) if values.size else np.nan, np.nan, np.nan)
    cases, seeds = values.shape
    if min(cases, seeds) == 1:
        squares, freedom = values.var(ddof=1), values.size - 1.0
    else:
        rows, columns, rest = _mean_squares(values)
        squares = max(rows + columns - rest, rows, columns)
        each = rows**2 / (cases - 1) + columns**2 / (seeds - 1) + rest**2 / ((cases - 1) * (seeds - 1))
        freedom = squares**2 / each if each else 1.0
    half = scipy.stats.t.ppf(1 - (1 - confidence) / 2, freedom) * np.sqrt(squares / values.size)
    return Estimate(float(values.mean()), float(values.mean() - half), float(values.mean() + half))


def _stacked(*raters: ArrayLike) -> np.ndarray:
    """Ratings ``(cases, raters)``."""
    columns = [np.asarray(rater, dtype=float) for rater in raters]
    if len(columns) < 2 or any(column.ndim != 1 or column.shape != columns[0].shape for column in columns):
        raise ValueError(
            f"agreement needs two or more lists of paired values, got shapes {[column.shape for column in columns]}"
        )
    return np.stack(columns, axis=1)


def _mean_squares(ratings: np.ndarray) -> tuple[float, float, float]:
    """Between cases, between raters, and what is left, of a two-way analysis of variance."""
    cases, raters = ratings.shape
    mean, by_case, by_rater = ratings.mean(), ratings.mean(axis=1), ratings.mean(axis=0)
    rows = raters * np.sum((by_case - mean) ** 2) / (cases - 1)
    columns = cases * np.sum((by_rater - mean) ** 2) / (raters - 1)
    residual = ratings - by_case[:, None] - by_rater[None] + mean
    return rows, columns, np.sum(residual**2) / ((cases - 1) * (raters - 1))


def _agreement_weights(categories: np.ndarray, weights: Weights) -> np.ndarray:
    """How much of an agreement it is that one reader says the row's category and the other the column's: 0 to 1."""
    apart = np.abs(categories[:, None] - categories[None]) / np.ptp(categories)
    return {"none": (apart == 0).astype(float), "linear": 1 - apart, "quadratic": 1 - apart**2}[weights]


def _around(kappa: float, standard_error: float, quantile: float) -> Estimate:
    limits = np.clip([kappa - quantile * standard_error, kappa + quantile * standard_error], -1, 1)
    return Estimate(float(kappa), *(float(limit) for limit in limits))


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"agreement needs two lists of paired values, got shapes {x.shape} and {y.shape}")
    return x, y
