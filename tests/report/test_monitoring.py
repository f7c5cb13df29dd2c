"""The monitoring page: everything that a round tells, less and less of it, and what older rounds told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kfloop.core.artifacts import write_report
from kfloop.report import render_run
from kfloop.report.monitor_plots import evidence
from kfloop.report.values import instant

OLD = {
    "outcome": "none",
    "reason": "no drift in 200 rows",
    "e_value": 0.3,
    "threshold": 20.0,
    "history": [{"ts": "2026-11-18T11:06:40.000+00:00", "rows": 50, "log_e": -0.2}],
    "views": {"embedding": 0.1, "outputs": 1.4},
    "effects": [],
    "data_quality": ["the log is empty"],
}


def page(report: dict[str, Any], folder: Path) -> str:
    """The report of a run with this monitoring round."""
    (folder / "monitor").mkdir()
    write_report(folder / "monitor", report)
    step = {"name": "monitor", "status": "succeeded", "seconds": 1.0, "artifact": {"kind": "evidence", "digest": "ab"}}
    record = {"loop": "l", "run_id": "r", "pipeline": "monitoring", "status": "succeeded", "steps": [step]}
    return render_run(record, {"monitor": folder / "monitor"}, folder / "page.html").read_text(encoding="utf-8")


@pytest.fixture
def whole(run_folders: dict[str, Path]) -> dict[str, Any]:
    """A report with every part."""
    found: dict[str, Any] = json.loads((run_folders["monitor"] / "report.json").read_text(encoding="utf-8"))
    return found


def test_a_round_that_watched_everything(whole: dict[str, Any], tmp_path: Path) -> None:
    shown = page(whole, tmp_path)

    for said in (
        "could not be read",
        "There is no history",
    ):
        assert said not in shown
    for said in (
        "<h3>What was found, and whether it matters</h3>",
        "C2ST AUC 0.780 (0.760 to 0.800)",
        "fall of accuracy 0.090 (0.040 to 0.140)",
        "share of unexpected values 0.300 (0.200 to 0.400)",
        "On average at most 1 false alarm a year",
        "Drift was declared at 2026-11-18 23:06:40 UTC.",
        "estimated 0.856 at last; realised 0.836 at last; reference 0.940",
        "8.0 points (6.0 to 10.0)",
        "known: after 1 h 0.020 (0.010 to 0.030), after 1 d 0.090",
        "ADWIN saw a fall after label 120",
        "<dt>share of the requests that labels stand for</dt><dd>75.0 %</dd>",
        "Rows an hour over 14 hours with requests, at most 230.",
        "60 (1.48 %)",
        "latency p95 is 81.5 ms, monitor.latency_ms_p95 is 50",
        "beyond its limit",
        "values to be between",
    ):
        assert said in shown


def test_a_report_of_before_shows_what_it_has(tmp_path: Path) -> None:
    shown = page(OLD, tmp_path)

    assert "could not be read" not in shown
    assert "Log e-value over 1 rounds, last -0.20." in shown
    assert shown.index("outputs") < shown.index("embedding")  # the strongest first
    assert "the log is empty" in shown
    for part in ("<h3>Quality</h3>", "<h3>The service</h3>", "whether it matters", "What moved"):
        assert part not in shown


@pytest.mark.parametrize("part", ["causes", "quality", "health", "columns", "streams", "history", "effects"])
@pytest.mark.parametrize("value", [None, "x", [None, {}]])
def test_any_part_may_be_missing_or_odd(part: str, value: Any, whole: dict[str, Any], tmp_path: Path) -> None:
    assert "could not be read" not in page(whole | {part: value}, tmp_path)


@pytest.mark.parametrize(
    ("outer", "inner"),
    [("quality", "estimated"), ("quality", "realised"), ("health", "latency_ms"), ("health", "volume")],
)
def test_a_part_of_a_part_may_be_missing(outer: str, inner: str, whole: dict[str, Any], tmp_path: Path) -> None:
    found = dict(whole[outer])
    del found[inner]

    shown = page(whole | {outer: found}, tmp_path)

    assert "could not be read" not in shown
    assert "<h3>The service</h3>" in shown
    assert "<h3>Quality</h3>" in shown


def test_a_cause_that_speaks_for_the_champion_says_so(whole: dict[str, Any], tmp_path: Path) -> None:
    fine = whole["causes"][1] | {"declared": False, "matters": False, "refutes": True}

    assert "says the champion is fine" in page(whole | {"causes": [fine]}, tmp_path)


def test_evidence_is_drawn_where_it_has_no_threshold_no_length_and_no_bounds() -> None:
    assert "The threshold" not in evidence([(0.0, 1.0)], None, None)
    assert "last 690.00" in evidence([(0.0, 1.0), (1e9, 690.0)], 0.0, 1e9)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("1970-01-02", 86400), ("1970-01-01T01:00:00+01:00", 0), (5, 5), (1e300, None), ("x", None), (None, None)],
)
def test_moments_are_read_in_either_form(value: Any, seconds: float | None) -> None:
    assert instant(value) == seconds
