"""Scores in steps, so that what a block is worth follows from how often each step came.

A feature of unit variance is rounded to a sixteenth of a standard deviation, at most 63 of them either way, and its score is (1 + tanh) / 2 of that: one of 127 numbers.
Rounding takes a three-thousandth of the power of a test. Any fixed map of rows into [0, 1] may be bet on, so that it takes nothing from what is promised; and
whatever stakes there are, the logarithms of 127 factors stand for those of all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Single = NDArray[np.float32]

FINENESS, MOST = 16.0, 63
LEVELS = 2 * MOST + 2
"""Of values that were not observed the last, which neither wins nor loses."""
SCORES = np.append((1.0 + np.tanh(np.arange(-MOST, MOST + 1) / FINENESS)) / 2.0, np.nan)
"""The score of each level; that of what was not observed is no number."""
SHARES = np.append(np.arange(2 * MOST + 1) / (2.0 * MOST), np.nan)
"""The same for shares, which are rounded up: a share above 0 stays above 0."""


def counted(values: Single, there: NDArray[np.bool_] | None = None) -> Array:
    """How often each level came of each feature, [f, levels].

    Args:
        values: Features of unit variance, [f, n].
        there: Whether they were observed, [f, n] or [1, n]; None means all.
    """
    return _counted(values, there, FINENESS, MOST / FINENESS, MOST + 0.5)


def counted_shares(shares: Single) -> Array:
    """The same for shares in [0, 1], [f, n]."""
    if not shares.any():
        found = np.zeros((len(shares), LEVELS))
        found[:, 0] = shares.shape[1]
        return found
    return _counted(shares, None, 2.0 * MOST, 1.0, 1.0 - 1e-3)


def _counted(values: Single, there: NDArray[np.bool_] | None, fineness: float, most: float, shift: float) -> Array:
    width = len(values)
    first = (np.arange(width) * LEVELS)[:, None]
    steps = np.clip(values, np.float32(-most), np.float32(most))
    steps *= np.float32(fineness)
    steps += np.float32(shift)
    at = steps.astype(np.intp)
    at += first
    if there is not None:
        at = np.where(there, at, first + (LEVELS - 1))
    return np.bincount(at.ravel(), minlength=width * LEVELS).reshape(width, LEVELS).astype(float)


def gains(scores: Array, centre: Array) -> Array:
    """What each level gains against these means, [f, levels]; nothing where nothing was observed.

    Args:
        scores: `SCORES` or `SHARES`.
        centre: [f].
    """
    return np.nan_to_num(scores - centre[:, None])


def moments(counts: Array, scores: Array) -> tuple[Array, Array]:
    """Mean and variance of what was observed, both [f]; 0 where nothing was."""
    seen = np.maximum(counts[:, :-1].sum(axis=1), 1.0)
    mean = counts[:, :-1] @ scores[:-1] / seen
    return mean, (counts[:, :-1] * (scores[:-1] - mean[:, None]) ** 2).sum(axis=1) / seen
