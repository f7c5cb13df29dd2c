"""Quantiles of the time that answers took, from counts by size: small whatever the number of rows, and the same in whatever pieces they come."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

RATIO = 1.05  # of the ends of one bin: a quantile is within 2.5 per cent of what it is
LONGEST = 3_600_000_000  # microseconds; an answer that took more than an hour is counted as one that took an hour
QUANTILES = (0.5, 0.95, 0.99)
US_PER_MS = 1000.0

Name = TypeVar("Name", int, str)


def bins(latency_us: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bin of each time, [n]; -1 for what is no time (0, negative, NaN)."""
    times = np.nan_to_num(np.asarray(latency_us, dtype=float), nan=0.0, posinf=LONGEST, neginf=0.0)
    sizes = np.log(np.clip(times, 1.0, LONGEST)) / math.log(RATIO)
    return np.where(times > 0, np.floor(sizes), -1).astype(np.int64)


def merged(parts: Iterable[Mapping[Name, int]]) -> dict[Name, int]:
    """Several counts as one."""
    total: dict[Name, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def quantile(counts: Mapping[int, int], share: float) -> float | None:
    """The time below which ``share`` of the answers lie, in milliseconds; None without any.

    Args:
        counts: Answers by bin.
        share: Within 0 and 1.
    """
    total = sum(counts.values())
    if not total:
        return None
    left = math.ceil(share * total)
    for name in sorted(counts):
        left -= counts[name]
        if left <= 0:
            return float(RATIO ** (name + 0.5) / US_PER_MS)
    return None


def summary(counts: Mapping[int, int]) -> dict[str, float | int | None]:
    """``p50``, ``p95`` and ``p99`` in milliseconds, and the number of ``rows`` behind them."""
    return {f"p{100 * share:.0f}": quantile(counts, share) for share in QUANTILES} | {"rows": sum(counts.values())}
