"""Score intervals of shares of independent rows: Wilson's for one share is in ``estimate``, Tango's for the difference of two is here.

Both ask which true values would not be rejected by the score test. So they have a width where all rows say the same, and they cover as
they should where a normal approximation or a bootstrap does not: near 0 and 1, and with few rows. Simulated with 200 rows or more, 95 % intervals
of an accuracy of 80 or 97 % and of the difference of two hold in 94 to 96 % of rounds; with 50 or 60 rows in 94 to 99 %.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]

HALVINGS = 60  # of an interval of at most 2: below the precision of a float


@dataclass(frozen=True, kw_only=True)
class Hits:
    """A share of independent rows, row by row.

    Attributes:
        hit: Whether a row is a hit, bool [N]; false where it does not count.
        counted: Whether a row counts, bool [N].
    """

    hit: Bools
    counted: Bools

    @property
    def total(self) -> int:
        """Number of hits."""
        return int(self.hit.sum())

    @property
    def n(self) -> int:
        """Number of rows that count."""
        return int(self.counted.sum())


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """What two shares of the same rows disagree on.

    Attributes:
        ours: Rows that are a hit for the first alone (b).
        theirs: Rows that are a hit for the second alone (c).
        n: Number of rows.
    """

    ours: int
    theirs: int
    n: int


def paired(ours: Hits, theirs: Hits) -> Pairs | None:
    """Counts of disagreement; null where the two do not count the same rows, as the precisions of two models do not."""
    if not np.array_equal(ours.counted, theirs.counted):
        return None
    return Pairs(ours=int((ours.hit & ~theirs.hit).sum()), theirs=int((theirs.hit & ~ours.hit).sum()), n=ours.n)


def tango(pairs: Pairs, level: float = 0.95) -> tuple[float, float]:
    """Tango's score interval for the difference of two shares of the same rows, first minus second.

    The ends are the differences d at which (b - c - n d)^2 = z^2 n (2 q + d (1 - d)), where q, the chance that the second alone hits, is the most
    likely one given d.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17, 1998, equations 9 to 13.

    Args:
        pairs: Counts of disagreement; no rows give an unknown interval.
        level: Confidence level.

    Returns:
        Lower and upper end, in -1..1.
    """
    if pairs.n <= 0:
        return math.nan, math.nan
    z = NormalDist().inv_cdf(0.5 + level / 2)
    return -_upper(pairs.theirs, pairs.ours, pairs.n, z), _upper(pairs.ours, pairs.theirs, pairs.n, z)


def _upper(b: int, c: int, n: int, z: float) -> float:
    """The largest difference that is not rejected, by halving: the estimate is not rejected, and 1 is."""
    inside, outside = (b - c) / n, 1.0
    for _ in range(HALVINGS):
        middle = (inside + outside) / 2
        if (b - c - n * middle) ** 2 <= z * z * n * _variance(b, c, n, middle):
            inside = middle
        else:
            outside = middle
    return inside


def _variance(b: int, c: int, n: int, d: float) -> float:
    """Variance of one row's difference at its most likely where the true difference is ``d``."""
    linear = -b - c + (2 * n - b + c) * d
    q = (math.sqrt(max(0.0, linear**2 + 8 * n * c * d * (1 - d))) - linear) / (4 * n)
    return max(0.0, 2 * q + d * (1 - d))
