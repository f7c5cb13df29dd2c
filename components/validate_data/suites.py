"""The suite of expectations: the default one of a modality, or the user's own from a Great Expectations JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.versions import DatasetVersion

FEWEST_ROWS = 20
CRITICAL, WARNING = "critical", "warning"
SEVERITIES = (CRITICAL, WARNING, "info")

BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
NOT_NULL = "expect_column_values_to_not_be_null"
UNIQUE = "expect_column_values_to_be_unique"


def expectation(kind: str, severity: str, **arguments: Any) -> dict[str, Any]:
    """One expectation as a suite holds it."""
    return {"type": kind, "kwargs": arguments, "severity": severity}


def default_suite(version: DatasetVersion, manifest: pa.Table) -> list[dict[str, Any]]:
    """Expectations that any dataset of this modality should meet, as Great Expectations configurations.

    Args:
        version: The dataset version.
        manifest: Its manifest; expectations about facts that it does not hold are left out.
    """
    names = set(manifest.schema.names)
    suite = [*_any(version), *_label(version), *facts_suite(version)]
    return [item for item in suite if item["kwargs"].get("column", "id") in names]


def facts_suite(version: DatasetVersion) -> list[dict[str, Any]]:
    """The part of the default suite that looks at the facts of this modality."""
    makers = {
        "image": _image,
        "audio": _audio,
        "text": _text,
        "vector": _vector,
        "series": _series,
        "nodes": _nodes,
        "graphs": _graphs,
    }
    if version.modality in makers:
        return makers[version.modality](version)
    return [
        expectation("expect_column_unique_value_count_to_be_between", WARNING, column=name, min_value=2)
        for name in version.inputs
    ]


def _any(version: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation("expect_table_row_count_to_be_between", CRITICAL, min_value=FEWEST_ROWS),
        expectation(UNIQUE, CRITICAL, column="id"),
        *([] if version.modality == "series" else [expectation(UNIQUE, WARNING, column="content")]),
    ]


def _label(version: DatasetVersion) -> list[dict[str, Any]]:
    if version.task == "forecasting":
        return []
    there = expectation(NOT_NULL, CRITICAL, column="label")
    if version.task != "multiclass":
        return [there]
    return [
        there,
        expectation(IN_SET, CRITICAL, column="label", value_set=version.labels),
        expectation("expect_column_distinct_values_to_contain_set", CRITICAL, column="label", value_set=version.labels),
    ]


def _image(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(BETWEEN, CRITICAL, column="mean", min_value=0.0, max_value=255.0),
        expectation(IN_SET, CRITICAL, column="constant", value_set=[False], mostly=0.95),
        expectation(IN_SET, WARNING, column="constant", value_set=[False]),
        expectation(BETWEEN, WARNING, column="std", min_value=2.0, mostly=0.99),
    ]


def _audio(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(BETWEEN, CRITICAL, column="seconds", min_value=0.0, strict_min=True),
        expectation(BETWEEN, CRITICAL, column="silence", max_value=0.99, mostly=0.95),
        expectation(BETWEEN, WARNING, column="silence", max_value=0.99),
        expectation(BETWEEN, WARNING, column="clipping", max_value=0.05, mostly=0.99),
        expectation(BETWEEN, WARNING, column="rms_db", min_value=-60.0, mostly=0.99),
    ]


def _text(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(NOT_NULL, CRITICAL, column="text"),
        expectation(BETWEEN, CRITICAL, column="characters", min_value=1),
        expectation(BETWEEN, CRITICAL, column="replacement", max_value=0.1, mostly=0.95),
        expectation(BETWEEN, WARNING, column="replacement", max_value=0.0),
    ]


def _vector(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(BETWEEN, CRITICAL, column="missing", max_value=0.5, mostly=0.95),
        expectation(BETWEEN, WARNING, column="missing", max_value=0.0),
        expectation(BETWEEN, WARNING, column="std", min_value=0.0, strict_min=True, mostly=0.99),
    ]


def _series(version: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(NOT_NULL, CRITICAL, column="time"),
        # time_step is the time since the row before in the same split and group (manifest.py).
        expectation(BETWEEN, CRITICAL, column="time_step", min_value=0, strict_min=True),
        *[expectation(NOT_NULL, CRITICAL, column=name, mostly=0.95) for name in version.inputs],
        *[expectation(NOT_NULL, WARNING, column=name) for name in version.inputs],
    ]


def _nodes(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(BETWEEN, CRITICAL, column="degree", min_value=0),
        expectation("expect_column_max_to_be_between", CRITICAL, column="graph_dangling", max_value=0),
        expectation("expect_column_max_to_be_between", WARNING, column="graph_self_loops", max_value=0),
        expectation("expect_column_max_to_be_between", WARNING, column="graph_duplicate_edges", max_value=0),
        expectation(IN_SET, WARNING, column="isolated", value_set=[False], mostly=0.9),
    ]


def _graphs(_: DatasetVersion) -> list[dict[str, Any]]:
    return [
        expectation(BETWEEN, CRITICAL, column="n_nodes", min_value=1),
        expectation(BETWEEN, CRITICAL, column="dangling", max_value=0),
        expectation(BETWEEN, WARNING, column="self_loops", max_value=0),
        expectation(BETWEEN, WARNING, column="n_edges", min_value=1, mostly=0.95),
    ]


def load_suite(path: Path) -> list[dict[str, Any]]:
    """The expectations of a suite file, as Great Expectations writes it (``expectations`` with ``type``, ``kwargs``, ``severity``).

    Raises:
        ConfigError: No such file, not a suite, no expectations in it, or an expectation nobody knows.
    """
    hint = "write one with: kfloop step validate_data --propose, or leave validation.suite out"
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
