"""The loop for Prometheus: what is exposed, read back by Prometheus' own parser; and the dashboard and the alert rules that use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from kfloop.cli.exposition import METRICS, PREFIX, READABLE, registry
from kfloop.cli.metrics import ALERTS, ASSETS, DASHBOARD, metrics_command
from kfloop.components.monitor.policy.causes import KINDS
from kfloop.components.monitor.policy.concluding import TRIGGERS
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

LOOP = "name: digits\n"
NAMES = {PREFIX + metric.name for metric in (*METRICS, READABLE)}
TRITON = {"nv_inference_request_success", "nv_inference_request_failure", "nv_inference_request_duration_us"}
WORD = re.compile(r"\b(?:kfloop|nv)_\w+")
ESTIMATE = {"value": 0.7, "low": 0.6, "high": 0.8, "n": 9, "level": 0.95}
MONITOR: dict[str, Any] = {
    "current": True,
    "readable": True,
    "rows_seen": 500,
    "rows_unusable": 2,
    "e_value": 1e300,
    "threshold": 20.0,
    "alarm_row": 90,
    "c2st_auc": ESTIMATE,
    "fresh_labels": 4,
    "causes": [
        {"kind": "drift", "declared": True, "matters": None},
        {"kind": "realised", "declared": False, "matters": False},
        {"kind": "data_quality", "declared": True, "matters": False},
        {"kind": "data_quality", "declared": False, "matters": False},
        {"kind": "of somebody else", "declared": True, "matters": True},
    ],
    "quality": {
        "estimated": {"quality": ESTIMATE, "reference": 0.9},
        "realised": {"quality": ESTIMATE | {"low": float("nan")}},
    },
    "data_quality": ["rows of other versions are left out: 3 of version 1", "a file is damaged"],
    "health": {
        "rows_per_hour": {"now": 20.5},
        "latency_ms": {"now": {"p50": 4.0, "p95": 250.0, "p99": None}, "limit_p95": 100},
        "service": {"failure_share": 0.25},
        "cost": {"price_per_1000": 0.4},
        "findings": ["slow"],
    },
}
FACTS: dict[str, Any] = {
    "state": "watch",
    "champion": {"version": 3, "digest": "c"},
    "waiting": None,
    "rollout": {"version": 4, "share": 0.1, "mode": "canary", "since": 1.0},
    "trigger": {"outcome": "none", "reason": "r", "at": 1.7e9},
    "triggers": {"none": 8, "retrain": 2, "a word of tomorrow": 1},
    "materiality": 0.6,
    "feedback": {"answers": 6},
    "server": {"http": "h"},
    "requests": {"success": 10, "failure": 1},
    "edge": {"address": "a", "answers": {"200": 5, "401": 2, "502": 1}},
    "log": {"written": 100, "dropped": 3, "bytes": 2000, "damaged_files": 0},
    "published": {"behind_seconds": 1200, "writers": [{"silent_seconds": 0}, {"silent_seconds": 7200}]},
    "runs": [{"pipeline": "training", "status": "failed", "started": 5.0}],
    "monitor": MONITOR,
}  # fmt: skip


def exposed(facts: Mapping[str, Any], loop: str = "digits") -> dict[tuple[str, ...], float]:
    """Every sample, read back: by name and the values of its labels other than that of the loop."""
    text = generate_latest(registry(lambda: facts, loop)).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.documentation.endswith(".")
        for sample in family.samples:
            assert sample.labels.pop("loop") == loop
            key = (sample.name, *(value for _, value in sorted(sample.labels.items())))
            assert key not in found
            found[key] = sample.value
    return found


def test_what_is_known_is_exposed() -> None:
    found = exposed(FACTS)
    for key, value in {
        ("kfloop_scrape_ok",): 1,
        ("kfloop_model_state", "watch"): 1,
        ("kfloop_model_state", "well"): 0,
        ("kfloop_champion_version",): 3,
        ("kfloop_rollout_share_ratio",): 0.1,
        ("kfloop_approval_waiting",): 0,
        ("kfloop_monitor_last_round_timestamp_seconds",): 1.7e9,
        ("kfloop_monitor_last_outcome", "none"): 1,
        ("kfloop_monitor_rounds_total", "none"): 8,
        ("kfloop_monitor_rounds_total", "retrain"): 2,
        ("kfloop_monitor_rows_total",): 500,
        ("kfloop_drift_evidence",): 1e300,
        ("kfloop_drift_declared",): 1,
        ("kfloop_drift_c2st_auc",): 0.7,
        ("kfloop_drift_c2st_auc_low",): 0.6,
        ("kfloop_cause_declared", "drift"): 1,
        ("kfloop_cause_declared", "data_quality"): 1,
        ("kfloop_cause_matters", "realised"): 0,
        ("kfloop_estimated_quality_high",): 0.8,
        ("kfloop_realised_quality",): 0.7,
        ("kfloop_reference_quality",): 0.9,
        ("kfloop_data_quality_findings",): 2,
        ("kfloop_requests_total", "failed"): 1,
        ("kfloop_edge_requests_total", "refused"): 2,
        ("kfloop_request_log_rows_total", "dropped"): 3,
        ("kfloop_request_log_behind_seconds",): 1200,
        ("kfloop_request_log_silent_servers",): 1,
        ("kfloop_request_latency_seconds", "95"): 0.25,
        ("kfloop_request_latency_limit_seconds",): 0.1,
        ("kfloop_request_failure_ratio",): 0.25,
        ("kfloop_cost_per_1000_requests",): 0.4,
        ("kfloop_last_run_failed", "training"): 1,
    }.items():
        assert found[key] == pytest.approx(value), key


def test_what_is_not_known_is_left_out_and_labels_are_bounded() -> None:
    found = exposed(FACTS)
    for missing in (
        ("kfloop_realised_quality_low",),  # NaN
        ("kfloop_request_latency_seconds", "99"),
        ("kfloop_cause_matters", "drift"),
        ("kfloop_cause_declared", "of somebody else"),
        ("kfloop_monitor_rounds_total", "a word of tomorrow"),
        ("kfloop_monitor_rounds_total", "cooldown"),
    ):
        assert missing not in found
    assert exposed({}) == {("kfloop_scrape_ok",): 1}


def test_every_metric_has_a_value_when_all_is_known() -> None:
    known = MONITOR | {"causes": [{"kind": "drift", "declared": True, "matters": True}]}
    known["quality"] = {name: {"quality": ESTIMATE, "reference": 0.9} for name in ("estimated", "realised")}
    assert {key[0] for key in exposed(FACTS | {"monitor": known})} == NAMES


@pytest.mark.parametrize("part", [None, {}, [], "x", 3, True, [None]])
@pytest.mark.parametrize("key", [*FACTS, *(f"monitor.{key}" for key in MONITOR)])
def test_a_part_that_is_missing_or_odd_costs_no_more_than_itself(key: str, part: Any) -> None:
    outer, _, inner = key.partition(".")
    facts = FACTS | ({"monitor": MONITOR | {inner: part}} if inner else {outer: part})
    assert exposed(facts)[("kfloop_scrape_ok",)] == 1


def test_what_was_found_of_the_champion_before_is_not_told_of_this_one() -> None:
    found = exposed(FACTS | {"monitor": MONITOR | {"current": False}})
    assert ("kfloop_drift_declared",) not in found
    assert ("kfloop_data_quality_findings",) not in found
    assert found[("kfloop_monitor_rounds_total", "retrain")] == 2


def test_a_loop_that_cannot_be_read_is_told() -> None:
    def gather() -> Mapping[str, Any]:
        raise StateError("the ledger was changed", hint="restore it")

    text = generate_latest(registry(gather, "digits")).decode()
    assert text.splitlines()[2:] == ['kfloop_scrape_ok{loop="digits"} 0.0']


def test_a_name_with_odd_signs_is_escaped() -> None:
    assert exposed(FACTS, 'a "b"\\\n{c}')[("kfloop_champion_version",)] == 3


def test_names_follow_the_conventions_and_words_are_those_of_the_loop() -> None:
    from kfloop.cli import exposition

    assert exposition.OUTCOMES == TRIGGERS
    assert exposition.KINDS == KINDS
    assert len(NAMES) == len(METRICS) + 1
    for metric in METRICS:
        assert re.fullmatch(r"[a-z][a-z0-9_]+", metric.name)
        assert not re.search(r"_(ms|us|percent|mb|minutes|hours)$", metric.name)


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A loop that was monitored once and has no champion."""
    path = tmp_path / "loop.yaml"
    path.write_text(LOOP)
    return path


