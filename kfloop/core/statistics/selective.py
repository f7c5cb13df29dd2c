"""Answering only what is sure enough: the lowest confidence at which the answers that are kept meet a stated precision.

A threshold that was found by looking is too good by selection. So every threshold is a test of its own, "the precision above it is lower than
stated", and the error of the whole search is held: learn then test (A. N. Angelopoulos, S. Bates, E. J. Candes, M. I. Jordan & L. Lei, Annals of
Applied Statistics 2025, multi-start fixed sequences). The starts are the fewest rows that could prove anything, twice as many, and so on;
each has an equal part of the error and goes on to lower thresholds for as long as its tests reject. Where they start and in which order they go
depends on the confidences alone, so given these the order is fixed.

The tests are exact: the chance of so many right answers or more, were each right with the stated precision. That bounds answers with different
chances too (W. Hoeffding, Annals of Mathematical Statistics 27, 1956), while a score interval promises too much this close to 1: at .95, 52 right
answers of 52 would pass at a level of 95 %, and happen to a model of that precision in 7 % of rounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def lowest_threshold(
    confidence: NDArray[np.floating], right: NDArray[np.bool_], precision: float, level: float
) -> float | None:
    """The lowest confidence from which on answers meet a precision; null where none can be proven to.

    With a chance of ``level`` or more over the drawn rows, the precision of answers of at least this confidence is as stated.

    Args:
        confidence: Confidence of each answer [N]; rows like those that will come, not used for training.
        right: Whether it is right, bool [N].
        precision: Stated precision, below 1.
        level: Confidence level of the statement.
    """
    from scipy.stats import binom

    if not len(confidence):
        return None
    order = np.argsort(-confidence, kind="stable")
    ordered = confidence[order]
    ends = np.flatnonzero(np.append(ordered[1:] < ordered[:-1], True))  # equal confidences stand or fall together
    kept = ends + 1  # answers kept at each threshold, the highest first
    hits = np.cumsum(right[order])[ends]
    starts = _starts(kept, precision, 1 - level)
    if not starts:
        return None
    # Chance of so many hits or more at a precision just below the stated one.
    chances = binom.sf(hits - 1, kept, precision)
    passed = chances <= (1 - level) / len(starts)
    lowest = -1
    for start in starts:
        failing = np.flatnonzero(~passed[start:])
        reached = len(kept) if not len(failing) else start + int(failing[0])
        lowest = max(lowest, reached - 1) if reached > start else lowest
    return float(ordered[ends[lowest]]) if lowest >= 0 else None


def _starts(kept: NDArray[np.int64], precision: float, error: float) -> list[int]:
    """Places in ``kept`` where sequences start: the fewest rows that could pass, then twice as many each time.

    How few suffice depends on the number of starts, which depends on how few suffice: the largest number that agrees is taken.
    """
    if not len(kept):
        return []
    for number in range(max(1, int(np.log2(kept[-1])) + 1), 0, -1):
        fewest = np.log(error / number) / np.log(precision) if precision > 0 else 1.0
        wanted = [max(1.0, fewest) * 2**place for place in range(number)]
        places = [int(np.searchsorted(kept, rows - 1e-9)) for rows in wanted]
        if places[-1] < len(kept):
            return sorted(set(places))
    return []
