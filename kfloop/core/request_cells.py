"""Large rows of the request log (pictures, sounds, windows of a series): the bytes of a row in one cell.

A list of 3,072 numbers takes fifteen times as long to write as its bytes, and fifty times as long to read; one of pixels even a hundred times, because
Parquet has no whole numbers below four bytes. What the bytes are stands in the column's metadata, and readers of kfloop see lists again, without a copy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

PACKED = frozenset({"uint8", "int16", "int32", "int64", "float32", "float64"})
LEAST_VALUES = 256  # in a row; shorter ones stay lists, which every tool shows to people
KEY = b"dtype"


def is_large(tensor: np.ndarray) -> bool:
    """Whether rows of a tensor [N, ...] are written as bytes."""
    return tensor.dtype.name in PACKED and tensor.size >= LEAST_VALUES * max(1, len(tensor))


def pack(tensor: np.ndarray) -> tuple[pa.Array, dict[bytes, bytes]]:
    """Rows of numbers as cells of bytes.

    Args:
        tensor: [N, ...] of a type in ``PACKED``, with one or more values in a row.

    Returns:
        A fixed-size binary array, and the metadata of its column.
    """
    import pyarrow as pa

    flat = np.ascontiguousarray(tensor).reshape(len(tensor), -1)
    kind = pa.binary(flat.shape[1] * flat.itemsize)
    return pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)]), {KEY: flat.dtype.name.encode()}


def unpack(rows: Any) -> Any:
    """A table or record batch of the log with lists in place of cells of bytes; what is no such column stays as it is.

    Args:
        rows: ``pyarrow.Table`` or ``pyarrow.RecordBatch``.

    Raises:
        ValueError: The bytes of a row are no whole number of values.
    """
    for place, field in enumerate(rows.schema):
        name = (field.metadata or {}).get(KEY, b"").decode(errors="replace")
        if name in PACKED:
            rows = rows.set_column(place, field.name, _lists(rows.column(place), np.dtype(name)))
    return rows


def cell_length(field: pa.Field) -> int | None:
    """Values in a row of a packed column; null where it is no such column."""
    import pyarrow as pa

    name = (field.metadata or {}).get(KEY, b"").decode(errors="replace")
    if name not in PACKED or not pa.types.is_fixed_size_binary(field.type):
        return None
    return int(field.type.byte_width) // np.dtype(name).itemsize


def read_rows(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A file of the request log as a table, with lists of numbers.

    Args:
        path: The file.
        columns: What is read; everything when null.

    Raises:
        OSError: It cannot be read; pyarrow's own errors are ValueErrors and OSErrors.
        KeyError: It has no such column.
    """
    import pyarrow.parquet as pq

    return unpack(pq.read_table(path, columns=None if columns is None else list(columns)))


def _lists(column: Any, dtype: np.dtype[Any]) -> Any:
    import pyarrow as pa

    if not pa.types.is_fixed_size_binary(column.type) or column.type.byte_width % dtype.itemsize:
        message = f"expected cells of {dtype.name}, found {column.type}"
        raise ValueError(message)
    length = column.type.byte_width // dtype.itemsize
    kind = pa.from_numpy_dtype(dtype)
    if isinstance(column, pa.ChunkedArray):
        return pa.chunked_array([_lists(chunk, dtype) for chunk in column.chunks], pa.list_(kind, length))
    values = pa.Array.from_buffers(
        kind, len(column) * length, [None, column.buffers()[1]], offset=column.offset * length
    )
    mask = column.is_null() if column.null_count else None
    return pa.FixedSizeListArray.from_arrays(values, length, mask=mask)
