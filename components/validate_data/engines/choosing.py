"""Which engine evaluates a suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.engines import great_expectations
from kfloop.core.expectations import polars
from kfloop.core.expectations.checks import prepare
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

GREAT_EXPECTATIONS, POLARS = "great_expectations", "polars"


def choose(engine: str, n_rows: int, polars_above: int) -> str:
    """``engine``, or for ``auto`` the one for this many rows."""
    if engine == "auto":
        return POLARS if n_rows > polars_above else GREAT_EXPECTATIONS
    return engine


def evaluate(table: pa.Table, suite: list[dict[str, Any]], engine: str) -> list[dict[str, Any]]:
    """Each expectation's result on the table: expectation, column, severity, passed, word, observed, detail.

    Args:
        table: The manifest.
        suite: Expectations: ``type``, ``kwargs``, ``severity``.
        engine: ``great_expectations`` or ``polars``.

    Raises:
        ConfigError: An expectation is unusable, or the engine does not know it; there is no falling back on the other engine.
    """
    checks = prepare(suite, table.schema)
    evaluators = {GREAT_EXPECTATIONS: great_expectations.evaluate, POLARS: polars.evaluate}
    if engine not in evaluators:
        raise ConfigError(f"engine '{engine}' is unknown", hint=f"known: {', '.join(evaluators)}")
    return evaluators[engine](table, checks)
