"""What several annotators said: how far they agree, how often each is right, and the examples in dispute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kfloop.report import examples
from kfloop.report.sources import Context
from kfloop.report.values import count, estimate, percent, rows, share, text

_DISPUTED = 12
_ANNOTATORS = 50


def build(context: Context, found: Mapping[str, Any], named: Callable[[Any], str]) -> dict[str, Any]:
    """Agreement, quality and disputes; empty where nobody voted.

    Args:
        context: The run.
        found: ``annotators`` of the label report; may be empty.
        named: Spells a label.
    """
    if not found:
        return {}
    disputed = rows(found.get("disputed"))
    seen = examples.by_id(context.pictures, [line.get("id") for line in disputed[:_DISPUTED]])
    quality = rows(found.get("quality"))
    return {
        "facts": [
            ("annotators", count(found.get("n_annotators"))),
            ("votes", count(found.get("n_votes"))),
            ("Krippendorff's alpha, 1 when all agree", estimate(found.get("alpha"))),
        ],
        "quality": [
            [text(line.get("annotator"), limit=60), count(line.get("n")), share(line.get("accuracy"))]
            for line in quality[:_ANNOTATORS]
        ],
        "quality_left_out": max(0, len(quality) - _ANNOTATORS),
        "classes": [
            [named(line.get("label")), count(line.get("n")), share(line.get("agreement"))]
            for line in rows(found.get("agreement_by_class"))
        ],
        "disputed": [
            {
                "id": text(line.get("id"), limit=80),
                "given": "" if line.get("given") is None else named(line.get("given")),
                "consensus": named(line.get("consensus")),
                "confidence": percent(line.get("confidence")),
                "example": seen.get(text(line.get("id"))),
            }
            for line in disputed[:_DISPUTED]
        ],
        "disputed_left_out": max(0, len(disputed) - _DISPUTED),
    }
