"""Notification: one message naming step, rule and reason, made from state.

KFP forbids pipeline outputs inside an exit handler, so the message is read from state. A webhook that does not answer
is reported and never fails the run: the run's outcome is decided by then.
"""

from __future__ import annotations

import json
import logging
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import read_report
from kfloop.core.run_endings import close_record
from kfloop.core.state import open_state
from kfloop.core.workspace import run_id as current_run
from kfloop.errors import ConfigError, TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.sections import NotifyConfig
    from kfloop.core.state.runs import StepEvent
    from kfloop.core.workspace import Workspace

ATTEMPTS = 3
TIMEOUT_SECONDS = 5.0
CLIENT_ERRORS = range(400, 500)

log = logging.getLogger("kfloop")


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message and where it went.

    Attributes:
        run_id: The run; empty outside of one.
        status: ``failed``, ``promote``, ``reject``, ``hold``, a trigger, ``promoted`` (by an approval), ``not_evaluated`` where nothing says what was decided, or ``succeeded`` for a part of
            a round.
        step: Step that failed or decided; empty when there is none.
        text: The message.
        delivered: ``webhook``, ``not configured``, or why it did not arrive.
    """

    run_id: str
    status: str
    step: str
    text: str
    delivered: str


def run(
    config: NotifyConfig, *, workspace: Workspace, status: str = "", error: str = "", run_id: str = ""
) -> Notification:
    """Write the message into the run's folder and post it to the webhook, if there is one.

    Args:
        config: Section ``notify``.
        workspace: Places of the loop.
        status: Final status as KFP tells it (``SUCCEEDED``, ``FAILED``); used when state knows nothing.
        error: Error message as KFP tells it.
        run_id: The run; the present one when empty.
    """
    run = run_id or current_run()
    state = open_state(workspace.state) if run else None
    events = state.runs.events(run) if state is not None else []
    part = bool(((state.runs.get(run) if state is not None else None) or {}).get("until"))  # such a run decides nothing
    word, step, text = compose(workspace.loop, run, events, status, error, part=part)
    message = Notification(run_id=run, status=word, step=step, text=text, delivered=_deliver(config, text))
    log.info("%s", message.text)
    folder = workspace.kfloop_dir / "runs" / (run or "no-run")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "notification.json").write_text(json.dumps(vars(message), indent=1) + "\n", encoding="utf-8")
    if (
        state is not None and status
    ):  # the last step of a pipeline: on a cluster nobody else is left to close the record
        close_record(state, workspace.loop, run, status, error)
    return message


def compose(
    loop: str, run: str, events: Sequence[StepEvent], status: str = "", error: str = "", *, part: bool = False
) -> tuple[str, str, str]:
    """Status, step and text of the message.

    Args:
        loop: Name of the loop.
        run: The run.
        events: The run's step events.
        status: Final status as KFP tells it.
        error: Error message as KFP tells it.
        part: Whether the run was asked for some steps only, so that it decides nothing.
    """
    head = f"loop {loop}, run {run or 'unknown'}"
    last = {event.step: event for event in events}
    failed = next((event for event in last.values() if event.event == "failed"), None)
    if failed is not None:
        reason = failed.payload.get("error") or {}
        hint = f" {reason['hint']}" if reason.get("hint") else ""
        return (
            "failed",
            failed.step,
            f"{head}: step {failed.step} failed: {reason.get('message', 'no reason given')}.{hint}",
        )
    approved = last.get("approve")
    if approved is not None and approved.event != "started":
        word = str(approved.payload.get("outcome", "unknown"))
        return word, "approve", f"{head}: approve says {word}: {approved.payload.get('reason') or 'no reason given'}"
    for step in ("gate", "monitor", "deploy", "keep"):  # a gate out of a cache told nobody
        event = last.get(step)
        if event is not None and event.event != "started":
            word = str(event.payload.get("outcome", "unknown"))
            return word, step, f"{head}: {step} says {word}: {_reason(event.payload)}"
    if status.upper() not in {"", "SUCCEEDED"}:
        return "failed", "", f"{head}: {status.lower()}: {error or 'no reason given'}"
    if part:
        return "succeeded", "", f"{head}: succeeded, without a decision"
    return "not_evaluated", "", f"{head}: nothing says what was decided"


def _reason(payload: dict[str, Any]) -> str:
    """Reason in the report that the step left in the store."""
    try:
        report = read_report(Path(payload["path"]))
        return str(report.get("reason") or report.get("sentence") or "no reason given")
    except (KeyError, OSError, ValueError, TypeError):
        return "its report is not in the store"


def _deliver(config: NotifyConfig, text: str) -> str:
    if config.webhook_env is None:
        return "not configured"
    try:
        post(_webhook(config.webhook_env), text)
    except (ConfigError, TransientError) as problem:
        log.warning("the notification did not arrive: %s", problem)
        return f"not delivered: {problem}"
    return "webhook"


def _webhook(name: str) -> str:
    """The secret URL behind the name of an environment variable."""
    url = os.environ.get(name, "")
    if not url.startswith(("https://", "http://")):
        message = f"the environment variable '{name}' holds no http(s) URL"
        raise ConfigError(message, hint="set it to the webhook's URL, or remove notify.webhook_env")
    return url


def post(url: str, text: str, *, attempts: int = ATTEMPTS, timeout: float = TIMEOUT_SECONDS) -> None:
    """Post a Slack-style message. The URL is a secret and appears in no message.

    Args:
        url: Webhook.
        text: The message.
        attempts: Tries; a refusal (4xx) is not repeated.
        timeout: Longest wait for one answer, in seconds.

    Raises:
        TransientError: It did not arrive.
    """
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})  # noqa: S310 - checked
    problem = ""
    for _ in range(attempts):
        try:
            with urllib.request.urlopen(request, timeout=timeout):  # noqa: S310 - the caller checked the scheme
                return
        except urllib.error.HTTPError as error:
            problem = f"the webhook answered HTTP {error.code}"
            if error.code in CLIENT_ERRORS:
                break
        except OSError as error:
            problem = f"the webhook gave no answer ({type(error).__name__})"
    raise TransientError(problem, hint="is the webhook still valid?")
