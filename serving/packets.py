"""Packets of the request log: what the served model sends to the collector, and the rows that are made of it.

Columns: request_id string, ts_ns int64, model string, version int64, route string (``stable``, ``canary``, ``shadow``), the tensors, each row
flat, review bool where the model tells, latency_us int64. For image classifiers the tensors are image,
probabilities and embedding, for all others ``input.NAME`` and ``output.NAME``: lists, or bytes where a row of an input is large (``core/request_cells.py``); ``hash.NAME`` holds digests in hex.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np

from kfloop.core.request_cells import is_large, pack

TYPES = frozenset({"uint8", "int16", "int32", "int64", "float32", "float64", "bool"})
STABLE = "stable"
EACH = ("ids", "ts_ns", "latency_us", "review")  # what a head may say of each of its rows
Rows = list[tuple[dict[str, Any], list[np.ndarray]]]


def parse_head(packet: bytes) -> tuple[dict[str, Any], int]:
    """Head of one packet, and where its tensors begin.

    Raises:
        ValueError: It is no packet.
        struct.error: It is shorter than any packet.
    """
    (length,) = struct.unpack_from("<I", packet)
    head = json.loads(packet[4 : 4 + length])
    if not isinstance(head, dict) or not head.get("ids"):
        message = "a packet without rows"
        raise ValueError(message)
    return head, 4 + length


def parse(packet: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Head and tensors of one packet.

    Raises:
        ValueError: It is no packet.
        KeyError: Its head lacks something.
        struct.error: It is shorter than any packet.
    """
    head, start = parse_head(packet)
    arrays = []
    for _, shape, name in zip(head["names"], head["shapes"], head["dtypes"], strict=True):
        if name not in TYPES:
            message = f"type {name}"
            raise ValueError(message)
        dtype, count = np.dtype(name), int(np.prod(shape))
        arrays.append(np.frombuffer(packet, dtype, count, start).reshape(shape))
        start += count * dtype.itemsize
    return head, arrays


def without(head: dict[str, Any], arrays: list[np.ndarray], start: str) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The packet without rows whose id begins so: golden requests are no traffic."""
    kept = [place for place, identity in enumerate(head["ids"]) if not identity.startswith(start)]
    if len(kept) == len(head["ids"]):
        return head, arrays
    each = {key: [head[key][place] for place in kept] for key in EACH if isinstance(head.get(key), list)}
    return head | each, [array[kept] for array in arrays]


def shape_of(head: dict[str, Any], arrays: list[np.ndarray]) -> tuple[Any, ...]:
    """What the rows of packets must share to stand in one file: two versions may differ in the shapes of their rows."""
    shapes = tuple((array.dtype.str, array.shape[1:]) for array in arrays)
    return (head["model"], tuple(head["names"]), shapes, "review" in head)


def as_table(rows: Rows) -> Any:
    """Rows of one model and of the same shapes as an Arrow table."""
    import pyarrow as pa

    def repeated(key: str, missing: Any = None) -> list[Any]:
        """What a head says of all its rows, or of each of them."""
        found: list[Any] = []
        for head, _ in rows:
            value = head.get(key, missing)
            found += value if isinstance(value, list) else [value] * len(head["ids"])
        return found

    def each(key: str) -> list[Any]:
        return [value for head, _ in rows for value in head[key]]

    names = rows[0][0]["names"]
    tensors = [np.concatenate([arrays[place] for _, arrays in rows]) for place in range(len(names))]
    columns = {
        "request_id": pa.array(each("ids"), pa.string()),
        "ts_ns": pa.array(repeated("ts_ns"), pa.int64()),
        "model": pa.array(repeated("model"), pa.string()),
        "version": pa.array(repeated("version"), pa.int64()),
        "route": pa.array(repeated("route", STABLE), pa.string()),
    }
    told: dict[str, dict[bytes, bytes]] = {}
    for name, tensor in zip(names, tensors, strict=True):
        if is_large(tensor) and (name == "image" or name.startswith("input.")):
            columns[name], told[name] = pack(tensor)
        else:
            columns[name] = _lists(name, tensor)
    if "review" in rows[0][0]:
        columns["review"] = pa.array(each("review"), pa.bool_())
    columns["latency_us"] = pa.array(repeated("latency_us"), pa.int64())
    fields = [pa.field(name, column.type, metadata=told.get(name)) for name, column in columns.items()]
    return pa.table(list(columns.values()), schema=pa.schema(fields))


def parquet_options(table: Any) -> dict[str, Any]:
    """How a table of rows is written: what costs time and saves no room is left out.

    Floating-point numbers hardly repeat: a dictionary of them takes three times as long as the rest, and zstd as long again for a few percent.
    """
    import pyarrow as pa

    codecs, plain = {}, []
    for column in table.schema:
        listed = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        path = f"{column.name}.list.element" if listed else column.name
        if listed and pa.types.is_floating(column.type.value_type):
            codecs[path] = "none"
        elif pa.types.is_fixed_size_binary(column.type):  # pixels: the hour's file, made later, is in zstd
            codecs[path] = "lz4"
        else:
            codecs[path] = "zstd"
            plain += [] if listed else [column.name]
    return {"compression": codecs, "use_dictionary": ["model", "version", "route"], "write_statistics": plain}


def _lists(name: str, tensor: np.ndarray) -> Any:
    """A tensor as a column, each row flat; what a model gives are lists of any length, because versions may differ in it."""
    import pyarrow as pa

    if name.startswith("hash."):
        return pa.array([row.tobytes().hex() for row in tensor], pa.string())
    flat = tensor.reshape(len(tensor), -1)
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat.reshape(-1)), flat.shape[1])
    return column if name == "image" or name.startswith("input.") else column.cast(pa.list_(column.type.value_type))
