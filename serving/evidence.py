"""Evidence of a roll-out: one row for each request that champion and challenger both answered.

Lies as Parquet in ``MODEL/rollout/SALT/`` of the request log, one folder for each roll-out. Files appear by rename and are never changed.
Columns: request_id, ts_ns, champion_version, challenger_version, champion_error and challenger_error (bool), champion_us and challenger_us
(microseconds), rows, difference (float64 for each row, 0 for the same answer), champion_answer and challenger_answer (string for each row), dropped
(records lost so far by the process that wrote).
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER = "rollout"
_WRITTEN = [0]


def evidence_folder(folder: Path, model: str, salt: str) -> Path:
    """Where the evidence of one roll-out lies, in the request log ``folder``."""
    return folder / model / FOLDER / salt


def write_evidence(folder: Path, heads: list[dict[str, Any]]) -> None:
    """Write what the served model sent; one file for each roll-out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    alike: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for head in heads:
        if str(head["rollout"]).isalnum():  # it names a folder
            alike.setdefault((head["model"], head["rollout"]), []).append(head["record"] | {"dropped": head["dropped"]})
    for (model, salt), records in alike.items():
        place = evidence_folder(folder, model, salt)
        place.mkdir(parents=True, exist_ok=True)
        _WRITTEN[0] += 1
        name = f"{time.time_ns():020d}-{os.getpid()}-{_WRITTEN[0]:06d}.parquet"
        pq.write_table(pa.Table.from_pylist(records, schema=_schema()), place / f".{name}.tmp", compression="zstd")
        (place / f".{name}.tmp").replace(place / name)


def evidence_files(folder: Path, model: str, salt: str) -> list[Path]:
    """The files of one roll-out, oldest first; hidden ones are not finished."""
    return sorted(evidence_folder(folder, model, salt).glob("[!.]*.parquet"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of one file, oldest first."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as opened:
        return sorted(opened.read().to_pylist(), key=lambda row: int(row["ts_ns"]))


def read_evidence(folder: Path, model: str, salt: str) -> list[dict[str, Any]]:
    """The rows of one roll-out in the order in which they were written."""
    return [row for path in evidence_files(folder, model, salt) for row in read_rows(path)]


def samples(rows: list[dict[str, Any]], *, ratio: float, close: float) -> dict[str, np.ndarray]:
    """What the tests bet on as soon as a request is answered, one number for each request, in the order of the requests.

    Args:
        rows: Evidence.
        ratio: Times the champion's own time from which on a request was slow.
        close: Largest difference at which two answers agree.

    Returns:
        ``errors`` in [-1, 1]: challenger failed minus champion failed. ``latency`` 0 or 1: slow. ``disagreement`` in [0, 1]: share of its
        rows. The last two leave out the requests for which they cannot be told.
    """
    answered = [row for row in rows if not row["champion_error"] and not row["challenger_error"]]
    return {
        "errors": np.array([float(row["challenger_error"]) - float(row["champion_error"]) for row in rows], float),
        "latency": np.array([float(row["challenger_us"] > ratio * row["champion_us"]) for row in answered], float),
        "disagreement": np.array(
            [np.mean(np.array(row["difference"]) > close) for row in answered if row["difference"]], float
        ),
    }


def quality(row: Mapping[str, Any], truth: Mapping[str, Any], objective: str) -> float | None:
    """What the test of quality bets on: champion right minus challenger right, over the labelled rows of a request that both answered.

    Args:
        row: Evidence of the request.
        truth: Labels that came later, by the id of the row.
        objective: What the model does, as in its signature.

    Returns:
        A number in [-1, 1]; null where no row has a label that can be compared.
    """
    found = []
    for number, (first, second) in enumerate(zip(row["champion_answer"], row["challenger_answer"], strict=False)):
        name = row["request_id"] if row["rows"] == 1 else f"{row['request_id']}#{number}"
        if name in truth and first and second:
            found.append(_wrong(second, truth[name], objective) - _wrong(first, truth[name], objective))
    told = np.array(found, float)
    told = told[np.isfinite(told)]
    # Of numbers who is nearer: how much nearer has no bound, and so no bet.
    return float(np.sign(told).mean()) if len(told) else None


def _wrong(answer: str, label: Any, objective: str) -> float:
    """0 for a right answer and 1 for a wrong one; of numbers the distance."""
    if objective == "classification":
        return float(answer != str(label))
    if objective == "multilabel":
        return float(
            set(json.loads(answer)) != {str(name) for name in (label if isinstance(label, list | tuple) else [label])}
        )
    try:
        return abs(float(answer) - float(label))
    except (TypeError, ValueError):
        return float("nan")


def _schema() -> Any:
    import pyarrow as pa

    kinds = {
        "request_id": pa.string(),
        "ts_ns": pa.int64(),
        "champion_version": pa.int64(),
        "challenger_version": pa.int64(),
        "champion_error": pa.bool_(),
        "challenger_error": pa.bool_(),
        "champion_us": pa.int64(),
        "challenger_us": pa.int64(),
        "rows": pa.int64(),
        "difference": pa.list_(pa.float64()),
        "champion_answer": pa.list_(pa.string()),
        "challenger_answer": pa.list_(pa.string()),
        "dropped": pa.int64(),
    }
    return pa.schema(list(kinds.items()))
