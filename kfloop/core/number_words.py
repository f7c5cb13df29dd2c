"""Numbers, moments and ranges in words that people can read, and edges with few digits."""

from __future__ import annotations

import math
from datetime import UTC, datetime

DIGITS = 17  # that a float64 needs at most


def range_words(low: float | None, high: float | None, *, time: bool) -> str:
    """``47 or more``, ``below 3``, ``[3, 47)``."""
    first, last = (None if end is None else number_words(end, time=time) for end in (low, high))
    if last is None:
        return f"{first} or more"
    return f"below {last}" if first is None else f"[{first}, {last})"


def number_words(value: float, *, time: bool = False) -> str:
    """A number, or a moment in seconds since 1970, in words: ``12.5``, ``2024-03-01``."""
    if time:
        try:
            moment = datetime.fromtimestamp(value, tz=UTC).replace(tzinfo=None)
        except (ValueError, OverflowError, OSError):  # a year that calendars do not have
            return f"{value:g} s"
        midnight = (moment.hour, moment.minute, moment.second, moment.microsecond) == (0, 0, 0, 0)
        return moment.date().isoformat() if midnight else moment.isoformat(sep=" ")
    exact = abs(value) < 1e15 and value == round(value)  # noqa: PLR2004 - no digit is lost
    return f"{value:.0f}" if exact else f"{value:.12g}"


def between(low: float, high: float) -> float:
    """The number with the fewest digits in (low, high]."""
    if math.isinf(high):
        high = 0.0 if math.isinf(low) else low + max(abs(low), 1.0)
    if math.isinf(low):
        low = high - max(abs(high), 1.0)
    middle = low + (high - low) / 2
    for digits in range(1, DIGITS):
        found = float(f"{middle:.{digits}g}")
        if low < found <= high:
            return found
    return high
