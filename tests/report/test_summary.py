"""The plain words at the end of a run."""

from __future__ import annotations

from typing import Any

import pytest

from kfloop.report import render_summary


def test_a_promotion(record: dict[str, Any]) -> None:
    lines = render_summary(record).splitlines()

    assert lines[0] == "digits: The challenger was promoted."
    assert "  Decision promote: all enforced rules passed" in lines
    assert "Champion: version 3 (beefbeefbeef) -> version 4 (c0ffeec0ffee)" in lines
    assert lines[-1] == "Report: reports/20261121.html"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"status": "rejected", "decision": {"outcome": "reject", "reason": "r"}}, "The challenger was rejected."),
        ({"status": "held", "decision": {"outcome": "hold", "reason": "r"}}, "The challenger waits for a person."),
        ({"status": "nothing_new", "repeated_of": "r0"}, "Nothing new since the last run."),
        ({"status": "needs_labels", "decision": None}, "Labels are needed."),
        ({"decision": None, "trigger": {"outcome": "none", "reason": "e-value 1.2"}}, "No drift that matters."),
        ({"decision": None, "trigger": {"outcome": "not_evaluated", "reason": "no rows"}}, "Drift was not evaluated."),
    ],
)
def test_each_conclusion(changes: dict[str, Any], sentence: str, record: dict[str, Any]) -> None:
    assert render_summary(record | changes).splitlines()[0] == f"digits: {sentence}"


def test_a_failure_outweighs_a_promotion(record: dict[str, Any]) -> None:
    record["steps"][9].update(
        status="failed", error={"code": "x", "message": "the server is gone", "hint": "kfloop serve"}
    )

    lines = render_summary(record | {"status": "failed"}).splitlines()

    assert lines[:2] == ["digits: The run failed.", "  Step deploy failed: the server is gone; kfloop serve"]


def test_a_retraining_gives_trigger_and_decision(record: dict[str, Any]) -> None:
    summary = render_summary(record | {"trigger": {"outcome": "retrain", "reason": "e-value 412"}})

    assert "  Trigger retrain: e-value 412" in summary
    cause = {"outcome": "retrain", "reason": "drift", "cause": "realised", "evidence_digest": "0123456789abcdef"}
    assert "Caused by realised (evidence 0123456789" in render_summary(record | {"trigger": cause})
    told = render_summary(record | {"trigger": cause | {"outcome": "cooldown"}})
    assert "Trigger cooldown: drift" in told
    assert "  Decision promote: all enforced rules passed" in summary


def test_never_more_than_twelve_lines(record: dict[str, Any]) -> None:
    for line in record["steps"]:
        line.update(status="failed", error={"code": "x", "message": "line\nbreak " * 100, "hint": ""})
    lines = render_summary(record | {"status": "failed"}).splitlines()

    assert len(lines) == 12
    assert lines[-1] == "Report: reports/20261121.html"
    assert "  and 7 more, see the report" in lines


def test_an_empty_record() -> None:
    assert "unknown" in render_summary({})


def checked_only(record: dict[str, Any]) -> dict[str, Any]:
    message = "3 of 900 labels are probably wrong; ask people: kfloop review export"
    changes = {"until": "check_labels", "decision": None, "champion": {"before": None, "after": None}}
    return record | changes | {"message": message, "steps": record["steps"][:3]}


def test_a_run_that_only_checked_data_says_nothing_of_champions(record: dict[str, Any]) -> None:
    lines = render_summary(checked_only(record)).splitlines()

    assert lines[0] == "digits: Every step up to check labels succeeded."
    assert lines[1] == "  3 of 900 labels are probably wrong; ask people: kfloop review export"
    assert not any(line.startswith("Champion") for line in lines)


def test_the_champion_that_there_is_stays_named(record: dict[str, Any]) -> None:
    both = {"before": {"version": 3, "digest": "beef" * 8}, "after": {"version": 3, "digest": "beef" * 8}}

    assert "Champion: version 3 (beefbeefbeef)" in render_summary(checked_only(record) | {"champion": both})


def test_a_whole_round_without_champion_says_so(record: dict[str, Any]) -> None:
    summary = render_summary(record | {"status": "rejected", "champion": {"before": None, "after": None}})

    assert "Champion: none" in summary


def test_an_override_is_named_while_it_lasts(record: dict[str, Any]) -> None:
    line = {"rule": "p95_ms <= 100", "who": "ann", "why": "busy", "ends": "2026-03-01 00:00 UTC", "row": 7}
    told = render_summary({**record, "overrides": [line, line]})
    assert (
        "Overridden: p95_ms <= 100 does not block until 2026-03-01 00:00 UTC: ann overrode it (busy; ledger row 7)"
        in told
    )
    assert "(and 1 more, see the report)" in told
    assert len(told.splitlines()) <= 12
    assert "Overridden" not in render_summary(record)
