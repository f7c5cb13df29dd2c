"""The files of a label check: every row's verdict, what training makes of it, and the queue for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import plain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.check_labels.judging import Judgement
    from kfloop.components.check_labels.rows import Rows

    Bools = NDArray[np.bool_]

ISSUES = "issues.parquet"
WEIGHTS = "weights.parquet"
QUEUE = "queue.jsonl"
DOUBTFUL_WEIGHT = 0.5


def write_issues(out: Path, rows: Rows, judgement: Judgement, marks: Mapping[str, Bools]) -> None:
    """Write ``issues.parquet``: one line a row, labels as they stand in the version (class index, list of them, number)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    manifest = rows.manifest
    nothing = pa.nulls(len(rows), pa.float64())
    labelled = rows.task != "forecasting"
    columns: dict[str, Any] = {
        "id": manifest["id"],
        "content": manifest["content"],
        "split": manifest["split"],
        "given": _labels(rows.given) if labelled else nothing,
        "suggested": _labels(judgement.suggested) if labelled else nothing,
        "margin": pa.array(judgement.margin, from_pandas=True),
        "confidence": pa.array(judgement.confidence, from_pandas=True),
        "flagged": judgement.flagged,
        **marks,
    }
    pq.write_table(pa.table(columns), out / ISSUES)


def _labels(labels: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    if labels.ndim == 1:
        return pa.array(labels)
    row, column = np.nonzero(labels)
    ends = np.searchsorted(row, np.arange(len(labels) + 1))
    return pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), pa.array(column.astype(np.int64)))


def write_weights(out: Path, rows: Rows, flagged: Bools, policy: str) -> None:
    """Write ``weights.parquet``: only training rows are touched, and none is ever deleted."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    doubtful = flagged & rows.in_train
    weights = np.where(doubtful & (policy == "weight"), DOUBTFUL_WEIGHT, 1.0)
    table = pa.table({"id": rows.manifest["id"], "weight": weights, "quarantined": doubtful & (policy == "quarantine")})
    pq.write_table(table, out / WEIGHTS)


def write_queue(
    out: Path, rows: Rows, judgement: Judgement, marks: Mapping[str, Bools], annotators: Mapping[str, Any] | None
) -> int:
    """Write ``queue.jsonl``: the rows people should look at and have not yet, the smallest margin first; returns how many."""
    disputed = {line["id"] for line in annotators["disputed"]} if annotators else set()
    reasons = {
        "label_issue": judgement.flagged,
        "conflict": marks["conflict"],
        "low_confidence": marks["low_confidence"],
        "annotators": np.isin(rows.texts("id"), list(disputed)) if disputed else np.zeros(len(rows), dtype=np.bool_),
    }
    picked = np.flatnonzero(np.any(list(reasons.values()), axis=0) & ~rows.settled)
    margin = np.where(np.isfinite(judgement.margin), judgement.margin, 1.0)
    picked = picked[np.argsort(margin[picked], kind="stable")]
    texts = {name: rows.texts(name, picked).tolist() for name in ("content", "id", "split")}
    with (out / QUEUE).open("w", encoding="utf-8") as stream:
        for place, row in enumerate(picked.tolist()):
            line = {
                **{name: values[place] for name, values in texts.items()},
                "given": rows.named(row) if rows.task != "forecasting" else None,
                "suggested": rows.in_words(judgement.suggested[row]) if rows.task != "forecasting" else None,
                "confidence": float(judgement.confidence[row]),
                "margin": float(judgement.margin[row]),
                "reasons": [name for name, rows_of in reasons.items() if rows_of[row]],
                "priority": place + 1,
            }
            stream.write(json.dumps(plain(line), sort_keys=True, allow_nan=False) + "\n")
    return len(picked)
