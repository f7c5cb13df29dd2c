"""Run records: what one run did, in one JSON object, built from its step events and never edited by hand."""

from __future__ import annotations

import platform
import re
import secrets
import time
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from kfloop import __version__
from kfloop.core.progress import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.progress import Progress
    from kfloop.core.state.ledger import Entry
    from kfloop.core.state.runs import StepEvent

DIGEST_SHOWN = 12  # characters of a digest, enough to recognise it


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """One step of a run.

    Attributes:
        name: Name of the step.
        status: ``succeeded``, ``failed``, ``cached``, ``skipped`` (its branch was not taken), ``not_run`` (the run ended
            before); while the run is at work also ``running`` and ``waiting``.
        seconds: Wall time; 0 when it did not run.
        cpu_seconds: Processor time of the step's own process.
        started: Unix time; null when it did not run.
        error: The error as a dict, for a failed step.
        artifact: Kind, digest and path of what it gave.
        outcome: Decision or trigger, where the step has one.
        progress: How far a running step is, in words; null where it does not say.
    """

    name: str
    status: str
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    started: float | None = None
    error: dict[str, Any] | None = None
    artifact: dict[str, str] | None = None
    outcome: str | None = None
    progress: str | None = None


def outcome_words(outcome: str) -> str:
    """An outcome as a line has room for it: a word in full, the beginning of a digest; not the mark that tells one cause of a training from another."""
    told = outcome.partition("+")[0]
    return told[:DIGEST_SHOWN] if re.fullmatch(r"[0-9a-f]{32,}", told) else told.replace("_", " ")


@dataclass(kw_only=True)
class RunRecord:
    """One run; see ``asdict`` for the JSON that ``kfloop run --json`` prints."""

    run_id: str
    loop: str
    pipeline: str
    config_digest: str
    source_digest: str = ""
    status: str = "running"
    exit_code: int = 0
    started: float = field(default_factory=time.time)
    finished: float | None = None
    seconds: float = 0.0
    engine: str = "local"
    substitutes: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    decision: dict[str, str] | None = None
    trigger: dict[str, str] | None = None
    rollout: dict[str, Any] | None = None
    champion: dict[str, Any] = field(default_factory=lambda: {"before": None, "after": None})
    digests: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(
        default_factory=lambda: {"kfloop": __version__, "python": platform.python_version()}
    )
    cost: dict[str, float] = field(default_factory=dict)
    message: str = ""
    error: dict[str, Any] | None = None
    repeated_of: str | None = None
    until: str | None = None
    forced: bool = False
    overrides: list[dict[str, Any]] = field(default_factory=list)
    report: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The record as strict JSON types."""
        return asdict(self)


def new_run_id() -> str:
    """A fresh id that sorts by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(3)}"


def champion_dict(entry: Entry | None) -> dict[str, Any] | None:
    """Version and digest of a champion, for the record."""
    return None if entry is None else {"version": entry.version, "digest": entry.model_digest}


def step_records(
    plan: Sequence[dict[str, Any]], events: Sequence[StepEvent], *, ended: bool, progress: Progress | None = None
) -> list[StepRecord]:
    """The steps of a run: its plan, filled in with what happened.

    Args:
        plan: Planned tasks (name, branch).
        events: Step events so far.
        ended: Whether the run is over; a step that started and never ended then counts as failed.
        progress: What the running step said last.
    """
    by_step: dict[str, list[StepEvent]] = {}
    for event in events:
        by_step.setdefault(event.step, []).append(event)
    reached = {event.step for event in events}
    # A step that began and never ended failed too: killed, or unable to tell because state itself was full.
    failed = any(found[-1].event in {"failed", "started"} for found in by_step.values())
    records = [
        _step_record(task["name"], by_step.get(task["name"], []), ended=ended)
        if task["name"] in reached
        else StepRecord(name=task["name"], status=_unreached(task, ended=ended, failed=failed))
        for task in plan
    ]
    if progress is None:
        return records
    running = [record.status == "running" and record.name == progress.step for record in records]
    return [
        replace(record, progress=render(progress)) if told else record
        for record, told in zip(records, running, strict=True)
    ]


def _unreached(task: dict[str, Any], *, ended: bool, failed: bool) -> str:
    if not ended:
        return "waiting"
    return "skipped" if task["branch"] and not failed else "not_run"


def _step_record(name: str, events: list[StepEvent], *, ended: bool) -> StepRecord:
    last = events[-1]
    payload = last.payload
    if last.event == "started":
        lost = {"code": "lost", "message": f"step '{name}' ended without a word (killed, or out of memory)", "hint": ""}
        return StepRecord(
            name=name,
            status="failed" if ended else "running",
            started=last.at,
            seconds=0.0 if not ended else time.time() - last.at,
            error=lost if ended else None,
        )
    artifact: dict[str, str] = {key: payload[key] for key in ("kind", "digest", "path") if key in payload}
    return StepRecord(
        name=name,
        status=last.event,
        seconds=payload.get("seconds", 0.0),
        cpu_seconds=payload.get("cpu_seconds", 0.0),
        started=events[0].at,
        error=payload.get("error"),
        artifact=artifact or None,
        outcome=payload.get("outcome") if payload.get("outcome") != payload.get("digest") else None,
    )
