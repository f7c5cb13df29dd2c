"""Metrics of predicted numbers, each as a statistic the bootstrap can resample. One prediction that is not finite makes all unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.bootstrap import Statistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


def overall(true: NDArray[np.floating], predicted: NDArray[np.floating]) -> dict[str, Statistic]:
    """``mae`` and ``rmse`` in the unit of the label, and ``r2``, the share of the variance that is explained.

    Args:
        true: [N].
        predicted: [N].
    """
    errors = predicted.astype(np.float64) - true
    errors = np.where(np.isfinite(errors), errors, np.nan)
    ones = np.ones(len(errors))
    # The variance is the same around any centre, and loses fewest digits around one that is near.
    centred = true.astype(np.float64) - float(np.mean(true, dtype=np.float64))

    def explained(sums: Floats) -> Floats:
        squares, total, total_squares, n = sums.T
        spread = total_squares - total**2 / _positive(n)
        return np.where(spread > 0, 1 - squares / np.where(spread > 0, spread, 1), np.nan)

    features = {
        "mae": np.column_stack([np.abs(errors), ones]),
        "rmse": np.column_stack([errors**2, ones]),
        "r2": np.column_stack([errors**2, centred, centred**2, ones]),
    }
    return {
        "mae": Statistic(features=features["mae"], value=mean, n=len(errors)),
        "rmse": Statistic(features=features["rmse"], value=lambda sums: np.sqrt(mean(sums)), n=len(errors)),
        "r2": Statistic(features=features["r2"], value=explained, n=len(errors)),
    }


def mean(sums: Floats) -> Floats:
    """Sum over count, for features [value, 1]; NaN for no rows."""
    return sums[:, 0] / _positive(sums[:, 1])


def _positive(counts: Floats) -> Floats:
    return np.where(counts > 0, counts, np.nan)
