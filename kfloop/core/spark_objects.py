"""Tables in S3 for Spark's executors, without a file system of Hadoop's: each of them fetches its row groups itself, through pyarrow.

pyspark comes without the Java classes for ``s3a://`` (hadoop-aws), and a cluster's must be of its own Hadoop's version. Executors have pyarrow already, for
``mapInArrow`` needs it, and pyarrow speaks S3. They need no kfloop: what they run travels as code. Credentials are those of each executor's environment;
none travels. No row passes through the driver, of Java or of Python.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from kfloop.core.addresses import redacted, resolved
from kfloop.core.blobs import written_at
from kfloop.core.object_errors import failure
from kfloop.core.spark import KEPT_S, said
from kfloop.errors import ConfigError, KfloopError, StateError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

TASKS = 4096  # most tasks of one reading; each reads its row groups one after the other
ROWS_AT_ONCE = 8192
ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
EXECUTORS = (
    "executors take their credentials from their own environment: on Kubernetes spark.settings "
    "{spark.kubernetes.executor.secretKeyRef.AWS_SECRET_ACCESS_KEY: kfloop-s3:AWS_SECRET_ACCESS_KEY}, and likewise AWS_ACCESS_KEY_ID"
)


def is_object_url(folder: str) -> bool:
    """Whether a folder is one in S3."""
    return folder.startswith("s3://")


class ObjectFolder:
    """A folder of one task in S3.

    Args:
        url: Below which it lies.
        what: Beginning of its name.

    Raises:
        ConfigError: s3fs is missing, or a variable that the address refers to is not set.
    """

    def __init__(self, url: str, what: str) -> None:
        from fsspec.core import url_to_fs  # type: ignore[import-untyped]

        self.url, self._what, self._name = url.rstrip("/"), what, f"{what}-{uuid.uuid4().hex[:12]}"
        with self._told("opened"):
            self._files, root = url_to_fs(resolved(self.url), skip_instance_cache=True, use_listings_cache=False)
        self._root = str(root).rstrip("/")

    def write(self, name: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
        """Put a table there, a row group for each batch; memory holds one of them.

        Returns:
            Row groups written.

        Raises:
            StateError: The store refuses.
            TransientError: It cannot be reached.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        fitted, groups = _fitted(schema), 0
        with (
            self._told("written"),
            self._files.open(self._at(name), "wb") as stream,
            pq.ParquetWriter(stream, fitted) as writer,
        ):
            for batch in batches:
                if batch.num_rows:
                    table = pa.Table.from_batches([batch]).cast(fitted)
                    writer.write_table(table, row_group_size=table.num_rows)
                    groups += 1
        return groups

    def read(self, spark: SparkSession, name: str, schema: pa.Schema, groups: int, rows: int) -> DataFrame:
        """The table that was written; executors hold its rows, in memory or on their disks, until `unpersist`.

        Args:
            spark: The session.
            name: Name of the table.
            schema: As it was written.
            groups: Its row groups.
            rows: Its rows; as many must come.

        Raises:
            ConfigError: Executors have no pyarrow.
            StateError: They may not read it, or other rows came than were written.
            TransientError: They do not reach it.
        """
        from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
        from pyspark import StorageLevel
        from pyspark.errors import PySparkException
        from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema

        wanted = from_arrow_schema(_fitted(schema))
        tasks = max(1, min(groups, TASKS))
        reader = _reader(self._at(name), to_arrow_schema(wanted, timezone="UTC"), _first(ENDPOINTS), _first(REGIONS))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # pyspark about pandas, which is not used here
            frame = spark.range(0, groups, 1, tasks).mapInArrow(reader, wanted).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            came = frame.count()
        except (Py4JJavaError, PySparkException) as error:
            frame.unpersist()
            raise self._of_executors(error) from error
        if came != rows:
            frame.unpersist()
            raise StateError(
                f"'{redacted(self.url)}/{self._name}/{name}' gave {came} rows to Spark, {rows} were written"
            )
        return frame

    def sweep(self) -> None:
        """Delete what a task that was killed left behind more than a day ago."""
        with contextlib.suppress(FileNotFoundError), self._told("listed"):
            newest: dict[str, float] = {}
            for path, info in self._files.find(self._root, detail=True).items():
                top = str(path)[len(self._root) + 1 :].partition("/")[0]
                newest[top] = max(newest.get(top, 0.0), written_at(info))
            for top, at in newest.items():
                if top.startswith(f"{self._what}-") and at < time.time() - KEPT_S:
                    self._files.rm(f"{self._root}/{top}", recursive=True)

    def remove(self) -> None:
        """Delete the folder; what cannot be deleted now is deleted by a later `sweep`."""
        with contextlib.suppress(Exception):
            self._files.rm(f"{self._root}/{self._name}", recursive=True)

    def _at(self, name: str) -> str:
        return f"{self._root}/{self._name}/{name}"

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except KfloopError:
            raise
        except Exception as error:
            absent = "is the bucket there?"
            message = f"spark.folder '{redacted(self.url)}' cannot be {what}"
            raise failure(error, self.url, message, absent=absent, terminal=StateError) from error

    def _of_executors(self, error: Exception) -> KfloopError:
        """What executors say of S3, in the words of pyarrow's client."""
        whole, place = str(error), redacted(self.url)
        lines = [line.strip() for line in whole.splitlines() if "AWS Error" in line or "Error:" in line]
        message = f"Spark's executors cannot read spark.folder '{place}': {lines[-1] if lines else said(error)}"
        if "No module named" in whole:
            return ConfigError(message, hint="they need the Python of this process with pyarrow, and nothing of kfloop")
        if any(word in whole for word in ("ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE", "PermissionError")):
            return StateError(message, hint=EXECUTORS)
        if any(
            word in whole
            for word in (
                "NETWORK_CONNECTION",
                "SLOW_DOWN",
                "INTERNAL_FAILURE",
                "SERVICE_UNAVAILABLE",
                "REQUEST_TIMEOUT",
            )
        ):
            return TransientError(message, hint="do they reach the server that this process reaches? then run it again")
        return TerminalError(message, hint="look at the log of the executors")


