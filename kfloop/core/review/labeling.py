"""The review queue in Label Studio's words: labeling configuration, tasks with predictions, and answers from an export.

One dataset has one modality and one task, so one configuration serves the whole queue. Besides the label there is a second question,
whether the example is unusable or the person unsure, and a note; so no name of a class can be mistaken for either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from kfloop.core.review.answer import UNSURE, UNUSABLE, Answer, listed, make_answer
from kfloop.core.review.items import QueueItem
from kfloop.core.review.media import sentence
from kfloop.errors import InputError

SHOWN, WORDS, LABEL, VERDICT, NOTE, ASK = "shown", "words", "label", "verdict", "note", "ask"
VERDICTS = {"unusable": UNUSABLE, "unsure": UNSURE}
MODEL = "kfloop"


def has_media(items: Sequence[QueueItem]) -> bool:
    """Whether every item has a picture or a sound; where only some have (graphs too big to draw), all are shown as text."""
    return all("uri" in item.value for item in items)


def labeling_config(items: Sequence[QueueItem]) -> str:
    """Label Studio's labeling configuration (XML) for a queue of one dataset, not empty."""
    first, media = items[0], has_media(items)
    view = ET.Element("View")
    ET.SubElement(view, "Header", value=f"${ASK}", size="5")
    if media:
        tag = "Audio" if first.modality == "audio" else "Image"
        ET.SubElement(view, tag, name=SHOWN, value=f"${SHOWN}")
    if not media or first.modality not in {"image", "audio"}:
        ET.SubElement(view, "Text", name=WORDS, value=f"${WORDS}", valueType="text")
    target = SHOWN if media else WORDS
    if first.task == "regression":
        ET.SubElement(view, "Number", name=LABEL, toName=target)
    else:
        _choices(view, LABEL, target, first.choices, "multiple" if first.task == "multilabel" else "single")
    _choices(view, VERDICT, target, tuple(VERDICTS), "single")
    ET.SubElement(view, "TextArea", name=NOTE, toName=target, placeholder="A note", maxSubmissions="1", rows="1")
    return ET.tostring(view, encoding="unicode")


def tasks_of(items: Sequence[QueueItem], *, media: bool) -> list[dict[str, Any]]:
    """Label Studio tasks: what to show, what the answer has to carry home, and the suggestion as a prediction.

    Args:
        items: The items.
        media: What ``has_media`` said of the queue that the project was made for.
    """
    return [_task(item, media=media) for item in items]


def _task(item: QueueItem, *, media: bool) -> dict[str, Any]:
    words = item.value["text"] if item.value["kind"] == "text" else sentence(item.value.get("row", {}))
    data: dict[str, Any] = {
        "content": item.content,
        "sample_id": item.id,
        "given": listed(item.given),
        ASK: question(item),
        WORDS: words or "(empty)",  # Label Studio refuses a task that lacks what its configuration shows
    }
    if media:
        data[SHOWN] = item.value["uri"]
    return {"data": data, "predictions": _predictions(item, SHOWN if media else WORDS)}


def question(item: QueueItem) -> str:
    """What is asked about an example, in one line."""
    given = "no label" if item.given is None else f"labelled {spoken(item.given)}"
    suggested = "" if item.suggested is None else f"; the model suggests {spoken(item.suggested)}"
    sure = "" if item.confidence is None else f" ({item.confidence:.0%})"
    return f"{item.id} ({item.split}): {given}{suggested}{sure}"


def spoken(label: Any) -> str:
    """A label for people."""
    if isinstance(label, tuple):
        return ", ".join(label) or "none of the classes"
    return f"{label:.10g}" if isinstance(label, float) else str(label)


def answers_of(
    tasks: Sequence[Mapping[str, Any]], users: Mapping[int, str], *, labels: Sequence[str], task: str
) -> list[Answer]:
    """The answers in a JSON export.

    Args:
        tasks: The export: tasks with their annotations.
        users: Who each user id is.
        labels: Class names of the dataset.
        task: The dataset's task.

    Returns:
        One answer for each submitted annotation of a task that kfloop made; skipped ones are left out.

    Raises:
        InputError: The project was not made by ``kfloop review export``, or an annotation names an unknown class.
    """
    answers = []
    for entry in tasks:
        data = entry.get("data", {})
        where = f"Label Studio task {entry.get('id')}"
        if "content" not in data or "sample_id" not in data:
            raise InputError(
                f"{where} has no 'content': it was not made by kfloop",
                hint="name the project that kfloop review export made",
            )
        for annotation in entry.get("annotations", []):
            answer = None if annotation.get("was_cancelled") else _answer_in(annotation.get("result", []), task)
            if answer is None:
                continue
            value = {
                "content": data["content"],
                "id": data["sample_id"],
                "answer": answer,
                "by": _person(annotation.get("completed_by"), users),
                "at": annotation["updated_at"],
                "given": data.get("given"),
                "note": _note(annotation["result"]),
            }
            answers.append(make_answer(value, f"{where}, annotation {annotation['id']}", labels=labels, task=task))
    return answers


def _choices(view: ET.Element, name: str, target: str, values: Sequence[str], many: str) -> None:
    element = ET.SubElement(view, "Choices", name=name, toName=target, choice=many, showInline="true")
    for value in values:
        ET.SubElement(element, "Choice", value=value)


def _predictions(item: QueueItem, target: str) -> list[dict[str, Any]]:
    if item.suggested is None:
        return []
    kind: str
    value: dict[str, Any]
    if item.task == "regression":
        kind, value = "number", {"number": listed(item.suggested)}
    else:
        names = list(item.suggested) if isinstance(item.suggested, tuple) else [item.suggested]
        kind, value = "choices", {"choices": names}
    result = [{"from_name": LABEL, "to_name": target, "type": kind, "value": value}]
    score = {} if item.confidence is None else {"score": item.confidence}
    return [{"model_version": MODEL, "result": result, **score}]


def _answer_in(result: Sequence[Mapping[str, Any]], task: str) -> Any:
    """The answer of an annotation; null when the person gave none. The verdict outranks the label."""
    values = {part.get("from_name"): part.get("value", {}) for part in result}
    verdict = values.get(VERDICT, {}).get("choices")
    if verdict:
        return VERDICTS.get(verdict[0], UNSURE)
    if task == "regression":
        return values.get(LABEL, {}).get("number")
    chosen = values.get(LABEL, {}).get("choices")
    if task == "multilabel":
        return chosen or []  # submitted with nothing chosen: none of the classes
    return chosen[0] if chosen else None


def _note(result: Sequence[Mapping[str, Any]]) -> str:
    for part in result:
        if part.get("from_name") == NOTE:
            text = part.get("value", {}).get("text", "")
            return text if isinstance(text, str) else " ".join(text)
    return ""


def _person(completed_by: Any, users: Mapping[int, str]) -> str:
    if isinstance(completed_by, Mapping):  # some releases and exports give the whole user
        return str(completed_by.get("email") or completed_by.get("id"))
    return users.get(completed_by, f"Label Studio user {json.dumps(completed_by)}")
