"""New lines of the file of ground truth, each once, however often it is read.

The file is only ever added to (`kfloop.core.ground_truth.keep`). What was read is remembered by its length and digest; a file that does not begin
with it any more was rewritten, and then only answers that are younger than everything counted so far are taken.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Label = str | float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """Up to where a file was read.

    Attributes:
        size: Bytes.
        digest: SHA-256 of them; empty for none.
        newest: Latest time of an answer among them, seconds since 1970.
    """

    size: int = 0
    digest: str = ""
    newest: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What turned out to be true of one request: a class, several labels or a number; and when it was known, if that was told."""

    request_id: str
    label: Label
    at: float | None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """New answers.

    Attributes:
        answers: In the order of the file; of answers to one request only the first.
        changed: Answers that differ from an earlier one to the same request. The first counts: its bets are made.
        broken: Lines that are no answer.
        place: Up to where the file is read now.
        problems: What was wrong with the file itself, one sentence each.
    """

    answers: tuple[Answer, ...]
    changed: int
    broken: int
    place: Place
    problems: tuple[str, ...] = ()


def read_new(path: Path, place: Place) -> Reading:
    """Answers that were not read before.

    Args:
        path: JSON lines; it may not exist.
        place: Up to where it was read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        lost = (f"'{path.name}' is gone: {place.size} bytes of it were read",) if place.size else ()
        return Reading(answers=(), changed=0, broken=0, place=place, problems=lost)
    except OSError as error:
        return Reading(
            answers=(), changed=0, broken=0, place=place, problems=(f"'{path.name}' cannot be read: {error}",)
        )
    end = _end(content)
    if end == place.size and hashlib.sha256(content[:end]).hexdigest() == place.digest:
        return Reading(answers=(), changed=0, broken=0, place=place)
    known = hashlib.sha256(content[: place.size]).hexdigest() == place.digest if place.size else True
    before = _labels(content[: place.size]) if known else {}
    answers: dict[str, Answer] = {}
    changed = broken = 0
    for line in content[place.size if known else 0 : end].split(b"\n"):
        if not line.strip():
            continue
        answer = parse(line)
        if answer is None:
            broken += 1
        elif not known and (answer.at is None or answer.at <= place.newest):
            continue
        elif answer.request_id in before or answer.request_id in answers:
            first = before.get(answer.request_id) or answers[answer.request_id].label
            changed += first != answer.label
        else:
            answers[answer.request_id] = answer
    times = [answer.at for answer in answers.values() if answer.at is not None]
    new = Place(size=end, digest=hashlib.sha256(content[:end]).hexdigest(), newest=max([place.newest, *times]))
    told = (
        ()
        if known
        else (f"'{path.name}' was rewritten: of it only answers given after the newest that was counted are taken",)
    )
    return Reading(answers=tuple(answers.values()), changed=changed, broken=broken, place=new, problems=told)


def answer_times(path: Path) -> dict[str, float | None]:
    """When the truth of each request was first told, by its id; null where nobody said so. What is no answer, such as a line that is being written, is passed over.

    Args:
        path: JSON lines; it may not exist.
    """
    found: dict[str, float | None] = {}
    if path.is_file():
        for line in path.read_bytes().split(b"\n"):
            answer = parse(line) if line.strip() else None
            if answer is not None:
                found.setdefault(answer.request_id, answer.at)
    return found


def parse(line: bytes) -> Answer | None:
    """One line; None for what is no answer: no JSON object, no request id, no label."""
    try:
        fields = json.loads(line.decode("utf-8-sig"))
        identity, label = fields["request_id"], spelled(fields["label"])
        identity = str(identity) if isinstance(identity, int) and not isinstance(identity, bool) else identity
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(identity, str) or not identity or label is None:
        return None
    return Answer(request_id=identity, label=label, at=_time(fields.get("at")))


def spelled(value: Any) -> Label | None:
    """A label in the spelling that `ingest` gives it: whole numbers and truth values are names of classes; None where there is none."""
    if isinstance(value, list):
        names = [spelled(item) for item in value]
        return tuple(sorted({str(name) for name in names})) if all(isinstance(name, str) for name in names) else None
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else value
    return None


def of_model(label: Label | None, objective: str, labels: Sequence[str]) -> Label | None:
    """A label that a model can be held against, as `spelled` gives it: a class, several, or a number; None for what is none of them.

    Args:
        label: What turned out to be true.
        objective: What the model does, as in its signature.
        labels: Its classes.
    """
    if label is None:
        return None
    if objective == "classification":
        return str(label) if str(label) in labels else None
    if objective == "multilabel":
        names = label if isinstance(label, tuple) else (str(label),)
        return names if set(names) <= set(labels) else None
    try:
        return label if not isinstance(label, tuple) and math.isfinite(float(label)) else None
    except ValueError:
        return None


def _end(content: bytes) -> int:
    """Up to where lines are whole: the last one may still be written, but for one that is a whole object already."""
    last = content.rfind(b"\n") + 1
    return len(content) if content[last:].strip() and parse(content[last:]) is not None else last


def _labels(content: bytes) -> dict[str, Label]:
    found: dict[str, Label] = {}
    for line in content.split(b"\n"):
        answer = parse(line) if line.strip() else None
        if answer is not None:
            found.setdefault(answer.request_id, answer.label)
    return found


def _time(value: Any) -> float | None:
    """Seconds since 1970; None for what is no time. Without a zone it is UTC."""
    if not isinstance(value, str):
        return None
    try:
        told = datetime.fromisoformat(value)
    except ValueError:
        return None
    try:
        return (told if told.tzinfo else told.replace(tzinfo=_utc())).timestamp()
    except (OverflowError, OSError):
        return None


def _utc() -> Any:
    from datetime import UTC

    return UTC
