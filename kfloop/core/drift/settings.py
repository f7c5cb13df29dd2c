"""How the watch bets, and the season of each row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


PACE_SECONDS = 900.0


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the watch bets.

    Attributes:
        batch: Units a block, at least. Evidence changes only at the end of a block.
        most: Units a block at most; null means always `batch`. In between a block has as many units as came in a quarter of an hour before it,
            but no more than a twentieth of all so far: many requests a second are looked at in large blocks, which cost less.
        unit: Rows a unit. Above 1 where neighbouring rows hang together: about ten times as many as do.
        n_seasons: Number of seasons.
        tolerance: A shift below this many standard deviations is not drift; 0 finds whatever the reference can prove.
        lifetime: Blocks after which a bet on a learned direction is closed. Bounds the size of the state.
    """

    batch: int = 50
    most: int | None = None
    unit: int = 1
    n_seasons: int = 1
    tolerance: float = 0.0
    lifetime: int = 24

    def __post_init__(self) -> None:
        """Check that every number makes sense.

        Raises:
            InputError: One does not.
        """
        counts = (self.batch, self.unit, self.n_seasons, self.lifetime)
        if min(counts) < 1 or (self.most or self.batch) < self.batch or not 0 <= self.tolerance < 10:  # noqa: PLR2004 - nothing moves ten standard deviations
            raise InputError(
                f"{self} holds a number out of range", hint="Counts are at least 1, the tolerance at least 0."
            )

    def next_size(self, size: int, seconds: float, units: int) -> int:
        """Units of the next block; known before any of its rows, so that bets stay fair, and the same in however many parts rows come.

        Args:
            size: Units of the last one.
            seconds: Time that it took; NaN where that is not known.
            units: Units so far.
        """
        if self.most is None or math.isnan(seconds):
            return self.batch
        came = size * PACE_SECONDS / max(seconds, 1e-3)
        wanted = min(max(came, size / 2), size * 2, units / 20, self.most)
        return max(self.batch, int(wanted))


def checked_seasons(seasons: Any, n: int, n_seasons: int) -> Ints:
    """Seasons as whole numbers, one a row.

    Raises:
        InputError: There are not as many as rows, or one is out of range, or none are given where there are several.
    """
    if seasons is None and n_seasons == 1:
        return np.zeros(n, dtype=np.int64)
    marks = np.asarray([] if seasons is None else seasons)
    whole = marks.astype(np.int64) if marks.dtype.kind in "iub" else np.full(len(marks), -1)
    if len(whole) != n or (n and not 0 <= whole.min() <= whole.max() < n_seasons):
        message = f"{len(marks)} seasons for {n} rows, expected one whole number from 0 to {n_seasons - 1} for each"
        raise InputError(message, hint="Give each row its season, for instance the hour of its day.")
    return whole
