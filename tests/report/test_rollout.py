"""A roll-out in the report of a run and on a page of its own, whole and damaged; a failed blessing with the server's own words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kfloop.core.artifacts import write_report
from kfloop.report import render_run
from kfloop.report.rollout import render_rollout

EVIL = "<script>alert(1)</script>"


def look(requests: int, worse: float) -> dict[str, Any]:
    names = ("errors", "latency")
    findings = [
        {"question": name, "n": requests, "mean": 0.01, "bound": 0.005, "worse": worse, "worse_needed": 40.0}
        | {"worse_at": None, "fine": 1.0, "fine_needed": 20.0, "fine_at": None}
        for name in names
    ]
    return {"at": 1.8e9 + requests, "requests": requests, "advice": "continue", "reason": EVIL, "findings": findings}


def told(**changes: Any) -> dict[str, Any]:
    looks = [look(requests, requests / 10) for requests in (10, 100, 300)]
    story = {"ledger_row": 4, "version": 2, "champion_version": 1, "mode": "canary", "share": 0.1, "began": 1.8e9}
    story |= {"ended": None, "outcome": "rolling_out", "reason": EVIL, "actor": "ann", "requests": 300, "hours": 0.5}
    return story | {"findings": looks[-1]["findings"], "looks": looks, "promised": {"min_requests": 200}} | changes


def record(**more: Any) -> dict[str, Any]:
    return {"run_id": "r", "loop": "m", "pipeline": "monitoring", "status": "succeeded", "steps": []} | more


def test_a_page_of_its_own_shows_the_evidence_over_time(tmp_path: Path) -> None:
    page = render_rollout("m", told(), tmp_path / "a.html", made=1.8e9).read_text(encoding="utf-8")
    assert page.count('<svg class="plot"') == 2
    assert "Version 2 is rolled out, a canary of 10 %" in page
    assert "shown from 40 on" in page
    assert EVIL not in page
    again = render_rollout("m", told(), tmp_path / "b.html", made=1.8e9).read_text(encoding="utf-8")
    assert page == again


def test_a_run_that_looked_at_a_roll_out_has_a_section_and_others_have_none(tmp_path: Path) -> None:
    page = render_run(record(rollout=told()), {}, tmp_path / "a.html").read_text(encoding="utf-8")
    assert '<section id="rollout"' in page
    assert page.count('<svg class="plot"') == 2
    assert "Roll-out" not in render_run(record(), {}, tmp_path / "b.html").read_text(encoding="utf-8")
    failed = record(rollout={"outcome": "failed", "reason": "the state is locked"})  # the look itself failed
    assert "the state is locked" in render_run(failed, {}, tmp_path / "c.html").read_text(encoding="utf-8")
    for damage in ({"looks": 3, "findings": "x"}, {"share": None, "promised": []}, {"looks": [{}, 7]}):
        page = render_run(record(rollout=told(**damage)), {}, tmp_path / "d.html").read_text(encoding="utf-8")
        assert '<section id="rollout"' in page


def test_a_failed_blessing_shows_what_the_server_wrote(tmp_path: Path) -> None:
    folder = tmp_path / "bless"
    folder.mkdir()
    failures = ["ServingError: it did not load", "another one"]
    logs = {failures[0]: ["E1122 model.onnx: Protobuf parsing failed", EVIL]}
    write_report(folder, {"passed": False, "failures": failures, "failure_logs": logs})
    line = {"name": "bless", "status": "succeeded", "seconds": 1.0, "artifact": {"digest": "d", "path": str(folder)}}
    page = render_run(record(steps=[line]), {"bless": folder}, tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Protobuf parsing failed" in page
    assert page.count("What the server wrote meanwhile") == 1
    assert "another one" in page
    assert EVIL not in page
