"""Texts with labels: a file with a label and a text on each line, or a folder of ``.txt`` files in class subfolders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.ingest.labels.columns import LABEL_NAMES
from kfloop.components.ingest.readers.table.source import source_of
from kfloop.components.ingest.readers.text.folder import is_text_folder, open_text_folder
from kfloop.components.ingest.readers.text.lines import open_text_lines
from kfloop.errors import InputError

if TYPE_CHECKING:
    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

TAB = "\t"
_LOOK = 1 << 16


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether a path holds labelled texts.

    A ``.txt`` file; a ``.tsv`` file of two columns whose first line is no header; any file when ``config.pattern`` has ``{text}``, or when
    the modality is text and a delimiter is told; or a folder whose subfolders hold ``.txt`` files.
    """
    try:
        if path.is_dir():
            return is_text_folder(path)
        if not path.is_file():
            return False
        suffix = path.suffix.lower()
        told = (config.pattern is not None and "{text}" in config.pattern) or (
            config.modality == "text" and config.delimiter is not None
        )
        return (
            suffix == ".txt"
            or (suffix == ".tsv" and _is_headless(path, config))
            or (told and suffix not in {".csv", ".parquet", ".pq", ".jsonl", ".ndjson", ".gz"})
        )
    except OSError:
        return False


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a file of text lines or a folder of texts; nothing of it is kept in memory.

    Bytes that are not UTF-8 become U+FFFD, whose share is the fact ``replacement``.

    Args:
        path: The file or folder.
        config: Section ``data``. ``delimiter`` stands between label and text (null: TAB, and the side that repeats is the label); ``pattern``
            tells a line's make instead, such as ``{label}:{fine} {text}``.
        like: The base source, when these are freshly labelled texts.

    Raises:
        InputError: What is there cannot be used; the message names line and column.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="paths are relative to the loop file")
    if path.is_dir():
        feed = open_text_folder(path)
        named = {"text": "text", "id": "id", "label": "label"}
    else:
        feed = open_text_lines(path, config, () if like is None else like.labels)
        named = {"text": "text", "label": "label"}
    told = config.model_copy(update=named)
    if "split" in feed.types:
        told = told.model_copy(update={"split": config.split.model_copy(update={"column": "split"})})
    return replace(source_of(feed, told, str(path), like), suggestions={})


def _is_headless(path: Path, config: DataConfig) -> bool:
    """Whether a file has two columns by TAB and no header."""
    with path.open("rb") as stream:
        lines = [line for line in stream.read(_LOOK).decode("utf-8", errors="replace").splitlines() if line.strip()]
    if not lines or lines[0].count(TAB) != 1:
        return False
    first = [name.strip().removeprefix("\ufeff") for name in lines[0].split(TAB)]
    header = {name.lower() for name in first} & set(LABEL_NAMES) or config.label in first
    return not header
