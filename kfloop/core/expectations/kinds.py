"""What a column holds, in words that both engines share, and values of a suite file made fit for it."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

INT, FLOAT, BOOL, STR, TIME, LIST, OTHER = "int", "float", "bool", "str", "time", "list", "other"
NUMBERS = frozenset({INT, FLOAT})
ORDERED = frozenset({INT, FLOAT, TIME})
SCALARS = frozenset({INT, FLOAT, BOOL, STR, TIME})

# Type words of suites written for several versions of pandas, with the kind each of them means.
TYPE_WORDS = {
    "int": INT,
    "int64": INT,
    "Int64": INT,
    "integer": INT,
    "float": FLOAT,
    "float64": FLOAT,
    "Float64": FLOAT,
    "number": FLOAT,
    "bool": BOOL,
    "boolean": BOOL,
    "bool_": BOOL,
    "str": STR,
    "string": STR,
    "object": STR,
    "time": TIME,
    "timestamp": TIME,
    "Timestamp": TIME,
    "datetime": TIME,
    "datetime64": TIME,
    "datetime64[us]": TIME,
    "datetime64[ns]": TIME,
    "list": LIST,
}
# The word of each kind in the suites that kfloop proposes; Great Expectations understands it for pandas columns without missing values.
TYPE_WORD = {INT: "int64", FLOAT: "float64", BOOL: "bool", STR: "str", TIME: "datetime64", LIST: "list"}


def kind_of(kind: pa.DataType) -> str:
    """The kind of an Arrow type: ``int``, ``float``, ``bool``, ``str``, ``time``, ``list`` or ``other``."""
    import pyarrow as pa

    tests = (
        (INT, pa.types.is_integer),
        (FLOAT, pa.types.is_floating),
        (BOOL, pa.types.is_boolean),
        (STR, lambda item: pa.types.is_string(item) or pa.types.is_large_string(item)),
        (TIME, pa.types.is_timestamp),
        (LIST, pa.types.is_nested),
    )
    return next((word for word, test in tests if test(kind)), OTHER)


def fit(value: Any, kind: str) -> Any:
    """``value`` of a suite as a value of a column of this kind; times may be ISO 8601 texts.

    Raises:
        TypeError: It is none.
    """
    if kind == BOOL and isinstance(value, bool):
        return value
    if kind == STR and isinstance(value, str):
        return value
    if kind in NUMBERS and isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value):
        # 3.0 is 3 in a column of integers; 3.5 stays what it is and equals none of them.
        return int(value) if kind == INT and isinstance(value, float) and value.is_integer() else value
    if kind == TIME:
        return as_time(value)
    raise TypeError(f"{value!r} cannot be compared with a column of type {kind}")


def as_time(value: Any) -> datetime:
    """A time without zone (UTC) from ISO 8601 text, a date or a datetime.

    Raises:
        TypeError: It is none.
    """
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise TypeError(f"{value!r} is no time; write it as 2024-12-31 or 2024-12-31T23:59:59") from error
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)  # noqa: DTZ001 - columns of a version have no zone
    if not isinstance(value, datetime):
        raise TypeError(f"{value!r} is no time; write it as 2024-12-31 or 2024-12-31T23:59:59")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
