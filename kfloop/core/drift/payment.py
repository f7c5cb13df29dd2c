"""The arithmetic of a bet that is paid from a finite reference.

A score s in [0, 1] has the unknown mean m in the reference's population; c is its mean in the learning half. All is written for
"the mean rose"; for "it fell" use 1 - s. With the gains g = s - c of n current units and N paying ones:

    current   K(m) = prod_i (1 + l g_i) exp(-l n (m - c + tolerance))
    paying    R(m) = sum_k p_k prod_i (1 - u_k g_i) exp(u_k N (m - c))

As 1 + x <= exp(x), K is a test supermartingale while the current mean is at most m + tolerance, and R has mean at most 1. With
a = l n the product is at least

    log K(m) R(m) >= sum_i log(1 + l g_i) - a tolerance + V(a),     V(a) = min over m of [log R(m) - a (m - c)]

and V has a simple lower bound: where a lies between two knots u_k N, a = b u_k N + (1 - b) u_k+1 N, the logarithm is concave, so

    V(a) >= b v_k + (1 - b) v_k+1 + H(b),    v_k = log p_k + sum_i log(1 - u_k g_i),   H(b) = -b log b - (1 - b) log(1 - b)

whatever m is: this is what pays for the sampling error of the reference, and beyond the last knot nothing can be paid.

Bets on one thing that were opened at many times are kept as one sum, S(m) = sum_j w_j K_j(m). Its logarithm is convex in m and linear for each
bet, so that the tangent at a chosen mean m0 bounds it from below everywhere: two numbers, log S(m0) and the mean number of units n of its bets
weighted by their wealth, stand for all of them. Two such points m0 are kept, and the better bound counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STAKES = np.array([0.1, 0.25, 0.6, 1.3])
"""Stakes l side by side, for scores whose mean is near 1/2."""
RATE_STAKES = np.array([0.3, 1.0, 3.0, 9.0])
"""Stakes for shares that are near 0 in the reference: one event may multiply the wealth by ten."""
KNOTS = np.array([0.0, 0.03, 0.1, 0.3, 0.6, 0.9])
KNOT_WEIGHTS = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
SAFE = 0.9
"""Share of the wealth that a single score may take at most."""


def stakes(base: Array, centre: Array) -> Array:
    """Stakes [f, j] for scores with these means [f], made smaller where one score could ruin a bet."""
    return np.asarray(np.minimum(base, SAFE / np.maximum(centre, 1e-9)[:, None]))


def growth(gains: Array, stake: Array) -> Array:
    """log(1 + stake * gain) of each level, [f, levels, j].

    Args:
        gains: What each level gains, [f, levels].
        stake: [f, j].
    """
    return np.asarray(np.log(1.0 + gains[:, :, None] * stake[:, None, :]))


def log_growth(counts: Array, gains: Array, stake: Array) -> Array:
    """Sum over units of log(1 + stake * gain), [f, j].

    Args:
        counts: How many units gained so much, [f, levels].
        gains: [f, levels].
        stake: [f, j].
    """
    return np.asarray(np.matmul(counts[:, None, :], growth(gains, stake))[:, 0, :])


def knot_shares(centre: Array) -> Array:
    """What one paying unit stakes at each knot, [f, k], for scores with these means [f]."""
    below = 1.0 - centre[:, None]
    return np.asarray(np.minimum(KNOTS / np.maximum(below, 0.5), SAFE / np.maximum(below, 1e-9)))


def paid(counts: Array, gains: Array, share: Array) -> Array:
    """Values v of the paying half at each knot, [f, k].

    Args:
        counts: How many paying units have each s - c, [f, levels].
        gains: s - c, [f, levels].
        share: [f, k].
    """
    return np.asarray(log_growth(counts, gains, -share) + np.log(KNOT_WEIGHTS))


def settle(a: Array, knots: Array, values: Array) -> Array:
    """V(a): what the reference takes off the logarithm of the wealth; -inf where it cannot pay.

    Args:
        a: Stake times units, [f, j].
        knots: [f, k], rising.
        values: [f, k].
    """
    at = (a[:, :, None] >= knots[:, None, 1:-1]).sum(axis=2)
    low, high = np.take_along_axis(knots, at, 1), np.take_along_axis(knots, at + 1, 1)
    b = np.clip((high - a) / (high - low), 0.0, 1.0)
    bound = b * np.take_along_axis(values, at, 1) + (1.0 - b) * np.take_along_axis(values, at + 1, 1)
    bound -= b * np.log(np.maximum(b, 1e-300)) + (1.0 - b) * np.log(np.maximum(1.0 - b, 1e-300))
    return np.where(a > knots[:, -1:], -np.inf, bound)


def log_mean(logs: Array, axis: int) -> Array:
    """log(mean(exp(logs))) along an axis; -inf where all are."""
    top = np.maximum(logs.max(axis=axis, keepdims=True), -1e300)
    return np.asarray(np.squeeze(top, axis) + np.log(np.maximum(np.exp(logs - top).mean(axis=axis), 1e-300)))
