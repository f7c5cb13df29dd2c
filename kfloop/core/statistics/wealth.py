"""What bets are worth: the minimum over the unknown mean of current wealth times reference wealth.

See `kfloop.core.statistics.betting` for the formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.statistics.betting import Bet

    Array = NDArray[np.float64]

STAKES = np.array([0.05, 0.15, 0.4, 0.95])
"""Shares of the wealth that are staked side by side; below 1, so that a score in [0, 1] can never ruin a bet."""
_HALVINGS = 16


def worth(bets: tuple[Bet, ...], n_pay: int) -> Array:
    """Return log min over m in [0, 1] of K(m) R(m) for every bet, from below, [len(bets)].

    Bisection on the sign of the derivative of a convex function; the tangent at the last point bounds it from below, so
    that stopping early can only cost power, never validity.
    """
    if not bets:
        return np.zeros(0)
    centre = np.array([bet.mean_score for bet in bets])[:, None]
    rows = np.array([bet.rows for bet in bets])[:, None]
    tolerance = np.array([bet.tolerance for bet in bets])[:, None]
    slopes = np.concatenate([-STAKES * rows, np.broadcast_to(STAKES * n_pay, (len(bets), len(STAKES)))], axis=1)
    current = np.array([bet.current for bet in bets]) - STAKES * rows * tolerance
    offsets = np.concatenate([current, np.array([bet.reference for bet in bets])], axis=1)
    low, high = np.zeros((len(bets), 1)), np.ones((len(bets), 1))
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        value, slope = _value_and_slope(offsets, slopes, middle - centre)
        low, high = np.where(slope < 0, middle, low), np.where(slope < 0, high, middle)
    # The minimum lies in [low, high]: the tangent at `middle`, followed to the far end of that interval, is below it.
    reach = np.where(slope < 0, high - middle, low - middle)
    return np.asarray(value + slope * reach)[:, 0]


def _value_and_slope(offsets: Array, slopes: Array, m: Array) -> tuple[Array, Array]:
    exponent = offsets + slopes * m
    value, slope = np.zeros_like(m), np.zeros_like(m)
    for part in (slice(0, len(STAKES)), slice(len(STAKES), None)):
        top = exponent[:, part].max(axis=1, keepdims=True)
        weight = np.exp(exponent[:, part] - top)
        total = weight.sum(axis=1, keepdims=True)
        value += top + np.log(total / len(STAKES))
        slope += (weight * slopes[:, part]).sum(axis=1, keepdims=True) / total
    return value, slope


def log_sum(logs: Array) -> float | None:
    """Return log(sum(exp(logs))), None for no terms."""
    if not len(logs):
        return None
    top = logs.max()
    return float(top + np.log(np.exp(logs - top).sum()))
