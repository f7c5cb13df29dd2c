"""Notify: messages from real state, posted to a real local HTTP server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from kfloop.components.notify.notification import run
from kfloop.core.artifacts import write_report
from kfloop.core.sections import NotifyConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import RUN_ID_VARIABLE, Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Hook(HTTPServer):
    """Answers ``statuses`` in turn and keeps what it was sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.statuses: list[int] = []
        self.received: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append(json.loads(body)["text"])
        self.send_response(self.server.statuses.pop(0) if self.server.statuses else 200)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Stay quiet."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    server = Hook()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HOOK", f"http://127.0.0.1:{server.server_port}/secret-path")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(loop="t", root=tmp_path, state=f"sqlite:///{tmp_path / 'state.db'}", store="", mlflow="")


WEBHOOK = NotifyConfig(webhook_env="HOOK")


def test_failed_step_is_named_with_its_error_and_hint(workspace: Workspace, hook: Hook) -> None:
    runs = open_state(workspace.state).runs
    runs.step("r1", "ingest", "started", {})
    runs.step("r1", "ingest", "failed", {"error": {"message": "no rows in 'x'", "hint": "Add some."}})
    message = run(WEBHOOK, workspace=workspace, run_id="r1")
    assert message.text == "loop t, run r1: step ingest failed: no rows in 'x'. Add some."
    assert (message.status, message.step, message.delivered) == ("failed", "ingest", "webhook")
    assert hook.received == [message.text]


def test_decision_is_told_with_its_rule(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"reason": "accuracy is 0.1; must be at least 0.8: fail"}))
    runs = open_state(workspace.state).runs
    runs.step("r2", "gate", "succeeded", {"outcome": "reject", "path": str(tmp_path)})
    message = run(NotifyConfig(), workspace=workspace, run_id="r2")
    assert message.text == "loop t, run r2: gate says reject: accuracy is 0.1; must be at least 0.8: fail"
    assert message.delivered == "not configured"
    written = json.loads((workspace.kfloop_dir / "runs" / "r2" / "notification.json").read_text())
    assert written["text"] == message.text


def test_an_approval_is_told(workspace: Workspace) -> None:
    runs = open_state(workspace.state).runs
    runs.step("r4", "approve", "succeeded", {"outcome": "promoted", "reason": "Version 2 is champion."})
    message = run(NotifyConfig(), workspace=workspace, run_id="r4")
    assert message.text == "loop t, run r4: approve says promoted: Version 2 is champion."
    assert (message.status, message.step) == ("promoted", "approve")


def test_state_that_knows_nothing_leaves_kfps_own_word(workspace: Workspace) -> None:
    message = run(NotifyConfig(), workspace=workspace, run_id="r3", status="FAILED", error="boom")
    assert message.text == "loop t, run r3: failed: boom"


def test_server_error_is_retried_and_a_refusal_is_not(workspace: Workspace, hook: Hook) -> None:
    hook.statuses = [500]
    assert run(WEBHOOK, workspace=workspace, run_id="r").delivered == "webhook"
    hook.statuses = [404]
    message = run(WEBHOOK, workspace=workspace, run_id="r")
    assert message.delivered == "not delivered: the webhook answered HTTP 404"
    assert len(hook.received) == 3


def test_webhook_that_is_gone_never_fails_the_run_nor_shows_its_url(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "http://127.0.0.1:9/secret-path")
    message = run(WEBHOOK, workspace=workspace, run_id="r")
    assert "gave no answer" in message.delivered
    assert "secret-path" not in message.delivered


