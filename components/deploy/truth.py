"""What is known of the truth of requests, as far as the answers of a roll-out's versions can be held against it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.quality.answers import spelled

if TYPE_CHECKING:
    from kfloop.core.quality.answers import Label
    from kfloop.core.signature import Signature


def read_truth(feedback: str | None, signature: Signature) -> dict[str, Label]:
    """Labels by request id; a later line counts. A line that cannot be read (one that is being written) tells nothing yet.

    A label that is none of the model's, such as a misspelt class, tells nothing at all: against it both versions are wrong, and as many such labels as one likes would
    say that the challenger is as good as the champion.

    Args:
        feedback: File of ground truth, JSON lines; it may not exist.
        signature: Of the model: what it learned, and its classes.
    """
    if feedback is None or not Path(feedback).is_file():
        return {}
    found: dict[str, Label | None] = {}
    for line in Path(feedback).read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
            found[str(row["request_id"])] = _label(row["label"], signature)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return {name: label for name, label in found.items() if label is not None}


def _label(value: Any, signature: Signature) -> Label | None:
    """A label in the spelling of the model's; None where it is none of them, or no number."""
    label = spelled(value)
    if label is None:
        return None
    if signature.objective == "classification":
        return label if label in signature.labels else None
    if signature.objective == "multilabel":
        names = label if isinstance(label, tuple) else (str(label),)
        return names if set(names) <= set(signature.labels) else None
    try:
        return label if not isinstance(label, tuple) and math.isfinite(float(label)) else None
    except ValueError:
        return None
