"""How far annotators agree beyond chance, over all classes and within each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.bootstrap import Replicates
from kfloop.core.statistics.estimate import Estimate
from kfloop.core.statistics.intervals import percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 1000
FEWER_RESAMPLES = 200
MANY_PATTERNS = 20_000
CELLS = 4_000_000


def krippendorff_alpha(counts: Floats, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Krippendorff's alpha for nominal labels with missing votes, with a bootstrap interval over items.

    ``alpha = 1 - D_o / D_e``: with ``n_ic`` votes for class c on item i, ``m_i`` votes on it, and only items with ``m_i >= 2``,
    ``D_o = (1/n) sum_i sum_(c != k) n_ic n_ik / (m_i - 1)`` and ``D_e = sum_(c != k) n_c n_k / (n (n - 1))``.
    Source: K. Krippendorff, "Computing Krippendorff's alpha-reliability", 2011.

    Args:
        counts: Votes for each class on each item, [items, K].
        level: Confidence level.
        seed: Seed of the bootstrap.

    Returns:
        The estimate; n is the number of items with two votes or more. Unknown without such items, or where they hold one class only.
    """
    paired, number = _patterns(counts)
    if len(paired) == 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0, level=level)
    votes = paired.sum(axis=1)
    apart = (votes**2 - (paired**2).sum(axis=1)) / (votes - 1)
    features = np.column_stack([paired, apart])

    def alpha(sums: Floats) -> Floats:
        n = sums[:, :-1].sum(axis=1)
        expected = (n**2 - (sums[:, :-1] ** 2).sum(axis=1)) / (n - 1)
        return np.asarray(1 - sums[:, -1] / np.where(expected > 0, expected, np.nan))

    return _bootstrap(features, number, alpha, level, seed)


def agreement_by_class(
    counts: Floats, labels: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> list[dict[str, Any]]:
    """For each class: when one annotator says it, how often another one says it too (specific agreement).

    Source: R. L. Spitzer, J. L. Fleiss, "A re-analysis of the reliability of psychiatric diagnosis", 1974.

    Returns:
        ``label``, ``n`` (votes for the class on items of two votes or more), ``agreement`` (with a bootstrap interval over items).
    """
    paired, number = _patterns(counts)
    rows = []
    for place, label in enumerate(labels):
        said = paired[:, place]
        n = int((said * number).sum())
        agreement = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0, level=level)
        if n:
            features = np.column_stack([said * (said - 1) / (paired.sum(axis=1) - 1), said])
            agreement = _bootstrap(features, number, _ratio, level, seed)
        rows.append({"label": label, "n": n, "agreement": agreement})
    return rows


def _ratio(sums: Floats) -> Floats:
    return np.asarray(sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan))


def _patterns(counts: Floats) -> tuple[Floats, Floats]:
    """Distinct rows of counts with two votes or more, and how many items have each: items of equal votes are interchangeable."""
    paired = counts[counts.sum(axis=1) > 1]
    if len(paired) == 0:
        return paired, np.empty(0)
    distinct, number = np.unique(paired, axis=0, return_counts=True)
    return distinct, number.astype(np.float64)


def _bootstrap(
    features: Floats, number: Floats, statistic: Callable[[Floats], Floats], level: float, seed: int
) -> Estimate:
    """The statistic of sums over items, each pattern standing for ``number`` items, with its percentile interval."""
    generator = np.random.default_rng(seed)
    n = int(number.sum())
    resamples = RESAMPLES if len(number) <= MANY_PATTERNS else FEWER_RESAMPLES
    chunk = max(1, CELLS // len(number))
    sums = np.concatenate(
        [
            generator.multinomial(n, number / number.sum(), size=min(chunk, resamples - start)) @ features
            for start in range(0, resamples, chunk)
        ]
    )
    point = float(statistic((number @ features)[None, :])[0])
    return percentile(Replicates(point=point, values=statistic(sums), n=n), level)
