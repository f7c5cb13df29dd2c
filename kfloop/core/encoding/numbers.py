"""What networks need to know about columns of numbers; tables and vectors share it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOOKED_AT = 100_000  # rows, evenly spread, from which the constants are taken
BINS = 48  # most intervals of one column
MOST_BINNED = 128  # columns beyond which no intervals are made: the first layer would hold most of the weights


def number_facts(values: NDArray[np.float32]) -> dict[str, Any]:
    """Constants of the columns of ``values`` float32 [N, n], NaN where a number is missing; all of them plain values.

    Returns:
        ``mean`` and ``std`` [n] (1 where the column is constant); ``missing``, the columns in which a number was missing; ``edges``, for each
        column the borders of its intervals in rising order (two or more, none for constants), or nothing at all where there
        are too many columns. Borders are quantiles, half of them of all values and half of the distinct ones, so that a tail
        that few rows reach is resolved too.
    """
    with np.errstate(over="ignore"):
        sample = values[:: -(-len(values) // LOOKED_AT)].astype(np.float64)
    columns = [column[np.isfinite(column)] for column in sample.T]
    spreads = [float(column.std()) if len(column) else 0.0 for column in columns]
    return {
        "mean": [float(column.mean()) if len(column) else 0.0 for column in columns],
        "std": [spread if np.float32(spread) > 0 else 1.0 for spread in spreads],
        "missing": np.flatnonzero(~np.isfinite(values).all(axis=0)).tolist(),
        "edges": [_edges(column) for column in columns] if len(columns) <= MOST_BINNED else [],
    }


def _edges(column: NDArray[np.float64]) -> list[float]:
    """Borders of the intervals of one column, without missing values."""
    distinct = np.unique(column)
    if len(distinct) > BINS + 1:
        steps = np.linspace(0, 1, BINS // 2 + 1)
        distinct = np.unique(np.concatenate([np.quantile(column, steps), np.quantile(distinct, steps)]))
    edges = np.unique(distinct.astype(np.float32))
    return [float(edge) for edge in edges] if len(edges) > 1 else []
