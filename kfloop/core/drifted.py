"""Parts of a table to which requests moved: the monitor defines them, and the retraining that they cause is judged on them.

A part is a condition on one column, so that the same rows are meant wherever it is read: in the request log, in the rows of a dataset version,
and on the page of a report. It travels as JSON in the monitor's report.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

from kfloop.core.number_words import range_words
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
    if not isinstance(value, dict) or sorted(map(str, value)) != sorted(names):
        found = sorted(map(str, value)) if isinstance(value, dict) else value
        raise _wrong(value, f"expected an object with {', '.join(names)}, found {found!r}")
    why = _wrong_name(value) or _wrong_range(value) or _wrong_values(value)
    if why:
        raise _wrong(value, why)
    return Part(**(value | {"values": tuple(value["values"])}))


def _wrong_name(value: dict[str, Any]) -> str:
    if not (isinstance(value["column"], str) and value["column"]):
        return f"column is {value['column']!r}, expected a name"
    if value["kind"] not in KINDS:
        return f"kind is {value['kind']!r}, expected one of {', '.join(KINDS)}"
    shares = {name: value[name] for name in ("reference", "current")}
    wrong = [name for name, share in shares.items() if not (_is_number(share) and 0 <= share <= 1)]
    return f"{wrong[0]} is {shares[wrong[0]]!r}, expected a share from 0 to 1" if wrong else ""


def _wrong_range(value: dict[str, Any]) -> str:
    low, high = value["low"], value["high"]
    told = f"it reaches from {low!r} to {high!r}"
    if not all(end is None or _is_number(end) for end in (low, high)):
        return f"{told}, expected finite numbers or null"
    if (value["kind"] in RANGES) is (low is None and high is None):
        return f"{told}, which does not fit the kind {value['kind']}"
    return f"{told}, which is empty" if low is not None and high is not None and low >= high else ""


def _wrong_values(value: dict[str, Any]) -> str:
    values = value["values"]
    if not (isinstance(values, list) and all(isinstance(one, str) for one in values)):
        return f"values are {values!r}, expected a list of texts"
    fits = (value["kind"] in {"category", "unknown"}) is bool(values)
    return "" if fits else f"values are {values!r}, which does not fit the kind {value['kind']}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(value: Any, why: str) -> InputError:
    name = value.get("column") if isinstance(value, dict) else None
    told = f" of '{name}'" if isinstance(name, str) else ""
    return InputError(f"a part{told} that drifted is not defined: {why}", hint="the monitor writes these: run it again")
