"""Finished hours of the request log: their many small files become one, or one for each shape of rows. ``core/request_files.py`` says how readers see it.

A kill at any point leaves the parts, or the merged file with or without them; the next look goes on. Only files that a collector wrote are
merged; one that cannot be read is left where it is.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from kfloop.core.request_files import MERGED, hour_files, parts_file, replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOUR = re.compile(r"\d{8}T\d{2}")
PART = re.compile(r"\d{20}-\d+-\d{6}\.parquet")
SETTLE_SECONDS = 600.0  # after the end of an hour: nothing is being written into it any more
KEEP_SECONDS = 3600.0  # parts stay for readers that listed them before
BUFFER_BYTES = 8_000_000  # of rows in memory, for each shape
MERGED_BYTES = 256_000_000  # of parts, from which on another file begins


@dataclass(kw_only=True)
class Merged:
    """What was done in one folder.

    Attributes:
        parts: Files whose rows are in a merged file now.
        damaged: Files that cannot be read, and stay.
        waits: Whether there are parts yet to be deleted, or the work was broken off.
    """

    parts: int = 0
    damaged: int = 0
    waits: bool = False


@dataclass(kw_only=True)
class _Group:
    """Rows of one shape on their way into one file."""

    staging: Path
    writer: Any
    parts: list[Path] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)
    waiting: int = 0
    size: int = 0
    rows: int = 0

    def add(self, path: Path, table: Any) -> None:
        self.parts.append(path)
        self.tables.append(table)
        self.rows += table.num_rows
        self.size += path.stat().st_size
        self.waiting += table.nbytes
        if self.waiting >= BUFFER_BYTES:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.tables:
            self.writer.write_table(pa.concat_tables(self.tables))
        self.tables, self.waiting = [], 0

    def publish(self, at: Callable[[str], None]) -> int:
        """Make the merged file appear in place of its parts; a file alone stays as it is."""
        import pyarrow.parquet as pq

        self.flush()
        self.writer.close()
        if len(self.parts) == 1 or int(pq.read_metadata(self.staging).num_rows) != self.rows:
            self.staging.unlink()
            return 0
        newest = self.parts[-1]  # its time is the merged file's: nothing in it is deleted before it was read
        merged = newest.with_name(newest.name.removesuffix(".parquet") + MERGED)
        _sync(self.staging)
        at("written")
        names = parts_file(merged).with_suffix(".tmp")
        names.write_text("\n".join(part.name for part in self.parts) + "\n", encoding="utf-8")
        _sync(names)
        names.replace(parts_file(merged))
        at("named")
        self.staging.replace(merged)
        _sync(merged.parent)
        at("merged")
        return len(self.parts)


def is_over(hour: str, now: float) -> bool:
    """Whether nothing is written any more into the folder of an hour, ``20261122T01`` in UTC."""
    if not HOUR.fullmatch(hour):
        return False
    ends = datetime.strptime(hour, "%Y%m%dT%H").replace(tzinfo=UTC) + timedelta(hours=1)
    return now >= ends.timestamp() + SETTLE_SECONDS


def merge_hour(
    folder: Path,
    *,
    part: re.Pattern[str] = PART,
    stopped: Callable[[], bool] = lambda: False,
    at: Callable[[str], None] = lambda _: None,
) -> Merged:
    """Merge the files of one hour, and delete the parts of what was merged long enough ago.

    Memory is bounded by the largest file and 8 MB for each shape of rows.

    Args:
        folder: Folder of an hour that is over, of which this process is the only owner.
        part: Names of the files that are merged.
        stopped: Asked between two files whether to break off.
        at: Called with the name of each stage reached, for tests.
    """
    waits = _sweep(folder, at)
    done = merge_files([path for path in hour_files(folder) if part.fullmatch(path.name)], stopped=stopped, at=at)
    done.waits |= waits or done.parts > 0
    return done


def merge_files(
    paths: list[Path],
    *,
    most: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
    at: Callable[[str], None] = lambda _: None,
) -> Merged:
    """Merge files of one folder; the parts stay, hidden behind what they became, and one that fits no other stays as it is.

    Args:
        paths: The files, oldest first.
        most: Bytes of parts, from which on another file begins; those of a merged hour when left out.
        stopped: Asked between two files whether to break off.
        at: Called with the name of each stage reached, for tests.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    done = Merged()
    groups: dict[Any, _Group] = {}
    for path in paths:
        if stopped():
            done.waits = True
            break
        try:
            with pq.ParquetFile(path) as opened:
                table = opened.read()
        except (OSError, ValueError, pa.ArrowException):
            done.damaged += 1
            continue
        key = (table.schema.to_string(), *_widths(table))
        if key in groups and groups[key].size >= (most or MERGED_BYTES):
            done.parts += groups.pop(key).publish(at)
        if key not in groups:
            staging = path.with_name(f".{path.name}{MERGED}.tmp")
            groups[key] = _Group(staging=staging, writer=pq.ParquetWriter(staging, table.schema, compression="zstd"))
        groups[key].add(path, table)
    for group in groups.values():
        if done.waits and stopped():
            group.writer.close()
            group.staging.unlink()
        else:
            done.parts += group.publish(at)
    return done


def _widths(table: Any) -> Iterator[tuple[int, int]]:
    """Shortest and longest row of each list: versions may differ in it, and readers take no file in which rows do."""
    import pyarrow as pa
    import pyarrow.compute as pc

    for column in table.columns:
        if pa.types.is_list(column.type) and len(column):
            found = pc.min_max(pc.list_value_length(column)).as_py()
            yield found["min"], found["max"]


def _sweep(folder: Path, at: Callable[[str], None]) -> bool:
    """Delete parts that no reader needs any more, and what a kill left behind; whether some have yet to go."""
    for left in folder.glob(".*.parquet.tmp"):
        left.unlink(missing_ok=True)
    waits = False
    for names in folder.glob(f".*{MERGED}.parts"):
        merged = folder / names.name[1:].removesuffix(".parts")
        try:
            young = time.time() - merged.stat().st_mtime < KEEP_SECONDS
        except FileNotFoundError:  # it was never published: the parts are all there is
            names.unlink()
            continue
        if young:
            waits = True
            continue
        delete_parts(merged, at)
    return waits


def delete_parts(merged: Path, at: Callable[[str], None] = lambda _: None) -> None:
    """Delete what a merged file was made of; first the parts, so that none ever counts again."""
    for part in replaced(merged):
        part.unlink(missing_ok=True)
        at("deleted")
    parts_file(merged).unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """What is deleted next must not be all there is after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
