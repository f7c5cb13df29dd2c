"""Notify: messages from real state, posted to a real local HTTP server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from kfloop.components.notify.notification import run
from kfloop.core.sections import NotifyConfig
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace

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
