"""The request log read and sorted by Spark: for logs of more rows, or of more files that overlap in time, than one machine reads in a round.

Spark filters and sorts, and what it hands over are the arrays of the other reader, so that the watches see no difference. Its order is exact, however many
files overlap.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from kfloop.components.monitor.log.reading import LATEST, are_names, arrays_of, columns_of, hold_numbers
from kfloop.components.monitor.log.traffic import CHUNK_ROWS, Reader
from kfloop.core.request_cells import cell_length
from kfloop.core.spark import handover, scratch_of, session
from kfloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray
    from pyspark.sql import DataFrame, SparkSession

    from kfloop.components.monitor.log.layout import Layout
    from kfloop.core.sections import MonitorConfig, SparkConfig
    from kfloop.core.workspace import Workspace

KIND = "file_kind"
WHOLE = ("ts_ns", "version", "latency_us")
Kinds = list[tuple["pa.Schema", list[Path]]]


def open_reader(config: MonitorConfig, workspace: Workspace, version: int, layout: Layout, now: float) -> Reader:
    """The reader that ``monitor.engine`` names.

    Args:
        config: Section ``monitor``.
        workspace: Places of the loop.
        version: The champion's version.
        layout: How its rows stand in the log.
        now: The clock of the round, seconds since 1970.

    Raises:
        ConfigError: ``spark.folder`` is in S3.
    """
    told = (workspace.request_log, workspace.loop, version, layout, now)
    if config.engine != "spark":
        return Reader(*told)
    scratch = scratch_of(config.spark, workspace)
    if isinstance(scratch, str):
        raise ConfigError(
            f"monitor.engine is 'spark' and spark.folder is '{scratch}': the monitor hands sorted rows over in a folder",
            hint="name a folder on a volume that this process and all executors see, or set monitor.engine: pyarrow (the conclusions are the same)",
        )
    return SparkReader(*told, config=config.spark, scratch=scratch)


class SparkReader(Reader):
    """A reader whose new rows Spark filters and sorts; the few latest ones, which are sized and shown, it reads itself.

    Args:
        *told: What `Reader` takes.
        config: Section ``spark``.
        scratch: Folder for the sorted rows, which this process and all executors see; they are deleted once they were read.
    """

    def __init__(self, *told: Any, config: SparkConfig, scratch: Path) -> None:
        super().__init__(*told)
        self._config, self._scratch = config, scratch

    def _batches(self, since: int) -> Iterator[tuple[dict[str, NDArray[Any]], int]]:
        """Rows after `since`, of all files in the order of time."""
        paths = list(dict.fromkeys(part.path for part in self._listing.parts if part.high > since))
        kinds = self._kinds(paths)
        if not kinds:
            return
        with handover(self._scratch, "requests") as place:
            with session(self._config) as spark:
                sources = self._write(spark, kinds, since, (place / "sorted").as_posix())
            for path in sorted(
                Path(place, "sorted").glob("*.parquet")
            ):  # Spark numbers them in the order of their rows
                for rows in _read_back(path, sources, self._layout):
                    yield rows, LATEST

    def _kinds(self, paths: list[Path]) -> Kinds:
        """The files by what is read from them: those of another release or another model have other columns."""
        found: dict[bytes, tuple[pa.Schema, list[Path]]] = {}
        for path in paths:
            try:
                schema = _wanted(path, self._layout)
            except FileNotFoundError:  # merged or deleted since it was listed
                continue
            except (OSError, ValueError, KeyError) as error:
                self._fail(path, error)
                continue
            found.setdefault(schema.serialize().to_pybytes(), (schema, []))[1].append(path)
        return list(found.values())

    def _write(self, spark: SparkSession, kinds: Kinds, since: int, place: str) -> list[pa.Schema]:
        """Let Spark write the sorted rows, without files that it cannot read; it reads all of them before it writes any."""
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
        from pyspark.errors import PySparkException

        while True:
            schemas = [schema for schema, paths in kinds if paths]
            kinds = [(schema, paths) for schema, paths in kinds if paths]
            if not kinds:
                return schemas
            frames = [_frame(spark, number, schema, paths, since) for number, (schema, paths) in enumerate(kinds)]
            union = functools.reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), frames)
            try:
                union.orderBy("ts_ns", "request_id").write.mode("overwrite").parquet(place)
            except (Py4JJavaError, PySparkException) as error:
                bad = _unreadable(error, [path for _, paths in kinds for path in paths])
                if bad is None:
                    raise
                if bad.exists():
                    self._fail(bad, "Spark cannot read it")
                kinds = [(schema, [path for path in paths if path != bad]) for schema, paths in kinds]
            else:
                return schemas

    def _fail(self, path: Path, error: object) -> None:
        self._failed[path] = f"request log file {path.relative_to(self._root).as_posix()}: {error}"


def _wanted(path: Path, layout: Layout) -> pa.Schema:
    """The columns of a file that are read, with their metadata.

    Raises:
        KeyError: It lacks one that must be there.
        ValueError: A time, version or latency is missing or no whole number, a request id is missing or no text, or a tensor is no list of numbers.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    footer = pq.read_metadata(path)
    schema = footer.schema.to_arrow_schema()
    names = columns_of(set(schema.names), layout).names
    for name in WHOLE:
        missing = _missing(footer, name)
        if missing or not pa.types.is_integer(schema.field(name).type):
            message = f"expected whole numbers, found {schema.field(name).type} with {missing} missing"
            raise ValueError(message)
    missing, kind = _missing(footer, "request_id"), schema.field("request_id").type
    if missing or not are_names(kind):
        message = f"expected request ids as text, found {kind} with {missing} missing"
        raise ValueError(message)
    for name in set(names) - {*WHOLE, "request_id", "review"}:
        if cell_length(schema.field(name)) is None and not hold_numbers(schema.field(name).type):
            message = f"expected lists of numbers, found {schema.field(name).type}"
            raise ValueError(message)
    return pa.schema([schema.field(name) for name in names])


