"""Tables: CSV, Parquet and JSON lines; also texts and labels that stand in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.ingest.readers.table import parquet as table_parquet
from kfloop.components.ingest.readers.table.delimited import open_csv
from kfloop.components.ingest.readers.table.dialect import first_lines
from kfloop.components.ingest.readers.table.features import kept_texts
from kfloop.components.ingest.readers.table.json_lines import open_json_lines
from kfloop.components.ingest.readers.table.roles import find_roles
from kfloop.components.ingest.readers.table.source import source_of
from kfloop.components.ingest.readers.text import reader as text
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.errors import InputError

if TYPE_CHECKING:
    from kfloop.components.ingest.readers.table.feed import Feed, Texts
    from kfloop.components.ingest.source import Source
    from kfloop.core.sections import DataConfig

CSV = frozenset({".csv", ".tsv"})
JSON_LINES = frozenset({".jsonl", ".ndjson"})


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether a path is a table, by its suffix; ``.tsv`` without a header is left to the reader of text lines."""
    try:
        if path.is_dir():
            return table_parquet.has_parts(path)
        kind = _suffix(path)
        if kind == ".tsv" and text.recognise(path, config):
            return False
        return path.is_file() and (kind in CSV | JSON_LINES or kind in table_parquet.SUFFIXES)
    except OSError:
        return False


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a CSV (possibly packed), Parquet (file or folder of parts) or JSON lines file; nothing of it is kept in memory.

    Rows are streamed: the label, id and split columns are read once for the classes, and everything again by ``batches``.
    ``config.limit`` keeps the rows whose number has the smallest hash. In CSV, empty fields and NA, N/A, NaN, null and None are missing, labels
    included.

    Args:
        path: The file or folder.
        config: Section ``data``.
        like: The base source, when these are freshly labelled rows.

    Raises:
        InputError: What is there cannot be used; the message names row and column.
        ConfigError: The configuration asks for what a table cannot be.
    """
    if like is not None and _is_header_only(path):
        digest = file_sha256(path)[:DIGEST_LENGTH]
        return replace(like, uri=str(path), n=0, digest=digest, batches=lambda: iter(()), suggestions={}, notes=())
    return source_of(open_feed(path, config, like), config, str(path), like)


def open_feed(path: Path, config: DataConfig, like: Source | None = None) -> Feed:
    """The typed columns of a file or folder, before anybody says what they are for.

    Args:
        path: The file or folder.
        config: Section ``data``.
        like: The base source, when these are freshly labelled rows.

    Raises:
        InputError: What is there cannot be used.
    """
    if not path.exists():
        raise InputError(f"'{path}' does not exist", hint="paths are relative to the loop file")

    def texts(columns: Sequence[str]) -> frozenset[str]:
        if config.modality == "text":
            return frozenset(columns)
        return find_roles(columns, config, f"'{path}'").taken() | kept_texts(like, config)

    return open_rows(path, config.delimiter, texts)


def open_rows(path: Path, delimiter: str | None, texts: Texts) -> Feed:
    """The typed columns of what is there, by its suffix: Parquet, JSON lines, else CSV.

    Args:
        path: The file, or a folder of Parquet parts.
        delimiter: Of CSV; found out when left out.
        texts: Which columns of CSV stay texts.

    Raises:
        InputError: What is there cannot be used.
    """
    kind = _suffix(path)
    if path.is_dir() or kind in table_parquet.SUFFIXES:
        return table_parquet.open_parquet(path)
    if kind in JSON_LINES:
        return open_json_lines(path)
    return open_csv(path, delimiter, texts)


def has_columns(path: Path) -> bool:
    """Whether a file says which columns its rows have, going by its suffix."""
    return _suffix(path) in JSON_LINES or _suffix(path) in table_parquet.SUFFIXES


def is_csv(path: Path) -> bool:
    """Whether a file is CSV, going by its suffix."""
    return _suffix(path) in CSV


def _is_header_only(path: Path) -> bool:
    """Whether a CSV file waits for its first row."""
    return path.is_file() and _suffix(path) in CSV and len([line for line in first_lines(path) if line.strip()]) == 1


def _suffix(path: Path) -> str:
    """Suffix in small letters, that before ``.gz`` for a packed file."""
    found = path.suffix.lower()
    return Path(path.stem).suffix.lower() if found == ".gz" else found
