"""The gate's verdicts, in the gate's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report import plots
from kfloop.report.sources import Context
from kfloop.report.values import compact, estimate, interval, items, mapping, number, rows, short, text, words

_ORDER = {"fail": 0, "not evaluated": 1, "pass": 2}
_ROWS = 24  # of one plot: more are in the table
_FEWEST = 2  # figures of one kind that are worth a plot


def build(context: Context) -> Mapping[str, Any]:
    """What the verdicts section shows."""
    report = context.source("gate").report
    lines = sorted(rows(report.get("verdicts")), key=lambda line: _ORDER.get(_state(line), 1))
    return {
        "outcome": text(report.get("outcome")),
        "reason": text(report.get("reason")),
        "plots": _forests(lines),
        "rules": [_verdict(line) for line in lines if number(line.get("threshold")) is not None],
        "conditions": (conditions := [_verdict(line) for line in lines if number(line.get("threshold")) is None]),
        "sound": all(line["state"] == "pass" for line in conditions),
        "holdout": text(report.get("holdout")),
        "notes": [text(note) for note in items(report.get("notes"))],
        "facts": [
            ("challenger", short(report.get("challenger_digest"))),
            ("champion", short(report.get("champion_digest"))),
            ("dataset version", short(report.get("dataset_digest"))),
            ("Triton", text(report.get("triton_version"))),
            ("evidence", short(report.get("evidence_digest"))),
        ],
    }


def _state(line: Mapping[str, Any]) -> str:
    """What is neither pass nor fail was not evaluated, and counts as failed: it is never shown as anything better."""
    state = words(line.get("verdict"))
    return state if state in {"pass", "fail"} else "not evaluated"


def _verdict(line: Mapping[str, Any]) -> dict[str, str]:
    percent = bool(line.get("relative"))
    return {
        "rule": text(line.get("rule")),
        "state": _state(line),
        "sentence": text(line.get("sentence")),
        "advice": text(line.get("advice")),
        "value": estimate(line),
        "shortfall": _amount(line.get("shortfall"), percent=percent),
        "detectable": _amount(line.get("detectable"), percent=percent),
        "mode": words(line.get("mode")),
        "overridden": _overridden(mapping(line.get("overridden_by"))),
    }


def _overridden(by: Mapping[str, Any]) -> str:
    """Who lets this failure pass for a while."""
    return f"Overridden by {text(by.get('who'))} until {text(by.get('ends'))}: {text(by.get('why'))}" if by else ""


def _amount(value: Any, *, percent: bool) -> str:
    """A number of the size of the threshold; empty where there is none."""
    found = number(value)
    if found is None:
        return ""
    return f"{100 * found:.3g} %" if percent else compact(found)


def _forests(lines: list[dict[str, Any]]) -> list[str]:
    """For each figure that the challenger is compared by: every rule about it, the overall one first."""
    groups: dict[tuple[str, str, bool], list[plots.Judged]] = {}
    for line in lines:
        found, threshold = interval(line), number(line.get("threshold"))
        metric, _, place = text(line.get("subject")).partition(" on ")
        if (
            found is None
            or found.value is None
            or threshold is None
            or line.get("versus") not in {"champion", "baseline"}
        ):
            continue
        key = (metric, text(line.get("versus")), bool(line.get("relative")))
        judged = plots.Judged(name=place or "all test rows", found=found, threshold=threshold, state=_state(line))
        groups.setdefault(key, []).append(judged)
    drawn = []
    for number_of, ((metric, _, percent), found_lines) in enumerate(groups.items()):
        if len(found_lines) < _FEWEST:
            continue
        ordered = sorted(found_lines, key=lambda line: line.name != "all test rows")[:_ROWS]
        drawn.append(plots.forest(f"forest-{number_of}", metric.rstrip(","), ordered, percent=percent))
    return drawn
