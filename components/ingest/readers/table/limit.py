"""Which rows ``data.limit`` keeps: those whose number has the smallest hash, so that the choice is spread over the source and stays."""

from __future__ import annotations

import numpy as np

_STEP = 4 << 20
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def spread(numbers: np.ndarray) -> np.ndarray:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014) of row numbers, int64 [N], as uint64 [N]; different numbers stay different."""
    values = (np.asarray(numbers).astype(np.uint64) + np.uint64(1)) * _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)


class Limit:
    """Keeps ``limit`` of ``n`` rows, chosen by the hash of their numbers alone, so that no row has to be read to know.

    Args:
        n: Rows of the source.
        limit: ``data.limit``; null keeps all.
    """

    def __init__(self, n: int, limit: int | None) -> None:
        self.n = n if limit is None else min(n, limit)
        self._largest = None if self.n == n else _nth_smallest(n, self.n)

    def kept(self, numbers: np.ndarray) -> np.ndarray:
        """Whether each row is kept, bool [N], by its number, int64 [N]."""
        if self._largest is None:
            return np.ones(len(numbers), dtype=bool)
        return np.asarray(spread(numbers) <= self._largest)


def _nth_smallest(n: int, limit: int) -> np.uint64:
    """The ``limit``-th smallest hash of the numbers below ``n``; memory grows with ``limit`` only."""
    smallest = np.empty(0, dtype=np.uint64)
    for start in range(0, n, _STEP):
        smallest = np.concatenate([smallest, spread(np.arange(start, min(n, start + _STEP)))])
        if len(smallest) > limit:
            smallest = np.partition(smallest, limit - 1)[:limit]
    return np.uint64(smallest.max())
