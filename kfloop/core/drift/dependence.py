"""How many neighbouring rows hang together, to choose the unit of betting."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_LONGEST = 200
_UNITS_PER_LENGTH = 10


def correlation_length(rows: Array) -> float:
    """Rows that carry the information of one independent row, at least 1: the largest of any column and of its square.

    The integrated autocorrelation time, 1 + 2 sum of autocorrelations, summed up to the first lag at which one is no larger than chance
    makes it (two standard errors). Missing cells count as the mean.

    Args:
        rows: Numeric columns in the order of time, [n, d].
    """
    centred = rows - np.nanmean(rows, axis=0)
    longest = 1.0
    for values in (centred, centred**2):
        x = np.where(np.isfinite(values), values - np.nanmean(values, axis=0), 0.0)
        total = np.maximum((x**2).sum(axis=0), 1e-300)
        length, going = np.ones(x.shape[1]), np.ones(x.shape[1], dtype=bool)
        for lag in range(1, min(_LONGEST, len(x) - 1)):
            correlation = (x[lag:] * x[:-lag]).sum(axis=0) / total
            going &= correlation > 2 / np.sqrt(len(x))
            if not going.any():
                break
            length += 2 * np.where(going, correlation, 0.0)
        longest = max(longest, float(length.max(initial=1.0)))
    return longest


def suggested_unit(rows: Array) -> int:
    """Rows a unit should have: 1 where rows are independent, else ten times the correlation length."""
    length = correlation_length(rows)
    return 1 if length < 1.5 else int(np.ceil(_UNITS_PER_LENGTH * length))  # noqa: PLR2004 - chance alone gives a little above 1