@pytest.mark.parametrize("value", ["", "file:///etc/passwd"])
def test_variable_without_a_url_is_reported(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("HOOK", value)
    assert "holds no http(s) URL" in run(WEBHOOK, workspace=workspace, run_id="r").delivered


def on_the_cluster(workspace: Workspace, monkeypatch: pytest.MonkeyPatch, outcome: str, branch: str) -> str:
    """Steps of a run that no engine opened, as pods tell them, up to ``notify`` itself."""
    run_id = "8f3c0a52-1111-4222-8333-444455556666"
    monkeypatch.setenv(RUN_ID_VARIABLE, run_id)
    runs = open_state(workspace.state).runs
    place = workspace.root / "decisions" / "d1"
    place.mkdir(parents=True)
    verdict = {
        "rule": "accuracy",
        "mode": "enforce",
        "verdict": "fail",
        "overridden_by": None,
        "sentence": "accuracy is .5",
    }
    report = {"outcome": outcome, "reason": "accuracy is .5", "blocking": ["accuracy"], "verdicts": [verdict]}
    write_report(place, report | {"notes": [], "holdout": "", "code": "rules_failed", "evidence_digest": "e1"})
    payloads = {
        "ingest": {
            "kind": "datasets",
            "digest": "data1",
            "path": "/store/datasets/data1",
            "outcome": "data1",
            "seconds": 4.0,
        },
        "gate": {"kind": "decisions", "digest": "d1", "path": str(place), "outcome": outcome, "seconds": 1.0},
        branch: {"seconds": 1.0},
    }
    for step, payload in payloads.items():
        runs.step(run_id, step, "started", {})
        runs.step(run_id, step, "succeeded", payload)
    runs.step(run_id, "notify", "started", {})
    return run_id


@pytest.mark.parametrize(
    ("outcome", "branch", "status", "code"),
    [("promote", "deploy", "succeeded", 0), ("reject", "keep", "rejected", 3), ("hold", "keep", "held", 4)],
)
def test_on_a_cluster_the_last_step_closes_the_record(
    outcome: str, branch: str, status: str, code: int, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = on_the_cluster(workspace, monkeypatch, outcome, branch)
    for _ in range(2):  # a repetition of the step adds nothing
        run(NotifyConfig(), workspace=workspace, status="SUCCEEDED")
    (record,) = open_state(workspace.state).runs.last("t", 5)
    assert (record["run_id"], record["status"], record["exit_code"]) == (run_id, status, code)
    assert (record["pipeline"], record["engine"]) == ("training", "cluster")
    assert record["message"] == f"{outcome}: accuracy is .5"
    assert record["digests"] == {"ingest": "data1", "gate": "d1"}  # the next round finds its dataset version by this
    assert [step["name"] for step in record["steps"]] == ["ingest", "gate", branch]
    assert open_state(workspace.state).runs.active("t") == []


def test_a_failure_on_a_cluster_is_closed_with_its_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    runs = open_state(workspace.state).runs
    runs.step("run-1", "monitor", "started", {})
    runs.step("run-1", "monitor", "failed", {"error": {"code": "input", "message": "no column 'at'", "hint": ""}})
    run(NotifyConfig(), workspace=workspace, status="FAILED", error="pod failed")
    (record,) = runs.last("t")
    assert (record["status"], record["pipeline"], record["exit_code"]) == ("failed", "monitoring", 1)
    assert record["message"] == "step 'monitor': no column 'at'"


def test_a_run_that_failed_before_any_step_told_of_itself(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    run(NotifyConfig(), workspace=workspace, status="FAILED", error="ImagePullBackOff")
    (record,) = open_state(workspace.state).runs.last("t")
    assert (record["status"], record["message"]) == ("failed", "ImagePullBackOff")


def test_a_record_that_an_engine_opened_is_its_own_to_close(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    runs = open_state(workspace.state).runs
    runs.start("run-1", "t", "training", "", {"run_id": "run-1", "status": "running"})
    run(NotifyConfig(), workspace=workspace, status="SUCCEEDED")
    assert runs.active("t") == ["run-1"]
    assert runs.get("run-1") == {"run_id": "run-1", "status": "running"}


@pytest.mark.parametrize("told", [[], ["ingest", "train"], ["gate of another kfloop"], ["gate without a word"]])
def test_a_run_on_a_cluster_that_decided_nothing_is_no_success(
    told: list[str], workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    runs = open_state(workspace.state).runs
    for name in told:
        step, _, odd = name.partition(" ")
        outcome = {"of another kfloop": "maybe", "without a word": None}.get(odd, "d1")
        runs.step("run-1", step, "succeeded", {"kind": "k", "digest": "d1", "path": "/gone", "outcome": outcome})
    message = run(NotifyConfig(), workspace=workspace, status="SUCCEEDED")
    (record,) = runs.last("t")
    assert (record["status"], record["exit_code"]) == ("not_evaluated", 1)
    assert message.status != "succeeded"


@pytest.mark.parametrize(
    ("step", "outcome", "status", "code"),
    [
        ("deploy", "promoted", "succeeded", 0),
        ("deploy", "rolling_out", "succeeded", 0),
        ("keep", "rejected", "rejected", 3),
        ("keep", "held", "held", 4),
        ("approve", "promoted", "succeeded", 0),
    ],
)
def test_what_was_carried_out_tells_the_decision_of_a_gate_out_of_the_cache(
    step: str, outcome: str, status: str, code: int, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    runs = open_state(workspace.state).runs
    runs.step("run-1", step, "succeeded", {"outcome": outcome, "digest": "d1"})
    message = run(NotifyConfig(), workspace=workspace, status="SUCCEEDED")
    (record,) = runs.last("t")
    assert (record["status"], record["exit_code"], message.status) == (status, code, outcome)


def test_a_part_of_a_round_has_nothing_to_decide(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_ID_VARIABLE, "run-1")
    open_state(workspace.state).runs.start("run-1", "t", "training", "", {"until": "train"})
    assert run(NotifyConfig(), workspace=workspace, status="SUCCEEDED").status == "succeeded"
