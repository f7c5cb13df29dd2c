"""The results of the expectation suite, those that failed first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kfloop.report.sources import Context
from kfloop.report.values import count, rows, short, text, words


def build(context: Context) -> Mapping[str, Any]:
    """What the validation section shows."""
    report = context.source("validate_data").report
    results = [_result(line) for line in rows(report.get("results"))]
    return {
        "facts": [
            ("outcome", text(report.get("outcome_word"))),
            ("rows", count(report.get("n_rows"))),
            ("expectations", count(len(results))),
            ("failed", count(sum(line["state"] == "fail" for line in results))),
            ("suite", short(report.get("suite_digest"))),
        ],
        "results": sorted(results, key=lambda line: line["state"] == "pass"),
    }


def _result(line: Mapping[str, Any]) -> dict[str, str]:
    passed = line.get("passed")
    return {
        "expectation": words(line.get("expectation")),
        "column": text(line.get("column")),
        "severity": text(line.get("severity")),
        # Neither true nor false is what a crashed check leaves behind.
        "state": {True: "pass", False: "fail"}.get(passed, "not evaluated")
        if isinstance(passed, bool)
        else "not evaluated",
        "observed": text(line.get("observed"), limit=120),
        "detail": text(line.get("detail"), limit=240),
    }
