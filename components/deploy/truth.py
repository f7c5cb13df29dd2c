"""What is known of the truth of requests, as far as the answers of a roll-out's versions can be held against it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.core.quality.answers import of_model, spelled

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
            found[str(row["request_id"])] = of_model(spelled(row["label"]), signature.objective, signature.labels)
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return {name: label for name, label in found.items() if label is not None}
