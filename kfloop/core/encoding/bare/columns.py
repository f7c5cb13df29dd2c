"""Columns of a table to numbers and codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

MISSING, UNKNOWN, FIRST = 0, 1, 2  # codes; rare categories share the code of unknown ones, so that it is learned
DAY = 86_400.0


def codes_of(column: Mapping[str, Any]) -> dict[str, int]:
    """The code of each category of a column that has one of its own."""
    return {name: code for code, name in enumerate(column["names"], FIRST)}


def coded(names: Iterable[str | None], codes: Mapping[str, int]) -> list[int]:
    """The code of each name; null is missing."""
    return [MISSING if name is None else codes.get(name, UNKNOWN) for name in names]


def numbers_of(raw: NDArray[np.float64], column: Mapping[str, Any]) -> list[NDArray[np.float32]]:
    """The numbers made of one column, float32 [N] each: one, and for times two more for each period.

    Args:
        raw: Numbers [N], or seconds since 1970; what is not finite is missing. Changed in place.
        column: ``kind``, ``offset`` and for times ``periods`` in seconds.
    """
    raw[~np.isfinite(raw)] = np.nan
    with np.errstate(over="ignore"):
        if column["kind"] != "time":
            return [(raw - column["offset"]).astype(np.float32)]
        turns = [2 * np.pi * raw / period for period in column["periods"]]
        circles = [part(turn).astype(np.float32) for turn in turns for part in (np.sin, np.cos)]
        return [((raw - column["offset"]) / DAY).astype(np.float32), *circles]


def stacked(numbers: Sequence[NDArray[np.float32]], codes: Sequence[NDArray[np.int64]]) -> tuple[NDArray[Any], ...]:
    """Numbers float32 [N, n] and codes int64 [N, m], those that there are."""
    arrays: list[NDArray[Any]] = [np.stack(numbers, axis=1)] if numbers else []
    return (*arrays, *([np.stack(codes, axis=1)] if codes else []))
