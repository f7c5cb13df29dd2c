"""What monitoring saw: evidence over time against its threshold, the size of each shift, the estimated accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import compact, count, decimal, estimate, items, mapping, number, rows, short, text, words

_EFFECTS_PLOTTED = 20


def build(context: Context) -> Mapping[str, Any]:
    """What the drift section shows."""
    report = context.source("monitor").report
    history = [line for line in rows(report.get("history")) if number(line.get("log_e")) is not None]
    threshold = number(report.get("threshold"))
    limit = math.log(threshold) if threshold is not None and threshold > 0 else None
    effects = sorted(rows(report.get("effects")), key=lambda line: -abs(number(line.get("shift_sd")) or 0.0))
    sizes = {words(line.get("name")): number(line.get("shift_sd")) for line in effects[:_EFFECTS_PLOTTED]}
    drawn = {name: size for name, size in sizes.items() if size is not None}
    return {
        "outcome": words(report.get("outcome")),
        "reason": text(report.get("reason")),
        "facts": [
            ("champion", short(report.get("champion_digest"))),
            ("rows seen", count(report.get("rows_seen"))),
            ("of them new", count(report.get("rows_new"))),
            ("e-value", compact(report.get("e_value"))),
            ("threshold", compact(report.get("threshold"))),
            ("two-sample classifier, area under the curve", estimate(report.get("c2st_auc"))),
            ("estimated accuracy", estimate(report.get("estimated_accuracy"))),
            ("the same estimate for the reference", estimate(report.get("reference_accuracy"))),
            ("drift declared at row", "" if report.get("alarm_row") is None else count(report.get("alarm_row"))),
            ("unusable rows", "" if not report.get("rows_unusable") else count(report.get("rows_unusable"))),
            ("fresh labels", count(report.get("fresh_labels"))),
        ],
        "blind_spot": text(report.get("blind_spot")),
        "views": [[words(name), decimal(value)] for name, value in mapping(report.get("views")).items()],
        "plot": plots.log_evidence([line.get("ts") for line in history], _logs(history), limit) if history else "",
        "history": [[text(line.get("ts")), count(line.get("rows")), decimal(line.get("log_e"))] for line in history],
        "effects_plot": plots.effects(drawn) if drawn else "",
        "effects": [
            [words(line.get("name")), *(decimal(line.get(key)) for key in ("reference", "current", "shift_sd"))]
            for line in effects[:_EFFECTS_PLOTTED]
        ],
        "quality": [_alarm(line) for line in items(report.get("data_quality"))],
    }


def _logs(history: list[dict[str, Any]]) -> list[float]:
    return [number(line.get("log_e")) or 0.0 for line in history]


def _alarm(line: Any) -> str:
    """A data-quality finding is a sentence, or an object of which every part is shown."""
    fields = mapping(line)
    if not fields:
        return text(line)
    sentence = fields.get("sentence") or fields.get("detail") or fields.get("message")
    return text(sentence) if sentence else ", ".join(f"{words(key)}: {text(value)}" for key, value in fields.items())
