"""What the request log holds, whatever happened to some of its files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from pathlib import Path


def logged_ids(folder: Path, model: str) -> frozenset[str]:
    """Request ids of every file that can be read, whatever the model takes.

    Args:
        folder: Root of the request log.
        model: Name of the model.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: set[str] = set()
    for path in model_files(folder / model):
        try:
            found.update(pq.read_table(path, columns=["request_id"])["request_id"].to_pylist())
        except (OSError, ValueError, KeyError, pa.ArrowException):  # the monitor names such files
            continue
    return frozenset(found)
