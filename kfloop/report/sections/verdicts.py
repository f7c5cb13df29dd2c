"""The gate's verdicts, in the gate's own words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sources import Context
from kfloop.report.values import compact, estimate, items, rows, short, text, words

_ORDER = {"fail": 0, "not evaluated": 1, "pass": 2}


def build(context: Context) -> Mapping[str, Any]:
    """What the verdicts section shows."""
    report = context.source("gate").report
    verdicts = [_verdict(line) for line in rows(report.get("verdicts"))]
    return {
        "outcome": text(report.get("outcome")),
        "reason": text(report.get("reason")),
        "verdicts": sorted(verdicts, key=lambda line: _ORDER.get(line["state"], 1)),
        "notes": [text(note) for note in items(report.get("notes"))],
        "facts": [
            ("challenger", short(report.get("challenger_digest"))),
            ("champion", short(report.get("champion_digest"))),
            ("dataset version", short(report.get("dataset_digest"))),
            ("Triton", text(report.get("triton_version"))),
            ("evidence", short(report.get("evidence_digest"))),
        ],
    }


def _verdict(line: Mapping[str, Any]) -> dict[str, str]:
    return {
        "rule": words(line.get("rule")),
        # What is neither pass nor fail was not evaluated, and counts as failed: it is never shown as anything better.
        "state": state if (state := words(line.get("verdict"))) in {"pass", "fail"} else "not evaluated",
        "sentence": text(line.get("sentence")),
        "value": estimate(line),
        "threshold": compact(line.get("threshold")),
        "mode": words(line.get("mode")),
    }
