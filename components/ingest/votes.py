"""Answers of several people to the same examples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = ("id", "annotator", "label")
PARQUET = frozenset({".parquet", ".pq"})


def are_votes(path: Path) -> bool:
    """Whether a CSV file has the columns of votes and no others."""
    if path.suffix.lower() != ".csv" or not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        return {name.strip().strip('"') for name in stream.readline().split(",")} == set(COLUMNS)


def read_votes(path: Path) -> pa.Table:
    """The columns id, annotator and label of a CSV or Parquet file, as texts.

    Raises:
        InputError: No such file, not a table, a column is missing, or a cell is empty; names row and column.
    """
    import pyarrow as pa

    if not path.is_file():
        raise InputError(
            f"data.votes '{path}' does not exist", hint=f"write a CSV file with the columns {', '.join(COLUMNS)}"
        )
    try:
        table = _table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"data.votes '{path}' cannot be read: {error}",
            hint=f"write a CSV file with the columns {', '.join(COLUMNS)}",
        ) from error
    for column in COLUMNS:
        if column not in table.column_names:
            raise InputError(
                f"data.votes '{path}' has no column '{column}': it has {', '.join(table.column_names)}",
                hint=nearest(column, table.column_names) if table.column_names else "give it a header",
                columns=table.column_names,
            )
    table = pa.table({column: table[column].cast(pa.string()) for column in COLUMNS})
    for column in COLUMNS:
        row = _first_empty(table[column])
        if row is not None:
            raise InputError(
                f"data.votes '{path}' row {row + 1}: column '{column}' is empty", hint="fill it, or remove the row"
            )
    return table


def _table(path: Path) -> pa.Table:
    if path.suffix.lower() in PARQUET:
        import pyarrow.parquet as pq

        return pq.read_table(path)
    import pyarrow as pa
    from pyarrow import csv

    with path.open(encoding="utf-8-sig", errors="replace") as stream:
        head = stream.readline().strip()
    texts = {name.strip().strip('"'): pa.string() for name in head.split(",")}
    return csv.read_csv(path, convert_options=csv.ConvertOptions(column_types=texts, strings_can_be_null=False))


def _first_empty(column: Any) -> int | None:
    import pyarrow.compute as pc

    empty = pc.or_kleene(pc.is_null(column), pc.equal(pc.utf8_trim_whitespace(column.fill_null("")), ""))
    place = pc.index(empty, True).as_py()
    return None if place < 0 else int(place)
