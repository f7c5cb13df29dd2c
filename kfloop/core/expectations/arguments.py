"""What the arguments of expectations may be, whatever the data are."""

from __future__ import annotations

import math
import re
import warnings
from typing import TYPE_CHECKING, Any

from kfloop.core.expectations.kinds import TYPE_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scalar(value: Any) -> bool:
    return (isinstance(value, str) and value != "") or isinstance(value, bool) or _number(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _texts(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_text(item) for item in value)


def _values(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) or _scalar(item) for item in value)


def _regex(value: Any) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # what Python may mean by "[[" one day
            re.compile(value)
    except (re.error, TypeError):
        return False
    return True


def _quantiles(value: Any) -> bool:
    """``{"quantiles": [0.5], "value_ranges": [[1, null]]}``."""
    if not isinstance(value, dict) or set(value) != {"quantiles", "value_ranges"}:
        return False
    shares, ranges = value["quantiles"], value["value_ranges"]
    if not (isinstance(shares, list) and isinstance(ranges, list) and shares and len(shares) == len(ranges)):
        return False
    return all(_number(share) and 0 <= share <= 1 for share in shares) and all(_range(item) for item in ranges)


def _range(item: Any) -> bool:
    if not isinstance(item, list) or len(item) != 2:  # noqa: PLR2004 - low and high
        return False
    low, high = item
    if not all(bound is None or _number(bound) for bound in item):
        return False
    return low is None or high is None or bool(low <= high)


# For each kind of argument: the words of the hint, and the test.
ARGUMENTS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "column": ("the name of a column", _text),
    "columns": ("a list of two or more names of columns", lambda value: _texts(value) and len(set(value)) > 1),
    "names": ("a list of names", _texts),
    "limit": ("a number, a text or a time", _scalar),
    "number": ("a number", _number),
    "count": ("a whole number, 0 or more", _count),
    "share": ("a share from 0 to 1", lambda value: _number(value) and 0 <= value <= 1),
    "flag": ("true or false", lambda value: isinstance(value, bool)),
    "set": ("a list of one or more numbers, texts or booleans, none of them null", _values),
    "regex": ("a regular expression of Python", _regex),
    "type": (f"one of {', '.join(TYPE_WORDS)}", lambda value: isinstance(value, str) and value in TYPE_WORDS),
    "quantiles": ('{"quantiles": [0.5], "value_ranges": [[1, null]]}', _quantiles),
    "interpolation": (
        "linear, lower, higher, midpoint or nearest",
        lambda value: value is False or value in ("linear", "lower", "higher", "midpoint", "nearest"),
    ),
    "missing_of_two": (
        "both_values_are_missing, either_value_is_missing or neither",
        lambda value: value in ("both_values_are_missing", "either_value_is_missing", "neither"),
    ),
    "missing_of_many": (
        "all_values_are_missing, any_value_is_missing or never",
        lambda value: value in ("all_values_are_missing", "any_value_is_missing", "never"),
    ),
}
