"""Metrics of a score that should be higher for the odd or positive rows: both depend on its order alone.

A score that is not finite makes both unknown. Resamples without a row of one kind have no value. ``n`` is the number of rows of the rarer
kind: three odd rows among a thousand tell little. Simulated 95 % intervals of the area under the curve hold in 93 to 96 % of rounds from 20 such rows on,
up to an area of .97; the paired difference of two areas of .97 and .95 in 90 % with 20 and in 93 % with 50.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kfloop.core.statistics.bootstrap import CountStatistic

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


class _Ranked(NamedTuple):
    """Rows by falling score.

    Attributes:
        order: Rows, highest score first, int64 [N].
        ends: Last place of each run of equal scores.
        positive: Whether the row at each place is positive, float64 [N].
    """

    order: NDArray[np.int64]
    ends: NDArray[np.int64]
    positive: Floats


def overall(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> dict[str, CountStatistic]:
    """``auroc`` and ``average_precision``.

    Args:
        positive: Which rows should score high, bool [N].
        scores: [N].
    """
    return {"auroc": auroc(positive, scores), "average_precision": average_precision(positive, scores)}


def auroc(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> CountStatistic:
    """Chance that a positive row scores higher than another one, ties counting half (Mann-Whitney's U over the number of pairs)."""
    ranked = _ranked(positive, scores)

    def value(counts: Floats) -> Floats:
        hits, misses = _cumulated(ranked, counts)
        # Trapezoids under the curve: between two thresholds the positives won are worth the mean of the misses before and after.
        before = np.concatenate([np.zeros((len(misses), 1)), misses[:, :-1]], axis=1)
        won = np.diff(hits, axis=1, prepend=0)
        above = (won * (before + misses) / 2).sum(axis=1)
        return 1 - above / _positive(hits[:, -1] * misses[:, -1])

    return _statistic(value, positive, scores)


def average_precision(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> CountStatistic:
    """Mean precision over the steps of recall, as scikit-learn's ``average_precision_score``: no interpolation between thresholds."""
    ranked = _ranked(positive, scores)

    def value(counts: Floats) -> Floats:
        hits, misses = _cumulated(ranked, counts)
        precision = hits / np.maximum(hits + misses, 1)
        won = np.diff(hits, axis=1, prepend=0)
        return (won * precision).sum(axis=1) / _positive(hits[:, -1])

    return _statistic(value, positive, scores)


def roc_curve(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """False and true positive rates at every threshold, from (0, 0) to (1, 1)."""
    hits, misses = _cumulated(_ranked(positive, scores), np.ones((1, len(scores))))
    rates = [np.concatenate([[0.0], found[0] / max(found[0, -1], 1)]) for found in (misses, hits)]
    return rates[0], rates[1]


def _ranked(positive: NDArray[np.bool_], scores: NDArray[np.floating]) -> _Ranked:
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
    return _Ranked(order=order, ends=ends, positive=positive[order].astype(np.float64))


def _cumulated(ranked: _Ranked, counts: Floats) -> tuple[Floats, Floats]:
    """Positive and other rows at or above each threshold, each [R, T]."""
    weights = counts[:, ranked.order]
    hits = np.cumsum(weights * ranked.positive, axis=1)[:, ranked.ends]
    return hits, np.cumsum(weights, axis=1)[:, ranked.ends] - hits


def _statistic(
    value: Callable[[Floats], Floats], positive: NDArray[np.bool_], scores: NDArray[np.floating]
) -> CountStatistic:
    finite = bool(np.isfinite(scores).all())

    def known(counts: Floats) -> Floats:
        return value(counts) if finite else np.full(len(counts), np.nan)

    return CountStatistic(value=known, kinds=np.stack([positive, ~positive]), on_logit=True)


def _positive(counts: Floats) -> Floats:
    """Counts with NaN for zero, so that a share of nothing is unknown."""
    return np.where(counts > 0, counts, np.nan)
