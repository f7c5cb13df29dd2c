"""Reading the request log: every file once, whatever happened to some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

COLUMNS = ("request_id", "ts_ns", "version", "image", "probabilities", "embedding", "latency_us")


@dataclass(frozen=True, kw_only=True)
class RequestLog:
    """Logged rows of one model, oldest file first.

    Attributes:
        ids: Request ids, str [N].
        ts_ns: Times in nanoseconds since 1970, int64 [N].
        versions: Version that answered, int64 [N].
        images: uint8 [N, H*W*C].
        probabilities: float32 [N, K].
        embeddings: float32 [N, D].
        latency_us: int64 [N].
        files: Names of the files that were read, relative to the model's folder.
        problems: One sentence for each file that could not be used.
    """

    ids: np.ndarray
    ts_ns: np.ndarray
    versions: np.ndarray
    images: np.ndarray
    probabilities: np.ndarray
    embeddings: np.ndarray
    latency_us: np.ndarray
    files: tuple[str, ...]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)


def read_requests(folder: Path, model: str, seen: Collection[str] = ()) -> RequestLog:
    """The logged rows of files that are not in ``seen``.

    A file that cannot be read, or whose rows have another width than the rows before, is named in ``problems`` and counts as read.

    Args:
        folder: Root of the request log.
        model: Name of the model.
        seen: Names of files that were read before.
    """
    root = folder / model
    names = sorted(path.relative_to(root).as_posix() for path in root.glob("*/*.parquet")) if root.is_dir() else []
    parts: list[dict[str, np.ndarray]] = []
    files, problems = [], []
    for name in names:
        if name in seen:
            continue
        files.append(name)
        try:
            part = _read(root / name)
        except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
            problems.append(f"{name}: {error}")
            continue
        if parts and any(part[key].shape[1:] != parts[0][key].shape[1:] for key in COLUMNS):
            problems.append(f"{name}: its rows have another shape than the rows before")
            continue
        parts.append(part)
    joined = {key: np.concatenate([part[key] for part in parts]) if parts else _empty(key) for key in COLUMNS}
    return RequestLog(
        ids=joined["request_id"],
        ts_ns=joined["ts_ns"],
        versions=joined["version"],
        images=joined["image"],
        probabilities=joined["probabilities"],
        embeddings=joined["embedding"],
        latency_us=joined["latency_us"],
        files=tuple(files),
        problems=tuple(problems),
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(COLUMNS))
    if table.num_rows == 0:
        message = "no rows"
        raise ValueError(message)
    return {key: _column(table[key].combine_chunks()) for key in COLUMNS}


def _column(array: Any) -> np.ndarray:
    import pyarrow as pa

    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        flat = array.flatten().to_numpy(zero_copy_only=False)
        if len(flat) % len(array):
            message = "rows of different lengths"
            raise ValueError(message)
        return np.asarray(flat.reshape(len(array), -1))
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _empty(key: str) -> np.ndarray:
    dtypes = {"request_id": object, "image": np.uint8, "probabilities": np.float32, "embedding": np.float32}
    shape = (0, 0) if key in {"image", "probabilities", "embedding"} else (0,)
    return np.empty(shape, dtypes.get(key, np.int64))
