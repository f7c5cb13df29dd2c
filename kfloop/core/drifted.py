"""Parts of a table to which requests moved: the monitor defines them, and the retraining that they cause is judged on them.

A part is a condition on one column, so that the same rows are meant wherever it is read: in the request log, in the rows of a dataset version,
and on the page of a report. It travels as JSON in the monitor's report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any

from kfloop.errors import InputError

KINDS = ("number", "time", "category", "unknown", "missing")
RANGES = ("number", "time")
MOST_PARTS = 3
"""Of one cause: each one more widens the intervals of all."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of the rows, by the value of one column.

    Attributes:
        column: Name of the column.
        kind: ``number`` or ``time`` (seconds since 1970): from ``low`` on and below ``high``. ``category``: one of ``values``. ``unknown``: any value but
            ``values``, which are those that the champion knows. ``missing``: no value.
        low: Least value; None for no lower end.
        high: Value below which it ends; None for no upper end.
        values: Values of a category.
        reference: Share of the champion's held-out rows in it.
        current: Share of the latest requests in it.
    """

    column: str
    kind: str
    low: float | None = None
    high: float | None = None
    values: tuple[str, ...] = ()
    reference: float
    current: float

    @property
    def grown(self) -> float:
        """How much its share grew."""
        return self.current - self.reference

    @property
    def text(self) -> str:
        """Which rows these are, in words."""
        if self.kind in RANGES:
            return f"{self.column} {range_words(self.low, self.high, time=self.kind == 'time')}"
        if self.kind == "missing":
            return f"{self.column} is missing"
        known = "unknown to the champion" if self.kind == "unknown" else f"= {' or '.join(self.values)}"
        return f"{self.column} {known}"


def read_part(value: Any) -> Part:
    """A part out of JSON.

    Raises:
        InputError: It defines no part of a table.
    """
    names = [field.name for field in fields(Part)]
    if not isinstance(value, dict) or sorted(value) != sorted(names):
        told = sorted(map(str, value)) if isinstance(value, dict) else value
        raise _wrong(value, f"expected the keys {', '.join(names)}, found {told!r}")
    column, kind, values = value["column"], value["kind"], value["values"]
    ends = [value["low"], value["high"]]
    if not (isinstance(column, str) and column):
        raise _wrong(value, f"column is {column!r}, expected a name")
    if kind not in KINDS:
        raise _wrong(value, f"kind is {kind!r}, expected one of {', '.join(KINDS)}")
    if not (isinstance(values, list) and all(isinstance(one, str) for one in values)):
        raise _wrong(value, f"values are {values!r}, expected a list of texts")
    if not all(end is None or _is_number(end) for end in ends):
        raise _wrong(value, f"it reaches from {ends[0]!r} to {ends[1]!r}, expected finite numbers or null")
    if (kind in RANGES) is (ends == [None, None]):
        raise _wrong(value, f"it reaches from {ends[0]!r} to {ends[1]!r}, which is no range of a {kind}")
    if None not in ends and not ends[0] < ends[1]:
        raise _wrong(value, f"it is empty: it begins at {ends[0]!r} and ends below {ends[1]!r}")
    if (kind in {"category", "unknown"}) is not bool(values):
        raise _wrong(value, f"values are {values!r}, which does not fit the kind {kind}")
    for name in ("reference", "current"):
        if not (_is_number(value[name]) and 0 <= value[name] <= 1):
            raise _wrong(value, f"{name} is {value[name]!r}, expected a share from 0 to 1")
    return Part(**(value | {"values": tuple(values)}))


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


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(value: Any, why: str) -> InputError:
    name = value.get("column") if isinstance(value, dict) else None
    told = f" of '{name}'" if isinstance(name, str) else ""
    return InputError(f"a part{told} that drifted is not defined: {why}", hint="the monitor writes these: run it again")
