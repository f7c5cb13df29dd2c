"""Great Expectations on Spark: the rows stand on disk, and Spark's executors hold them.

Where its Spark engine means something else than its pandas engine (measured with 1.24.1: pairs with missing values, interpolated quantiles, the order of
rows, Java's regular expressions), Spark's own aggregates count what the other engines count: see ``counting``.
"""

from __future__ import annotations

import contextlib
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
from kfloop.core.spark_objects import object_handover

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

    from kfloop.core.expectations.checks import Check
    from kfloop.core.sections import SparkConfig

ROWS_PER_BATCH = 1 << 17
ROWS = "rows.parquet"


def evaluate(table: pa.Table, checks: list[Check], config: SparkConfig, folder: Path | str) -> list[dict[str, Any]]:
    """Each check's result on the table, in order.

    Args:
        table: The manifest, memory-mapped: it is written for Spark a batch at a time.
        checks: The checks.
        config: Section ``spark``.
        folder: Where it is written, in a folder of its own that is deleted afterwards; the executors must see it. An address ``s3://...`` is a text.

    Raises:
        ConfigError: Great Expectations does not know an expectation or its arguments; pyspark or Java is missing; no such master.
        StateError: The store of an ``s3://`` folder refuses this process, or the executors.
        TransientError: Spark's process was killed, its master does not answer, or the store of the folder cannot be reached.
    """
    quiet()
    expectations = [None if check.broken and check.supported else expectation_of(check) for check in checks]
    schema = SchemaJudge(table)
    found = [schema.result(check, expectation) for check, expectation in zip(checks, expectations, strict=True)]
    left = [check for check, result in zip(checks, found, strict=True) if result is None]
    if left:
        naming = Naming(table.schema.names, always=True)
        held = {field.name: kind_of(field.type) for field in naming.table(table.slice(0, 0)).schema}
        with session(config) as spark, _handed(spark, table, naming, left, folder) as frame:
            results = iter(_judged(spark, frame, naming, left, held))
        found = [next(results) if result is None else result for result in found]
    return [result for result in found if result is not None]


@contextlib.contextmanager
def _handed(
    spark: SparkSession, table: pa.Table, naming: Naming, checks: list[Check], folder: Path | str
) -> Iterator[DataFrame]:
    """The columns that checks look at, as Spark reads them: NaN as missing, rows numbered."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyspark.sql import functions as f

    light = naming.table(table.select(columns_named(table, checks)))
    schema = light.schema.append(pa.field(counting.ROW, pa.int64()))
    floats = [field.name for field in light.schema if kind_of(field.type) == FLOAT]
    present = {name: f.when(~f.isnan(name), f.col(name)) for name in floats}
    if isinstance(folder, str):
        with object_handover(folder, "manifest") as objects:
            groups = objects.write(ROWS, schema, _numbered(light))
            frame = objects.read(spark, ROWS, schema, groups, light.num_rows)
            try:
                yield frame.withColumns(present)
            finally:
                with contextlib.suppress(Exception):  # Spark's process may be gone
                    frame.unpersist()
        return
    with handover(folder, "manifest") as place:
        path = (place / ROWS).as_posix()
        with pq.ParquetWriter(path, schema) as writer:
            for batch in _numbered(light):
                writer.write_batch(batch)
        yield spark.read.parquet(path).withColumns(present)


def _numbered(light: pa.Table) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    start = 0
    for batch in light.to_batches(max_chunksize=ROWS_PER_BATCH):
        yield batch.append_column(counting.ROW, pa.array(range(start, start + batch.num_rows), pa.int64()))
        start += batch.num_rows


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
