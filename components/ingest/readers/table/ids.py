"""The first id that repeats, from a 64-bit hash of each: 16 bytes a row, whatever the length of the ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.table.kinds import normalise
from kfloop.components.ingest.readers.table.limit import spread

if TYPE_CHECKING:
    import pyarrow as pa


class IdCheck:
    """Remembers the hashes of ids while their batches go by."""

    def __init__(self) -> None:
        self._hashes: list[np.ndarray] = []
        self._rows: list[np.ndarray] = []

    def add(self, column: Any, numbers: np.ndarray) -> None:
        """One batch of ids, and the numbers of its rows, int64 [N]; nulls do not count."""
        import pyarrow as pa

        array = normalise("id", column)
        there = array.is_valid().to_numpy(zero_copy_only=False)
        array = array.drop_null()
        if pa.types.is_integer(array.type):
            hashes = array.to_numpy(zero_copy_only=False).view(np.uint64)
        else:
            hashes = text_hashes(array if pa.types.is_string(array.type) else array.cast(pa.string()))
        self._hashes.append(hashes)
        self._rows.append(numbers[there])

    def first_duplicate(self) -> tuple[int, int] | None:
        """Numbers of the first row whose id stood in an earlier one: the earlier, and this; null when all differ."""
        if not self._hashes:
            return None
        hashes = np.concatenate(self._hashes)
        ordered = np.sort(hashes)
        if not (ordered[1:] == ordered[:-1]).any():
            return None
        order = np.argsort(hashes, kind="stable")
        again = order[1:][hashes[order[1:]] == hashes[order[:-1]]].min()
        rows = np.concatenate(self._rows)
        return int(rows[np.flatnonzero(hashes == hashes[again])[0]]), int(rows[again])


def text_hashes(texts: pa.Array) -> np.ndarray:
    """Hash of each text, uint64 [N], all at once.

    Multilinear: the sum over its bytes of byte times an odd number that belongs to the place, mixed with the length. Texts that differ in
    one byte never share a hash, others with a chance of about 2^-64 (Lemire and Kaser, "Strongly universal string hashing is fast", 2014).

    Args:
        texts: string [N], without nulls.
    """
    offsets = np.frombuffer(texts.buffers()[1], dtype=np.int32)[texts.offset : texts.offset + len(texts) + 1]
    lengths = np.diff(offsets)
    data = texts.buffers()[2]
    if data is None or not lengths.sum():
        return spread(lengths)
    values = np.frombuffer(data, dtype=np.uint8)[offsets[0] : offsets[-1]].astype(np.uint64) + np.uint64(1)
    starts = offsets[:-1] - offsets[0]
    places = np.arange(len(values)) - np.repeat(starts, lengths)
    factors = spread(np.arange(int(lengths.max()))) | np.uint64(1)
    values *= factors[places]
    # reduceat gives one value, not 0, for an empty text: only the others take part.
    sums = np.zeros(len(texts), dtype=np.uint64)
    full = lengths > 0
    sums[full] = np.add.reduceat(values, starts[full])
    return spread(sums + lengths.astype(np.uint64))
