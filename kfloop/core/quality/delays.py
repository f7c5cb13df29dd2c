"""How long truth takes: a histogram of delays, ten bins a decade from one second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BINS = 90
PER_DECADE = 10


def counted(bins: Sequence[int], seconds: Array) -> tuple[int, ...]:
    """The histogram with more delays; NaN is not counted, and less than a second counts as one."""
    known = seconds[np.isfinite(seconds)]
    places = np.clip(np.floor(np.log10(np.maximum(known, 1.0)) * PER_DECADE), 0, BINS - 1).astype(int)
    return tuple((np.bincount(places, minlength=BINS) + np.array(bins or (0,) * BINS)).tolist())


def quantile(bins: Sequence[int], share: float) -> float | None:
    """Delay in seconds within which this share of the known truths came, by interpolation within a bin; None without any."""
    total = sum(bins)
    if not total:
        return None
    sums = np.cumsum(bins)
    place = int(np.searchsorted(sums, share * total))
    before = int(sums[place - 1]) if place else 0
    part = (share * total - before) / bins[place]
    return float(10 ** ((place + part) / PER_DECADE))
