"""The quality of the given labels: how much noise, and the examples whose label is most doubtful, to look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sources import Context
from kfloop.report.values import count, decimal, interval, percent, rows, text, words

_SHOWN = 24


def build(context: Context) -> Mapping[str, Any]:
    """What the labels section shows."""
    report = context.source("check_labels").report
    ranked = rows(report.get("ranked"))
    shown = ranked[:_SHOWN]
    pictures = context.pictures.by_id(line.get("id") for line in shown)
    per_class = rows(report.get("per_class"))
    columns = list(dict.fromkeys(key for line in per_class for key in line))
    return {
        "facts": [
            ("rows checked", count(report.get("n"))),
            ("flagged", count(report.get("n_flagged"))),
            ("estimated share of wrong labels", _share(report.get("noise"))),
            ("doubtful training rows", words(report.get("policy"))),
            ("method", text(report.get("method"))),
        ],
        "suspects": [
            {
                "id": text(line.get("id"), limit=80),
                "given": context.label(line.get("given")),
                "suggested": context.label(line.get("suggested")),
                "margin": decimal(line.get("margin"), 2),
                "split": text(line.get("split")),
                "picture": pictures.get(text(line.get("id"))),
            }
            for line in shown
        ],
        "left_out": max(0, len(ranked) - len(shown)),
        "columns": [words(name) for name in columns],
        "per_class": [[_cell(context, name, line.get(name)) for name in columns] for line in per_class],
    }


def _share(value: Any) -> str:
    found = interval(value)
    if found is None:
        return percent(None)
    spelled = percent(found.value)
    return spelled if found.low is None else f"{spelled} ({percent(found.low)} to {percent(found.high)})"


def _cell(context: Context, name: str, value: Any) -> str:
    if name in {"label", "class", "given", "suggested", "name"}:
        return context.label(value)
    if isinstance(value, dict):
        return _share(value)
    return text(value) if isinstance(value, str) else decimal(value)
