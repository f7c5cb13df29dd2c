"""Great Expectations on Spark: the rows stand on disk, and Spark's executors hold them.

Where its Spark engine means something else than its pandas engine (measured with 1.24.1: pairs with missing values, interpolated quantiles, the order of
rows, Java's regular expressions), Spark's own aggregates count what the other engines count: see ``counting``.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kfloop.components.validate_data.engines import counting
from kfloop.components.validate_data.engines.great_expectations import (
    SchemaJudge,
    columns_named,
    expectation_of,
    judge,
    new_context,
    quiet,
)
from kfloop.core.expectations.kinds import FLOAT, kind_of
from kfloop.core.expectations.outcomes import ERROR
from kfloop.core.spark import handover, session

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from kfloop.core.expectations.checks import Check
    from kfloop.core.sections import SparkConfig

ROWS_PER_BATCH = 1 << 17
COLUMN_KEYS = ("column", "column_A", "column_B")


def evaluate(table: pa.Table, checks: list[Check], config: SparkConfig, folder: Path) -> list[dict[str, Any]]:
    """Each check's result on the table, in order.

    Args:
        table: The manifest, memory-mapped: it is written for Spark a batch at a time.
        checks: The checks.
        config: Section ``spark``.
        folder: Where it is written, in a folder of its own that is deleted afterwards; the executors must see it.

    Raises:
        ConfigError: Great Expectations does not know an expectation or its arguments; pyspark or Java is missing; no such master.
        TransientError: Spark's process was killed, or its master does not answer.
    """
    quiet()
    expectations = [None if check.broken and check.supported else expectation_of(check) for check in checks]
    schema = SchemaJudge(table)
    found = [schema.result(check, expectation) for check, expectation in zip(checks, expectations, strict=True)]
    left = [check for check, result in zip(checks, found, strict=True) if result is None]
    if left:
        with session(config) as spark, handover(folder, "manifest") as place:
            results = iter(_judged(spark, _handed(spark, table, left, place), table, left))
        found = [next(results) if result is None else result for result in found]
    return [result for result in found if result is not None]


def _handed(spark: SparkSession, table: pa.Table, checks: list[Check], place: Path) -> DataFrame:
    """The columns that checks look at, as Spark reads them: under plain names (a dot in a name would be a path to Spark), NaN as missing, rows numbered."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import functions as f

    names = columns_named(table, checks)
    light = table.select(names).rename_columns([_alias(table, name) for name in names])
    kinds = {field.name: kind_of(field.type) for field in light.schema}
    path, start = (place / "rows.parquet").as_posix(), 0
    with pq.ParquetWriter(path, light.schema.append(pa.field(counting.ROW, pa.int64()))) as writer:
        for batch in light.to_batches(max_chunksize=ROWS_PER_BATCH):
            numbers = pa.array(range(start, start + batch.num_rows), pa.int64())
            writer.write_batch(batch.append_column(counting.ROW, numbers))
            start += batch.num_rows
    frame = spark.read.parquet(path)
    floats = [name for name, kind in kinds.items() if kind == FLOAT]
    return frame.withColumns({name: f.when(~f.isnan(name), f.col(name)) for name in floats})


def _judged(spark: SparkSession, frame: DataFrame, table: pa.Table, checks: list[Check]) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        source = new_context().data_sources.add_spark("kfloop", persist=False)
        asset = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
        batch = asset.get_batch({"dataframe": frame.drop(counting.ROW)})
    held = {_alias(table, field.name): kind_of(field.type) for field in table.schema}
    results = []
    for check in checks:
        named = _renamed(check, {name: _alias(table, name) for name in table.schema.names})
        result = (
            counting.count(frame, named, held) if counting.counts(check) else judge(named, expectation_of(named), batch)
        )
        if result["word"] == ERROR:  # Great Expectations takes a process that is gone for a broken check
            spark.range(1).count()
        results.append(_told(result, check, table))
    return results


def _alias(table: pa.Table, name: str) -> str:
    return f"column_{table.schema.get_field_index(name)}"


def _renamed(check: Check, aliases: Mapping[str, str]) -> Check:
    def arguments(told: Mapping[str, Any]) -> dict[str, Any]:
        new = {key: aliases.get(told[key], told[key]) for key in COLUMN_KEYS if key in told}
        if "column_list" in told:
            new["column_list"] = [aliases.get(name, name) for name in told["column_list"]]
        return {**told, **new}

    columns = tuple(aliases.get(name, name) for name in check.columns)
    return replace(check, kwargs=arguments(check.kwargs), fitted=arguments(check.fitted), columns=columns)


def _told(result: dict[str, Any], check: Check, table: pa.Table) -> dict[str, Any]:
    """The result under the names that the suite knows."""
    names = table.schema.names
    detail = result["detail"]
    if result["word"] == ERROR:
        detail = re.sub(r"\bcolumn_(\d+)\b", lambda found: names[int(found[1])], detail)
    return result | {"column": check.where, "detail": detail}
