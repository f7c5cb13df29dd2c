"""The request log joined with what people found out later: served inputs become labelled examples."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.images.facts import FACTS
from kfloop.components.ingest.readers.requests.feedback import (
    Answer,
    Feedback,
    class_names,
    decide_task,
    encode,
    read_feedback,
)
from kfloop.components.ingest.readers.requests.log import (
    NEEDED,
    SHOWN,
    TRIED,
    Scan,
    example_ids,
    glimpse,
    is_log,
    listing,
    name_in,
    scan_log,
)
from kfloop.components.ingest.readers.requests.pictures import near_signature, request_facts, shape_of
from kfloop.components.ingest.source import FILES_PER_BATCH, Batch, Source
from kfloop.core.artifacts import DIGEST_LENGTH, file_sha256
from kfloop.core.request_cells import unpack
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from kfloop.core.sections import DataConfig

KIND = "requests"


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether ``path`` is a folder with ``<hour or version>/*.parquet`` as the collector writes them."""
    if config.modality not in {"auto", "image"}:
        return False
    try:
        return path.is_dir() and any(is_log(file) for file in islice(glimpse(path), TRIED))
    except OSError:
        return False


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a request log of one model whose truth is in ``config.feedback``.

    The log is read file by file; only the answers are held in memory.

    Args:
        path: Folder of the log: ``<hour>/*.parquet``, or one above it when it holds one model.
        config: What the loop file says.
        like: The source whose labels and shape the rows must have.

    Raises:
        InputError: No feedback, a bad line in it, no answer to any logged request, or images whose shape cannot be known.
    """
    files = list(listing(path))
    if not files:
        raise InputError(f"'{path}' has no request log (<hour>/*.parquet)", hint="serve the model and send requests")
    if config.feedback is None:
        raise InputError(
            f"'{path}' is a request log, which holds no labels, and data.feedback is not set",
            hint='set data.feedback to a JSON lines file with {"request_id": ..., "label": ...}',
        )
    known = read_feedback(Path(config.feedback))
    scan = scan_log(path, files, known.answers)
    if files and not scan.rows and any("'image'" in problem for problem in scan.broken.values()):
        raise InputError(
            f"the request log '{path}' holds answers but no inputs, and there is nothing to learn from without them",
            hint="set serve.log.inputs to 'full' in the loop that serves, and start its server again",
        )
    if not scan.matched:
        raise InputError(
            f"none of the {len(known.answers)} answers in '{known.path}' is about one of the {scan.rows} requests in '{path}'",
            hint=f"request ids look like {example_ids(files)} here and like {sorted(known.answers)[:SHOWN]} there",
        )
    usable = {key: answer for key, answer in known.answers.items() if key in scan.matched}
    shape, said = shape_of(scan.widths, path, config, like)
    task = decide_task(usable, known.path, like.task if like is not None else config.task)
    labels = () if task == "regression" else _labels(usable, known.path, path, like)
    encoded = encode(usable, known.path, task, labels)
    lost = _lost(known, scan)
    digest = _digest(path, files, Path(config.feedback))

    def batches() -> Iterator[Batch]:
        return _batches(path, files, usable, encoded, task, shape, lost, scan.broken)

    return Source(
        kind=KIND,
        modality="image",
        task=task,
        uri=str(path),
        labels=labels,
        n=len(scan.matched) + scan.repeated + len(lost),
        digest=digest,
        schema={"image_shape": list(shape)},
        inputs=("image",),
        facts=FACTS,
        batches=batches,
        notes=tuple(_notes(scan, known, said)),
    )


def _labels(usable: dict[str, Answer], feedback: Path, path: Path, like: Source | None) -> tuple[str, ...]:
    if like is not None:
        return class_names(usable, feedback, like.labels, strict=True)
    served = near_signature(path)[0].get("labels")
    known = [name for name in served if isinstance(name, str)] if isinstance(served, list) else []
    return class_names(usable, feedback, known, strict=False)


def _lost(known: Feedback, scan: Scan) -> list[dict[str, str]]:
    """Answers that cannot become an example, and files of the log that cannot be read."""
    unknown = [
        {
            "id": key,
            "reason": f"feedback line {answer.line}: request_id '{key}' is not in the request log",
        }
        for key, answer in known.answers.items()
        if key not in scan.matched
    ]
    files = [{"id": name, "reason": f"request log file {name}: {problem}"} for name, problem in scan.broken.items()]
    return [*known.unlabelled, *unknown, *files]


def _notes(scan: Scan, known: Feedback, said: str) -> Iterator[str]:
    yield f"{scan.rows - len(scan.matched) - scan.repeated} of {scan.rows} logged requests have no feedback and are left out"
    if said:
        yield said
    if known.changed:
        lines = ", ".join(str(line) for line in known.changed[:SHOWN])
        yield f"{len(known.changed)} requests got two different labels in '{known.path.name}': the later line counts (line {lines})"
    if scan.broken:
        name, problem = next(iter(scan.broken.items()))
        yield f"{len(scan.broken)} files of the request log are left out, such as {name}: {problem}"


def _batches(
    path: Path,
    files: list[Path],
    usable: dict[str, Answer],
    encoded: dict[str, Any],
    task: str,
    shape: tuple[int, int, int],
    lost: list[dict[str, str]],
    broken: dict[str, str],
) -> Iterator[Batch]:
    import pyarrow.parquet as pq

    seen: set[str] = set()
    rows: list[tuple[str, int | None, np.ndarray]] = []
    aside = list(lost)
    for file in files:
        if name_in(path, file) in broken:
            continue
        if not file.exists():
            aside.append({"id": name_in(path, file), "reason": "request log file: deleted while it was read"})
            continue
        with pq.ParquetFile(file) as opened:
            for part in opened.iter_batches(batch_size=FILES_PER_BATCH, columns=list(NEEDED)):
                _take(unpack(part), name_in(path, file), usable, shape, seen, rows, aside)
                if len(rows) >= FILES_PER_BATCH:
                    yield Batch(table=_table(rows, encoded, task, shape), quarantined=aside)
                    rows, aside = [], []
    if rows or aside:
        yield Batch(table=_table(rows, encoded, task, shape), quarantined=aside)


def _take(
    part: pa.RecordBatch,
    name: str,
    usable: dict[str, Answer],
    shape: tuple[int, int, int],
    seen: set[str],
    rows: list[tuple[str, int | None, np.ndarray]],
    aside: list[dict[str, str]],
) -> None:
    """Move the rows that have an answer into ``rows``, or into ``aside`` with the reason."""
    width = int(np.prod(shape))
    ids, times, images = part["request_id"].to_pylist(), part["ts_ns"].to_pylist(), part["image"]
    for place, identity in enumerate(ids):
        if identity not in usable:
            continue
        where = f"{name} row {place}, request_id '{identity}'"
        value = images[place].values
        if identity in seen:
            aside.append({"id": identity, "reason": f"{where}: logged twice, the first one is kept"})
        elif value is None or len(value) != width or value.null_count:
            found = "nothing" if value is None else f"{len(value)} values"
            aside.append({"id": identity, "reason": f"{where}: column 'image' holds {found}, expected {width}"})
        else:
            rows.append((identity, times[place], value.to_numpy(zero_copy_only=False).astype(np.uint8)))
        seen.add(identity)


def _table(
    rows: list[tuple[str, int | None, np.ndarray]],
    encoded: dict[str, Any],
    task: str,
    shape: tuple[int, int, int],
) -> pa.Table:
    """Rows as an Arrow table in the columns of a batch."""
    import pyarrow as pa

    width = int(np.prod(shape))
    ids = [identity for identity, _, _ in rows]
    flat = np.concatenate([pixels for _, _, pixels in rows]) if rows else np.empty(0, np.uint8)
    kinds = {"multiclass": pa.int64(), "multilabel": pa.list_(pa.int64()), "regression": pa.float64()}
    columns: dict[str, Any] = {
        "id": pa.array(ids, pa.string()),
        "image": pa.FixedSizeListArray.from_arrays(pa.array(flat), width),
        "label": pa.array([encoded[identity] for identity in ids], kinds[task]),
        "time": pa.array([None if at is None else at // 1000 for _, at, _ in rows], pa.timestamp("us")),
    }
    columns |= request_facts(flat.reshape(-1, *shape))
    return pa.table(columns)


def _digest(path: Path, files: list[Path], feedback: Path) -> str:
    state = hashlib.sha256(file_sha256(feedback).encode())
    for file in filter(Path.exists, files):
        state.update(f"{name_in(path, file)}\0{file_sha256(file)}\n".encode())
    return state.hexdigest()[:DIGEST_LENGTH]
