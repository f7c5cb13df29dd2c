"""The rows of a replay: read by the readers of ``ingest``, in the order of time, with what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.labels.names import class_names
from kfloop.components.ingest.labels.plan import plain_labels
from kfloop.components.ingest.readers.table.kinds import normalise
from kfloop.components.ingest.readers.table.reader import open_feed, recognise
from kfloop.components.ingest.readers.table.roles import find_roles
from kfloop.errors import ConfigError, InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.ingest.readers.table.feed import Feed
    from kfloop.core.sections import DataConfig

START_NS = 946_684_800_000_000_000  # rows without a time begin with the year 2000
SHOWN = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Rows in the order of time.

    Attributes:
        table: Every column of the source, in its type; a cell that could not be read is missing.
        label: Name of the label column.
        truth: Label of each row as the source writes it, as text; None where it has none, object [n].
        times_ns: Time of each row, nanoseconds since 1970, not descending, int64 [n].
        learnable: Rows that have a label and no unreadable cell, bool [n].
        digest: Digest of the source.
        aside: Rows of the source that are not here, because they have no fields or no time that can be read.
        notes: What a person should know, one sentence each.
    """

    table: pa.Table
    label: str
    truth: NDArray[np.object_]
    times_ns: NDArray[np.int64]
    learnable: NDArray[np.bool_]
    digest: str
    aside: int
    notes: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.times_ns)

    def when(self, row: int) -> str:
        """Time of a row, ISO 8601, UTC."""
        return datetime.fromtimestamp(self.times_ns[row] / 1e9, tz=UTC).isoformat(timespec="seconds")


def read_stream(path: Path, config: DataConfig, step: float | None) -> Stream:
    """Read the rows that are replayed; all of them are held in memory.

    Args:
        path: CSV, Parquet (file or folder of parts) or JSON lines.
        config: Section ``data`` of the loop; names label and time.
        step: Seconds between two rows; null means that column ``data.time`` tells the time.

    Raises:
        InputError: There is no such file, it is empty or no table, a column is missing, or time goes backwards.
        ConfigError: Nothing tells the time of a row.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="name a CSV, Parquet or JSON lines file with --rows")
    if not recognise(path, config):
        raise InputError(
            f"'{path}' is no table that can be replayed",
            hint="name a CSV (.csv), Parquet (.parquet) or JSON lines (.jsonl) file",
        )
    if config.time is None and step is None:
        raise ConfigError(
            f"nothing tells the time of a row of '{path}'",
            hint="name its column with --time (data.time), or say how far rows are apart: --step 30m",
        )
    asked = config.model_copy(update={"time": None}) if step is not None else config
    feed = open_feed(path, asked)
    roles = find_roles(list(feed.types), asked, f"'{path}'")
    table, numbers, bad = _read(feed)
    times = _times(table, roles.time, len(numbers), step)
    known = times != np.iinfo(np.int64).min
    if not known.any():
        raise InputError(f"no row of '{path}' has a time (column '{roles.time}')", hint="name another column: --time")
    labels = class_texts(table[roles.label])
    clean = ~np.isin(numbers, list(bad))
    stream = Stream(
        table=table.filter(known),
        label=roles.label,
        truth=labels[known],
        times_ns=times[known],
        learnable=(clean & np.array([label is not None for label in labels]))[known],
        digest=feed.digest,
        aside=feed.n - int(known.sum()),
        notes=(),
    )
    _refuse_backwards(stream, path, numbers[known], feed)
    return replace(stream, notes=_notes(stream, bad))


def class_texts(column: Any) -> NDArray[np.object_]:
    """Name of each row's class as ``ingest`` spells it; None where there is no label."""
    values = plain_labels(normalise("label", column)).to_pylist()
    names = class_names(dict.fromkeys(value for value in values if value is not None), None)
    return np.array([None if value is None else names[value] for value in values], dtype=object)


def _read(feed: Feed) -> tuple[pa.Table, NDArray[np.int64], dict[int, str]]:
    """All rows, their numbers in the source, and what is wrong with rows by number."""
    import pyarrow as pa

    tables, numbers = [], []
    bad: dict[int, str] = {}
    for rows in feed.read(list(feed.types)):
        tables.append(pa.table({name: normalise(name, rows.table[name]) for name in feed.types}))
        numbers.append(rows.numbers)
        bad |= rows.bad
    return pa.concat_tables(tables), np.concatenate(numbers), bad


def _times(table: pa.Table, column: str | None, n: int, step: float | None) -> NDArray[np.int64]:
    """Nanoseconds since 1970, int64 [n]; the smallest number where a row has no time."""
    import pyarrow as pa

    if column is None:
        return START_NS + (np.arange(n) * int((step or 0.0) * 1e9)).astype(np.int64)
    values = table[column]
    if pa.types.is_timestamp(values.type):
        values, scale = values.cast(pa.int64()), 1000
    elif pa.types.is_integer(values.type):
        scale = 1_000_000_000
    else:
        raise InputError(
            f"column '{column}' is of type {values.type}, expected times or whole seconds since 1970",
            hint="write times such as 2024-05-01T12:00:00, or say how far rows are apart: --step 30m",
            column=column,
        )
    missing = values.is_null().to_numpy(zero_copy_only=False)
    found = values.fill_null(0).to_numpy().astype(np.int64) * scale
    return np.where(missing, np.iinfo(np.int64).min, found)


def _refuse_backwards(stream: Stream, path: Path, numbers: NDArray[np.int64], feed: Feed) -> None:
    back = np.flatnonzero(np.diff(stream.times_ns) < 0)
    if len(back):
        at = int(back[0]) + 1
        raise InputError(
            f"'{path}', {feed.place(int(numbers[at]))}: its time {stream.when(at)} is before that of the row before, {stream.when(at - 1)}",
            hint="a replay needs the rows in the order of time: sort the file by its time",
            rows=len(back),
        )


def _notes(stream: Stream, bad: dict[int, str]) -> tuple[str, ...]:
    notes = []
    if bad:
        first = "; ".join(list(bad.values())[:SHOWN])
        notes.append(f"{len(bad)} rows hold what cannot be read (nothing is learned from them): {first}")
    if stream.aside:
        notes.append(f"{stream.aside} rows are left out: their fields or their time cannot be read")
    unlabelled = sum(label is None for label in stream.truth)
    if unlabelled:
        notes.append(f"{unlabelled} rows have no label: they are answered, and nobody knows how well")
    return tuple(notes)
