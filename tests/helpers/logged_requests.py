"""Reading the request log: every file once, whatever happened to some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.request_cells import unpack
from kfloop.core.request_files import model_files

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

COLUMNS = ("request_id", "ts_ns", "version", "image", "answers", "embedding", "latency_us")
OPTIONAL = frozenset({"image", "embedding"})  # section serve.log may leave them out: then they have no values


@dataclass(frozen=True, kw_only=True)
class RequestLog:
    """Logged rows of one model, oldest file first.

    Attributes:
        ids: Request ids, str [N].
        ts_ns: Times in nanoseconds since 1970, int64 [N].
        versions: Version that answered, int64 [N].
        images: uint8 [N, H*W*C]; [N, 0] where the model takes no images, or the log leaves inputs out.
        answers: The model's answer to each row, flat, float32 [N, K].
        embeddings: float32 [N, D]; [N, 0] where the log leaves them out.
        latency_us: int64 [N].
        files: Names of the files that were read, relative to the model's folder.
        problems: One sentence for each file that could not be used.
    """

    ids: np.ndarray
    ts_ns: np.ndarray
    versions: np.ndarray
    images: np.ndarray
    answers: np.ndarray
    embeddings: np.ndarray
    latency_us: np.ndarray
    files: tuple[str, ...]
    problems: tuple[str, ...]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)


def read_requests(
    folder: Path, model: str, files: Collection[str] | None = None, *, answer: str = "probabilities"
) -> RequestLog:
    """The logged rows of one model.

    A file that cannot be read, or whose rows have another width than the rows before, is named in ``problems`` and counts as read.

    Args:
        folder: Root of the request log.
        model: Name of the model.
        files: Names of the files to read, as an earlier reading told them; all of them when left out.
        answer: Name of the output that is the model's answer.
    """
    root = folder / model
    names = [path.relative_to(root).as_posix() for path in model_files(root)] if files is None else sorted(files)
    parts: list[dict[str, np.ndarray]] = []
    read, problems = [], []
    for name in names:
        try:
            part = _read(root / name, answer)
        except FileNotFoundError:  # deleted since the folder was listed: it had its time
            continue
        except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are ValueErrors and OSErrors
            read.append(name)
            problems.append(f"{name}: {error}")
            continue
        read.append(name)
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
        answers=joined["answers"],
        embeddings=joined["embedding"],
        latency_us=joined["latency_us"],
        files=tuple(read),
        problems=tuple(problems),
    )


def _read(path: Path, answer: str) -> dict[str, np.ndarray]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as opened:
        names = set(opened.schema_arrow.names)
        # Image classifiers are logged under short names, see packets.py.
        called = {key: key for key in COLUMNS} | {"answers": "probabilities"}
        if "probabilities" not in names:
            called |= {"answers": f"output.{answer}", "embedding": "output.embedding", "image": "input.image"}
        left_out = {key for key in OPTIONAL if called[key] not in names}
        table = unpack(opened.read(columns=[called[key] for key in COLUMNS if key not in left_out]))
    if table.num_rows == 0:
        message = "no rows"
        raise ValueError(message)
    nothing = {key: np.empty((table.num_rows, 0), _empty(key).dtype) for key in left_out}
    return nothing | {key: _column(table[called[key]].combine_chunks()) for key in COLUMNS if key not in left_out}


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
    dtypes = {"request_id": object, "image": np.uint8, "answers": np.float32, "embedding": np.float32}
    shape = (0, 0) if key in {"image", "answers", "embedding"} else (0,)
    return np.empty(shape, dtypes.get(key, np.int64))
