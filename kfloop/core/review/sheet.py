"""The review sheet: the whole queue as one HTML file that loads nothing, works offline, and saves answers as JSON lines."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kfloop.core.review.answer import UNSURE, UNUSABLE, listed
from kfloop.core.review.items import CONFLICT, FLAGGED, WORTH, QueueItem, queue_digest
from kfloop.core.review.labeling import spoken

SHEET = "sheet.html"
MOST_BUTTONS = 12  # classes that get a button each; more are a list to pick from
DIGIT_KEYS = 10
FIGURES = 4  # significant, of a suggested number: a model does not know more
NEARLY = 0.99
WHY = {
    WORTH: "a request whose answer would teach the model most",
    FLAGGED: "a request the model was not sure enough of",
    CONFLICT: "conflicting labels",
    "label_issue": "label looks wrong",
    "annotators": "people disagreed",
    "low_confidence": "model is unsure",
    "outlier": "unlike the others",
}
_NOTHING: dict[str, Any] = {"row": {}, "legend": [], "note": "", "plot": ""}
_TEMPLATES = Path(__file__).parent / "templates"


def render_sheet(items: Sequence[QueueItem], *, loop: str, dataset: str) -> str:
    """The page.

    Args:
        items: The queue, not empty.
        loop: Name of the loop.
        dataset: Digest of the dataset version.

    Returns:
        HTML. The same queue gives the same page.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["spoken"] = spoken
    first = items[0]
    facts = {
        "key": f"kfloop-review:{queue_digest(items)}",
        "task": first.task,
        "unusable": UNUSABLE,
        "unsure": UNSURE,
        "items": [{"content": item.content, "id": item.id, "given": listed(item.given)} for item in items],
    }
    return environment.get_template("sheet.html.j2").render(
        items=[_card(item) for item in items],
        sound=any(item.value.get("kind") == "audio" for item in items),
        loop=loop,
        dataset=dataset,
        task=first.task,
        choices=first.choices,
        keys=answer_keys(first.choices),
        buttons=len(first.choices) <= MOST_BUTTONS,
        facts=facts,
    )


def write_sheet(path: Path, items: Sequence[QueueItem], *, loop: str, dataset: str) -> None:
    """Write the page; it appears whole or not at all."""
    page = render_sheet(items, loop=loop, dataset=dataset)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(page)
        temporary.chmod(0o644)  # mkstemp makes it private; the sheet is meant to be handed on
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def answer_keys(names: Sequence[str]) -> list[str]:
    """The digit key of each answer: its own where it is called by a digit, else the next free one of 1 to 9 and 0; empty when none is left."""
    free = [digit for digit in "1234567890" if digit not in names]
    return [name if len(name) == 1 and name in "1234567890" else free.pop(0) if free else "" for name in names]


def _rounded(suggested: Any) -> Any:
    """A suggested number as a person would write it, for that is what a press of its button records; a class as it is."""
    return float(f"{suggested:.{FIGURES}g}") if isinstance(suggested, float) else suggested


def _sure(confidence: float) -> str:
    """A model is never quite sure, whatever rounding makes of it."""
    return f"over {NEARLY:.0%}" if confidence > NEARLY else f"{confidence:.0%}"


def _card(item: QueueItem) -> dict[str, Any]:
    """What the template shows of an item."""
    suggested = _rounded(item.suggested)
    quick = [label for label in (item.given, *item.also_given, suggested) if label is not None]
    quick = list(dict.fromkeys(quick))[:DIGIT_KEYS]
    return {
        "item": item,
        "value": _NOTHING | item.value,
        "reasons": [{"key": reason, "words": WHY[reason]} for reason in item.reasons],
        "suggested": suggested,
        "sure": None if item.confidence is None else _sure(item.confidence),
        "quick": list(zip(quick, answer_keys([spoken(label) for label in quick]), strict=True)),
    }
