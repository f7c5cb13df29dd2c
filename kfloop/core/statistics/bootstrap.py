"""Paired bootstrap of statistics that are functions of sums over rows.

Accuracy, log loss, macro F1 and calibration error are all of that kind. A resample then is a vector of counts (how often
each row was drawn), and all resamples of all sums are one matrix product. The same counts serve every model, which makes
the difference of two models a paired one.

Source: Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentile intervals).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CELLS = 4_000_000  # counts held at a time (32 MB as float64)
LARGEST_UNDEFINED_SHARE = 0.05  # more resamples without a value than this leave the interval unknown


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """A function of row sums.

    Attributes:
        features: float64 [N, F], what each row adds to the sums; NaN in a row makes the statistic unknown.
        value: Takes sums [R, F] and gives the statistic [R]; NaN where it is not defined.
        n: Number of rows the statistic is about.
    """

    features: Floats
    value: Callable[[Floats], Floats]
    n: int


@dataclass(frozen=True, kw_only=True)
class Replicates:
    """A statistic on the rows themselves and on every resample.

    Attributes:
        point: The statistic on the rows.
        values: The statistic on each resample, [R].
        n: Number of rows it is about.
    """

    point: float
    values: Floats
    n: int

    def __sub__(self, other: Replicates) -> Replicates:
        """Paired difference: both must come from the same resamples of the same rows."""
        if self.values.shape != other.values.shape or self.n != other.n:
            message = f"{self.values.shape} resamples of {self.n} rows cannot be paired with {other.values.shape} of {other.n}"
            raise ValueError(message)
        return Replicates(point=self.point - other.point, values=self.values - other.values, n=self.n)


def replicate(statistics: dict[str, Statistic], n: int, *, resamples: int, seed: int) -> dict[str, Replicates]:
    """Bootstrap every statistic on the same resamples of ``n`` rows.

    Args:
        statistics: Statistics whose features have ``n`` rows each.
        n: Number of rows, at least 1.
        resamples: Number of resamples R.
        seed: Seed; the same one gives the same resamples whatever the statistics are.

    Raises:
        ValueError: There are no rows, or features with another number of rows.
    """
    if n < 1:
        message = "the bootstrap needs at least one row"
        raise ValueError(message)
    wrong = [name for name, item in statistics.items() if item.features.shape[0] != n]
    if wrong:
        message = f"features of {wrong[0]!r} have {statistics[wrong[0]].features.shape[0]} rows, expected {n}"
        raise ValueError(message)
    if not statistics:
        return {}
    features = np.concatenate([item.features for item in statistics.values()], axis=1)
    edges = np.cumsum([0, *(item.features.shape[1] for item in statistics.values())])
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN features give NaN sums, which is what is wanted
        sums = np.concatenate([counts @ features for counts in _counts(n, resamples, seed)])
        whole = features.sum(axis=0, keepdims=True)
        return {
            name: Replicates(
                point=float(item.value(whole[:, low:high])[0]), values=item.value(sums[:, low:high]), n=item.n
            )
            for (name, item), low, high in zip(statistics.items(), edges[:-1], edges[1:], strict=True)
        }


def percentile(replicates: Replicates, level: float) -> Estimate:
    """The point with its percentile interval; unknown ends where too many resamples have no value.

    Args:
        replicates: A statistic, or a difference of two.
        level: Confidence level.
    """
    values = replicates.values
    defined = values[np.isfinite(values)]
    undefined = 1 - len(defined) / max(len(values), 1)
    low = high = math.nan
    if math.isfinite(replicates.point) and len(defined) and undefined <= LARGEST_UNDEFINED_SHARE:
        tail = (1 - level) / 2
        low, high = (float(end) for end in np.quantile(defined, [tail, 1 - tail]))
    return Estimate(value=replicates.point, low=low, high=high, n=replicates.n, level=level)


def _counts(n: int, resamples: int, seed: int) -> Iterator[Floats]:
    """How often each row was drawn, [chunk, n] at a time."""
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CELLS // n))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.integers(0, n, size=(size, n)) + np.arange(size)[:, None] * n
        yield np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
