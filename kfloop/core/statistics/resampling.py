"""How often each row is drawn in a resample: rows one by one, neighbours in blocks, or the rows of a group together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

CELLS = 4_000_000  # counts held at a time (32 MB as float64)


def drawn_counts(
    n: int, resamples: int, seed: int, block: int = 1, groups: NDArray[np.int64] | None = None
) -> Iterator[Floats]:
    """How often each row was drawn, [chunk, n] at a time."""
    if groups is not None:
        for counts in drawn_counts(int(groups.max()) + 1, resamples, seed):
            yield counts[:, groups]
        return
    generator = np.random.default_rng(seed)
    chunk = max(1, min(resamples, CELLS // n))
    blocks = -(-n // block)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        if block == 1:
            drawn = generator.integers(0, n, size=(size, n))
        else:
            firsts = generator.integers(0, n - block + 1, size=(size, blocks, 1))
            drawn = (firsts + np.arange(block)).reshape(size, -1)[:, :n]
        places = drawn + np.arange(size)[:, None] * n
        yield np.bincount(places.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
