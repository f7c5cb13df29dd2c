"""Rows of tables and vectors that are the same but for rounding, case or spaces.

Numbers are rounded on grids much finer than their column spreads, on several grids so that two numbers next to an edge meet on another. Rows
that agree are near duplicates only where that is no coincidence: in a table of few distinct values many different things agree.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Pairs = tuple[Ints, Ints, Floats]

GRID = 1e-6  # of a column's spread
TOLERANCE = 1e-5  # of a column's spread: largest difference of a number in near rows
DIRECTIONS = 6
OFFSETS = (0.0, 1 / 3, 2 / 3)
CHANCE = 0.01  # expected number of pairs that agree by coincidence, at most


def near_rows(table: pa.Table) -> Pairs:
    """Near duplicates among rows of different content.

    Args:
        table: Input columns of numbers, booleans, texts, times.

    Returns:
        Positions (left < right) and the largest difference of a number in spreads of its column.
    """
    import pyarrow as pa

    numbers, codes = [], []
    for column in table.columns:
        if pa.types.is_floating(column.type):
            numbers.append(column.to_numpy().astype(np.float64))
        elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            codes.append(
                _codes([None if text is None else " ".join(text.casefold().split()) for text in column.to_pylist()])
            )
        else:
            encoded = column.combine_chunks().dictionary_encode()
            indices = (encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded).indices
            codes.append(indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64))
    return _agreeing(np.stack(numbers, axis=1) if numbers else np.empty((table.num_rows, 0)), codes)


def near_vectors(column: pa.ChunkedArray, rows: Ints) -> Pairs:
    """Near duplicates among vectors of different content: equal but for rounding.

    Args:
        column: fixed_size_list<float32>[D].
        rows: Rows to compare.

    Returns:
        Positions in ``rows`` (left < right) and the largest difference in spreads of its column.
    """
    parts = [
        chunk.flatten().to_numpy(zero_copy_only=False).reshape(len(chunk), -1) for chunk in column.chunks if len(chunk)
    ]
    return _agreeing(np.concatenate(parts)[rows].astype(np.float64), [])


def _codes(values: Sequence[Any]) -> Ints:
    known: dict[Any, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], dtype=np.int64)


def _agreeing(numbers: Floats, codes: Sequence[Ints]) -> Pairs:
    """Pairs that agree in all codes and, on one of the grids, in all numbers; linked to the first row that agrees."""
    n = len(numbers)
    finite = np.where(np.isfinite(numbers), numbers, 0.0)
    spread = _spreads(numbers)
    known = np.isfinite(numbers)
    cells_of, grid = finite / spread, GRID
    if numbers.shape[1] > DIRECTIONS:
        # With many columns some number always lies next to an edge: sums of all of them over a few random directions do not.
        ways = np.random.default_rng(0).normal(size=(numbers.shape[1], DIRECTIONS)) / math.sqrt(numbers.shape[1])
        cells_of, grid = (cells_of - cells_of.mean(axis=0)) @ ways, TOLERANCE * DIRECTIONS
        codes = [*codes, np.unique(known, axis=0, return_inverse=True)[1].ravel().astype(np.int64)]
        known = np.ones_like(cells_of, dtype=bool)
    agreed = []
    for offset in OFFSETS if numbers.shape[1] else OFFSETS[:1]:
        cells = np.where(known, np.floor(cells_of / grid + offset), np.nan)
        columns = [*codes, *(_ranks(cells[:, place]) for place in range(cells.shape[1]))]
        key, information = np.zeros(n, dtype=np.int64), np.zeros(n)
        for column in columns:
            key = np.unique(key * (int(column.max(initial=0)) + 2) + column + 1, return_inverse=True)[1].ravel()
            seen = np.unique(column, return_inverse=True, return_counts=True)
            others = seen[2][seen[1].ravel()] - 2
            information -= np.log(np.maximum(others / n, GRID))
        _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
        home = first[inverse.ravel()]
        again = np.flatnonzero((home != np.arange(n)) & (information > 2 * math.log(max(n, 2)) - math.log(2 * CHANCE)))
        agreed.append(np.column_stack([home[again], again]))
    pairs = np.unique(np.concatenate(agreed), axis=0).astype(np.int64)
    gaps = np.abs(finite[pairs[:, 0]] - finite[pairs[:, 1]]) / spread
    largest = gaps.max(axis=1, initial=0.0)
    near = largest <= TOLERANCE
    return pairs[near, 0], pairs[near, 1], largest[near]


def _spreads(numbers: Floats) -> Floats:
    """Standard deviation of each column; its size, or 1, where that is none."""
    spreads = []
    for column in numbers.T:
        known = column[np.isfinite(column)]
        size = float(np.abs(known).max()) if len(known) else 0.0
        deviation = float((known / size).std()) * size if size else 0.0
        spreads.append(deviation or size or 1.0)
    return np.array(spreads)


def _ranks(values: Floats) -> Ints:
    """Equal values, equal numbers; NaN equals NaN."""
    return np.unique(values, return_inverse=True)[1].ravel().astype(np.int64)
