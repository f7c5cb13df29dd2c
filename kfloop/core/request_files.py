"""The finished files of a request log, each row in one of them at any moment, also while those of an hour become one.

A merged file ``NAME-merged.parquet`` stands beside the parts it was made of, for as long as somebody may still read those; the hidden file
``.NAME-merged.parquet.parts`` names them. It is written before the merged file appears and deleted after the last part: who lists a folder first and
asks for replaced names afterwards sees either all parts or the merged file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MERGED = "-merged.parquet"


def hour_files(folder: Path) -> list[Path]:
    """The files of one folder whose rows count, by name: the oldest first. Hidden ones are not finished."""
    found = sorted(folder.glob("[!.]*.parquet"))
    hidden = {part.name for path in found for part in replaced(path)}
    return [path for path in found if path.name not in hidden]


def model_files(folder: Path) -> list[Path]:
    """The files of one model's log, ``<hour>/*.parquet``, the oldest hour first; none where there is no such folder."""
    return [path for hour in sorted(folder.glob("[!.]*")) if hour.is_dir() for path in hour_files(hour)]


def replaced(path: Path) -> list[Path]:
    """The parts that a merged file was made of and that may still be there; none for other files."""
    if not path.name.endswith(MERGED):
        return []
    try:
        return [path.with_name(name) for name in parts_file(path).read_text(encoding="utf-8").split()]
    except FileNotFoundError:  # they are deleted
        return []


def parts_file(merged: Path) -> Path:
    """The file that names the parts."""
    return merged.with_name(f".{merged.name}.parts")
