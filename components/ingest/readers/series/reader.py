"""A time series in a CSV or Parquet file: one row for each moment, in order."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.columns import class_names
from kfloop.components.ingest.readers.series.head import CSV_SUFFIXES, PARQUET_SUFFIXES, Head, numeric, read_head
from kfloop.components.ingest.readers.series.layout import LABEL_NAMES, Layout, find_layout, guess_time, is_odd_series
from kfloop.components.ingest.readers.series.notes import enough_rows, notes
from kfloop.components.ingest.readers.series.reading import Block, read_blocks
from kfloop.components.ingest.readers.series.scan import Scan, scan
from kfloop.components.ingest.source import Batch, Source
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kfloop.core.sections import DataConfig

KIND = "series"


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether ``path`` is a table with a time column and nothing that looks like a label, or told to be a series."""
    if not path.is_file() or path.suffix.lower() not in CSV_SUFFIXES | PARQUET_SUFFIXES:
        return False
    if config.modality != "auto":
        return config.modality == "series"
    if config.task not in {"auto", "forecasting"} or config.label is not None or config.text is not None:
        return False
    try:
        return _looks_like_series(read_head(path, config.delimiter), config)
    except (InputError, OSError, ValueError):
        return False


def _looks_like_series(head: Head, config: DataConfig) -> bool:
    time = guess_time(head, config.time)
    if time is None:
        return config.task == "auto" and is_odd_series(head, config)  # the reader says what is wrong with its times
    if config.task == "forecasting":
        return True
    others = [name for name in head.columns if name and name not in {time[0], config.group, config.id}]
    named = [name for name in others if name.strip().lower() in LABEL_NAMES]
    # One column of numbers beside the time is a series whatever it is called: as a table it would have no input.
    return bool(others) and (not named or (others == named and len(others) == 1 and numeric(head, others[0])))


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a series; one pass checks its times and counts its gaps.

    Args:
        path: CSV, TSV or Parquet file.
        config: What the loop file says: ``time``, ``group``, ``series`` and, for the label of a row, ``modality: series`` and ``label``.
        like: The series whose channels and labels the rows must have.

    Raises:
        InputError: No time column, times out of order or twice, a channel that is not numeric, too few rows for one window in each split,
            or channels or labels that ``like`` does not have.
    """
    if not path.is_file():
        raise InputError(f"'{path}' is not there: expected a CSV or Parquet file", hint="check data.source")
    if like is not None:
        config = config.model_copy(update={"task": like.task, "modality": like.modality})
    layout = find_layout(path, config)
    task = _task(layout, config)
    found = scan(layout)
    if found.rows == 0:
        raise InputError(
            f"'{path}' has no usable row" + (f": {found.first_bad}" if found.first_bad else ""),
            hint="a series needs rows with a time and numbers",
        )
    labels = _labels(layout, task, found, like)
    _same_channels(path, layout, like)
    if like is not None:
        _no_moment_twice(path, layout, like)
    context, stride = config.series.context, config.series.stride
    horizon = config.series.horizon if task == "forecasting" else 0
    sizes = {
        "context": context,
        "horizon": horizon,
        "stride": stride,
        "channels": list(layout.channels),
        "step_seconds": found.step_seconds,
    }
    if like is None:
        enough_rows(path, config, found, context=context, horizon=horizon)

    def batches() -> Iterator[Batch]:
        return (_batch(layout, task, labels, block) for block in read_blocks(layout))

    return Source(
        kind=KIND,
        modality="series",
        task=task,
        uri=str(path),
        labels=labels,
        n=found.rows + found.n_bad,
        digest=file_sha256(path)[:DIGEST_LENGTH],
        schema={"series": sizes},
        inputs=("time", *layout.channels),
        facts=(),
        batches=batches,
        suggestions=_suggestions(layout, config),
        notes=notes(layout, config, found),
    )


def _task(layout: Layout, config: DataConfig) -> str:
    task = config.task
    if task == "auto":
        task = "forecasting" if layout.label is None else "multiclass"
    if task == "forecasting" and layout.label is not None:
        raise InputError(
            f"data.task is 'forecasting' and data.label is '{layout.label}'",
            hint="remove data.label to forecast every channel, or set data.task to multiclass or regression",
        )
    if task == "multilabel":
        raise InputError(
            "data.task is 'multilabel', which a series cannot be",
            hint="set data.task to forecasting, multiclass or regression",
        )
    if task != "forecasting" and layout.label is None:
        raise InputError(
            f"data.task is '{task}', but '{layout.head.path}' has no column called like a label: it has {', '.join(layout.head.columns)}",
            hint="name the column in data.label",
        )
    return task


def _labels(layout: Layout, task: str, found: Scan, like: Source | None) -> tuple[str, ...]:
    if task != "multiclass":
        return ()
    if like is None:
        names = class_names(found.labels)
        if len(names) <= 1:
            raise InputError(
                f"'{layout.head.path}', column '{layout.label}' has one class only ('{''.join(names)}'): expected two or more",
                hint="name another column in data.label",
            )
        return names
    for name, row in found.labels.items():
        if name not in like.labels:
            raise InputError(
                f"'{layout.head.path}' row {row}, column '{layout.label}': '{name}' is a class that data.source does not have",
                hint=nearest(name, like.labels) + " A new class must be added to data.source itself.",
                label=name,
            )
    return like.labels


def _no_moment_twice(path: Path, layout: Layout, like: Source) -> None:
    """Refuse fresh rows of a moment that the source has already, in the same group.

    Raises:
        InputError: Naming the moment.
    """
    known: dict[str | None, list[Any]] = {}
    for batch in like.batches():
        for group, times in _moments(batch):
            known.setdefault(group, []).append(times)
    held = {group: np.concatenate(times) for group, times in known.items()}
    for block in read_blocks(layout):
        for group, times in _moments(_batch(layout, like.task, like.labels, block)):
            there = held.get(group, times[:0])
            twice = times[np.isin(times, there)] if there.dtype == times.dtype else times[:0]
            if len(twice):
                of = "" if group is None else f" of '{group}'"
                raise InputError(
                    f"'{path}', column '{layout.time}': {len(twice)} moments{of} are in data.source already, such as {twice[0]}",
                    hint="keep only rows that data.source does not have",
                    column=layout.time,
                )


def _moments(batch: Batch) -> Iterator[tuple[str | None, Any]]:
    """Times of each group in a batch, as numpy arrays."""
    times = batch.table["time"].to_numpy()
    if "group" not in batch.table.column_names:
        yield None, times
        return
    groups = batch.table["group"].to_numpy()
    for group in np.unique(groups):
        yield str(group), times[groups == group]


def _same_channels(path: Path, layout: Layout, like: Source | None) -> None:
    if like is None:
        return
    known = list(like.schema["series"]["channels"])
    if list(layout.channels) != known:
        raise InputError(
            f"'{path}' has the channels {', '.join(layout.channels)}: data.source has {', '.join(known)}",
            hint="give the new rows the columns of data.source, in the same order",
        )


def _suggestions(layout: Layout, config: DataConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if config.time is None:
        found["time"] = layout.time
    if config.label is None and layout.label is not None:
        found["label"] = layout.label
    return found


def _batch(layout: Layout, task: str, labels: tuple[str, ...], block: Block) -> Batch:
    import pyarrow as pa
    import pyarrow.compute as pc

    columns: dict[str, Any] = {
        "id": block.ids if block.ids is not None else pc.cast(pa.array(block.rows), pa.string()),
        "time": block.times,
    }
    for place, name in enumerate(layout.channels):
        columns[name] = pa.array(np.ascontiguousarray(block.values[:, place]))
    if block.labels is not None and task == "multiclass":
        columns["label"] = pc.cast(pc.index_in(block.labels, pa.array(labels, type=pa.string())), pa.int64())
    elif block.labels is not None:
        columns["label"] = pc.cast(block.labels, pa.float64())
    if block.groups is not None:
        columns["group"] = block.groups
    if block.splits is not None:
        columns["split"] = block.splits
    aside = [{"id": str(row), "reason": f"row {row} {reason}"} for row, reason in block.bad]
    return Batch(table=pa.table(columns), quarantined=aside)
