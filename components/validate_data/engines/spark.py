"""Great Expectations on Spark: the rows stand on disk, and Spark's executors hold them.

Where its Spark engine means something else than its pandas engine (measured with 1.24.1: pairs with missing values, interpolated quantiles, the order of
rows, Java's regular expressions), Spark's own aggregates count what the other engines count: see ``counting``.
"""

from __future__ import annotations

import warnings
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
from kfloop.components.validate_data.engines.naming import Naming
from kfloop.core.expectations.kinds import FLOAT, kind_of
from kfloop.core.expectations.outcomes import ERROR
from kfloop.core.spark import handover, session

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from kfloop.core.expectations.checks import Check
    from kfloop.core.sections import SparkConfig

ROWS_PER_BATCH = 1 << 17


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
            naming = Naming(table.schema.names, always=True)
            held = {field.name: kind_of(field.type) for field in naming.table(table.slice(0, 0)).schema}
            frame = _handed(spark, table, naming, left, place)
            results = iter(_judged(spark, frame, naming, left, held))
        found = [next(results) if result is None else result for result in found]
    return [result for result in found if result is not None]


def _handed(spark: SparkSession, table: pa.Table, naming: Naming, checks: list[Check], place: Path) -> DataFrame:
    """The columns that checks look at, as Spark reads them: NaN as missing, rows numbered."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import functions as f

    light = naming.table(table.select(columns_named(table, checks)))
    path, start = (place / "rows.parquet").as_posix(), 0
    with pq.ParquetWriter(path, light.schema.append(pa.field(counting.ROW, pa.int64()))) as writer:
        for batch in light.to_batches(max_chunksize=ROWS_PER_BATCH):
            numbers = pa.array(range(start, start + batch.num_rows), pa.int64())
            writer.write_batch(batch.append_column(counting.ROW, numbers))
            start += batch.num_rows
    frame = spark.read.parquet(path)
    floats = [field.name for field in light.schema if kind_of(field.type) == FLOAT]
    return frame.withColumns({name: f.when(~f.isnan(name), f.col(name)) for name in floats})


def _judged(
    spark: SparkSession, frame: DataFrame, naming: Naming, checks: list[Check], held: dict[str, str]
) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        source = new_context().data_sources.add_spark("kfloop", persist=False)
        asset = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
        batch = asset.get_batch({"dataframe": frame.drop(counting.ROW)})
    results = []
    for check in checks:
        named = naming.check(check)
        own = counting.counts(check)
        result = counting.count(frame, named, held) if own else judge(named, expectation_of(named), batch)
        if result["word"] == ERROR:  # Great Expectations takes a process that is gone for a broken check
            spark.range(1).count()
        results.append(naming.told(result, check))
    return results
