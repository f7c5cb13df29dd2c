"""What an endpoint answered, held against what the task asks for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from .calling import shortened  # relative: see the package's docstring

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SUM_TOLERANCE = 1e-3  # of probabilities, from 1


class BadAnswer(ValueError):
    """The endpoint answered, but not in a way that can be scored; the message says why."""


def parsed(content: bytes, where: str) -> Any:
    """A body of JSON.

    Raises:
        BadAnswer: It is something else.
    """
    text = content.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except ValueError:
        kind = "a web page" if text.lstrip()[:1] == "<" else "no JSON"
        raise BadAnswer(f"{where} answers with {kind} where JSON is expected: {shortened(text) or 'nothing'}") from None


def at_path(value: Any, path: str, where: str) -> Any:
    """What stands at a path such as ``predictions.*.scores``: keys, places of a list from 0, and ``*`` for each item of a list.

    Raises:
        BadAnswer: There is nothing.
    """
    head, _, rest = path.partition(".")
    if not head:
        return value
    if head == "*" and isinstance(value, list):
        return [at_path(item, rest, where) for item in value]
    if isinstance(value, dict) and head in value:
        return at_path(value[head], rest, where)
    if isinstance(value, list) and head.isdigit() and int(head) < len(value):
        return at_path(value[int(head)], rest, where)
    seen = f"the keys {sorted(value)}" if isinstance(value, dict) else f"a {type(value).__name__}"
    raise BadAnswer(f"{where} answers without '{head}' (of adapter.answer): there is {shortened(seen)}")


def judged(found: Any, told: Mapping[str, Any], count: int, where: str) -> NDArray[np.float32]:
    """Answers float32 [N, *shape] in the order of the loop's classes, after every check.

    Args:
        found: Numbers in lists or an array, one entry for each row; or objects with the names of the classes.
        told: ``shape`` of one answer, ``gives``, ``labels`` of the loop and ``endpoint_labels``.
        count: Rows that were sent.
        where: The endpoint, for messages.

    Raises:
        BadAnswer: Another number of rows or of classes, no numbers, or no probabilities.
    """
    shape, labels = tuple(told["shape"]), told["labels"]
    if isinstance(found, list) and found and all(isinstance(row, dict) for row in found):
        found = [_by_name(row, labels, where) for row in found]
    else:
        found = _ordered(found, told, where)
    try:
        answers = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        raise BadAnswer(f"{where} answers with what is no array of numbers: {shortened(str(found))}") from None
    answers = _shaped(answers, (count, *shape), labels, where)
    wrong = np.flatnonzero(~np.isfinite(answers.reshape(count, -1)).all(axis=1))
    if len(wrong):
        raise BadAnswer(
            f"{where} answers {len(wrong)} of {count} rows with NaN or infinity, the first is row {wrong[0]}"
        )
    return _probabilities(answers, told, where).astype(np.float32)


def _ordered(found: Any, told: Mapping[str, Any], where: str) -> Any:
    """The classes in the loop's order, where the endpoint has its own."""
    theirs = told.get("endpoint_labels")
    if not theirs:
        return found
    try:
        rows = np.asarray(found, dtype=np.float64)
    except (TypeError, ValueError):
        return found
    if rows.ndim < 2 or rows.shape[-1] != len(theirs):  # noqa: PLR2004 - rows and classes
        raise BadAnswer(
            f"{where} answers in the shape {list(rows.shape)}, but it is said to know {len(theirs)} classes"
        )
    return rows[..., [theirs.index(label) for label in told["labels"]]]


def _by_name(row: Mapping[str, Any], labels: Sequence[str], where: str) -> list[Any]:
    missing = [label for label in labels if label not in row]
    if missing:
        raise BadAnswer(f"{where} answers with the classes {sorted(row)}, but not with {missing}")
    return [row[label] for label in labels]


def _shaped(answers: NDArray[np.float64], wanted: tuple[int, ...], labels: Sequence[str], where: str) -> NDArray[Any]:
    """The answers in their shape; axes of length 1 do not count."""
    if [size for size in answers.shape if size != 1] == [size for size in wanted if size != 1]:
        return answers.reshape(wanted)
    if labels and answers.ndim == len(wanted) and answers.shape[0] == wanted[0]:
        raise BadAnswer(
            f"{where} answers with {answers.shape[1]} numbers for each row, but the data have {wanted[1]} classes: "
            f"{shortened(', '.join(labels))}"
        )
    if answers.ndim and answers.shape[0] != wanted[0]:
        raise BadAnswer(
            f"{where} answers {answers.shape[0]} rows, but {wanted[0]} were sent (shape {list(answers.shape)})"
        )
    raise BadAnswer(f"{where} answers in the shape {list(answers.shape)}, expected {list(wanted)}")


def _probabilities(answers: NDArray[Any], told: Mapping[str, Any], where: str) -> NDArray[Any]:
    """Probabilities of what may be logits, checked; other answers as they are."""
    objective = told["objective"]
    if objective not in {"classification", "multilabel"}:
        return answers
    if told.get("gives") == "logits":
        if objective == "multilabel":
            return 1 / (1 + np.exp(-np.clip(answers, -500, 500)))
        exponent = np.exp(answers - answers.max(axis=1, keepdims=True))
        return exponent / exponent.sum(axis=1, keepdims=True)
    outside = (answers < -SUM_TOLERANCE) | (answers > 1 + SUM_TOLERANCE)
    if outside.any():
        raise BadAnswer(
            f"{where} answers with {answers[outside][0]:g}, which is no probability; for scores before softmax set gives: logits"
        )
    sums = answers.sum(axis=1)
    far = np.flatnonzero(np.abs(sums - 1) > SUM_TOLERANCE)
    if objective == "classification" and len(far):
        raise BadAnswer(f"{where} answers with probabilities that sum to {sums[far[0]]:g} (row {far[0]}), expected 1")
    return np.clip(answers, 0, 1)
