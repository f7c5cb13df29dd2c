"""Requests that the monitor wants labelled or the served model flagged: questions for people out of the request log, and their answers as feedback.

A request is no row of a dataset version, so its answer is no correction: it is the truth about that request, which ``data.feedback`` keeps.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.ground_truth import keep
from kfloop.core.request_cells import read_rows
from kfloop.core.request_files import model_files
from kfloop.core.review.answer import UNSURE, UNUSABLE, listed, read_lines
from kfloop.core.review.items import FLAGGED, WORTH, QueueItem
from kfloop.core.review.request_values import is_logged, request_value
from kfloop.core.scoring import read_encoder
from kfloop.core.signature import read_signature
from kfloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kfloop.core.review.answer import Answer
    from kfloop.core.review.choosing import Question
    from kfloop.core.versions import DatasetVersion

PREFIX = "request:"  # before the request id, where a row of a version has its content hash
SPLIT = "requests"


def flagged_requests(
    log: Path, versions: Path, dataset: DatasetVersion, *, limit: int, answered: Collection[str] = ()
) -> list[QueueItem]:
    """The flagged requests, the closest calls first: the smallest lead of the answer over its best rival.

    Args:
        log: Request log of the model: Parquet by hour.
        versions: The model's folder in the repository, with a folder for each version; requests of versions that are gone are left out,
            since nothing says any more what their tensors mean.
        dataset: Dataset version whose labels are the choices.
        limit: Largest number of requests.
        answered: Ids of requests that were answered before.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if dataset.task != "multiclass" or limit < 1:
        return []
    found: dict[str, tuple[float, Path, int]] = {}
    for path in model_files(log):
        try:
            names = pq.read_schema(path).names
            if "review" not in names:  # a version without thresholds
                continue
            column = "probabilities" if "probabilities" in names else "output.probabilities"
            table = pq.read_table(path, columns=["request_id", "review", column])
        except (OSError, pa.ArrowException):  # the monitor names files that cannot be read
            continue
        for place in np.flatnonzero(table["review"].to_numpy()).tolist():
            identity = table["request_id"][place].as_py()
            best = np.sort(np.array(table[column][place].as_py(), dtype=np.float64))[::-1]
            if identity not in answered and len(best) > 1:
                found[identity] = (float(best[0] - best[1]), path, place)
    chosen = sorted(found.items(), key=lambda pair: (pair[1][0], pair[0]))
    items: list[QueueItem] = []
    shown = _Shown(versions)
    for identity, (margin, path, place) in chosen:
        row = read_rows(path).slice(place, 1).to_pylist()[0]
        item = shown.item(identity, margin, row, dataset, FLAGGED)
        items += [item] if item else []
        if len(items) == limit:
            break
    return items


def requests_worth_labelling(
    log: Path,
    versions: Path,
    dataset: DatasetVersion,
    questions: Sequence[Question],
    *,
    limit: int,
    answered: Collection[str] = (),
) -> list[QueueItem]:
    """The requests that the monitor wants to be labelled, in its order.

    Args:
        log: Request log of the model: Parquet by hour.
        versions: The model's folder in the repository.
        dataset: Dataset version whose labels are the choices.
        questions: What the monitor wrote down.
        limit: Largest number of requests.
        answered: Ids of requests that were answered since.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    if dataset.task != "multiclass":
        return []
    margins = {item.request_id: item.margin for item in questions if item.request_id not in answered}
    wanted = pa.array(sorted(margins), pa.string())
    rows: dict[str, dict[str, Any]] = {}
    for path in model_files(log):
        try:
            ids = pq.read_table(path, columns=["request_id"])["request_id"]
            hits = pc.is_in(ids, value_set=wanted)
            for row in read_rows(path).filter(hits).to_pylist() if pc.any(hits).as_py() else ():
                rows.setdefault(row["request_id"], row)
        except (OSError, pa.ArrowException):  # the monitor names files that cannot be read
            continue
    shown = _Shown(versions)
    found = (shown.item(name, margin, rows[name], dataset, WORTH) for name, margin in margins.items() if name in rows)
    return list(islice((item for item in found if item is not None), limit))


def answered_requests(feedback: Path | None) -> set[str]:
    """Ids of the requests that ``data.feedback`` knows the truth of; none where there is no such file.

    Raises:
        InputError: A line is no JSON object.
    """
    if feedback is None or not feedback.is_file():
        return set()
    return {str(value.get("request_id")) for _, value in read_lines(feedback, "feedback")}


def about_requests(answers: Sequence[Answer]) -> tuple[list[Answer], list[Answer]]:
    """Answers about requests, and those about rows of a dataset version."""
    mine = [answer for answer in answers if answer.content.startswith(PREFIX)]
    return mine, [answer for answer in answers if not answer.content.startswith(PREFIX)]


def write_feedback(path: Path, answers: Sequence[Answer]) -> int:
    """Add what people said about requests to ``data.feedback``; who is unsure says nothing about the truth.

    Returns:
        Number of lines that are new.
    """
    told = [
        {"request_id": answer.id, "label": listed(answer.answer), "by": answer.by, "at": answer.at}
        for answer in answers
        if answer.answer not in (UNSURE, UNUSABLE)
    ]
    return keep(path, told, known={str(item["request_id"]) for item in told}).added if told else 0


class _Shown:
    """Logged tensors as people can look at them, by the encoder of the version that answered."""

    def __init__(self, versions: Path) -> None:
        self._folder = versions
        self._known: dict[int, tuple[Any, Any] | None] = {}

    def item(
        self, identity: str, margin: float, row: dict[str, Any], dataset: DatasetVersion, reason: str
    ) -> QueueItem | None:
        opened = self._opened(int(row["version"]))
        if opened is None:
            return None
        signature, encoder = opened
        probabilities = row.get("probabilities") or row["output.probabilities"]
        best = int(np.argmax(probabilities))
        label = signature.labels[best] if best < len(signature.labels) else None
        value = request_value(signature, encoder, row) if is_logged(row, signature) else None
        if value is None:
            return None
        return QueueItem(
            content=PREFIX + identity,
            id=identity,
            split=SPLIT,
            modality=dataset.modality,
            task=dataset.task,
            given=None,
            suggested=label if label in dataset.labels else None,
            confidence=float(probabilities[best]),
            margin=margin,
            reasons=(reason,),
            choices=tuple(dataset.labels),
            value=value,
        )

    def _opened(self, version: int) -> tuple[Any, Any] | None:
        if version not in self._known:
            try:
                folder = self._folder / str(version)
                self._known[version] = (read_signature(folder), read_encoder(folder))
            except StateError:
                self._known[version] = None
        return self._known[version]
