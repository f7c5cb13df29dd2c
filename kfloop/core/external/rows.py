"""Rows that no tensor of numbers holds (texts, rows of a table) as JSON in bytes, and back: they travel like any other tensor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PORT = "row"
SPACE = 0x20  # what a row is filled up with: JSON does not mind it


class BadRows(ValueError):
    """The rows cannot be sent; the message says why."""


def packed(rows: Sequence[bytes]) -> NDArray[np.uint8]:
    """Rows of JSON as uint8 [N, W], as wide as the longest."""
    width = max(map(len, rows), default=1)
    return np.frombuffer(b"".join(row.ljust(width) for row in rows), np.uint8).reshape(len(rows), width)


def as_json(value: Any) -> bytes:
    """One row as JSON."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def unpacked(rows: NDArray[np.uint8]) -> list[Any]:
    """What ``packed`` was given, as Python values.

    Raises:
        BadRows: A row is no JSON.
    """
    found = []
    for number, row in enumerate(np.ascontiguousarray(rows)):
        try:
            found.append(json.loads(row.tobytes().decode("utf-8")))
        except ValueError as error:
            raise BadRows(f"row {number} is no JSON in UTF-8: {error}") from None
    return found


def values(rows: NDArray[Any], *, packed_rows: bool) -> list[Any]:
    """Each row as JSON can say it: numbers that are missing become null."""
    if packed_rows:
        return unpacked(rows)
    found: list[Any] = rows.tolist()
    if np.issubdtype(rows.dtype, np.floating) and not np.isfinite(rows).all():
        return [_without_nan(row) for row in found]
    return found


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return value if np.isfinite(value) else None
