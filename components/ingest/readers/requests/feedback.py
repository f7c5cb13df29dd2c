"""Answers to served requests, as JSON lines: ``{"request_id": ..., "label": ..., "by": ..., "at": ...}``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

EXPECTED = 'expected an object such as {"request_id": "a1", "label": "cat"}'
_MOST_CLASSES = 100  # more different whole numbers than this are a quantity, not classes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What somebody found out about one request.

    Attributes:
        label: A class name, a list of class names, or a float.
        line: Line in the file, from 1.
        by: Who said so.
        at: When, as it was written.
    """

    label: str | float | tuple[str, ...]
    line: int
    by: str | None = None
    at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Feedback:
    """All answers of one file.

    Attributes:
        path: The file.
        answers: The answer that counts for each request id.
        changed: Lines that gave another label than an earlier line for the same request.
        unlabelled: Lines without a label, as rows set aside.
    """

    path: Path
    answers: dict[str, Answer]
    changed: tuple[int, ...]
    unlabelled: tuple[dict[str, str], ...]


def read_feedback(path: Path) -> Feedback:
    """Read the answers; the later line counts where two are about one request.

    Raises:
        InputError: No such file, a line that is not such an object (named by its number), or no answer at all.
    """
    if not path.is_file():
        beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, beside) if beside else "paths are relative to the loop file"
        raise InputError(f"data.feedback '{path}' does not exist: expected a JSON lines file", hint=hint)
    found: dict[str, Answer] = {}
    unlabelled: dict[str, dict[str, str]] = {}
    changed: list[int] = []
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            key, answer = _parse(line, f"'{path}' line {number}", number)
            if answer is None:
                reason = f"feedback line {number}: request_id '{key}' has no label"
                unlabelled[key] = {"id": key, "reason": reason}
                continue
            if key in found and found[key].label != answer.label:
                changed.append(number)
            found[key] = answer
    if not found:
        raise InputError(f"'{path}' holds no answer", hint=f"write one JSON object for each request: {EXPECTED}")
    aside = tuple(row for key, row in unlabelled.items() if key not in found)
    return Feedback(path=path, answers=found, changed=tuple(changed), unlabelled=aside)


def _parse(line: bytes, where: str, number: int) -> tuple[str, Answer | None]:
    try:
        fields = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is not JSON in UTF-8: {error}", hint=EXPECTED, line=number) from error
    if not isinstance(fields, dict):
        raise InputError(f"{where} holds {type(fields).__name__}: {EXPECTED}", hint="one object per line", line=number)
    missing = next((key for key in ("request_id", "label") if key not in fields), None)
    if missing is not None:
        raise InputError(
            f"{where} has no '{missing}': {EXPECTED}", hint=nearest(missing, map(str, fields)), line=number
        )
    key = fields["request_id"]
    if isinstance(key, int) and not isinstance(key, bool):
        key = str(key)
    if not isinstance(key, str) or not key:
        raise InputError(
            f"{where}: 'request_id' is {key!r}, expected text", hint="take it from the request", line=number
        )
    for name in ("by", "at"):
        if not isinstance(fields.get(name), str | None):
            raise InputError(f"{where}: '{name}' is {fields[name]!r}, expected text", hint="quote it", line=number)
    label = _label(fields["label"], where, number)
    return key, None if label is None else Answer(label=label, line=number, by=fields.get("by"), at=fields.get("at"))


def _label(value: Any, where: str, number: int) -> str | float | tuple[str, ...] | None:
    """The label in one spelling: whole numbers and truth values are class names; None where there is none."""
    if isinstance(value, list):
        names = [_label(item, where, number) for item in value]
        if not all(isinstance(name, str) for name in names):
            raise InputError(f"{where}: 'label' is {value!r}, expected names of classes", hint=EXPECTED, line=number)
        return tuple(sorted({str(name) for name in names}))
    if value is None or isinstance(value, bool | int):
        return None if value is None else str(value)
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float):
        return None if not math.isfinite(value) else str(int(value)) if value.is_integer() else value
    raise InputError(f"{where}: 'label' is {value!r}, expected a class, a list of classes or a number", line=number)


def decide_task(answers: Mapping[str, Answer], path: Path, wanted: str) -> str:
    """The task that these labels are for; ``wanted`` counts unless it is ``auto``.

    Raises:
        InputError: Labels of different kinds, or of another kind than ``wanted``, named by line.
    """
    lists = [answer for answer in answers.values() if isinstance(answer.label, tuple)]
    single = [answer for answer in answers.values() if not isinstance(answer.label, tuple)]
    if lists and single:
        raise InputError(
            f"'{path}': the label in line {lists[0].line} is a list and the one in line {single[0].line} is not",
            hint="write every label as a list of classes, or none",
        )
    guessed = "multilabel" if lists else "regression" if _is_quantity(single) else "multiclass"
    task = guessed if wanted == "auto" else wanted
    if task == "forecasting" or (task == "multilabel") != bool(lists):
        line = (lists or single)[0]
        raise InputError(
            f"data.task is '{task}', but the label in '{path}' line {line.line} is {line.label!r}",
            hint=f"set data.task to '{guessed}', or leave it out",
        )
    return task


def _is_quantity(answers: Sequence[Answer]) -> bool:
    if any(isinstance(answer.label, float) for answer in answers):
        return all(_number(answer.label) is not None for answer in answers)
    names = {answer.label for answer in answers}
    return len(names) > _MOST_CLASSES and all(_number(name) is not None for name in names)


def _number(label: object) -> float | None:
    try:
        return float(label) if isinstance(label, str | float) else None
    except ValueError:
        return None


def class_names(answers: Mapping[str, Answer], path: Path, known: Sequence[str], *, strict: bool) -> tuple[str, ...]:
    """The classes in the order of their indices.

    Args:
        answers: All answers.
        path: Their file, for messages.
        known: Classes whose order is to be kept.
        strict: Whether a class that is not known is an error; otherwise the known ones only help to keep the order.

    Raises:
        InputError: A class is not known, or there is one class only.
    """
    names: dict[str, Answer] = {}
    for answer in answers.values():
        for name in answer.label if isinstance(answer.label, tuple) else (str(answer.label),):
            names.setdefault(name, answer)
    new = [name for name in names if name not in known]
    if strict and new:
        raise InputError(
            f"'{path}' line {names[new[0]].line}: label '{new[0]}' is a class that data.source does not have",
            hint=nearest(new[0], known) + " A new class must be added to data.source itself.",
            label=new[0],
        )
    if known and not new:
        return tuple(known)
    if len(names) == 1:
        raise InputError(
            f"'{path}' knows one class only ('{next(iter(names))}', {len(answers)} answers): expected two or more",
            hint="collect feedback on other classes first",
            labels=list(names),
        )
    numeric = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=lambda name: (int(name) if numeric else 0, name)))


def encode(answers: Mapping[str, Answer], path: Path, task: str, labels: Sequence[str]) -> dict[str, Any]:
    """The label of each request as a batch holds it: an index, a sorted list of them, or a float.

    Raises:
        InputError: A label that is not a number, in a regression.
    """
    index = {name: place for place, name in enumerate(labels)}
    coded: dict[str, Any] = {}
    for key, answer in answers.items():
        if isinstance(answer.label, tuple):
            coded[key] = sorted(index[name] for name in answer.label)
        elif task == "regression":
            value = _number(answer.label)
            if value is None or not math.isfinite(value):
                raise InputError(
                    f"'{path}' line {answer.line}: label '{answer.label}' is not a number, as regression needs"
                )
            coded[key] = value
        else:
            coded[key] = index[str(answer.label)]
    return coded
