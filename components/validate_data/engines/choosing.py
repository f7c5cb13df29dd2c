"""Which engine evaluates a suite."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.engines import great_expectations, spark
from kfloop.core.expectations import polars
from kfloop.core.expectations.checks import prepare
from kfloop.core.sections import SparkConfig
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

GREAT_EXPECTATIONS, POLARS, SPARK = "great_expectations", "polars", "spark"


def choose(engine: str, n_rows: int, polars_above: int) -> str:
    """``engine``, or for ``auto`` the one for this many rows."""
    if engine == "auto":
        return POLARS if n_rows > polars_above else GREAT_EXPECTATIONS
    return engine


def evaluate(
    table: pa.Table,
    suite: list[dict[str, Any]],
    engine: str,
    *,
    cluster: SparkConfig | None = None,
    folder: Path | str | None = None,
) -> list[dict[str, Any]]:
    """Each expectation's result on the table: expectation, column, severity, passed, word, observed, detail.

    Args:
        table: The manifest.
        suite: Expectations: ``type``, ``kwargs``, ``severity``.
        engine: ``great_expectations``, ``polars`` or ``spark``.
        cluster: Where Spark runs.
        folder: Where the table is written for Spark; a temporary folder when null; an address ``s3://...`` is a text.

    Raises:
        ConfigError: An expectation is unusable, or the engine does not know it; there is no falling back on the other engine.
    """
    checks = prepare(suite, table.schema)
    if engine == SPARK:
        return spark.evaluate(table, checks, cluster or SparkConfig(), folder or Path(tempfile.gettempdir()))
    evaluators = {GREAT_EXPECTATIONS: great_expectations.evaluate, POLARS: polars.evaluate}
    if engine not in evaluators:
        raise ConfigError(f"engine '{engine}' is unknown", hint=f"known: {', '.join([*evaluators, SPARK])}")
    return evaluators[engine](table, checks)
