"""Labels and times of files as typed columns."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.labels.names import composed
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pyarrow as pa

    from kfloop.components.ingest.files.items import FileItem, FileListing
    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

MANY_VALUES = 20  # more distinct numbers than this, not all whole, are a quantity
SEVERAL = re.compile(r"[;|]")


def choose_task(listing: FileListing, config: DataConfig, like: Source | None) -> str:
    """``multiclass``, ``multilabel`` or ``regression``: as told, as the base has it, or as the labels look.

    Raises:
        InputError: ``forecasting`` is told, which files have no part in.
    """
    if like is not None:
        return like.task
    if config.task == "forecasting":
        raise InputError(
            "data.task is 'forecasting', but the source is a folder of files",
            hint="set data.task to multiclass, multilabel or regression",
        )
    if config.task != "auto":
        return config.task
    values = {item.label for item in listing.items} if listing.layout == "metadata" else set()
    numbers = [number(value) for value in values]
    if (
        len(values) > MANY_VALUES
        and None not in numbers
        and any(value != int(value) for value in numbers if value is not None)
    ):
        return "regression"
    return "multiclass"


def number(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def several(text: str) -> list[str]:
    """Class names of a multi-label cell, separated by ``;`` or ``|``."""
    return [name for part in SEVERAL.split(composed(text)) if (name := part.strip())]


def choose_labels(items: Sequence[FileItem], task: str, where: str, like: Source | None) -> tuple[str, ...]:
    """Class names in the order of their indices.

    Raises:
        InputError: One class only; or a class that ``like`` does not have, naming the file.
    """
    if task == "regression":
        return ()
    if not items:
        raise InputError(
            f"'{where}' has no labelled file", hint="put the files of each class into a subfolder named like the class"
        )
    if like is None:
        names = class_names(name for item in items for name in _names(item.label, task))
        if len(names) <= 1:
            raise InputError(
                f"'{where}' has one class only ('{''.join(names)}', {len(items)} files): expected two or more",
                hint="put each class into a subfolder of its own, or name the label column of metadata.csv in data.label",
                labels=list(names),
            )
        return names
    for item in items:
        for name in _names(item.label, task):
            if name not in like.labels:
                raise InputError(
                    f"'{item.path}' is labelled '{name}', a class that data.source does not have",
                    hint=nearest(name, like.labels) + " A new class must be added to data.source itself.",
                    label=name,
                )
    return like.labels


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct class names; whole numbers in the order of their value."""
    names = set(labels)
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))


def label_value(text: str, task: str, index: dict[str, int]) -> Any:
    """A label as it is stored: class index, sorted indices, or a number; None when it is no number."""
    if task == "regression":
        return number(text)
    if task == "multilabel":
        return sorted({index[name] for name in several(text)})
    return index[composed(text)]


def row_label(item: FileItem, task: str, index: dict[str, int]) -> Any:
    """The label of a file as it is stored.

    Raises:
        InputError: It should be a number and is none; the file is set aside, not fatal by itself.
    """
    value = label_value(item.label, task, index)
    if value is None:
        raise InputError(f"its label '{item.label}' is not a number")
    return value


def row_types(items: Sequence[FileItem], moments: Sequence[Any], task: str) -> dict[str, pa.DataType]:
    """Arrow types of the columns that every folder of files gives: id, label, and group, time and split where a file has one."""
    import pyarrow as pa

    types = {"id": pa.string(), "label": label_type(task)}
    if any(item.group is not None for item in items):
        types["group"] = pa.string()
    first = next((moment for moment in moments if moment is not None), None)
    if first is not None:
        types["time"] = pa.int64() if isinstance(first, int) else pa.timestamp("us")
    if any(item.split is not None for item in items):
        types["split"] = pa.string()
    return types


def label_type(task: str) -> pa.DataType:
    """Arrow type of the label column."""
    import pyarrow as pa

    return {"regression": pa.float64(), "multilabel": pa.list_(pa.int64())}.get(task, pa.int64())


def times(items: Sequence[FileItem]) -> list[Any] | None:
    """Times of the files, all ISO 8601 or all whole numbers; None when no file has one.

    Raises:
        InputError: A time is neither, naming the file.
    """
    if not any(item.time for item in items):
        return None
    told = [(item, item.time) for item in items if item.time is not None]
    for read in (_instant, _whole):
        if all(read(text) is not None for _, text in told):
            return [None if item.time is None else read(item.time) for item in items]
    item, text = next((pair for pair in told if _instant(pair[1]) is None and _whole(pair[1]) is None), told[0])
    raise InputError(
        f"time '{text}' of '{item.id}' is neither ISO 8601 nor a whole number, or others are written differently",
        hint="write times as 2026-01-31T12:00:00 or as whole numbers, the same way for every file",
    )


def _names(label: str, task: str) -> list[str]:
    return several(label) if task == "multilabel" else [composed(label)]


def _instant(text: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
