"""What few and chosen labels say about all requests.

People label what was flagged or looks wrong first, so that the plain share of right answers among labels is too low. Two corrections stand together:

    residual   q - f, what was found less what was expected of that very answer: zero on average, whichever rows are chosen by their
               confidence, as long as the probabilities are calibrated;
    weight     share of the stratum (confidence, review flag) among requests / among labels, at most `MOST_WEIGHT`: right when, within a stratum,
               whether a row is labelled has nothing to do with whether it is right.

    quality = mean expectation of the traffic + weighted mean residual

It is right when either holds (augmented inverse probability weighting: Robins, Rotnitzky, Zhao, JASA 1994; with a model's answers in place of labels:
Angelopoulos et al., "Prediction-powered inference", Science 2023). It is wrong when people see more than the model: who reports nothing but mistakes makes
any model look bad, and no weight can tell.

Of a stratum without any label only the expectation is known. The interval leaves its quality open, anywhere from 0 to 1 (worst-case bounds: Manski, "Nonparametric
bounds on treatment effects", AER 1990): it is wider by about the share of such requests, `unlabelled`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.quality.expected import CLASSES, UNIT
from kfloop.core.quality.gauge import STRATA, Gauge
from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.quality.hours import Mix

    Array = NDArray[np.float64]

MOST_WEIGHT = 4.0
PRIOR_LABELS = 20.0
"""Labels that are thought to have been chosen at random before any was seen."""


@dataclass(frozen=True, kw_only=True)
class Weighed:
    """Realised quality.

    Attributes:
        value: Of the traffic, by expectation and weighted residuals; its interval leaves open what strata without any label are worth.
        unweighted: Plain mean of the labelled rows.
        effective: Effective number of labels, (sum of weights)^2 / sum of squares.
        truncated: Share of the labels whose weight was cut.
        unlabelled: Share of the requests in strata without any label: nothing but their expectation is known.
    """

    value: Estimate
    unweighted: Estimate
    effective: float
    truncated: float
    unlabelled: float


def weights(traffic: Array, labelled: Array) -> Array:
    """Weight of each stratum.

    Args:
        traffic: Share of the requests, [s].
        labelled: Number of labels, [s].
    """
    total = labelled.sum() + PRIOR_LABELS
    share = (labelled + PRIOR_LABELS * traffic) / total
    return np.minimum(np.divide(traffic, share, out=np.zeros_like(traffic), where=share > 0), MOST_WEIGHT)


def highest(gauge: Gauge, weight: Array) -> float:
    """Largest weighted residual there can be: a right answer of the least expectation in its stratum."""
    least = np.concatenate([[0.0], gauge.edges / UNIT])
    return float((weight * (1 - np.concatenate([least, least]))).max())


def weigh(
    gauge: Gauge, mix: Mix, strata: NDArray[np.int64], expected: Array, found: Array, level: float = 0.95
) -> Weighed:
    """Realised quality from labelled rows.

    Args:
        gauge: The reference.
        mix: The traffic that they stand for.
        strata: Their strata, [n].
        expected: Their expectations in [0, 1], [n].
        found: Their quality in [0, 1], [n].
        level: Confidence level.
    """
    n = len(found)
    unknown = Estimate(value=math.nan, low=math.nan, high=math.nan, n=n, level=level)
    counts = np.bincount(strata, minlength=2 * STRATA).astype(float)
    unlabelled = float(mix.shares[counts == 0].sum())
    plain = _plain(gauge, found, level)
    if n < 2:  # noqa: PLR2004 - a variance needs two rows
        return Weighed(value=unknown, unweighted=plain, effective=float(n), truncated=0.0, unlabelled=unlabelled)
    exact = np.divide(mix.shares * n, counts, out=np.zeros_like(counts), where=counts > 0)
    weight = np.minimum(exact, MOST_WEIGHT)[strata]
    if not weight.sum() > 0:  # none of the labelled strata occurs in the traffic
        return Weighed(value=unknown, unweighted=plain, effective=0.0, truncated=0.0, unlabelled=unlabelled)
    residual = found - expected
    mean = float((weight * residual).sum() / weight.sum())
    effective = float(weight.sum() ** 2 / (weight**2).sum())
    variance = float((weight**2 * (residual - mean) ** 2).sum() / (weight**2).sum())
    if gauge.objective == CLASSES:  # a few labels that are all right do not make certain
        variance = max(variance, float((weight * expected * (1 - expected)).sum() / weight.sum()))
    value = float(np.clip(mix.mean + mean, 0, 1))
    half = NormalDist().inv_cdf(0.5 + level / 2) * math.sqrt(variance / effective + mix.error**2)
    least, most = _open(gauge, mix.shares * (counts == 0))
    known = (
        mix.mean + (1 - unlabelled) * mean
    )  # less what strata without a label are expected to be worth: from `least` to `most`
    interval = Estimate(
        value=value,
        low=max(0.0, min(value, known - most) - half),
        high=min(1.0, max(value, known - least + unlabelled) + half),
        n=n,
        level=level,
    )
    truncated = float((exact[strata] > MOST_WEIGHT).mean())
    return Weighed(value=interval, unweighted=plain, effective=effective, truncated=truncated, unlabelled=unlabelled)


def _open(gauge: Gauge, shares: Array) -> tuple[float, float]:
    """Least and most that strata of these shares of the requests are expected to add to the quality of all."""
    bounds = np.concatenate([[0.0], gauge.edges / UNIT, [1.0]])
    least, most = np.tile(bounds[:-1], 2), np.tile(bounds[1:], 2)
    return float(shares @ least), float(shares @ most)


def _plain(gauge: Gauge, found: Array, level: float) -> Estimate:
    n = len(found)
    if gauge.objective == CLASSES:
        return wilson(int(np.rint(found.sum())), n, level)
    if n < 2:  # noqa: PLR2004
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n, level=level)
    value = float(found.mean())
    half = NormalDist().inv_cdf(0.5 + level / 2) * float(found.std(ddof=1)) / math.sqrt(n)
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n, level=level)
