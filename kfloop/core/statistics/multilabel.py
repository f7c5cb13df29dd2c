"""Metrics of sets of labels, each as a statistic the bootstrap can resample. A label is predicted from a probability of .5 on.

A row with a probability outside of 0..1 makes every metric that covers it unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.bootstrap import Statistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

THRESHOLD = 0.5


def invalid_sets(probabilities: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Rows of [N, K] with anything that is no probability, bool [N]."""
    with np.errstate(invalid="ignore"):
        return np.asarray(~((probabilities >= 0) & (probabilities <= 1)).all(axis=1))


def overall(true: NDArray[np.floating], probabilities: NDArray[np.floating]) -> dict[str, Statistic]:
    """``micro_f1`` over all decisions, ``macro_f1`` as the mean over labels, and ``accuracy``, the share of right decisions.

    A label that neither occurs nor is predicted does not count for ``macro_f1``.

    Args:
        true: 0 or 1, [N, K].
        probabilities: [N, K].
    """
    is_true, is_predicted = _decisions(true, probabilities)
    both = np.concatenate([is_true * is_predicted, is_true + is_predicted], axis=1)
    right = (is_true == is_predicted).astype(np.float64).mean(axis=1)
    right[np.isnan(is_predicted).any(axis=1)] = np.nan

    def micro(sums: Floats) -> Floats:
        hits, either = (part.sum(axis=1) for part in np.split(sums, 2, axis=1))
        return 2 * hits / np.where(either > 0, either, np.nan)

    def macro(sums: Floats) -> Floats:
        hits, either = np.split(sums, 2, axis=1)
        occurs = either > 0
        total = np.where(occurs, 2 * hits / np.where(occurs, either, 1), 0.0).sum(axis=1)
        known = ~np.isnan(sums).any(axis=1) & occurs.any(axis=1)
        return np.where(known, total / np.maximum(occurs.sum(axis=1), 1), np.nan)

    share = np.column_stack([right, np.ones(len(right))])
    return {
        "micro_f1": Statistic(features=both, value=micro, n=len(true), on_logit=True),
        "macro_f1": Statistic(features=both, value=macro, n=len(true), on_logit=True),
        "accuracy": Statistic(features=share, value=lambda sums: sums[:, 0] / _positive(sums[:, 1]), n=len(true)),
    }


def f1_by_label(true: NDArray[np.floating], probabilities: NDArray[np.floating]) -> list[Statistic]:
    """F1 of each label; its ``n`` is the number of rows that have the label."""
    is_true, is_predicted = _decisions(true, probabilities)
    return [
        Statistic(
            features=np.column_stack([is_true[:, k] * is_predicted[:, k], is_true[:, k] + is_predicted[:, k]]),
            value=lambda sums: 2 * sums[:, 0] / _positive(sums[:, 1]),
            n=int(is_true[:, k].sum()),
            kind=is_true[:, k] > 0,
            on_logit=True,
        )
        for k in range(true.shape[1])
    ]


def _decisions(true: NDArray[np.floating], probabilities: NDArray[np.floating]) -> tuple[Floats, Floats]:
    """Given and predicted labels as 0 or 1, [N, K]; rows without usable probabilities are predicted NaN."""
    predicted = (probabilities >= THRESHOLD).astype(np.float64)
    predicted[invalid_sets(probabilities)] = np.nan
    return (true >= THRESHOLD).astype(np.float64), predicted


def _positive(counts: Floats) -> Floats:
    return np.where(counts > 0, counts, np.nan)
