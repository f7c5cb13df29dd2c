"""One answer of one person: what it may be, and how it is read from JSON, strictly."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kfloop.errors import InputError, nearest

UNUSABLE = "__unusable__"
UNSURE = "__unsure__"
KEYS = ("content", "id", "answer", "by", "at", "given")
OPTIONAL = ("note",)
SHOWN = 80

Label = str | float | tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What one person said about one example.

    Attributes:
        content: Content hash of the example.
        id: Id of the example when it was shown.
        answer: Name of a class, names of classes, a number, ``__unusable__`` or ``__unsure__``.
        by: Who.
        at: When: ISO 8601, UTC.
        given: The label that stood there; null where there was none.
        note: What else the person had to say.
    """

    content: str
    id: str
    answer: Label
    by: str
    at: str
    given: Label | None
    note: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The answer as one JSON object; an empty note is left out."""
        return {
            "content": self.content,
            "id": self.id,
            "answer": listed(self.answer),
            "by": self.by,
            "at": self.at,
            "given": listed(self.given),
        } | ({"note": self.note} if self.note else {})

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What makes an answer the same one when it comes a second time."""
        return (self.content, self.by.casefold(), _utc(self.at, "an answer"), json.dumps(listed(self.answer)))


def read_answers(path: Path, *, labels: Sequence[str] | None = None, task: str | None = None) -> list[Answer]:
    """Answers from a JSON lines file.

    Args:
        path: The file.
        labels: Class names that an answer may take; null leaves them unchecked.
        task: ``multiclass``, ``multilabel`` or ``regression``: what an answer may be; null accepts each.

    Raises:
        InputError: No such file, or a line is no answer; names the line and the value.
    """
    return [make_answer(value, where, labels=labels, task=task) for where, value in read_lines(path, "answers")]


def read_lines(path: Path, what: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Place (``'file' line 3``) and object of each line of a JSON lines file; blank lines are passed over.

    Raises:
        InputError: No such file, not UTF-8, or a line is not one JSON object.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"cannot read {what} from '{path}': {error.strerror}", hint="is the path right?") from error
    for number, line in enumerate(lines, start=1):
        where = f"'{path}' line {number}"
        if not line.strip():
            continue
        try:
            value = json.loads(line.decode("utf-8"), parse_constant=_refuse_constant)
        except ValueError as error:
            raise InputError(
                f"{where} is not JSON: {error}: {short(line.decode('utf-8', 'replace'))}",
                hint="expected one JSON object per line, as the review sheet saves them",
                line=number,
            ) from error
        if not isinstance(value, dict):
            raise InputError(f"{where} holds {short(value)}, expected one JSON object", line=number)
        yield where, value


def make_answer(
    value: dict[str, Any], where: str, *, labels: Sequence[str] | None = None, task: str | None = None
) -> Answer:
    """One answer from its JSON object.

    Args:
        value: The object.
        where: Its place, for messages.
        labels: Class names that it may take; null leaves them unchecked.
        task: What it may be; null accepts each.

    Raises:
        InputError: A key is missing or unknown, or a value is not what it should be.
    """
    missing = [key for key in KEYS if key not in value]
    if missing:
        raise InputError(f"{where} has no '{missing[0]}'", hint=f"expected the keys {', '.join(KEYS)}", missing=missing)
    for key in value:
        if key not in (*KEYS, *OPTIONAL):
            raise InputError(f"{where} has an unknown key '{key}'", hint=nearest(key, (*KEYS, *OPTIONAL)), key=key)
    texts = {key: value.get(key, "") for key in ("content", "id", "by", "at", "note")}
    for key, text in texts.items():
        if not isinstance(text, str) or (key != "note" and not text.strip()):
            raise InputError(f"{where}: '{key}' is {short(text)}, expected a text", key=key)
    answer = parse_label(value["answer"], where, "answer")
    if task is not None and answer not in (UNUSABLE, UNSURE):
        _check_kind(answer, task, where)
    if labels is not None:
        check_classes(answer, labels, where)
    return Answer(
        content=texts["content"],
        id=texts["id"],
        answer=answer,
        by=texts["by"].strip(),
        at=_utc(texts["at"], where),
        given=None if value["given"] is None else parse_label(value["given"], where, "given"),
        note=texts["note"].strip(),
    )


def parse_label(value: Any, where: str, key: str) -> Label:
    """A label from JSON: a name, a number, or names in alphabetical order.

    Raises:
        InputError: It is none of these.
    """
    if isinstance(value, str) and value:
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(sorted(set(value)))
    raise InputError(
        f"{where}: '{key}' is {short(value)}, expected the name of a class, a list of names or a number", key=key
    )


def _check_kind(answer: Label, task: str, where: str) -> None:
    kinds: dict[str, tuple[type, str]] = {
        "multiclass": (str, "the name of one class"),
        "multilabel": (tuple, "a list of class names"),
        "regression": (float, "a number"),
    }
    if task not in kinds:
        raise InputError(f"{where}: examples of a {task} dataset have no label that a person could answer")
    kind, expected = kinds[task]
    if not isinstance(answer, kind):
        raise InputError(f"{where}: 'answer' is {short(listed(answer))}, expected {expected}", key="answer")


def check_classes(answer: Label, labels: Sequence[str], where: str) -> None:
    """Refuse names of classes that the dataset does not have.

    Raises:
        InputError: There is one.
    """
    if answer in (UNUSABLE, UNSURE) or isinstance(answer, float):
        return
    for name in answer if isinstance(answer, tuple) else (answer,):
        if name not in labels:
            raise InputError(
                f"{where}: 'answer' names the class {short(name)}, which the dataset does not have",
                hint=nearest(name, labels) if labels else "the labels of this dataset are numbers",
                key="answer",
                value=name,
            )


def _utc(text: str, where: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(
            f"{where}: 'at' is {short(text)}, expected a time such as 2026-01-31T09:30:00Z", key="at"
        ) from error
    if moment.tzinfo is None:
        raise InputError(f"{where}: 'at' is {short(text)}, which names no time zone", hint="end it with Z for UTC")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listed(value: Label | None) -> str | float | list[str] | None:
    """A label as JSON wants it."""
    return list(value) if isinstance(value, tuple) else value


def short(value: Any) -> str:
    """A value as it stands in a message, cut when it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _refuse_constant(name: str) -> float:
    message = f"{name} is no JSON number"
    raise ValueError(message)
