"""The request log as the monitor needs it: the rows of one champion, oldest first, and everything that was wrong with the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.serving.requests import RequestLog, read_requests

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

OTHER_SHAPE = "another shape"


@dataclass(frozen=True, kw_only=True, eq=False)
class Traffic:
    """Rows of the request log that one model version answered.

    Attributes:
        ids: Request ids, [n].
        ts_ns: Time of each request, nanoseconds since 1970, ascending, [n].
        embedding: Embeddings, NaN where they have another length, [n, D].
        answers: The model's answers, likewise, [n, K].
        images: The logged image of each row, flat; empty where the model takes none.
        other_versions: Number of rows that other versions answered.
        problems: What was wrong with the log, one sentence each.
    """

    ids: NDArray[np.str_]
    ts_ns: NDArray[np.int64]
    embedding: NDArray[np.float64]
    answers: NDArray[np.float64]
    images: list[NDArray[np.uint8]]
    other_versions: dict[str, int]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)


def read_traffic(folder: Path, model: str, version: int, *, answer: str, embedding: int, answers: int) -> Traffic:
    """Read the rows of `version` from the request log; a request logged twice counts once.

    Args:
        folder: Root of the request log; it may not exist yet.
        model: Name of the model.
        version: The champion's version.
        answer: Name of the output that is the model's answer.
        embedding: Length of an embedding, D.
        answers: Length of an answer, K.
    """
    logs, problems = _read(folder, model, answer)
    versions = np.concatenate([log.versions for log in logs])
    others, counts = np.unique(versions[versions != version], return_counts=True)
    ids = np.concatenate([log.ids for log in logs]).astype(str)
    ts_ns = np.concatenate([log.ts_ns for log in logs])
    mine = np.flatnonzero(versions == version)
    mine = mine[np.lexsort((ids[mine], ts_ns[mine]))]
    first = np.sort(np.unique(ids[mine], return_index=True)[1])
    if len(first) < len(mine):
        problems.append(f"{len(mine) - len(first)} rows repeat a request id; each request counts once")
    kept = mine[first]
    images = [image for log in logs for image in log.images]
    return Traffic(
        ids=ids[kept],
        ts_ns=ts_ns[kept],
        embedding=np.concatenate([_fitted(log.embeddings, len(log), embedding) for log in logs])[kept],
        answers=np.concatenate([_fitted(log.answers, len(log), answers) for log in logs])[kept],
        images=[images[row] for row in kept.tolist()],
        other_versions={str(name): int(count) for name, count in zip(others, counts, strict=True)},
        problems=tuple(problems),
    )


def _read(folder: Path, model: str, answer: str) -> tuple[list[RequestLog], list[str]]:
    """Read the whole log, one part for each shape of rows: two versions may differ in the length of their embedding."""
    logs = [read_requests(folder, model, answer=answer)]
    problems: list[str] = []
    # Always of the first listing: meanwhile these files may have become one.
    while left := {name for name in logs[-1].files if _is_other_shape(logs[-1], name)}:
        logs.append(read_requests(folder, model, left, answer=answer))
    for log in logs:
        problems += [f"request log file {line}" for line in log.problems if OTHER_SHAPE not in line]
    return logs, problems


def _is_other_shape(log: RequestLog, name: str) -> bool:
    return any(line.startswith(f"{name}: ") and OTHER_SHAPE in line for line in log.problems)


def _fitted(rows: NDArray[np.float32], count: int, width: int) -> NDArray[np.float64]:
    """Return [count, width]; rows of another length are NaN."""
    if rows.ndim == 2 and rows.shape[1] == width:  # noqa: PLR2004 - a matrix
        return rows.astype(np.float64)
    return np.full((count, width), np.nan)
