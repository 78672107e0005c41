"""Shares of yes among readings, with intervals: of one reader, and of several readers of the same cases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import scipy  # its parts are imported at first use
from numpy.typing import ArrayLike

from .agreement import UNKNOWN, Estimate


def proportion(
    successes: int, count: int, method: Literal["wilson", "exact"] = "wilson", confidence: float = 0.95
) -> Estimate:
    """``successes / count`` with the interval of Wilson 1927, or the exact one of Clopper & Pearson 1934.

    NaN where ``count`` is 0. Readings must be independent: one reader, one reading a case.
    """
    if count == 0:
        return UNKNOWN
    interval = scipy.stats.binomtest(int(successes), int(count)).proportion_ci(confidence, method)
    return Estimate(successes / count, float(interval.low), float(interval.high))


def clustered_proportion(successes: ArrayLike, counts: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The share of yes where readings come in clusters, like those of several readers of one case.

    Readings of one case are alike, so they say less than as many of different cases. Wilson's interval at the effective
    sample size of Rao & Scott 1992 (Biometrics 48:577): the number of readings over the design effect, which lies
    between 1 and that of readings that only repeat each other. Where all readings are the same, a case counts once.

    Args:
        successes: readings that said yes, one number a case.
        counts: readings, one number a case; cases without any are left out.
        confidence: of the interval.
    """
    successes, counts = np.asarray(successes, dtype=float), np.asarray(counts, dtype=float)
    if successes.shape != counts.shape or successes.ndim != 1 or np.any((successes < 0) | (successes > counts)):
        raise ValueError(
            "clusters need one number of successes and one of readings each, no more of those than of these"
        )
    successes, counts = successes[counts > 0], counts[counts > 0]
    clusters, total = len(counts), counts.sum()
    if clusters == 0:
        return UNKNOWN
    share = successes.sum() / total
    least = total**2 / np.sum(counts**2)  # the effective size where readings of a case only repeat each other
    effective = least
    if 0 < share < 1 and clusters > 1:
        residual = successes - share * counts
        variance = clusters / (clusters - 1) * np.sum(residual**2) / total**2
        effective = float(np.clip(share * (1 - share) / max(variance, 1e-12), least, total))
    # Student's t for the normal quantile: the design effect is itself estimated from that many clusters.
    z = (
        scipy.stats.t.ppf(1 - (1 - confidence) / 2, clusters - 1)
        if clusters > 1
        else scipy.stats.norm.ppf(1 - (1 - confidence) / 2)
    )
    centre = (share + z**2 / (2 * effective)) / (1 + z**2 / effective)
    half = z / (1 + z**2 / effective) * np.sqrt(share * (1 - share) / effective + z**2 / (4 * effective**2))
    return Estimate(float(share), float(max(centre - half, 0)), float(min(centre + half, 1)))


def bootstrap_cases(
    statistic: Callable[[np.ndarray], float], cases: int, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """A statistic of cases with the percentile interval of a bootstrap that draws whole cases, all readers together.

    Args:
        statistic: of the numbers of the cases drawn, ``(cases,)``; NaN where it cannot be said.
        cases: how many there are; fewer than two give NaN limits.
        confidence: of the interval.
        resamples: draws; those where the statistic is NaN do not count.
        seed: of the draws.
    """
    value = float(statistic(np.arange(cases))) if cases else np.nan
    if cases < 2 or np.isnan(value):
        return Estimate(value, np.nan, np.nan)
    generator = np.random.default_rng(seed)
    drawn = np.array([statistic(generator.integers(cases, size=cases)) for _ in range(resamples)])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Estimate(value, np.nan, np.nan)
    tails = [(1 - confidence) / 2, 1 - (1 - confidence) / 2]
    return Estimate(value, *(float(limit) for limit in np.quantile(drawn, tails)))


def paired_difference(first: ArrayLike, second: ArrayLike, counts: ArrayLike, confidence: float = 0.95) -> Estimate:
    """The second share of yes minus the first, where the same readers read the same cases twice.

    Newcombe 1998 (Stat Med 17:2635, method 10), with the clustered intervals of both shares in place of Wilson's and
    the correlation of the cases' counts in place of phi (Zou & Donner 2008, Stat Med 27:1693).

    Args:
        first: readings that said yes the first time, one number a case.
        second: the second time.
        counts: readings each time, one number a case.
        confidence: of the interval.
    """
    one, two = clustered_proportion(first, counts, confidence), clustered_proportion(second, counts, confidence)
    kept = np.asarray(counts) > 0
    first, second = np.asarray(first, dtype=float)[kept], np.asarray(second, dtype=float)[kept]
    varied = len(first) > 0 and np.ptp(first) > 0 and np.ptp(second) > 0
    alike = float(np.corrcoef(first, second)[0, 1]) if varied else 0.0

    def reach(up: float, down: float) -> float:
        return float(np.sqrt(max(up**2 + down**2 - 2 * alike * up * down, 0.0)))

    difference = two.value - one.value
    return Estimate(
        difference,
        difference - reach(two.value - two.low, one.high - one.value),
        difference + reach(two.high - two.value, one.value - one.low),
    )
