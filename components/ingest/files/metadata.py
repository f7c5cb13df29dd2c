"""Labels of files from a ``metadata.csv`` beside them."""

from __future__ import annotations

import csv
import io
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from kfloop.components.ingest.files.items import SPLITS_BY_NAME, FileItem, FileListing
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from kfloop.core.sections import DataConfig

METADATA = "metadata.csv"
FILE_COLUMN = "file_name"
SPLIT_COLUMN = "split"
LABEL_NAMES = ("label", "target", "class", "y")


def guessed_label(table: Path) -> str | None:
    """The label column of a ``metadata.csv`` with a ``file_name`` column, when just one column is called like a label; never raises."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as stream:
            columns = next(csv.reader(stream), [])
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    candidates = [name for name in columns if name.strip().lower() in LABEL_NAMES]
    return candidates[0] if FILE_COLUMN in columns and len(candidates) == 1 else None


def read_metadata(folder: Path, config: DataConfig, label: str, *, guessed: bool = False) -> FileListing:
    """The files that ``metadata.csv`` names, with label, group, time and split where it has them.

    Args:
        folder: The folder of ``metadata.csv``; file names are relative to it.
        config: ``group``, ``time`` and ``split.column`` name columns.
        label: Name of the label column.
        guessed: Whether the label column was guessed; then it is suggested.

    Raises:
        InputError: No table, not CSV, a column that is not there, a file outside the folder, contradictory lines, or an unknown split.
    """
    table = folder / METADATA
    columns, lines = _read(table, label)
    split = config.split.column or (SPLIT_COLUMN if SPLIT_COLUMN in columns else None)
    for column in (FILE_COLUMN, label, config.group, config.time, config.split.column):
        if column is not None and column not in columns:
            raise InputError(
                f"'{table}' has no column '{column}': it has {', '.join(columns) or 'none'}",
                hint=nearest(column, columns) if columns else f"write the columns {FILE_COLUMN} and {label}",
                columns=columns,
            )
    items: dict[str, FileItem] = {}
    skipped: list[tuple[str, str]] = []
    for number, line in lines:
        cells = {key: (line.get(key) or "").strip() for key in columns}
        name = cells[FILE_COLUMN]
        if not name or not cells[label]:
            missing = f"no {label if name else FILE_COLUMN} in line {number} of {METADATA}"
            skipped.append((name or f"{METADATA}:{number}", missing))
            continue
        item = FileItem(
            id=_inside(table, number, name),
            path=folder / PurePosixPath(name),
            label=cells[label],
            group=(cells[config.group] or None) if config.group else None,
            time=(cells[config.time] or None) if config.time else None,
            split=_split(table, number, split, cells[split]) if split else None,
        )
        if items.setdefault(item.id, item) != item:
            raise _contradiction(table, number, items[item.id], item)
    return FileListing(
        layout="metadata",
        items=tuple(items[key] for key in sorted(items)),
        skipped=tuple(skipped),
        suggestions={"label": label} if guessed else {},
        notes=(f"labels come from column '{label}' of {METADATA}",) if guessed else (),
    )


def _read(table: Path, label: str) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    if not table.is_file():
        raise InputError(
            f"data.label is '{label}', but '{table.parent}' has no {METADATA}",
            hint=f"write {METADATA} with the columns {FILE_COLUMN} and {label}, or remove data.label to use subfolders as classes",
        )
    try:
        reader = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig"), newline=""), strict=True)
        lines = [(reader.line_num, line) for line in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"'{table}' is not CSV in UTF-8: {error}", hint="save it again as CSV with UTF-8") from error
    return list(reader.fieldnames or ()), lines


def _inside(table: Path, number: int, name: str) -> str:
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"'{table}' line {number}: '{name}' lies outside the folder", hint="give paths inside the folder"
        )
    return relative.as_posix()


def _split(table: Path, number: int, column: str, value: str) -> str:
    split = SPLITS_BY_NAME.get(value.lower())
    if split is None:
        raise InputError(
            f"'{table}' line {number}, column '{column}': '{value}' is no split",
            hint="write train, validation or test on every line, or call the column something else",
            row=number,
            column=column,
        )
    return split


def _contradiction(table: Path, number: int, before: FileItem, here: FileItem) -> InputError:
    for what in ("label", "split", "group", "time"):
        old, new = getattr(before, what), getattr(here, what)
        if old != new:
            return InputError(
                f"'{table}' line {number}: {what} of '{here.id}' is '{new}' here and '{old}' before",
                hint="keep one line for each file",
                row=number,
            )
    return InputError(f"'{table}' line {number}: '{here.id}' is named twice", hint="keep one line for each file")