@contextlib.contextmanager
def object_handover(url: str, what: str) -> Iterator[ObjectFolder]:
    """A folder of one task in S3, through which rows go to Spark; deleted after the body.

    Args:
        url: Below which it is made.
        what: Beginning of its name.
    """
    folder = ObjectFolder(url, what)
    folder.sweep()
    try:
        yield folder
    finally:
        folder.remove()


def _reader(key: str, schema: pa.Schema, endpoint: str, region: str) -> Callable[[Iterator[Any]], Iterator[Any]]:
    """What an executor runs: from numbers of row groups to their rows."""
    endpoints, regions, rows_at_once = ENDPOINTS, REGIONS, ROWS_AT_ONCE

    # A function of a function travels to the executors as code: they need no kfloop.
    def read(numbers: Iterator[Any]) -> Iterator[Any]:
        import os
        from urllib.parse import urlsplit

        import pyarrow as pa
        import pyarrow.parquet as pq
        from pyarrow.fs import S3FileSystem

        def told(names: tuple[str, ...], otherwise: str) -> str:
            return next((os.environ[name] for name in names if os.environ.get(name)), otherwise)

        place = urlsplit(told(endpoints, endpoint))
        settings: dict[str, Any] = {"region": told(regions, region) or None}
        if place.netloc:
            settings |= {"endpoint_override": place.netloc, "scheme": place.scheme}
        store = S3FileSystem(**settings)
        for batch in numbers:
            for number in batch.column(0).to_pylist():
                with store.open_input_file(key) as stream, pq.ParquetFile(stream) as opened:
                    for rows in opened.iter_batches(rows_at_once, row_groups=[number]):
                        cells = [rows.column(field.name).cast(field.type) for field in schema]
                        yield pa.RecordBatch.from_arrays(cells, schema=schema)

    return read


def _first(names: tuple[str, ...]) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def _fitted(schema: pa.Schema) -> pa.Schema:
    """The types that Spark knows, those that its own reading of Parquet gives."""
    import pyarrow as pa

    wider = {
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.decimal128(20, 0),
    }
    wider |= {pa.float16(): pa.float32(), pa.string_view(): pa.string()}

    def fitted(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_dictionary(kind):
            return fitted(kind.value_type)
        if pa.types.is_timestamp(kind):
            return pa.timestamp("us", kind.tz)
        return wider.get(kind, kind)

    return pa.schema([pa.field(field.name, fitted(field.type)) for field in schema])
