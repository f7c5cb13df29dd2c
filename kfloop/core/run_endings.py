"""How a run ended: what its deciding steps concluded, and the record of a run from what its steps told state.

On a laptop the engine watches a run and closes its record. On a cluster no process outlives the steps, so the last of them does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import read_report, report_if_any
from kfloop.core.records import RunRecord, StepRecord, champion_dict, step_records
from kfloop.core.state.entries import champion_of
from kfloop.errors import EXIT_DONE, EXIT_FAILED, EXIT_REJECTED, EXIT_WAITING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.state import State
    from kfloop.core.state.runs import StepEvent

ENDINGS = {
    "promote": ("succeeded", EXIT_DONE),
    "reject": ("rejected", EXIT_REJECTED),
    "hold": ("held", EXIT_WAITING),
    "needs_labels": ("needs_labels", EXIT_WAITING),
    **dict.fromkeys(("none", "retrain", "cooldown", "in_flight", "over_budget"), ("succeeded", EXIT_DONE)),
    # What deploy, approve and keep say: of an approval, and of a run whose gate told state nothing (a pipeline that caches it).
    **dict.fromkeys(("promoted", "rolling_out", "unchanged"), ("succeeded", EXIT_DONE)),
    "rejected": ("rejected", EXIT_REJECTED),
    "held": ("held", EXIT_WAITING),
}
UNDECIDED = ("not_evaluated", EXIT_FAILED)  # a trigger of that name, a word that nobody knows, or no decision at all
CARRYING_OUT = ("deploy", "keep", "approve")
# A step that only one pipeline has tells which it was.
TELLING_STEPS = {"monitor": "monitoring", "stand_by": "monitoring", "approve": "approval"}
LAST = "notify"


def record_from_events(state: State, loop: str, run_id: str, events: Sequence[StepEvent]) -> RunRecord:
    """The record of a run on a cluster as far as its steps told state; status, exit code and message are still to be found.

    Args:
        state: Opened state.
        loop: Name of the loop.
        run_id: The run.
        events: What its steps told; ``notify``, which may be the one that asks, is left out.
    """
    told = [event for event in events if event.step != LAST]
    names = list(dict.fromkeys(event.step for event in told))
    pipeline = next((TELLING_STEPS[name] for name in names if name in TELLING_STEPS), "training")
    record = RunRecord(run_id=run_id, loop=loop, pipeline=pipeline, config_digest="", engine="cluster")
    record.steps = step_records([{"name": name, "branch": []} for name in names], told, ended=True)
    record.digests = {step.name: step.artifact["digest"] for step in record.steps if step.artifact}
    record.cost = {"cpu_seconds": sum(step.cpu_seconds for step in record.steps)}
    record.started = told[0].at if told else record.started
    record.finished = time.time()
    record.seconds = record.finished - record.started
    history = state.ledger.history(loop)
    before = champion_of([entry for entry in history if entry.at <= record.started])
    record.champion = {"before": champion_dict(before), "after": champion_dict(champion_of(history))}
    record.decision, record.trigger = concluded(record.steps, "gate"), concluded(record.steps, "monitor")
    return record


def close_record(state: State, loop: str, run_id: str, status: str, error: str) -> None:
    """Record how a run ended that no engine watches; one that has a record is left to whoever opened it.

    Args:
        state: Opened state.
        loop: Name of the loop.
        run_id: The run.
        status: Its end as KFP tells it (``SUCCEEDED``, ``FAILED``, ``CANCELED``).
        error: KFP's error message.
    """
    if state.runs.get(run_id) is not None:
        return
    record = record_from_events(state, loop, run_id, state.runs.events(run_id))
    record.status, record.exit_code, record.message = ending_of(record, status, error)
    state.runs.add_ended(run_id, loop, record.pipeline, record.status, record.as_dict())


def ending_of(record: RunRecord, status: str, error: str) -> tuple[str, int, str]:
    """Status, exit code and message of a run on a cluster; fills the record's error."""
    failed = next((step for step in record.steps if step.status == "failed"), None)
    if status.upper() == "CANCELED":
        return "cancelled", EXIT_FAILED, "the run was cancelled"
    if failed is not None or status.upper() not in {"", "SUCCEEDED"}:
        record.error = (failed.error if failed else None) or {
            "code": "kfp",
            "message": error or "KFP gives no reason",
            "hint": "",
        }
        where = f"step '{failed.name}': " if failed else ""
        return "failed", EXIT_FAILED, where + record.error["message"]
    return decided(record)


def decided(record: RunRecord) -> tuple[str, int, str]:
    """Status, exit code and message of a whole round of which every step succeeded; one of which nothing tells a decision has none."""
    carried = (step for step in record.steps if step.name in CARRYING_OUT and step.outcome)
    told = next(({"outcome": step.outcome, "reason": f"step {step.name} succeeded"} for step in carried), None)
    found = record.decision or record.trigger or told
    if found is None:
        return *UNDECIDED, "every step succeeded and none says what was decided"
    status, code = ENDINGS.get(str(found["outcome"]), UNDECIDED)
    return status, code, f"{found['outcome']}: {found['reason']}"


def concluded(steps: Sequence[StepRecord], name: str) -> dict[str, Any] | None:
    """The conclusion of a deciding step; only its outcome where its report cannot be read from here."""
    step = next((step for step in steps if step.name == name and step.artifact and step.outcome), None)
    if step is None or step.artifact is None:
        return None
    if report_if_any(Path(step.artifact["path"])):
        return conclusion([step], name)
    return {"outcome": step.outcome, "reason": f"its report is '{step.artifact['path']}' on the cluster"}


def conclusion(steps: Sequence[StepRecord], name: str) -> dict[str, Any] | None:
    """Outcome and reason of a deciding step, from the report it wrote; of the gate also each verdict that forbade a promotion."""
    step = next((step for step in steps if step.name == name and step.artifact), None)
    if step is None or step.artifact is None:
        return None
    report = read_report(Path(step.artifact["path"]))
    told = {"outcome": report["outcome"], "reason": report["reason"]}
    if name == "monitor":  # what a retraining was for, and the report that shows it
        return told | {"cause": report.get("cause", ""), "evidence_digest": step.artifact["digest"]}
    if name != "gate":
        return told
    weight = {rule: place for place, rule in enumerate(report["blocking"])}
    blocking = [
        line
        for line in report["verdicts"]
        if line["mode"] == "enforce" and line["verdict"] != "pass" and not line["overridden_by"]
    ]
    blocking.sort(key=lambda line: weight.get(line["rule"], len(weight)))
    warnings = [line for line in report["verdicts"] if line["mode"] == "warn" and line["verdict"] != "pass"]
    more = {"blocking": blocking, "warnings": warnings, "notes": report["notes"], "holdout": report["holdout"]}
    return told | {"code": report["code"], "evidence_digest": report["evidence_digest"]} | more
