"""Agreement of two measurements of the same cases: correlation, intraclass correlation, Bland-Altman.

``x`` and ``y`` are paired, one value a case, the true measurement first where there is one. Too few cases or no
variation give NaN, never an error: a report of three cases is still a report.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


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


def pearson(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Pearson's r with the interval of Fisher's z transformation (from four cases on; NaN limits below)."""
    x, y = _pairs(x, y)
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    result = stats.pearsonr(x, y)
    if len(x) < 4:
        return Estimate(float(result.statistic), np.nan, np.nan)
    interval = result.confidence_interval(confidence)
    return Estimate(float(result.statistic), float(interval.low), float(interval.high))


def icc_2_1(x: ArrayLike, y: ArrayLike, *more: ArrayLike, confidence: float = 0.95) -> Estimate:
    """ICC(2,1): two-way random effects, absolute agreement, single measurement.

    Shrout & Fleiss 1979 (Psychol Bull 86:420), with the interval of McGraw & Wong 1996 (Psychol Methods 1:30, table 7,
    case ICC(A,1)). Further raters may follow ``x`` and ``y``.
    """
    ratings = np.stack([np.asarray(rater, dtype=float) for rater in (x, y, *more)], axis=1)
    cases, raters = ratings.shape
    if cases < 2 or np.ptp(ratings) == 0:
        return Estimate(np.nan, np.nan, np.nan)
    mean = ratings.mean()
    by_case, by_rater = ratings.mean(axis=1), ratings.mean(axis=0)
    rows = raters * np.sum((by_case - mean) ** 2) / (cases - 1)
    columns = cases * np.sum((by_rater - mean) ** 2) / (raters - 1)
    residual = ratings - by_case[:, None] - by_rater[None] + mean
    error = np.sum(residual**2) / ((cases - 1) * (raters - 1))
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
    f_low = stats.f.ppf(tail, cases - 1, freedom)
    f_high = stats.f.ppf(tail, freedom, cases - 1)
    low = cases * (rows - f_low * error) / (f_low * shared + cases * rows)
    high = cases * (f_high * rows - error) / (shared + cases * f_high * rows)
    return Estimate(float(icc), float(low), float(high))


def bland_altman(x: ArrayLike, y: ArrayLike, confidence: float = 0.95) -> BlandAltman:
    """Bias and 95 % limits of agreement of ``y - x`` (Bland & Altman 1986, Lancet 1:307).

    Intervals from Student's t with the standard errors of Bland & Altman 1999 (Stat Methods Med Res 8:135):
    ``s / sqrt(n)`` for the bias and ``s sqrt(1/n + 1.96^2 / (2 (n - 1)))`` for a limit.
    """
    x, y = _pairs(x, y)
    difference, count = y - x, len(x)
    if count < 2:
        bias = float(difference.mean()) if count else np.nan
        unknown = Estimate(np.nan, np.nan, np.nan)
        return BlandAltman(Estimate(bias, np.nan, np.nan), unknown, unknown)
    bias, spread = difference.mean(), difference.std(ddof=1)
    z, t = stats.norm.ppf(0.975), stats.t.ppf(1 - (1 - confidence) / 2, count - 1)

    def around(value: float, standard_error: float) -> Estimate:
        return Estimate(float(value), float(value - t * standard_error), float(value + t * standard_error))

    limit_error = spread * np.sqrt(1 / count + z**2 / (2 * (count - 1)))
    return BlandAltman(
        bias=around(bias, spread / np.sqrt(count)),
        lower=around(bias - z * spread, limit_error),
        upper=around(bias + z * spread, limit_error),
    )


def agreement(x: ArrayLike, y: ArrayLike) -> dict[str, int | dict]:
    """All of the above as nested plain values: ``n``, ``pearson``, ``icc_2_1``, ``bias``, ``lower`` and ``upper``."""
    limits = asdict(bland_altman(x, y))
    return {"n": len(np.asarray(x)), "pearson": asdict(pearson(x, y)), "icc_2_1": asdict(icc_2_1(x, y)), **limits}


def _pairs(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"agreement needs two lists of paired values, got shapes {x.shape} and {y.shape}")
    return x, y
