"""Which columns of a table are the time, the channels and the label of a series: found out from its header and first rows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.ingest.readers.series.head import Head, is_number, numeric, read_head, time_format
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from kfloop.core.sections import DataConfig

TIME_NAMES = frozenset({"time", "date", "datetime", "timestamp", "ds"})
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+")
DATE_LIKE = re.compile(r"\d[/.: -]+\d")
LABEL_NAMES = frozenset({"label", "target", "class", "y"})
RESERVED = frozenset({"id", "label", "group", "time", "split", "origin", "content", "label_by", "label_at"})


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Roles of the columns.

    Attributes:
        head: The table.
        time: Time column.
        time_format: ``int``, ``iso``, ``zone`` (ISO 8601 with offset), or a format of ``strptime``.
        channels: Channel columns.
        label: Label column; None when the series is forecast.
        group: Column of the series id, if any.
        id: Column that names rows, if any.
        split: Column of the official split, if any.
        quantity: Whether the label is a number.
        limit: Rows that are read; None for all.
    """

    head: Head
    time: str
    time_format: str
    channels: tuple[str, ...]
    label: str | None
    group: str | None
    id: str | None
    split: str | None
    quantity: bool
    limit: int | None


def find_layout(path: Path, config: DataConfig) -> Layout:
    """Roles of the columns of a table that is a series.

    Raises:
        InputError: A told column is not there, nothing is a time, a channel is not numeric, or no channel is left.
    """
    head = read_head(path, config.delimiter)
    _check_names(head, config)
    time = guess_time(head, config.time)
    if not head.rows:
        raise InputError(f"'{path}' has a header but no rows", hint="a series needs a row for each moment")
    if time is None:
        raise _no_time(head, config)
    label = config.label
    if label is None and config.task != "forecasting" and (config.modality == "series" or config.task != "auto"):
        label = guess_label(head, config, time[0])
    roles = {time[0], label, config.group, config.id, config.split.column}
    channels = config.series.channels or tuple(name for name in head.columns if name and name not in roles)
    _check_channels(head, channels, told=config.series.channels is not None)
    return Layout(
        head=head,
        time=time[0],
        time_format=time[1],
        channels=tuple(channels),
        label=label,
        group=config.group,
        id=config.id,
        split=config.split.column,
        quantity=config.task == "regression",
        limit=config.limit,
    )


def guess_time(head: Head, told: str | None) -> tuple[str, str] | None:
    """Time column and its format: the told one, or the first that is called like a time and parses as one."""
    for column in [told] if told is not None else [name for name in head.columns if name.strip().lower() in TIME_NAMES]:
        if column in head.columns and (found := time_format(head.cells(column))) is not None:
            return column, found
    return None


def is_odd_series(head: Head, config: DataConfig) -> bool:
    """Whether a table would be a series but for the way its times are written: a column called like a time, and numbers without a label."""
    times = [name for name in head.columns if name.strip().lower() in TIME_NAMES]
    others = [name for name in head.columns if name and name not in {*times, config.group, config.id}]
    labelled = any(name.strip().lower() in LABEL_NAMES for name in others)
    return (
        config.time is None
        and len(times) == 1
        and any(DATE_LIKE.search(cell) for cell in head.cells(times[0]))
        and bool(others)
        and not labelled
        and all(head.cells(name) and numeric(head, name) for name in others)
    )


def guess_label(head: Head, config: DataConfig, time: str) -> str | None:
    """A column called like a label, the only one; but a channel to forecast when it has fractions, or numbers and no other column."""
    others = [
        name for name in head.columns if name and name not in {time, config.group, config.id, config.split.column}
    ]
    found = [name for name in others if name.strip().lower() in LABEL_NAMES]
    if len(found) != 1:
        return None
    fractions = any("." in cell and is_number(cell) for cell in head.cells(found[0]))
    alone = len(others) == 1 and numeric(head, found[0])
    quantity = alone or (fractions and config.task == "auto")
    return None if quantity else found[0]


def _check_names(head: Head, config: DataConfig) -> None:
    twice = sorted({name for name in head.columns if name and head.columns.count(name) > 1})
    if twice:
        raise InputError(f"'{head.path}' has column '{twice[0]}' twice", hint="give each column a name of its own")
    told = {
        "data.time": config.time,
        "data.label": config.label,
        "data.group": config.group,
        "data.id": config.id,
        "data.split.column": config.split.column,
    }
    named = [(field, name) for field, name in told.items() if name is not None]
    named += [("data.series.channels", name) for name in config.series.channels or ()]
    for field, name in named:
        if name not in head.columns:
            raise InputError(
                f"'{head.path}' has no column '{name}' ({field}): it has {', '.join(head.columns)}",
                hint=nearest(name, head.columns),
                column=name,
            )


def _check_channels(head: Head, channels: tuple[str, ...], *, told: bool) -> None:
    texts = [name for name in channels if not numeric(head, name)]
    numbers = [name for name in channels if name not in texts]
    if texts:
        example = next(cell for cell in head.cells(texts[0]) if not is_number(cell))
        hint = f"set data.series.channels to {', '.join(numbers)}" if numbers else "name numeric columns"
        if DECIMAL_COMMA.fullmatch(example):
            hint = "write numbers with a decimal point"
        raise InputError(
            f"'{head.path}': column '{texts[0]}' is no numeric channel: it holds '{example}'"
            + (f" (nor are {', '.join(texts[1:])})" if texts[1:] else ""),
            hint=f"{hint}; or, if '{texts[0]}' names the series of a row or its label, set data.group or data.label",
            columns=texts,
        )
    if not channels:
        raise InputError(
            f"'{head.path}' has no channel: its columns are {', '.join(head.columns)}",
            hint="a series needs one numeric column or more beside the time"
            + (" in data.series.channels" if told else ""),
        )
    taken = [name for name in channels if name in RESERVED]
    if taken:
        raise InputError(
            f"'{head.path}': a channel is called '{taken[0]}', which means something else in a dataset version",
            hint=f"rename the column, or leave it out of data.series.channels ({', '.join(name for name in numbers if name not in taken)})",
            column=taken[0],
        )


def _no_time(head: Head, config: DataConfig) -> InputError:
    named = [config.time] if config.time else [name for name in head.columns if name.strip().lower() in TIME_NAMES]
    if not named:
        return InputError(
            f"'{head.path}' has no time column: it has {', '.join(head.columns)}", hint="name the column in data.time"
        )
    cells = head.cells(named[0])
    for row, cells_of_row in enumerate(head.rows, start=1):
        cell = cells_of_row[head.columns.index(named[0])]
        if cell and time_format([cell]) is None:
            return InputError(
                f"'{head.path}' row {row}, column '{named[0]}': '{cell}' is no time",
                hint="write times as 2026-01-31 12:00:00 (ISO 8601) or as whole numbers",
                row=row,
                column=named[0],
            )
    return InputError(
        f"'{head.path}', column '{named[0]}': "
        + (
            f"times are written in different ways, such as '{cells[0]}' and '{cells[-1]}'"
            if cells
            else "no time in the first rows"
        ),
        hint="write all times the same way, as 2026-01-31 12:00:00 (ISO 8601) or as whole numbers",
        column=named[0],
    )
