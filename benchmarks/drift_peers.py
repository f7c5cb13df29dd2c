"""What benchmarks/drift.py compares with: each peer says after every check whether it alarms, calibrated to one whole-schedule false-alarm rate.

KS, Hotelling and MMD compare the rows of one check with the reference; the threshold on their statistic is the quantile, over simulated schedules without
drift, of its largest value in a schedule. ADWIN (river) keeps a window per column; its delta is the largest of a few that keeps the rate.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FOURIER = 512


def ks(reference: Array) -> Callable[[Array], float]:
    """Largest Kolmogorov-Smirnov distance of any column: Bonferroni over columns."""
    columns = np.sort(reference, axis=0)

    def statistic(rows: Array) -> float:
        largest, steps = 0.0, np.arange(len(rows) + 1) / len(rows)
        for known, found in zip(columns.T, np.sort(rows, axis=0).T, strict=True):
            right = np.searchsorted(known, found, side="right") / len(known)
            left = np.searchsorted(known, found, side="left") / len(known)
            largest = max(largest, float((steps[1:] - left).max()), float((right - steps[:-1]).max()))
        return largest

    return statistic


def hotelling(reference: Array) -> Callable[[Array], float]:
    """Hotelling's T squared."""
    mean, inverse = reference.mean(axis=0), np.linalg.inv(np.cov(reference, rowvar=False))

    def statistic(rows: Array) -> float:
        gap = rows.mean(axis=0) - mean
        return float(gap @ inverse @ gap)

    return statistic


def mmd(reference: Array) -> Callable[[Array], float]:
    """Maximum mean discrepancy with random Fourier features of a Gaussian kernel, median bandwidth."""
    rng = np.random.default_rng(0)
    pairs = rng.integers(0, len(reference), (2, 1000))
    width = np.median(np.linalg.norm(reference[pairs[0]] - reference[pairs[1]], axis=1))
    axes = rng.normal(size=(reference.shape[1], FOURIER // 2)) / width

    def embedded(rows: Array) -> Array:
        angle = rows @ axes
        return np.concatenate([np.cos(angle), np.sin(angle)], axis=1).mean(axis=0)

    known = embedded(reference)
    return lambda rows: float(((embedded(rows) - known) ** 2).sum())


STATISTICS = {"KS": ks, "Hotelling": hotelling, "MMD": mmd}


class Windows:
    """One ADWIN per column."""

    def __init__(self, columns: int, delta: float) -> None:
        """Start with empty windows; delta is shared out over the columns."""
        from river.drift import ADWIN

        self.windows = [ADWIN(delta=delta / columns) for _ in range(columns)]

    def check(self, rows: Array) -> bool:
        """Add the rows; whether any window found a change."""
        found = False
        for window, column in zip(self.windows, rows.T.tolist(), strict=True):
            for value in column:
                window.update(value)
                found |= window.drift_detected
        return found

    def copy(self) -> Windows:
        """An independent copy."""
        return copy.deepcopy(self)


def calibrated(
    draw: Callable[[Any, int], Array], *, checks: int, rows: int, reference: int, level: float, runs: int
) -> dict[str, float]:
    """Thresholds, and for ADWIN a delta, at which a share `level` of schedules without drift alarms.

    Args:
        draw: Rows without drift, from a generator and a count.
        checks: Checks of a schedule.
        rows: Rows of a check.
        reference: Rows of the reference.
        level: Share of schedules that may alarm.
        runs: Schedules to simulate.
    """
    largest: dict[str, list[float]] = {name: [] for name in STATISTICS}
    deltas = {0.002: 0, 0.005: 0, 0.01: 0, 0.02: 0, 0.05: 0}
    for seed in range(runs):
        rng = np.random.default_rng([7, seed])
        known, stream = draw(rng, reference), draw(rng, rows * checks).reshape(checks, rows, -1)
        for name, make in STATISTICS.items():
            statistic = make(known)
            largest[name].append(max(statistic(part) for part in stream))
        for delta in deltas:
            windows = Windows(known.shape[1], delta)
            deltas[delta] += any(windows.check(part) for part in stream)
    chosen = max((delta for delta, alarms in deltas.items() if alarms <= level * runs), default=min(deltas))
    print(f"  ADWIN's false alarms in {runs} schedules by delta: {deltas}; {chosen} is used")
    return {name: float(np.quantile(values, 1 - level)) for name, values in largest.items()} | {"ADWIN": chosen}
