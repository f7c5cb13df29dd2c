"""One question of the review queue, and the queue as a file: JSON lines, read strictly."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kfloop.core.artifacts import sha256_text
from kfloop.core.review.answer import Label, parse_label, read_lines, short
from kfloop.core.sections import MODALITIES
from kfloop.errors import InputError, nearest

QUEUE = "queue.jsonl"
CONFLICT = "conflict"
WORTH = "worth_labelling"
FLAGGED = "flagged_request"
REASONS = (WORTH, FLAGGED, CONFLICT, "label_issue", "annotators", "low_confidence", "outlier")
ANSWERABLE = ("multiclass", "multilabel", "regression")


@dataclass(frozen=True, kw_only=True)
class QueueItem:
    """One example to be looked at.

    Attributes:
        content: Content hash: what the answer is kept under.
        id: Where the example came from.
        split: Its split.
        modality: What it is (``image``, ``text``, ...).
        task: ``multiclass``, ``multilabel`` or ``regression``.
        given: Its label: name, names or number.
        also_given: Other labels that the same or an alike example has elsewhere in the version.
        suggested: What the model would say.
        confidence: Probability of the suggestion; null for numbers.
        margin: Probability of the given label minus that of its best rival, in [-1, 1]; low is doubtful.
        reasons: Why it is here, of ``REASONS``.
        choices: Class names; empty for a number.
        value: What to show: ``kind`` (text, row, image, audio, plot) and its ``text``, ``uri``, ``row``, ``legend``, ``note``.
    """

    content: str
    id: str
    split: str
    modality: str
    task: str
    given: Label | None
    also_given: tuple[Label, ...] = ()
    suggested: Label | None
    confidence: float | None
    margin: float | None
    reasons: tuple[str, ...]
    choices: tuple[str, ...]
    value: dict[str, Any]


def queue_digest(items: Sequence[QueueItem]) -> str:
    """Digest of a queue: of its questions, in their order."""
    return sha256_text("".join(_line(item) for item in items))


def write_queue(path: Path, items: Sequence[QueueItem]) -> None:
    """Write a queue as JSON lines; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text("".join(_line(item) for item in items), encoding="utf-8")
    temporary.replace(path)


def read_queue(path: Path) -> list[QueueItem]:
    """Read a queue.

    Raises:
        InputError: No such file, or a line is no item; names the line and the key.
    """
    items = [_parse(value, where) for where, value in read_lines(path, "the queue")]
    seen: dict[str, int] = {}
    for number, item in enumerate(items):
        if item.content in seen:
            raise InputError(f"'{path}' asks twice about the content '{item.content}'", key="content", item=number)
        seen[item.content] = number
    return items


def _line(item: QueueItem) -> str:
    return json.dumps(asdict(item), ensure_ascii=False, allow_nan=False) + "\n"


_TYPES: dict[str, tuple[type, ...]] = {
    "content": (str,),
    "id": (str,),
    "split": (str,),
    "modality": (str,),
    "task": (str,),
    "also_given": (list,),
    "confidence": (int, float, type(None)),
    "margin": (int, float, type(None)),
    "reasons": (list,),
    "choices": (list,),
    "value": (dict,),
}
_LABELS = ("given", "suggested")
_KINDS = {"text": "text", "row": "row", "image": "uri", "audio": "uri", "plot": "uri"}


def _parse(value: dict[str, Any], where: str) -> QueueItem:
    known = (*_TYPES, *_LABELS)
    for key in known:
        if key not in value:
            raise InputError(f"{where} has no '{key}'", hint="write the queue again: kfloop review export", key=key)
    for key, found in value.items():
        if key not in known:
            raise InputError(f"{where} has an unknown key '{key}'", hint=nearest(key, known), key=key)
        if key in _TYPES and (not isinstance(found, _TYPES[key]) or isinstance(found, bool)):
            expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in _TYPES[key])
            raise InputError(f"{where}: '{key}' is {short(found)}, expected {expected}", key=key)
    _check_words(value, where)
    labels: dict[str, Any] = {
        key: None if value[key] is None else parse_label(value[key], where, key) for key in _LABELS
    }
    lists: dict[str, Any] = {
        "also_given": tuple(parse_label(other, where, "also_given") for other in value["also_given"]),
        "reasons": tuple(value["reasons"]),
        "choices": tuple(value["choices"]),
    }
    return QueueItem(**(value | labels | lists))


def _check_words(value: dict[str, Any], where: str) -> None:
    """Refuse what is well typed but says nothing that kfloop knows."""
    for key, words in (("task", ANSWERABLE), ("modality", MODALITIES)):
        if value[key] not in words:
            raise InputError(f"{where}: '{key}' is {short(value[key])}", hint=nearest(value[key], words), key=key)
    for reason in value["reasons"]:
        if reason not in REASONS:
            raise InputError(
                f"{where}: 'reasons' holds {short(reason)}", hint=nearest(str(reason), REASONS), key="reasons"
            )
    if not all(isinstance(name, str) for name in value["choices"]):
        raise InputError(f"{where}: 'choices' is {short(value['choices'])}, expected names of classes", key="choices")
    if (value["task"] == "regression") == bool(value["choices"]):
        raise InputError(f"{where}: 'choices' is {short(value['choices'])} for a {value['task']} task", key="choices")
    kind = value["value"].get("kind")
    if kind not in _KINDS or _KINDS[kind] not in value["value"]:
        raise InputError(
            f"{where}: 'value' of kind {short(kind)} cannot be shown", hint=f"known: {', '.join(_KINDS)}", key="value"
        )
    if not str(value["value"].get("uri", "data:")).startswith("data:"):
        raise InputError(
            f"{where}: 'value' points to {short(value['value']['uri'])}, expected a data: URI", key="value"
        )
