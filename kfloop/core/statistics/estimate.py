"""An estimate with its interval: the one form in which kfloop states a number that a decision may use."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A point estimate with a two-sided interval.

    Attributes:
        value: Point estimate; NaN when it could not be computed (written to JSON as null).
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: Number of examples behind it.
        level: Confidence level of the interval, for example .95.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def known(self) -> bool:
        """Whether the value and its interval are finite numbers."""
        return all(map(math.isfinite, (self.value, self.low, self.high)))


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Wilson score interval of a proportion (E. B. Wilson, JASA 1927).

    Args:
        successes: Number of successes, 0 <= successes <= n.
        n: Number of trials; 0 gives an unknown estimate.
        level: Confidence level.
    """
    if n <= 0:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=0, level=level)
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)  # exact at the ends, where rounding would leave 1e-17
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Estimate(value=share, low=low, high=high, n=n, level=level)