def _missing(footer: Any, name: str) -> int:
    place = next(i for i in range(footer.num_columns) if footer.schema.column(i).path == name)
    told = [footer.row_group(group).column(place).statistics for group in range(footer.num_row_groups)]
    return sum(int(bounds.null_count or 0) for bounds in told if bounds is not None)


def _frame(spark: SparkSession, number: int, schema: pa.Schema, paths: list[Path], since: int) -> DataFrame:
    """New rows of one kind of file; its columns under names of its own, since others may hold other types under the same."""
    from pyspark.sql import functions as f

    cells = [f.col(f"`{name}`").alias(f"{KIND}_{number}_{place}") for place, name in enumerate(schema.names)]
    rows = spark.read.parquet(*(path.as_posix() for path in paths)).where(f.col("ts_ns") > since)
    return rows.select(f.col("request_id"), f.col("ts_ns"), f.lit(number).alias(KIND), *cells)


def _read_back(path: Path, schemas: list[pa.Schema], layout: Layout) -> Iterator[dict[str, NDArray[Any]]]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as opened:
        for batch in opened.iter_batches(CHUNK_ROWS):
            for number in sorted(set(batch.column(KIND).to_pylist())):
                rows, schema = batch.filter(pc.equal(batch.column(KIND), number)), schemas[number]
                cells = [rows.column(f"{KIND}_{number}_{place}") for place in range(len(schema))]
                fields = [field.with_type(_as_logged(field.type)) for field in schema]
                cast = [cell.cast(field.type) for cell, field in zip(cells, fields, strict=True)]
                named = pa.RecordBatch.from_arrays(cast, schema=pa.schema(fields))
                for alike in _by_shape(named):
                    yield arrays_of(alike, columns_of(set(schema.names), layout), layout)


def _by_shape(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """Rows whose lists are of the same lengths, as the files of the log hold them: Spark sorts those of all versions into one."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = [column for column in rows.columns if pa.types.is_list(column.type)]
    if not lists:
        yield rows
        return
    lengths = np.stack([pc.fill_null(pc.list_value_length(column), -1).to_numpy() for column in lists], axis=1)
    shapes, which = np.unique(lengths, axis=0, return_inverse=True)
    for shape in range(len(shapes)):
        yield rows if len(shapes) == 1 else rows.filter(pa.array(which.ravel() == shape))


def _as_logged(kind: pa.DataType) -> pa.DataType:
    """The type of a logged column after it went through Spark, which knows neither bytes of one length nor lists of one."""
    import pyarrow as pa

    return pa.list_(kind.value_type) if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) else kind


def _unreadable(error: Exception, paths: list[Path]) -> Path | None:
    """The file that Spark could not read; null where the error is about something else."""
    found = re.search(r"(?:reading file|File) (file:\S+?\.parquet)", str(error))
    name = unquote(urlsplit(found[1]).path) if found else ""
    return next((path for path in paths if path.as_posix() == name), None)
