"""One word for how the model is, and one screen for people."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from kfloop.cli.standing import gather
from kfloop.cli.status_text import LINES, WIDTH, lines
from kfloop.cli.wellbeing import ILL, STATES, UNKNOWN, WATCH, WELL, conclude
from kfloop.components.monitor.reporting import MonitorReport
from kfloop.core.artifacts import write_report
from kfloop.core.config import load_config
from kfloop.core.state import open_state
from kfloop.core.store import Store

NOW = time.time()
ESTIMATE = {"value": 0.55, "low": 0.51, "high": 0.59, "n": 400, "level": 0.95}
MONITOR: dict[str, Any] = {
    "current": True,
    "readable": True,
    "champion_digest": "b" * 32,
    "champion_version": 2,
    "at": NOW - 60,
    "rows_seen": 1200,
    "rows_new": 20,
    "rows_unusable": 0,
    "e_value": 0.7,
    "threshold": 20.0,
    "alarm_row": None,
    "c2st_auc": ESTIMATE,
    "causes": None,
    "effects": [{"name": "confidence", "reference": 0.9, "current": 0.8, "shift_sd": -1.25}],
    "data_quality": [],
    "fresh_labels": 12,
    "quality": None,
    "health": {
        "rows_per_hour": {"now": 203.4, "before": 190.0},
        "latency_ms": {"now": {"p50": 3.1, "p95": 9.9, "p99": 14.2}, "before": {"p95": 9.0}},
        "cost": {"price_per_1000": 0.4},
        "findings": [],
    },
}
FACTS: dict[str, Any] = {
    "loop": "digits",
    "champion": {"version": 2, "digest": "b" * 32},
    "previous": {"version": 1, "digest": "a" * 32},
    "server": {"http": "127.0.0.1:8000", "grpc": "127.0.0.1:8001"},
    "target": {"kind": "embedded", "where": None, "ready": True, "why": None},
    "requests": {"success": 1220, "failure": 3},
    "edge": {"address": "127.0.0.1:9000", "answers": {"200": 10, "400": 2, "502": 1}},
    "log": {"written": 1200, "dropped": 2, "deleted_rows": 0, "deleted_files": 0, "files": 3, "bytes": 5e6, "damaged_files": 0, "full": 0},
    "feedback": {"answers": 7},
    "ledger_rows": 8,
    "waiting": None,
    "rollout": None,
    "overrides": [],
    "materiality": 0.6,
    "trigger": {"outcome": "none", "reason": "no drift in 1200 rows", "at": NOW - 60},
    "triggers": {"none": 40, "retrain": 1},
    "declined": [],
    "runs": [],
    "monitor": MONITOR,
}  # fmt: skip


def facts(monitor: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    found = FACTS | changes | {"monitor": MONITOR | (monitor or {})}
    word, why, then = conclude(found, NOW)
    return found | {"state": word, "why": why, "next": then}


REPEATED, REJECTED, FAILED = (
    {"pipeline": "training", "status": status, "started": NOW, "message": ""}
    for status in ("nothing_new", "rejected", "failed")
)


def cause(kind: str, **more: Any) -> dict[str, Any]:
    return {"kind": kind, "declared": True, "matters": False, "reason": f"{kind} was declared"} | more


def trigger(outcome: str, age: float = 60) -> dict[str, Any]:
    return {"outcome": outcome, "reason": f"because {outcome}", "at": NOW - age}


@pytest.mark.parametrize(
    ("found", "word", "why"),
    [
        (facts(), WELL, "no drift in 1200 rows"),
        (facts(champion=None), UNKNOWN, "there is no champion yet"),
        (facts(champion=None, runs=[REPEATED, REJECTED]), UNKNOWN, "the last challenger was rejected"),
        (facts(champion=None, runs=[FAILED, REJECTED]), UNKNOWN, "the last run failed"),
        (facts(trigger=None), UNKNOWN, "never monitored"),
        (facts({"current": False}), UNKNOWN, "the champion is new"),
        (facts(trigger=trigger("none", 3 * 86400)), UNKNOWN, "3.0 days ago"),
        (facts(trigger=trigger("not_evaluated")), UNKNOWN, "because not_evaluated"),
        (facts(trigger=trigger("retrain")), ILL, "because retrain"),
        (facts(trigger=trigger("needs_labels", 9e6)), ILL, "because needs_labels"),
        (facts(trigger=trigger("retrain") | {"cause": "drift"}), ILL, "because retrain"),
        (facts(trigger=trigger("retrain") | {"cause": "schedule"}), WELL, "because retrain"),
        (facts(trigger=trigger("in_flight") | {"cause": ""}), WELL, "because in_flight"),
        (facts({"at": NOW - 3 * 86400}, trigger=trigger("in_flight") | {"cause": ""}), UNKNOWN, "3.0 days ago"),
        (facts({"causes": [cause("drift", matters=True)]}, trigger=trigger("in_flight") | {"cause": ""}), ILL, "drift"),
        (facts({"causes": [cause("realised", matters=True)]}), ILL, "realised was declared"),
        (facts({"causes": [cause("drift")]}), WATCH, "drift was declared"),
        (facts({"causes": [cause("drift", matters=None)]}), WATCH, "drift was declared"),
        (facts({"alarm_row": 250}), WATCH, "drift was declared at row 250"),
        (
            facts({"causes": [cause("data_quality"), cause("drift", declared=False)]}),
            WATCH,
            "data_quality was declared",
        ),
        (facts({"health": {"findings": ["latency p95 is 80 ms"]}}), WATCH, "latency p95 is 80 ms"),
        (facts({"data_quality": ["a file is damaged", "another"]}), WATCH, "a file is damaged (and 1 more)"),
        (facts({"data_quality": ["rows of other versions are left out: 3 of version 1"]}), WELL, "no drift"),
        (facts(log=FACTS["log"] | {"dropped": 500}), WATCH, "lost 500 of 1700 rows"),
    ],
)
def test_the_word_and_why(found: dict[str, Any], word: str, why: str) -> None:
    assert found["state"] == word
    assert word in STATES
    assert why in found["why"]
    assert lines(found)[0].startswith(f"model      {word}: ")


def test_a_round_that_found_the_loop_held_hides_nothing_of_the_last_one_that_looked(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: digits\n")
    config = load_config(tmp_path / "loop.yaml")
    workspace = config.workspace(tmp_path)
    (tmp_path / "report").mkdir()
    write_report(tmp_path / "report", MonitorReport(outcome="none", reason="r", rows_seen=123))
    digest = Store.of(workspace).publish(tmp_path / "report", "evidence").name
    of = {"champion_digest": "d", "fingerprint": ""}
    triggers = open_state(workspace.state).triggers
    triggers.add("digits", run_id="r1", trigger="none", reason="no drift", evidence_digest=digest, at=NOW - 9, **of)
    triggers.add("digits", run_id="r2", trigger="in_flight", reason="run r3 is at work", at=NOW, **of)
    found = gather(tmp_path / "loop.yaml")
    assert (found["trigger"]["outcome"], found["trigger"]["cause"]) == ("in_flight", "")
    assert (found["monitor"]["rows_seen"], found["monitor"]["at"]) == (123, NOW - 9)


def test_what_to_do_next() -> None:
    assert facts()["next"] == "nothing"
    assert "kfloop serve" in facts(server=None)["next"]
    assert "kfloop serve" not in facts(server=None, target={"kind": "triton", "where": "x", "ready": True})["next"]
    assert facts(champion=None)["next"] == "kfloop run"
    for runs in ([REPEATED, REJECTED], [FAILED]):  # the same command again would only say the same
        assert facts(champion=None, runs=runs)["next"].startswith("kfloop report")
    few = facts({"rows_seen": 25}, trigger=trigger("not_evaluated"), min_rows=50)["next"]
    assert few == "kfloop monitor again, when 50 rows were answered"
    assert "wrong" in facts({"rows_seen": 250}, trigger=trigger("not_evaluated"), min_rows=50)["next"]
    assert "kfloop review" in facts(trigger=trigger("needs_labels"))["next"]
    waiting = {"version": 3, "evidence_digest": "e" * 32, "run_id": "r", "since": NOW, "expires": NOW + 60}
    assert facts(waiting=waiting)["next"].startswith("kfloop approve eeeeeeeeeeee")


def test_one_screen_says_it_all() -> None:
    quality = {
        "estimated": {"name": "accuracy", "quality": ESTIMATE, "reference": 0.58},
        "realised": {"name": "accuracy (of a long kind)", "quality": ESTIMATE, "labels": 140, "requests": 1200},
    }
    declined = [{"outcome": "cooldown", "reason": "too soon", "at": NOW, "times": 3}]
    shown = "\n".join(lines(facts({"quality": quality, "alarm_row": 250}, declined=declined)))
    for said in (
        "traffic    203 rows an hour (was 190); p50 3.1, p95 9.9, p99 14.2 ms (p95 was 9); 0.4 per 1000",
        "drift      declared: evidence 0.7 of 20 after 1,200 rows; C2ST AUC 0.55 (0.6 matters)",
        "moved      confidence -1.25 sd",
        "estimated  accuracy 0.550 (0.510 to 0.590), reference 0.580",
        "realised   accuracy 0.550 (0.510 to 0.590), 140 labels of 1,200 requests",
        "labels     7 answers to requests; 12 labelled rows are new to the champion",
        "cooldown x3: too soon",
        "requests   1220 answered, 3 failed",
    ):
        assert said in shown


def test_what_is_wrong_is_said_also_of_a_model_that_is_ill() -> None:
    wrong = {"health": {"findings": ["a", "b", "c", "d"]}}
    shown = lines(facts(wrong, trigger=trigger("needs_labels")))
    assert shown[0].startswith("model      ill")
    assert [line for line in shown if line.startswith("wrong ")] == [
        "wrong      a",
        "wrong      b",
        "wrong      and 2 more: kfloop report",
    ]


def test_the_worst_still_fits_a_screen() -> None:
    long = "reason " * 60
    waiting = {"version": 3, "evidence_digest": "e" * 32, "run_id": "r", "since": NOW, "expires": NOW + 60}
    found = facts(
        {
            "alarm_row": 2,
            "data_quality": [long, "x", "y"],
            "quality": {"estimated": {"quality": ESTIMATE}, "realised": {"quality": ESTIMATE}},
        },
        trigger={"outcome": "over_budget", "reason": long, "at": NOW},
        declined=[{"outcome": "none", "reason": long, "at": NOW, "times": k} for k in (1, 2, 3)],
        overrides=[{"rule": f"r{k}", "ends": "x", "who": "me", "why": long} for k in range(5)],
        log=FACTS["log"] | {"damaged_files": 2, "full": 9},
        rollout={"version": 3, "mode": "canary", "share": 0.1, "since": NOW},
        waiting=waiting,
        runs=[{"started": NOW, "pipeline": "training", "status": "failed", "message": long}] * 5,
    )
    shown = lines(found)
    assert len(shown) <= LINES
    assert max(map(len, shown)) <= WIDTH
    assert shown[-1].startswith("next       kfloop approve")
    assert any(line.startswith("trigger    over_budget") for line in shown)


def test_a_loop_that_nobody_monitored_and_an_unreadable_round() -> None:
    bare = FACTS | {"monitor": None, "trigger": None, "requests": None, "edge": None, "log": None, "server": None}
    word, why, then = conclude(bare, NOW)
    assert "trigger    never monitored" in lines(bare | {"state": word, "why": why, "next": then})
    lost = dict.fromkeys(MONITOR) | {"current": True, "readable": False, "at": NOW}
    assert facts(lost)["state"] == WELL  # the trigger stands in the state, also where the store lost the evidence
    assert not [line for line in lines(facts(lost)) if line.startswith("drift ")]
