"""Header and first rows of a table, and what reads its times."""

from __future__ import annotations

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa


CSV_SUFFIXES = frozenset({".csv", ".tsv"})
PARQUET_SUFFIXES = frozenset({".parquet", ".pq"})
MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-nan", "#n/a", "#na", "<na>"})
DELIMITERS = ",;\t|"
HEAD_BYTES = 65_536
HEAD_ROWS = 500
MOSTLY = 0.9  # share of the first times that one format must read
WHOLE = re.compile(r"[+-]?\d{1,18}")
# Day first or month first cannot be told apart with slashes after the day: those are left to the reader of the error.
FORMATS = (
    "%Y%m%d",
    "%Y-%m",
    "%Y/%m/%d %H:%M:%S",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%d.%m.%Y %H:%M:%S",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y",
)


@dataclass(frozen=True, kw_only=True)
class Head:
    """Header and first rows of a table.

    Attributes:
        path: The file.
        columns: Names in order.
        rows: Cells of the first rows as text; missing ones empty.
        delimiter: Of a CSV file; None for Parquet.
    """

    path: Path
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    delimiter: str | None

    def cells(self, column: str) -> list[str]:
        """First cells of a column that are not missing."""
        place = self.columns.index(column)
        return [row[place] for row in self.rows if row[place].lower() not in MISSING]


def read_head(path: Path, delimiter: str | None) -> Head:
    """Header and first rows of a CSV or Parquet file.

    Raises:
        InputError: Not UTF-8, not Parquet, or without header.
    """
    return _parquet_head(path) if path.suffix.lower() in PARQUET_SUFFIXES else _csv_head(path, delimiter)


def is_number(cell: str) -> bool:
    """Whether a cell reads as a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def numeric(head: Head, column: str) -> bool:
    """Whether most of the first cells are numbers; so is a column without any."""
    cells = head.cells(column)
    return 2 * sum(is_number(cell) for cell in cells) >= len(cells)


def time_format(cells: list[str]) -> str | None:
    """The format that reads most of the cells, or None; the few others are set aside row by row."""
    least = math.ceil(MOSTLY * len(cells))
    whole = [cell for cell in cells if WHOLE.fullmatch(cell)]
    if not cells:
        return None
    if len(whole) >= least:
        dates = all(len(cell) == len("20260131") and cell[:2] in {"19", "20"} for cell in whole)
        return FORMATS[0] if dates and _reads(whole, FORMATS[0]) == len(whole) else "int"
    return next((name for name in ("iso", "zone", *FORMATS[1:]) if _reads(cells, name) >= least), None)


def parse_times(texts: pa.Array, name: str) -> pa.Array:
    """Texts as int64 or timestamp[us] (UTC where they have an offset).

    Raises:
        pa.ArrowInvalid: A text does not fit.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if name == "int":
        return pc.cast(texts, pa.int64())
    if name == "iso":
        return pc.cast(texts, pa.timestamp("us"))
    if name == "zone":
        return pc.cast(pc.cast(texts, pa.timestamp("us", tz="UTC")), pa.timestamp("us"))
    return pc.strptime(texts, format=name, unit="us")


def _reads(cells: list[str], name: str) -> int:
    """How many of the cells a format reads."""
    import pyarrow as pa

    try:
        parse_times(pa.array(cells, type=pa.string()), name)
    except pa.ArrowException:
        return 0 if len(cells) == 1 else sum(_reads([cell], name) for cell in cells)
    return len(cells)


def _csv_head(path: Path, delimiter: str | None) -> Head:
    with path.open("rb") as stream:
        raw = stream.read(HEAD_BYTES)
        whole = len(raw) < HEAD_BYTES
    if not whole:
        raw = raw[: raw.rfind(b"\n") + 1] or raw
    try:
        lines = raw.decode("utf-8-sig").splitlines(keepends=True)
    except UnicodeDecodeError as error:
        row = raw[: error.start].count(b"\n")
        raise InputError(
            f"'{path}' line {row + 1}: byte {raw[error.start]:#04x} is not UTF-8", hint="save the file again with UTF-8"
        ) from error
    if not lines or not lines[0].strip():
        raise InputError(
            f"'{path}' is empty: expected a header", hint="write the names of the columns in the first line"
        )
    if delimiter is None:
        delimiter = max(DELIMITERS, key=lambda mark: (lines[0].count(mark), -DELIMITERS.index(mark)))
    rows = list(csv.reader(lines[: HEAD_ROWS + 1], delimiter=delimiter))
    columns = tuple(name.strip() for name in rows[0])
    cells = tuple(tuple(cell.strip() for cell in row) for row in rows[1:] if len(row) == len(columns))
    return Head(path=path, columns=columns, rows=cells, delimiter=delimiter)


def _parquet_head(path: Path) -> Head:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
            batch = next(file.iter_batches(batch_size=HEAD_ROWS), None)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"'{path}' is not a Parquet file: {error}", hint="write it again") from error
    cells = batch.to_pylist() if batch is not None else []
    rows = [tuple("" if row[name] is None else str(row[name]) for name in columns) for row in cells]
    return Head(path=path, columns=columns, rows=tuple(rows), delimiter=None)
