"""A measurement: one number out of a report, or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number out of a report, or why there is none.

    Attributes:
        value: The number; None when it is missing.
        low: Lower end of its interval; None for a number without interval.
        high: Upper end of its interval.
        n: Number of examples or requests behind it; None when the step does not count them.
        level: Confidence level of the interval.
        missing: Why there is no number; empty when there is one.
        unsure: Why a number may have no interval; empty where nothing is known of that.
        todo: What to do about a number that is missing; empty for the usual advice.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    level: float | None = None
    missing: str = ""
    unsure: str = ""
    todo: str = ""


def number(value: Any) -> float | None:
    """``value`` as a finite float; None for anything else (null, NaN, infinity, text, a truth value)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # a whole number beyond every float
        return None
