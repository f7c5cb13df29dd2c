"""The suite of expectations: the default one for images, or the user's own from a Great Expectations JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from kfloop.core.versions import DatasetVersion

FEWEST_ROWS = 20
CRITICAL, WARNING = "critical", "warning"
SEVERITIES = (CRITICAL, WARNING, "info")


def default_suite(version: DatasetVersion) -> list[dict[str, Any]]:
    """Expectations that any image classification dataset should meet, as Great Expectations configurations."""
    known = {"value_set": version.labels}
    return [
        _expectation("expect_table_row_count_to_be_between", CRITICAL, min_value=FEWEST_ROWS),
        _expectation("expect_column_values_to_be_unique", CRITICAL, column="id"),
        _expectation("expect_column_values_to_not_be_null", CRITICAL, column="label"),
        _expectation("expect_column_values_to_be_in_set", CRITICAL, column="label", **known),
        _expectation("expect_column_distinct_values_to_contain_set", CRITICAL, column="label", **known),
        _expectation("expect_column_values_to_be_between", CRITICAL, column="mean", min_value=0.0, max_value=255.0),
        _expectation("expect_column_values_to_be_in_set", CRITICAL, column="constant", value_set=[False], mostly=0.95),
        _expectation("expect_column_values_to_be_in_set", WARNING, column="constant", value_set=[False]),
        _expectation("expect_column_values_to_be_between", WARNING, column="std", min_value=2.0, mostly=0.99),
        _expectation("expect_column_values_to_be_unique", WARNING, column="content"),
    ]


def load_suite(path: Path) -> list[dict[str, Any]]:
    """The expectations of a suite file, as Great Expectations writes it (``expectations`` with ``type``, ``kwargs``, ``severity``).

    Raises:
        ConfigError: No such file, not a suite, no expectations in it, or an expectation nobody knows.
    """
    hint = "write one with Great Expectations (suite.to_json_dict()), or leave validation.suite out"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        expectations = [dict(item) for item in raw["expectations"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"'{path}' is no expectation suite: {type(error).__name__} {error}", hint=hint) from error
    if not expectations:
        raise ConfigError(f"suite '{path}' has no expectations: it would let everything pass", hint=hint)
    return [_checked(item, path, hint) for item in expectations]


def _checked(item: dict[str, Any], path: Path, hint: str) -> dict[str, Any]:
    """One expectation of a file; a severity nobody knows must not let bad data pass."""
    kwargs, meta = item.get("kwargs") or {}, item.get("meta") or {}
    if not (isinstance(item.get("type"), str) and isinstance(kwargs, dict) and isinstance(meta, dict)):
        raise ConfigError(f"suite '{path}' has an expectation without a 'type' and 'kwargs': {item}", hint=hint)
    severity = str(item.get("severity") or meta.get("severity") or CRITICAL).lower()
    if severity not in SEVERITIES:
        raise ConfigError(
            f"suite '{path}' has severity '{severity}' for {item['type']}", hint=nearest(severity, SEVERITIES)
        )
    return {"type": item["type"], "kwargs": dict(kwargs), "severity": severity}


def _expectation(kind: str, severity: str, **arguments: Any) -> dict[str, Any]:
    return {"type": kind, "kwargs": arguments, "severity": severity}
