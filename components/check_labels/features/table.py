"""Tables: standardised numbers, categories as indicators, times as parts."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float32]

MOST_CATEGORIES = 50  # beyond, categories share hashed columns
RARE_SHARE = 0.001  # of the rows; rarer categories share one column
HASHED = 16
SPREAD = 10.0  # standard deviations at which a number is cut
SKEWED = 3.0


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all rows, in order, float32 [N, D]."""
    import pyarrow as pa

    tables = [version.table(split, version.inputs) for split in splits]
    return table_features(pa.concat_tables(tables)) if tables else np.empty((0, 1), dtype=np.float32)


def table_features(table: pa.Table) -> Floats:
    """Features of the columns of a table, float32 [N, D]; a table of constants has one column of zeros."""
    columns: list[Floats] = []
    for name in table.column_names:
        columns += _column(table[name])
    return np.stack(columns, axis=1) if columns else np.zeros((table.num_rows, 1), dtype=np.float32)


def _column(column: pa.ChunkedArray) -> list[Floats]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _times(column)
    if pa.types.is_boolean(kind):
        return _numbers(column.cast(pa.int8()))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _numbers(column)
    return _categories(column.cast(pa.string()))


def _numbers(column: pa.ChunkedArray) -> list[Floats]:
    """Standardised, logarithmic where very skewed, zero where missing, and whether it is missing."""
    import pyarrow as pa

    values = np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
    known = np.isfinite(values)
    if not known.any():
        return []
    if not known.all():
        values[~known] = np.median(values[known])
    values /= float(np.abs(values).max()) or 1.0  # squares of huge numbers would overflow
    result = []
    spread = values.std()
    if spread > 0 and abs(float((((values - values.mean()) / spread) ** 3).mean())) > SKEWED:
        values = np.arcsinh(
            (values - np.median(values)) / max(float(np.median(np.abs(values - np.median(values)))), 1e-3 * spread)
        )
        spread = values.std()
    if spread > 0:
        result.append(np.clip((values - values.mean()) / spread, -SPREAD, SPREAD).astype(np.float32))
    if not known.all():
        result.append((~known).astype(np.float32))
    return result


def _categories(column: pa.ChunkedArray) -> list[Floats]:
    """One indicator for each frequent category, one for the rare, one for the missing; hashed columns when there are many."""
    encoded = column.combine_chunks().dictionary_encode()
    names: list[str] = encoded.dictionary.to_pylist()
    codes = np.asarray(encoded.indices.fill_null(len(names)).to_numpy(zero_copy_only=False), dtype=np.int64)
    rows_of = np.bincount(codes, minlength=len(names) + 1)
    if len(names) > MOST_CATEGORIES:
        # crc32 keeps its answers between processes, unlike hash().
        buckets = np.array([zlib.crc32(name.encode()) % HASHED for name in names] + [HASHED])
        frequency = np.log1p(rows_of[codes]).astype(np.float32)
        return [*_indicators(buckets[codes], HASHED + 1), frequency / max(float(frequency.max()), 1.0)]
    rare = rows_of[:-1] < max(2.0, RARE_SHARE * len(codes))
    slots = np.concatenate([np.where(rare, len(names), np.arange(len(names))), [len(names) + 1]])
    return _indicators(slots[codes], len(names) + 2)


def _indicators(codes: NDArray[np.int64], count: int) -> list[Floats]:
    """Columns that are neither all zero nor all one."""
    present = np.bincount(codes, minlength=count)
    return [(codes == k).astype(np.float32) for k in range(count) if 0 < present[k] < len(codes)]


def _times(column: pa.ChunkedArray) -> list[Floats]:
    """When, on one scale, and the place in the day, the week and the year on circles."""
    import pyarrow as pa

    stamps = column.cast(pa.timestamp("us"))
    seconds = np.array(stamps.cast(pa.int64()).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)) / 1e6
    result = _numbers(pa.chunked_array([pa.array(seconds, from_pandas=True)]))
    seconds = np.nan_to_num(seconds)
    for period in (86_400.0, 7 * 86_400.0, 365.2425 * 86_400.0):
        if np.ptp(seconds % period) > 0:
            turn = 2 * np.pi * seconds / period
            result += [np.sin(turn).astype(np.float32), np.cos(turn).astype(np.float32)]
    return result