def test_the_command_prints_a_loop_that_never_ran(loop: Path) -> None:
    done = CliRunner().invoke(metrics_command, ["-c", str(loop)], standalone_mode=False)
    assert done.exception is None
    assert 'kfloop_model_state{loop="digits",state="unknown"} 1.0' in done.stdout
    assert not (loop.parent / ".kfloop").exists()  # nothing is created for it


def test_a_scrape_sees_what_happened_since_the_last_one(loop: Path) -> None:
    """A process of its own serves /metrics and ends with SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kfloop", "metrics", "-c", str(loop), "--listen", "127.0.0.1:0"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    try:
        assert process.stderr is not None
        address = re.search(r"http://[\d.:]+/metrics", process.stderr.readline())
        assert address is not None
        before = scrape(address[0])
        assert "kfloop_monitor_rounds_total" not in before
        workspace = Workspace(
            loop="digits", root=loop.parent, state=f"sqlite:///{loop.parent}/.kfloop/state.db", store="", mlflow=""
        )
        of = {"reason": "r", "champion_digest": "d", "fingerprint": ""}
        for run, trigger in (("", "none"), ("r1", "retrain"), ("r1", "in_flight"), ("", "none")):  # r1 took it back
            open_state(workspace.state).triggers.add("digits", run_id=run, trigger=trigger, **of)
        after = scrape(address[0])
        rounds = re.findall(r'kfloop_monitor_rounds_total{loop="digits",outcome="(\w+)"} (\S+)', after)
        assert dict(rounds) == {"none": "2.0", "in_flight": "1.0"}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("place", ["9464", ":9464", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", "192.0.2.1:9464"])
def test_an_address_that_cannot_be(place: str, loop: Path) -> None:
    done = CliRunner().invoke(metrics_command, ["-c", str(loop), "--listen", place], standalone_mode=False)
    assert isinstance(done.exception, ConfigError)
    assert place in done.exception.message


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError) as raised:
        registry(dict, "digits")
    assert "kfloop[metrics]" in raised.value.hint


def scrape(address: str) -> str:
    with urllib.request.urlopen(address, timeout=20) as answer:  # noqa: S310 - the address that the process named
        return str(answer.read().decode())


def printed(flag: str, loop: Path) -> str:
    done = CliRunner().invoke(metrics_command, [flag, "-c", str(loop)], standalone_mode=False)
    assert done.exception is None
    return done.stdout


def expressions(panel: Any) -> Iterator[str]:
    """Every expression of a dashboard, wherever it stands."""
    if isinstance(panel, dict):
        yield from (
            value
            for key, value in panel.items()
            if key in {"expr", "query"} and isinstance(value, str) and value != "prometheus"
        )
        for value in panel.values():
            yield from expressions(value)
    elif isinstance(panel, list):
        for value in panel:
            yield from expressions(value)


def test_the_dashboard_is_what_grafana_wants(tmp_path: Path) -> None:
    board = json.loads(printed("--dashboard", tmp_path / "no loop is needed"))
    assert board["schemaVersion"] >= 36
    assert {"title", "uid", "time", "refresh", "templating", "annotations", "panels"} <= set(board)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"] | {"type": "datasource", "query": "prometheus"} == variables["datasource"]
    assert variables["loop"]["query"]["query"] == "label_values(kfloop_scrape_ok, loop)"
    places = []
    for panel in board["panels"]:
        assert panel["type"] in {"stat", "timeseries"}
        assert panel["title"]
        assert panel["targets"]
        assert [target["datasource"]["uid"] for target in panel["targets"]] == ["${datasource}"] * len(panel["targets"])
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        x, y, w, h = (panel["gridPos"][key] for key in "xywh")
        assert x + w <= 24
        places += [(column, row) for column in range(x, x + w) for row in range(y, y + h)]
    assert len(places) == len(set(places)), "panels overlap"
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_every_metric_of_the_dashboard_exists() -> None:
    board = json.loads((ASSETS / DASHBOARD).read_text(encoding="utf-8"))
    named = {name for expression in expressions(board) for name in WORD.findall(expression)}
    assert named <= NAMES | TRITON, named - NAMES - TRITON
    assert len(named) > 20


def test_the_alert_rules_are_whole_and_their_metrics_exist(tmp_path: Path) -> None:
    groups = yaml.safe_load(printed("--alerts", tmp_path / "no loop is needed"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "description"}
        assert re.fullmatch(r"\d+[mh]", rule["for"])
        named = set(WORD.findall(rule["expr"]))
        assert named, rule["alert"]
        assert named <= NAMES | TRITON, rule["alert"]
        for label, word in re.findall(r'(outcome|kind|state)="(\w+)"', rule["expr"]):
            assert word in {"outcome": TRIGGERS, "kind": KINDS, "state": ()}[label]
    assert {
        "KfloopDriftMatters",
        "KfloopQualityFell",
        "KfloopMonitorLate",
        "KfloopLogDrops",
        "KfloopLatencyHigh",
        "KfloopRequestsFail",
        "KfloopDataQuality",
    } <= {rule["alert"] for rule in rules}


@pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool on PATH")
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    found = subprocess.run(
        ["promtool", "check", "rules", str(ASSETS / ALERTS)], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    text = generate_latest(registry(lambda: FACTS, "digits"))
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
