"""Tests of two models on the same rows, as evidence beside the intervals; and Holm's correction of several p-values.

Each takes rows that do not depend on each other, but for Diebold and Mariano's, which is made for rows in time order. A test that cannot be
computed, because an answer is unusable or a kind of rows is missing, has NaN as statistic and p-value.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.statistics.proportions import Pairs

    Floats = NDArray[np.float64]

ROUNDING = 1e-12  # a spread smaller than this share of the mean is none
FEWEST_OF_A_KIND = 2  # rows of one kind that still have a variance


@dataclass(frozen=True, kw_only=True)
class Tested:
    """What a test found; NaN where it could not be computed.

    Attributes:
        statistic: The test's statistic.
        p_value: Chance of a statistic at least as far from no difference when there is none, two-sided.
    """

    statistic: float
    p_value: float

    @property
    def known(self) -> bool:
        """Whether the test could be computed."""
        return math.isfinite(self.p_value)


UNKNOWN = Tested(statistic=math.nan, p_value=math.nan)


def mcnemar_exact(pairs: Pairs) -> Tested:
    """McNemar's exact test, which is a sign test on the rows that the two disagree on; the statistic is the smaller count.

    Source: Q. McNemar, Psychometrika 12, 1947; exact form as in A. Agresti, "Categorical data analysis", 3rd edition, section 11.1.
    """
    from scipy.stats import binom

    fewer, total = min(pairs.ours, pairs.theirs), pairs.ours + pairs.theirs
    return Tested(statistic=float(fewer), p_value=min(1.0, 2 * float(binom.cdf(fewer, total, 0.5))) if total else 1.0)


def delong(positive: NDArray[np.bool_], ours: NDArray[np.floating], theirs: NDArray[np.floating]) -> Tested:
    """DeLong's test of two areas under the ROC curve of the same rows; the statistic is a z-score, first minus second.

    Two scores that order all pairs alike have p = 1. The normal approximation wants some ten rows of each kind.

    Source: DeLong, DeLong & Clarke-Pearson, Biometrics 44, 1988; by midranks as in X. Sun & W. Xu, IEEE Signal Processing Letters 21, 2014.

    Args:
        positive: Rows that should score high, bool [N].
        ours: Scores of the first, [N].
        theirs: Scores of the second, [N].
    """
    scores = np.stack([ours, theirs]).astype(np.float64)
    if min(positive.sum(), (~positive).sum()) < FEWEST_OF_A_KIND or not np.isfinite(scores).all():
        return UNKNOWN
    areas, covariance = delong_covariance(positive, scores)
    difference = float(areas[0] - areas[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if variance <= np.finfo(np.float64).eps:
        return Tested(statistic=0.0, p_value=1.0) if math.isclose(difference, 0, abs_tol=1e-12) else UNKNOWN
    z = difference / math.sqrt(variance)
    return Tested(statistic=z, p_value=2 * NormalDist().cdf(-abs(z)))


def delong_covariance(positive: NDArray[np.bool_], scores: Floats) -> tuple[Floats, Floats]:
    """Areas under the curve of M scores [M, N], each [M], and their covariance [M, M].

    A row's midrank among all rows less its midrank among its own kind counts the rows of the other kind below it, ties by half.
    """
    from scipy.stats import rankdata

    won, lost = scores[:, positive], scores[:, ~positive]
    m, n = won.shape[1], lost.shape[1]
    ranks = rankdata(scores, axis=1)
    above = (ranks[:, positive] - rankdata(won, axis=1)) / n
    below = 1 - (ranks[:, ~positive] - rankdata(lost, axis=1)) / m
    return above.mean(axis=1), np.cov(above) / m + np.cov(below) / n


def diebold_mariano(ours: Floats, theirs: Floats, *, overlap: int = 1) -> Tested:
    """Diebold and Mariano's test of the mean loss of two forecasts, with the correction of Harvey, Leybourne and Newbold.

    The statistic is first minus second. The variance of the mean is Newey and West's (triangular weights, never negative) over twice the
    windows that overlap, and at least over 4 (N / 100)^(2/9) lags, for errors that stay correlated beyond the overlap. Student's t has no more
    degrees of freedom than that variance has, 1.5 N over the width of the weights, where Harvey et al. take N - 1. Simulated at 5 % with equal
    forecasts, it errs in 5 % without overlap and in 7 to 8 % where 6 or 24 windows overlap (200 to 2000 windows); with N - 1 in up to 15 %.

    Sources: Diebold & Mariano, Journal of Business & Economic Statistics 13, 1995; Harvey, Leybourne & Newbold, International Journal of
    Forecasting 13, 1997, equation 9; Newey & West, Econometrica 55, 1987, and Review of Economic Studies 61, 1994 (lags); M. B. Priestley,
    "Spectral analysis and time series", 1981, table 6.2 (degrees of freedom).

    Args:
        ours: Loss of the first for each window in time order, [N].
        theirs: Loss of the second, [N].
        overlap: Windows whose targets share a row with the first one's, itself included: the horizon in windows (h).
    """
    difference = np.asarray(ours, dtype=np.float64) - theirs
    n = len(difference)
    lags = hac_lags(n, overlap)
    if not np.isfinite(difference).all() or n <= lags + 1:
        return UNKNOWN
    if not difference.any():
        return Tested(statistic=0.0, p_value=1.0)
    mean, variance = float(difference.mean()), mean_variance(difference, lags)
    # Below 0 only where there are fewer windows than two horizons, for which the correction was not made.
    correction = (n + 1 - 2 * overlap + overlap * (overlap - 1) / n) / n
    if math.sqrt(max(variance, 0.0)) <= ROUNDING * abs(mean) or correction <= 0:
        return UNKNOWN
    from scipy.stats import t as student

    statistic = mean / math.sqrt(variance) * math.sqrt(correction)
    freedom = min(n - 1.0, 1.5 * n / (lags + 1))
    return Tested(statistic=statistic, p_value=2 * float(student.sf(abs(statistic), freedom)))


def hac_lags(n: int, overlap: int) -> int:
    """Lags of the variance of a mean of ``n`` losses of which ``overlap`` neighbours share rows."""
    return max(2 * overlap - 1 if overlap > 1 else 0, int(4 * (n / 100) ** (2 / 9)))


def mean_variance(values: Floats, lags: int) -> float:
    """Newey and West's variance of the mean of values in time order, [N]."""
    n, centred = len(values), values - values.mean()
    found = float(centred @ centred)
    for lag in range(1, lags + 1):
        found += 2 * (1 - lag / (lags + 1)) * float(centred[lag:] @ centred[:-lag])
    return found / n**2


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values: those below alpha are rejected with a family-wise error of at most alpha, whatever their dependence.

    A p-value of NaN counts as a test, so it makes the others no smaller, and stays NaN.

    Source: S. Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    known = np.where(np.isnan(p_values), 1.0, p_values)
    order = np.argsort(known, kind="stable")
    stepped = np.maximum.accumulate(known[order] * np.arange(len(known), 0, -1))
    adjusted = np.empty(len(known))
    adjusted[order] = np.minimum(stepped, 1.0)
    return [math.nan if math.isnan(given) else float(found) for given, found in zip(p_values, adjusted, strict=True)]
