"""Tolerant access to JSON that may be partial or of the wrong shape, and the spelling of numbers for people.

A report must open even when a step left half of its result behind. So nothing here raises: what is not there, or is not what it
should be, becomes an empty value or ``None``, and is spelled as a dash.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kfloop.core.records import DIGEST_SHOWN

MISSING = "\N{EN DASH}"
_TEXT_LIMIT = 600  # characters: a longer message is cut, so that one stack trace cannot bury the report
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # parts of words in Persian and Hindi, and of emojis
_FINE = 10  # seconds below which hundredths are shown
_MINUTE = 60.0
_HOUR = 3600.0
_WHOLE_LIMIT = 1e15
_ROUND = 1000.0  # from here on the decimals of a number say nothing


def mapping(value: Any) -> dict[str, Any]:
    """``value`` if it is a JSON object, else an empty one."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def items(value: Any) -> list[Any]:
    """``value`` if it is a JSON array, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def rows(value: Any) -> list[dict[str, Any]]:
    """The objects of a JSON array; anything else in it is left out."""
    return [mapping(item) for item in items(value) if isinstance(item, dict)]


def number(value: Any) -> float | None:
    """``value`` as a finite float, else None. A truth value is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def text(value: Any, *, limit: int = _TEXT_LIMIT) -> str:
    """``value`` as one bounded text without control characters; empty for None."""
    if value is None:
        return ""
    spelled = value if isinstance(value, str) else str(value)
    clean = "".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in spelled[: limit + 1]).strip()
    return clean if len(clean) <= limit else clean[: limit - 3] + "..."


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A point estimate with its interval, any part of which may be unknown."""

    value: float | None
    low: float | None
    high: float | None
    n: float | None
    level: float | None

    def __str__(self) -> str:
        """``0.912 (0.881 to 0.940)``."""
        if self.value is None:
            return MISSING
        if self.low is None or self.high is None:
            return decimal(self.value)
        return f"{decimal(self.value)} ({decimal(self.low)} to {decimal(self.high)})"


def interval(value: Any) -> Interval | None:
    """The estimate written as an object, or a bare number as an estimate without an interval; None where there is none."""
    fields = mapping(value)
    if fields:
        names = ("value", "low", "high", "n", "level")
        return Interval(**{name: number(fields.get(name)) for name in names})
    point = number(value)
    return None if point is None else Interval(value=point, low=None, high=None, n=None, level=None)


def estimate(value: Any) -> str:
    """An estimate as ``value (low to high)``, or a dash."""
    found = interval(value)
    return MISSING if found is None else str(found)


def spelled(found: Interval | None) -> str:
    """An interval as text, or a dash."""
    return MISSING if found is None else str(found)


def decimal(value: Any, digits: int = 3) -> str:
    """A number for a table: ``digits`` decimals, powers of ten for the very small and very large, a dash for none."""
    found = number(value)
    if found is None:
        return MISSING
    if found == 0:
        return "0"
    if found == int(found) and _is_integer(value):
        return f"{int(found):,}"
    if abs(found) < 0.5 * 10.0**-digits or abs(found) >= _WHOLE_LIMIT:
        return f"{found:.2g}"
    return f"{found:,.{digits}f}"


def compact(value: Any) -> str:
    """A number as somebody would write it, with at most four significant digits: a threshold, a tolerance; a dash for none."""
    found = number(value)
    return MISSING if found is None else f"{found:,.0f}" if _ROUND <= abs(found) < _WHOLE_LIMIT else f"{found:.4g}"


def _is_integer(value: Any) -> bool:
    return isinstance(value, int)


def count(value: Any) -> str:
    """A whole number with separators, or a dash."""
    found = number(value)
    return MISSING if found is None else f"{round(found):,}"


def percent(value: Any, digits: int = 1) -> str:
    """A share in per cent, or a dash."""
    found = number(value)
    return MISSING if found is None else f"{100 * found:.{digits}f} %"


def share(value: Any) -> str:
    """An estimate of a share as ``14.0 % (7.0 to 21.0)``, or a dash."""
    found = interval(value)
    if found is None or found.value is None:
        return MISSING
    if found.low is None or found.high is None:
        return percent(found.value)
    return f"{percent(found.value)} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def duration(value: Any) -> str:
    """Seconds as ``0.42 s``, ``37 s``, ``4 min 05 s`` or ``2 h 10 min``, or a dash."""
    found = number(value)
    if found is None:
        return MISSING
    if found < _FINE:
        return f"{found:.2f} s"
    if round(found) < _MINUTE:
        return f"{found:.0f} s"
    if round(found) < _HOUR:
        minutes, rest = divmod(round(found), 60)
        return f"{minutes} min {rest:02d} s"
    hours, rest = divmod(round(found / 60), 60)
    return f"{hours} h {rest:02d} min"


def moment(value: Any) -> str:
    """An ISO time or a UNIX time as ``2026-11-21 04:45:10 UTC``; other text unchanged, a dash for none."""
    seconds = number(value)
    try:
        found = datetime.fromisoformat(text(value)) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return text(value) or MISSING
    if found.tzinfo is None:
        return f"{found:%Y-%m-%d %H:%M:%S}"
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def instant(value: Any) -> float | None:
    """An ISO time (UTC where it names no zone) or a UNIX time as UNIX time; None for what is neither, or no date."""
    seconds = number(value)
    try:
        if seconds is None:
            found = datetime.fromisoformat(value)
            seconds = (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError, TypeError):
        return None
    return seconds


def short(digest: Any) -> str:
    """The start of a digest, enough to recognise it; a dash for none."""
    return text(digest)[:DIGEST_SHOWN] or MISSING


def said(error: Any) -> str:
    """The message of an error of the run record and what to do about it, as one text; empty if there is neither."""
    fields = mapping(error)
    return "; ".join(part for part in (text(fields.get("message")), text(fields.get("hint"))) if part)


def words(name: Any) -> str:
    """An identifier as words: ``macro_f1`` becomes ``macro f1``."""
    return text(name).replace("_", " ")
