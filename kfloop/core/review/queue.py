"""Building the review queue: which examples people should look at, most urgent first, and everything they need to answer."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import read_report
from kfloop.core.review.answer import Label
from kfloop.core.review.items import ANSWERABLE, CONFLICT, REASONS, QueueItem
from kfloop.core.review.showing import Shower
from kfloop.errors import ConfigError, StateError, nearest

if TYPE_CHECKING:
    import pyarrow as pa

    from kfloop.core.versions import DatasetVersion

ISSUES = "issues.parquet"
DEFAULT_REASONS = REASONS[:6]
_FLAGS = {CONFLICT: "conflict", "label_issue": "flagged", "low_confidence": "low_confidence", "outlier": "outlier"}
_NEEDED = ("id", "content", "split", "suggested", "margin", "confidence")


def build_queue(
    version: DatasetVersion,
    labels_folder: Path,
    *,
    limit: int = 200,
    reasons: Collection[str] = DEFAULT_REASONS,
    below: float | None = None,
    answered: Collection[str] = (),
) -> list[QueueItem]:
    """The examples that people should look at, one for each content: conflicts first, then by ascending margin.

    Args:
        version: The dataset version.
        labels_folder: What ``check_labels`` gave for it.
        limit: Largest number of examples.
        reasons: Which reasons count.
        below: Confidence below which a prediction is doubtful; null takes what ``check_labels`` decided.
        answered: Content that people settled before, left out.

    Raises:
        ConfigError: A reason is unknown, or the limit is not positive.
        StateError: The folder holds no usable ``issues.parquet``, or one of another dataset version.
    """
    for reason in reasons:
        if reason not in REASONS:
            raise ConfigError(f"no reason is called '{reason}'", hint=nearest(reason, REASONS))
    if limit < 1:
        raise ConfigError(f"limit {limit} is not positive", hint="say how many examples people can look at")
    if version.task not in ANSWERABLE:
        return []
    report = _report(labels_folder)
    found = _doubtful(labels_folder, [reason for reason in REASONS if reason in reasons], below, report)
    rows = _one_per_content([row for row in found if row["content"] not in answered])[:limit]
    shower = Shower(version)
    places = shower.places((row["split"], row["content"], row["id"]) for row in rows)
    lost = [row for row in rows if (row["split"], row["content"]) not in places]
    if lost:
        raise StateError(
            f"'{labels_folder}' speaks of '{lost[0]['id']}' (split {lost[0]['split']}), which dataset version"
            f" '{version.digest[:12]}' does not hold",
            hint="check the labels of this version: kfloop run --until check_labels",
        )
    alike = _alike(report)
    for row in rows:
        row["others"] += alike.get(row["id"], [])
    return [_item(version, shower, row, places[row["split"], row["content"]]) for row in rows]


def _doubtful(
    folder: Path, reasons: Sequence[str], below: float | None, report: dict[str, Any]
) -> list[dict[str, Any]]:
    """The rows of ``issues.parquet`` with any of the reasons; each gets the list of those it has."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    table = _issues(folder)
    marks: dict[str, np.ndarray] = {}
    for reason in reasons:
        if reason == "low_confidence" and below is not None:
            confidence = table["confidence"].to_numpy(zero_copy_only=False).astype(np.float64)
            marks[reason] = confidence < below
        elif reason == "annotators":
            disputed = {line["id"] for line in (report.get("annotators") or {}).get("disputed", [])}
            hits = pc.is_in(table["id"], value_set=pa.array(sorted(disputed), pa.string()))
            marks[reason] = hits.to_numpy(zero_copy_only=False).astype(bool)
        elif _FLAGS.get(reason) in table.column_names:
            marks[reason] = table[_FLAGS[reason]].to_numpy(zero_copy_only=False).astype(bool)
    picked = np.flatnonzero(np.any(list(marks.values()), axis=0)) if marks else np.empty(0, np.int64)
    rows: list[dict[str, Any]] = table.take(picked).to_pylist()
    for row, position in zip(rows, picked, strict=True):
        row["reasons"] = [reason for reason in reasons if reason in marks and marks[reason][position]]
    return rows


def _report(folder: Path) -> dict[str, Any]:
    """The label report; empty where there is none, since the queue itself needs the table only."""
    try:
        return read_report(folder)
    except (OSError, ValueError, TypeError):
        return {}


def _alike(report: dict[str, Any]) -> dict[str, list[Any]]:
    """Labels of the other halves of conflicting pairs, by id, as far as the report lists them."""
    others: dict[str, list[Any]] = {}
    for pair in (report.get("duplicates") or {}).get("pairs", []):
        if pair.get("conflict"):
            others.setdefault(str(pair["a"]), []).append(pair.get("label_b"))
            others.setdefault(str(pair["b"]), []).append(pair.get("label_a"))
    return others


def _issues(folder: Path) -> pa.Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / ISSUES
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise StateError(
            f"'{path}' cannot be read: {error}", hint="check the labels first: kfloop run --until check_labels"
        ) from error
    missing = [name for name in _NEEDED if name not in table.column_names]
    if missing:
        raise StateError(
            f"'{path}' has no column '{missing[0]}'", hint="it is of another release; run check_labels again"
        )
    return table


def _one_per_content(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The most doubtful row of each content, with all reasons and the labels of the others, in order of urgency."""
    chosen: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=_urgency):
        first = chosen.setdefault(row["content"], row | {"others": []})
        if first["id"] != row["id"]:
            first["reasons"] = [name for name in REASONS if name in {*first["reasons"], *row["reasons"]}]
            first["others"].append(row.get("given"))
    return sorted(chosen.values(), key=_urgency)


def _urgency(row: dict[str, Any]) -> tuple[bool, float, str]:
    margin = _finite(row["margin"])
    return (CONFLICT not in row["reasons"], math.inf if margin is None else margin, str(row["id"]))


def _item(version: DatasetVersion, shower: Shower, row: dict[str, Any], position: int) -> QueueItem:
    given = named(shower.label(row["split"], position), version.task, version.labels)
    checked = _finite(row["margin"]) is not None  # a label that could not be checked has no suggestion worth showing
    others = [named(other, version.task, version.labels) for other in row["others"]]
    return QueueItem(
        content=row["content"],
        id=row["id"],
        split=row["split"],
        modality=version.modality,
        task=version.task,
        given=given,
        also_given=tuple(dict.fromkeys(other for other in others if other is not None and other != given)),
        suggested=named(row["suggested"], version.task, version.labels) if checked else None,
        confidence=_finite(row["confidence"]) if checked and version.task != "regression" else None,
        margin=_finite(row["margin"]),
        reasons=tuple(row["reasons"]),
        choices=tuple(version.labels) if version.task != "regression" else (),
        value=shower.value(row["split"], position),
    )


def named(value: Any, task: str, labels: Sequence[str]) -> Label | None:
    """A label in words, from whatever way it is kept: index or name, list of them (also as JSON text), number; null when it is none."""
    if task == "regression":
        return _finite(value)
    if task == "multilabel":
        if isinstance(value, str):
            value = json.loads(value) if value.startswith("[") else [part for part in value.split(",") if part]
        names = [_name(part, labels) for part in value or []]
        return tuple(sorted(name for name in names if name is not None)) if value is not None else None
    return _name(value, labels)


def _name(value: Any, labels: Sequence[str]) -> str | None:
    if isinstance(value, str):
        return value.strip() if value.strip() in labels else None
    number = _finite(value)
    return labels[int(number)] if number is not None and 0 <= number < len(labels) else None


def _finite(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
