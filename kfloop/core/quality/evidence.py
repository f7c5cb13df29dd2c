"""Bets that a bounded mean has fallen below a bound, in calendar time, and bets that it has not.

Numbers r are at most `most`. The bets are against "their mean is at least `bound`" (given what was known before each block):

    gain g = bound - r,   wealth of a block = mean over stakes of the product of (1 + l g),   l = stake / (most - bound)

Each factor has mean at most 1 under that hypothesis, whatever `bound` and `most` are chosen to be before the block. Every block opens new bets with a
weight (e-SR: Shin, Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532): R <- (R + weight) * wealth. R has at most the mean of all weights so far. With
weight = false alarms a year x years that passed, and an alarm at R >= 1 / share, the false alarms of any time are on average at most that
share of what the user allows for it, however many rows come in that time (Waudby-Smith and Ramdas, JRSS B 2024, for the bets).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kfloop.core.statistics.paired_bets import STAKES

Array = NDArray[np.float64]

LEAST_ROOM = 0.02
YEAR_NS = 365.25 * 86400e9
LARGEST_LOG = 690.0
"""Evidence is always a JSON number."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Evidence against "the mean is at least the bound".

    Attributes:
        logs: Logarithm of R at each stake; None before any bet was opened.
    """

    logs: tuple[float, ...] | None = None

    def advance(self, numbers: Array, *, bound: float, most: float, weight: float) -> Evidence:
        """Bet on one block.

        Args:
            numbers: At most `most` each, [n].
            bound: The smallest mean that is no fall, fixed before the block is seen.
            most: Largest possible number, likewise.
            weight: What the bets opened with this block weigh, at least 0.
        """
        return self.follow(numbers[None], bound=bound, most=most, weights=np.array([weight]))[0]

    def follow(self, blocks: Array, *, bound: float, most: float, weights: Array) -> tuple[Evidence, Array]:
        """Bet on several blocks of equal size one after another, [b, n], opened with these weights, [b].

        Returns:
            The evidence after the last of them, and its logarithm after each, [b].
        """
        growth = _growth(bound - blocks, most - bound)
        with np.errstate(divide="ignore"):
            opened = np.log(weights)
        now = np.full(len(STAKES), -math.inf) if self.logs is None else np.array(self.logs)
        logs = np.empty((len(blocks), len(STAKES)))
        for place in range(len(blocks)):
            now = np.logaddexp(now, opened[place]) + growth[place]
            logs[place] = now
        after = Evidence(logs=tuple(now.tolist())) if np.isfinite(now).all() else self
        return after, np.logaddexp.reduce(logs, axis=1) - math.log(len(STAKES))

    @property
    def log(self) -> float:
        """Logarithm of the evidence; minus infinity before any bet."""
        return -math.inf if self.logs is None else _log_mean(self.logs)

    @property
    def value(self) -> float:
        """The evidence, at most 1e299."""
        return 0.0 if self.logs is None else math.exp(min(self.log, LARGEST_LOG))


@dataclass(frozen=True, kw_only=True)
class Stretch:
    """Bets that the mean is above a bound, over one stretch of numbers: a plain test martingale from its start.

    Attributes:
        logs: Logarithm of the wealth of each stake.
        n: Numbers so far.
        start_ns: Time of the request it began with.
    """

    logs: tuple[float, ...] = (0.0,) * len(STAKES)
    n: int = 0
    start_ns: int = 0

    def advance(self, numbers: Array, *, bound: float, least: float) -> Stretch:
        """Bet on one block of numbers, at least `least` each, that their mean is above `bound`."""
        now = np.array(self.logs) + _growth((numbers - bound)[None], bound - least)[0]
        return Stretch(logs=tuple(now.tolist()), n=self.n + len(numbers), start_ns=self.start_ns)

    @property
    def log(self) -> float:
        """Logarithm of the wealth."""
        return _log_mean(self.logs)


def _growth(gains: Array, room: float) -> Array:
    """Sum over a block of log(1 + l g) for every stake: [b, n] to [b, j]; no gain is below minus `room`."""
    stakes = STAKES / max(room, LEAST_ROOM)
    safe = np.maximum(gains, -max(room, LEAST_ROOM))
    return np.stack([np.log1p(stake * safe).sum(axis=1) for stake in stakes], axis=1)


def _log_mean(logs: tuple[float, ...]) -> float:
    return float(np.logaddexp.reduce(np.array(logs))) - math.log(len(logs))
