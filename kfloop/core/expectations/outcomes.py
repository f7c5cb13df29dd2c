"""The words of a result, and one way to write it down."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import plain
from kfloop.core.expectations.kinds import TYPE_WORDS, kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from kfloop.core.expectations.checks import Check

PASS, FAIL, ERROR = "pass", "fail", "error"
# Bad data beat a broken check: a column that is missing fails one expectation and breaks the others about it.
WORST_FIRST = (FAIL, ERROR, PASS)
DETAIL_LENGTH = 300
EXAMPLES = 5
COLUMN_SET = "expect_table_columns_to_match_set"


def outcome(check: Check, *, passed: bool, observed: Any = None, unexpected: Sequence[Any] = ()) -> dict[str, Any]:
    """The result of a check that was evaluated; ``unexpected`` holds examples of values that should not be there."""
    detail = f"unexpected: {plain([_readable(item) for item in unexpected[:EXAMPLES]])}" if len(unexpected) else ""
    if check.kind == COLUMN_SET and isinstance(observed, list | tuple):
        detail = _columns(check, set(observed))
    return _line(check, PASS if passed else FAIL, observed, "" if passed else detail)


def _columns(check: Check, there: set[str]) -> str:
    """Which columns are missing, and which should not be there."""
    wanted = set(check.fitted["column_set"])
    strangers = there - wanted if check.fitted.get("exact_match", True) else set()
    parts = {"missing": sorted(wanted - there), "not in the set": sorted(strangers)}
    return "; ".join(f"{word}: {', '.join(names)}" for word, names in parts.items() if names)


def broken(check: Check, why: str) -> dict[str, Any]:
    """The result of a check that could not be evaluated."""
    return _line(check, ERROR, None, why)


def type_outcome(check: Check, schema: pa.Schema) -> dict[str, Any]:
    """``expect_column_values_to_be_of_type``: a fact of the schema, so that missing values do not turn integers into floats."""
    held = kind_of(schema.field(check.columns[0]).type)
    return outcome(check, passed=held == TYPE_WORDS[check.kwargs["type_"]], observed=held)


def _line(check: Check, word: str, observed: Any, detail: str) -> dict[str, Any]:
    return {
        "expectation": check.kind,
        "column": check.where,
        "severity": check.severity,
        "passed": word == PASS,
        "word": word,
        "observed": plain(_readable(observed)),
        "detail": detail[:DETAIL_LENGTH],
    }


def _readable(value: Any) -> Any:
    """Times as ISO 8601 text; the rest as it is."""
    if isinstance(value, dict):
        return {key: _readable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
