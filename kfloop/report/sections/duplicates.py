"""Rows that are the same or nearly so, side by side: conflicting labels, and training rows that leak into the test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kfloop.report import examples
from kfloop.report.sources import Context
from kfloop.report.values import count, decimal, number, rows, text

_PAIRS = 12


def build(context: Context, found: Mapping[str, Any], named: Callable[[Any], str]) -> dict[str, Any]:
    """Counts of the pairs, and the first of them with both rows to look at.

    Args:
        context: The run.
        found: ``duplicates`` of the label report; may be empty.
        named: Spells a label.
    """
    pairs = rows(found.get("pairs"))
    ids = [line.get(side) for line in pairs[:_PAIRS] for side in ("a", "b")]
    seen = examples.by_id(context.pictures, ids)
    return {
        "facts": [
            ("exact pairs", count(found.get("exact"))),
            ("near pairs", count(found.get("near"))),
            ("with conflicting labels", count(found.get("conflicting"))),
            ("across splits", count(found.get("leaking"))),
        ]
        if found
        else [],
        "pairs": [
            {
                "kind": text(line.get("kind"), limit=20),
                "distance": decimal(line.get("distance"), 2) if number(line.get("distance")) else "",
                "conflict": line.get("conflict") is True,
                "leak": line.get("leak") is True,
                "sides": [_side(line, side, seen, named) for side in ("a", "b")],
            }
            for line in pairs[:_PAIRS]
        ],
        "left_out": max(0, len(pairs) - _PAIRS),
    }


def _side(
    line: Mapping[str, Any], side: str, seen: Mapping[str, examples.Example], named: Callable[[Any], str]
) -> dict[str, Any]:
    label = line.get(f"label_{side}")
    return {
        "id": text(line.get(side), limit=80),
        "split": text(line.get(f"split_{side}"), limit=20),
        "label": "" if label is None else named(label),
        "example": seen.get(text(line.get(side))),
    }
