"""Streams the rows of a series as typed blocks; a row that cannot be read is named and left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME
from kfloop.components.ingest.readers.series.head import MISSING, is_number, parse_times
from kfloop.components.ingest.source import ROWS_PER_BATCH
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.ingest.readers.series.layout import Layout

BLOCK_BYTES = 4 * 2**20


@dataclass(frozen=True, kw_only=True)
class Block:
    """Consecutive rows.

    Attributes:
        rows: Numbers of the rows in the file, from 1, the header not counted, int64 [n].
        times: int64 or timestamp[us] [n], without nulls.
        values: Channels, float64 [n, C]; NaN where a cell is missing.
        groups: Series ids, or None.
        labels: Label cells as text, or None.
        ids: Row ids, or None.
        splits: Official splits, or None.
        bad: Rows left out: number and reason.
    """

    rows: NDArray[np.int64]
    times: pa.Array
    values: NDArray[np.float64]
    groups: pa.Array | None
    labels: pa.Array | None
    ids: pa.Array | None
    splits: pa.Array | None
    bad: list[tuple[int, str]]


def read_blocks(layout: Layout) -> Iterator[Block]:
    """All rows of the table, block by block.

    Raises:
        InputError: The file stops being CSV or Parquet somewhere.
    """
    import pyarrow as pa

    stream = _parquet_batches(layout) if layout.head.delimiter is None else _csv_batches(layout)
    try:
        for rows, batch, bad in stream:
            if layout.limit is None or not len(rows) or int(rows[-1]) <= layout.limit:
                yield _block(layout, rows, batch, bad)
                continue
            size = int(np.searchsorted(rows, layout.limit, side="right"))
            yield _block(layout, rows[:size], batch[:size], [pair for pair in bad if pair[0] <= layout.limit])
            return
    except (pa.ArrowException, OSError) as error:
        raise InputError(
            f"'{layout.head.path}' cannot be read to its end: {error}", hint="is it complete, and UTF-8?"
        ) from error


def _needed(layout: Layout) -> list[str]:
    told = (layout.time, *layout.channels, layout.label, layout.group, layout.id, layout.split)
    return list(dict.fromkeys(name for name in told if name is not None))


def _csv_batches(layout: Layout) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch, list[tuple[int, str]]]]:
    import pyarrow as pa
    from pyarrow import csv

    bad: list[tuple[int, str]] = []
    width = len(layout.head.columns)

    def keep_out(row: Any) -> str:
        # The number counts lines of the file from 1, the header included.
        bad.append((int(row.number) - 1, f"has {row.actual_columns} cells, the header {width}"))
        return "skip"

    reader = csv.open_csv(
        layout.head.path,
        read_options=csv.ReadOptions(
            block_size=BLOCK_BYTES, use_threads=False, skip_rows=1, column_names=_columns(layout)
        ),
        parse_options=csv.ParseOptions(delimiter=layout.head.delimiter or ",", invalid_row_handler=keep_out),
        convert_options=csv.ConvertOptions(
            include_columns=_needed(layout),
            column_types=dict.fromkeys(_needed(layout), pa.string()),
            strings_can_be_null=True,
            null_values=[""],
        ),
    )
    reached, told = 0, 0
    for batch in reader:
        skipped = {row for row, _ in bad}
        rows = np.arange(reached + 1, reached + 1 + len(batch) + len(skipped), dtype=np.int64)
        rows = rows[~np.isin(rows, list(skipped))][: len(batch)] if skipped else rows
        reached = int(rows[-1]) if len(rows) else reached
        yield rows, batch, bad[told:]
        told = len(bad)


def _columns(layout: Layout) -> list[str]:
    """Names with the unnamed columns numbered, since Arrow wants every name once."""
    return [name or f"\0{place}" for place, name in enumerate(layout.head.columns)]


def _parquet_batches(layout: Layout) -> Iterator[tuple[NDArray[np.int64], pa.RecordBatch, list[tuple[int, str]]]]:
    import pyarrow.parquet as pq

    reached = 0
    with pq.ParquetFile(layout.head.path) as file:
        for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=_needed(layout)):
            yield np.arange(reached + 1, reached + 1 + len(batch), dtype=np.int64), batch, []
            reached += len(batch)


def _block(layout: Layout, rows: NDArray[np.int64], batch: pa.RecordBatch, bad: list[tuple[int, str]]) -> Block:
    import pyarrow as pa

    wrong: dict[int, str] = {}  # place in the batch: why
    times = _times(layout, batch[layout.time], wrong)
    values = np.empty((len(batch), len(layout.channels)), dtype=np.float64)
    for place, name in enumerate(layout.channels):
        values[:, place] = _numbers(name, batch[name], wrong)
    texts = {
        name: _texts(role, name, batch[name], wrong)
        for role, name in (("label", layout.label), ("series id", layout.group), ("row id", layout.id))
        if name is not None
    }
    splits = _splits(layout.split, batch[layout.split], wrong) if layout.split else None
    if layout.label is not None and layout.quantity:
        for place in np.flatnonzero(np.isnan(_numbers(layout.label, batch[layout.label], wrong))).tolist():
            wrong.setdefault(place, f"column '{layout.label}': no label")
    keep = np.ones(len(batch), dtype=bool)
    keep[list(wrong)] = False
    mask = None if keep.all() else pa.array(keep)

    def kept(array: pa.Array | None) -> pa.Array | None:
        return array if array is None or mask is None else array.filter(mask)

    return Block(
        rows=rows[keep],
        times=kept(times),
        values=values if mask is None else values[keep],
        groups=kept(texts.get(layout.group or "")),
        labels=kept(texts.get(layout.label or "")),
        ids=kept(texts.get(layout.id or "")),
        splits=kept(splits),
        bad=sorted([*bad, *((int(rows[place]), reason) for place, reason in wrong.items())]),
    )


def _times(layout: Layout, column: pa.Array, wrong: dict[int, str]) -> pa.Array:
    """Times; a cell that is none is named, and null."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = pa.int64() if layout.time_format == "int" else pa.timestamp("us")
    if not pa.types.is_string(column.type) and not pa.types.is_large_string(column.type):
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = pc.cast(column, pa.timestamp("us", tz="UTC"), safe=False)
        found = pc.cast(column, kind, safe=False)
    else:
        texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
        try:
            found = parse_times(texts, layout.time_format)
        except pa.ArrowInvalid:
            found = pa.concat_arrays([_one_time(text, layout.time_format, kind) for text in texts])
    for place in np.flatnonzero(pc.is_null(found).to_numpy(zero_copy_only=False)):
        cell = column[int(place)].as_py()
        said = "no time" if cell is None or str(cell).strip() == "" else f"'{cell}' is no time like the others"
        wrong.setdefault(int(place), f"column '{layout.time}': {said}")
    return found


