"""Hashes of rows by column: the same values give the same hash, whatever the path, the order, the batch or the row group.

Two 64-bit lanes per row, mixed with the finalizer of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014). Numbers are hashed by their bits, a
whole column at once; texts and lists by BLAKE2b, once for each distinct text.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

LANES = 2
_SALTS = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD1B54A32D192ED03))
_NULL = np.uint64(0x6E756C6C6E756C6C)
_HEX = np.frombuffer("".join(f"{value:02x}" for value in range(256)).encode(), dtype=np.uint16)


def content_hash(image: np.ndarray) -> str:
    """sha256 of an array's shape and bytes: the content of an image (uint8)."""
    head = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + b"\0" + np.ascontiguousarray(image).tobytes()).hexdigest()


def hash_rows(table: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """Hash of each row over ``columns``; the order in which they are named does not matter.

    Args:
        table: Columns of numbers, booleans, texts, times, or lists of numbers.
        columns: Names.

    Returns:
        uint64 [N, 2].
    """
    total = np.zeros((table.num_rows, LANES), dtype=np.uint64)
    for name in columns:
        values = _column(table[name].combine_chunks() if table.num_rows else table[name])
        salt = _digest(name.encode())
        for lane in range(LANES):
            total[:, lane] += _mixed(values[:, lane] ^ salt[lane])
    return np.stack([_mixed(total[:, lane] + _SALTS[lane]) for lane in range(LANES)], axis=1)


def hexadecimal(hashes: np.ndarray) -> pa.Array:
    """Hashes uint64 [N, 2] as an Arrow array of 32-character texts."""
    import pyarrow as pa

    big_endian = np.ascontiguousarray(hashes.astype(">u8")).view(np.uint8).reshape(-1, 8 * LANES)
    text = np.ascontiguousarray(_HEX[big_endian]).view(np.uint8).reshape(-1)
    width = 16 * LANES
    offsets = np.arange(len(hashes) + 1, dtype=np.int32) * width
    return pa.StringArray.from_buffers(len(hashes), pa.py_buffer(offsets), pa.py_buffer(text))


def text_lanes(texts: pa.Array) -> np.ndarray:
    """Hash of each text, uint64 [N, 2]; nulls share one value."""
    return _column(texts)


def sorted_digest(hashes: np.ndarray) -> bytes:
    """sha256 of row hashes [N, 2], blind to their order."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))
    return hashlib.sha256(np.ascontiguousarray(hashes[order].astype("<u8")).tobytes()).digest()


def _column(array: Any) -> np.ndarray:
    """Values of one column as uint64 [N, 2], before the column's name is mixed in."""
    import pyarrow as pa

    if isinstance(array, pa.ChunkedArray):
        array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], type=array.type)
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.dictionary_decode(), kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _texts(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _lists(array)
    bits = _bits(array)
    return np.stack([_mixed(bits ^ salt) for salt in _SALTS], axis=1)


def _bits(array: Any) -> np.ndarray:
    """Numbers, booleans and times as uint64; equal numbers have equal bits, -0.0 and 0.0 and all NaN included."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = array.type
    missing = array.is_null().to_numpy(zero_copy_only=False) if array.null_count else None
    if pa.types.is_boolean(kind):
        values = pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(np.uint64)
    elif pa.types.is_floating(kind):
        floats = pc.fill_null(array.cast(pa.float64()), 0.0).to_numpy(zero_copy_only=False) + 0.0  # turns -0.0 into 0.0
        floats[np.isnan(floats)] = np.nan
        values = floats.view(np.uint64)
    else:
        whole = array if pa.types.is_integer(kind) else array.view(pa.int64())
        values = pc.fill_null(whole.cast(pa.int64()), 0).to_numpy(zero_copy_only=False).view(np.uint64)
    return values if missing is None else np.where(missing, _NULL, values)


def _texts(array: Any) -> np.ndarray:
    encoded = array.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    known = np.array([_digest(text.encode()) for text in distinct] + [(_NULL, _NULL)], dtype=np.uint64)
    indices = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
    return known[indices]


def _lists(array: Any) -> np.ndarray:
    """Lists of numbers by the bytes of each, the type of their values set by the column."""
    import pyarrow as pa

    values = array.flatten().to_numpy(zero_copy_only=False)
    if pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        ends = np.arange(1, len(array) + 1) * width
    else:
        ends = np.cumsum(array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return np.array(
        [_digest(values[start:end].tobytes()) for start, end in zip(starts, ends, strict=True)], dtype=np.uint64
    ).reshape(-1, LANES)


def _digest(data: bytes) -> tuple[np.uint64, np.uint64]:
    first = hashlib.blake2b(data, digest_size=8 * LANES).digest()
    return np.uint64(int.from_bytes(first[:8], "big")), np.uint64(int.from_bytes(first[8:], "big"))


def _mixed(values: np.ndarray) -> np.ndarray:
    """The finalizer of SplitMix64: every input bit changes about half of the output bits."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(values ^ (values >> np.uint64(31)), dtype=np.uint64)
