"""Ground truth of served requests, as JSON lines that ``ingest`` joins with the request log; lines are only ever added."""

from __future__ import annotations

import csv
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

NEEDED = ("request_id", "label")
DELIMITERS = (",", ";", "\t")
KEYS = ("request_id", "label", "by", "at")


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What became of new answers.

    Attributes:
        added: Number of answers that were added.
        unknown: Of these, ids that the request log does not have.
        changed: Of these, ids that had another label before.
        repeated: Ids whose answer was there already; these are not added again.
    """

    added: int
    unknown: tuple[str, ...]
    changed: tuple[str, ...]
    repeated: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def truth_file(feedback: str | None, root: Path) -> Path:
    """The file of ground truth: ``data.feedback``, or ``feedback.jsonl`` beside the loop file."""
    return Path(feedback) if feedback else root / "feedback.jsonl"


def read_answers(path: Path) -> list[dict[str, Any]]:
    """Answers out of a CSV file, or out of JSON lines.

    Raises:
        InputError: It cannot be read as such; the line is named. Nothing of it is taken then.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{path}' cannot be read as UTF-8 text: {error}") from error
    found = _rows(path, text) if path.suffix.lower() == ".csv" else _objects(path, text)
    if not found:
        raise InputError(f"'{path}' holds no answers", hint="each has a request_id and a label")
    return found


def keep(place: Path, answers: Sequence[dict[str, Any]], known: Container[str], *, by: str = "", at: str = "") -> Kept:
    """Add answers to the file; two that do so at the same moment wait for each other.

    Args:
        place: The file; it need not exist.
        answers: ``request_id`` and ``label``, and ``by`` and ``at`` where they are known.
        known: Request ids of the log.
        by: Who says so, where an answer does not.
        at: When, ISO 8601, where an answer does not; now when left out.

    Raises:
        InputError: The file holds something else.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    now = at or datetime.now(UTC).isoformat(timespec="seconds")
    with place.open("a+", encoding="utf-8", newline="") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.seek(0)
        before = stream.read()
        whole = before if _is_json(before.rpartition("\n")[2]) else before[: before.rfind("\n") + 1]
        if whole != before:  # a writer was stopped in the middle: what it left open is nobody's answer
            stream.truncate(len(whole.encode("utf-8")))
        labels = {item["request_id"]: item["label"] for item in _objects(place, whole)}
        lines, unknown, changed, repeated = [], [], [], []
        for answer in answers:
            identity, label = answer["request_id"], answer["label"]
            if identity in labels and labels[identity] == label:
                repeated.append(identity)
                continue
            if identity in labels:
                changed.append(identity)
            if identity not in known:
                unknown.append(identity)
            labels[identity] = label
            told = {"by": by or None, "at": now} | answer
            lines.append(
                json.dumps({key: value for key, value in told.items() if value is not None}, ensure_ascii=False)
            )
        if whole and not whole.endswith("\n"):  # a person left the last line open
            lines[:1] = ["\n" + line for line in lines[:1]]
        stream.write("".join(f"{line}\n" for line in lines))
        stream.flush()
        os.fsync(stream.fileno())
    return Kept(added=len(lines), unknown=tuple(unknown), changed=tuple(changed), repeated=tuple(repeated))


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _rows(path: Path, text: str) -> list[dict[str, Any]]:
    lines = text.splitlines()
    # Spreadsheets of half the world write semicolons. The first line must hold the columns that are needed, so it tells.
    heads = {mark: next(csv.reader(lines[:1], delimiter=mark), []) for mark in DELIMITERS}
    delimiter = next((mark for mark, head in heads.items() if set(NEEDED) <= set(head)), None)
    if delimiter is None:
        columns = max(heads.values(), key=len)
        missing = next(name for name in NEEDED if name not in columns)
        raise InputError(
            f"'{path}' has no column '{missing}': it has {', '.join(columns)}", hint=nearest(missing, columns)
        )
    reader, columns = csv.DictReader(lines, delimiter=delimiter), heads[delimiter]
    found = []
    for number, row in enumerate(reader, start=2):
        if None in row or None in row.values():
            raise InputError(f"'{path}' line {number} has {len(row)} fields, expected {len(columns)}", line=number)
        found.append(_answer(path, number, {key: row[key] for key in KEYS if row.get(key)}))
    return found


def _objects(path: Path, text: str) -> list[dict[str, Any]]:
    found = []
    for number, line in enumerate(
        text.split("\n"), start=1
    ):  # not splitlines: a label may hold one of Unicode's own line ends
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"'{path}' line {number} is not JSON: {error}",
                hint="a .csv file, or one JSON object on each line",
                line=number,
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"'{path}' line {number} is no JSON object", line=number)
        found.append(_answer(path, number, value))
    return found


def _answer(path: Path, number: int, fields: dict[str, Any]) -> dict[str, Any]:
    """An answer that has what it needs."""
    for name in NEEDED:
        if fields.get(name) in (None, ""):
            raise InputError(
                f"'{path}' line {number} has no {name}", hint='expected {"request_id": ..., "label": ...}', line=number
            )
    if isinstance(fields["request_id"], int) and not isinstance(fields["request_id"], bool):
        fields = fields | {"request_id": str(fields["request_id"])}
    if not isinstance(fields["request_id"], str):
        raise InputError(f"'{path}' line {number}: request_id is {fields['request_id']!r}, expected text", line=number)
    return fields