def _one_time(text: pa.Scalar, name: str, kind: pa.DataType) -> pa.Array:
    import pyarrow as pa

    try:
        return pc_cast(parse_times(pa.array([text.as_py()], type=pa.string()), name), kind)
    except pa.ArrowInvalid:
        return pa.nulls(1, kind)


def pc_cast(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """``array`` as ``kind``."""
    return array if array.type == kind else array.cast(kind)


def _numbers(name: str, column: pa.Array, wrong: dict[int, str]) -> NDArray[np.float64]:
    """A channel as float64 with NaN for missing cells; a cell that is no number, or infinite, is named."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.utf8_trim_whitespace(column)
        try:
            found = pc.cast(column, pa.float64())
        except pa.ArrowInvalid:
            found = pa.array(
                [_cell(name, text.as_py(), place, wrong) for place, text in enumerate(column)], type=pa.float64()
            )
    else:
        found = pc.cast(column, pa.float64(), safe=False)
    values: NDArray[np.float64] = found.fill_null(float("nan")).to_numpy(zero_copy_only=False)
    for place in np.flatnonzero(np.isinf(values)):
        wrong.setdefault(int(place), f"column '{name}': '{column[int(place)].as_py()}' is not finite")
    return values


def _cell(name: str, text: str | None, place: int, wrong: dict[int, str]) -> float | None:
    if text is None or text.lower() in MISSING:
        return None
    if is_number(text):
        return float(text)
    wrong.setdefault(place, f"column '{name}': '{text}' is not a number")
    return None


def _texts(role: str, name: str, column: pa.Array, wrong: dict[int, str]) -> pa.Array:
    """A column as text; a missing cell is named."""
    import pyarrow as pa
    import pyarrow.compute as pc

    texts = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    empty = pc.or_kleene(pc.is_null(texts), pc.is_in(pc.utf8_lower(texts), pa.array(sorted(MISSING - {"none", "na"}))))
    for place in np.flatnonzero(empty.to_numpy(zero_copy_only=False)):
        wrong.setdefault(int(place), f"column '{name}': no {role}")
    return texts


def _splits(name: str, column: pa.Array, wrong: dict[int, str]) -> pa.Array:
    import pyarrow as pa

    found = [SPLITS_BY_NAME.get(str(cell.as_py()).strip().lower()) for cell in column]
    for place, split in enumerate(found):
        if split is None:
            wrong.setdefault(place, f"column '{name}': '{column[place].as_py()}' is no split (train, validation, test)")
    return pa.array(found, type=pa.string())
