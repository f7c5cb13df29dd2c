"""Rows of the request log by their ids: file by file, and of each file only the columns and rows that are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Row:
    """One logged request.

    Attributes:
        ts_ns: Its time.
        version: Version that answered it.
        answer: Its answer, flat, [K].
        embedding: Its embedding, flat, [D]; [0] where the log has none, or none was asked for.
        review: Whether it was flagged for review.
    """

    ts_ns: int
    version: int
    answer: Array
    embedding: Array
    review: bool


def find_rows(
    folder: Path, wanted: Collection[str], *, answer: str, embedding: bool, since: str = ""
) -> tuple[dict[str, Row], str]:
    """Look for requests; of one that was logged twice the first row counts. Files that cannot be read are left to the watch over traffic, which tells of them.

    Args:
        folder: The model's folder of the request log; it may not exist.
        wanted: Ids of requests.
        answer: Name of the output that is the model's answer.
        embedding: Whether embeddings are needed.
        since: Name of the first hour to look into, such as ``20261122T01``; hours are those of writing.

    Returns:
        The rows by id, and the name of the newest hour.
    """
    found: dict[str, Row] = {}
    newest = since
    for path in model_files(folder):
        if path.parent.name < since:
            continue
        newest = max(newest, path.parent.name)
        for name, row in _matches(path, wanted, answer, embedding=embedding).items():
            found.setdefault(name, row)
    return found, newest


def _matches(path: Path, wanted: Collection[str], answer: str, *, embedding: bool) -> dict[str, Row]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as opened:
            names = set(opened.schema_arrow.names)
            short = "probabilities" in names  # image classifiers are logged under short names, see serving/packets.py
            answers = "probabilities" if short else f"output.{answer}"
            vectors = "embedding" if short else "output.embedding"
            if not {"request_id", "ts_ns", "version", answers} <= names:
                return {}
            mask = pc.is_in(
                opened.read(columns=["request_id"])["request_id"], value_set=pa.array(list(wanted), pa.string())
            )
            if not pc.any(mask).as_py():
                return {}
            columns = ["request_id", "ts_ns", "version", answers]
            columns += [vectors] if embedding and vectors in names else []
            columns += ["review"] if "review" in names else []
            rows: list[dict[str, Any]] = opened.read(columns=columns).filter(mask).to_pylist()
        return _told(rows, answers, vectors)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException):  # deleted or damaged
        return {}


def _told(rows: list[dict[str, Any]], answers: str, vectors: str) -> dict[str, Row]:
    """Rows by id.

    Raises:
        ValueError: A cell is something else than the log holds.
        TypeError: Likewise.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if row["ts_ns"] is None or row["version"] is None:
            continue
        told = Row(
            ts_ns=int(row["ts_ns"]),
            version=int(row["version"]),
            answer=_flat(row[answers]),
            embedding=_flat(row.get(vectors)),
            review=bool(row.get("review")),
        )
        found.setdefault(str(row["request_id"]), told)
    return found


def _flat(value: Any) -> Array:
    """A list or a single number as [K]; missing ones are NaN."""
    if value is None:
        return np.zeros(0)
    cells = value if isinstance(value, list) else [value]
    return np.array([np.nan if cell is None else cell for cell in cells], float)
