"""What a finished run on Kubeflow Pipelines came to: its record, fetched to where the loop file is.

KFP says which steps ran. Why a challenger was rejected, or that it waits for a person, stands in state and in the reports in the store.
Where these can be reached from here they are read; where not, the record says so and where they are, and nothing is guessed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import report_if_any
from kfloop.core.records import RunRecord, StepRecord, step_records
from kfloop.core.store import Store
from kfloop.errors import EXIT_DONE, EXIT_FAILED, EXIT_REJECTED, ConfigError, KfloopError, StateError
from kfloop.pipelines.local import BRANCHES, check_branches, run_folder
from kfloop.pipelines.rounds import ENDINGS, conclusion

if TYPE_CHECKING:
    from kfloop.core.state.runs import StepEvent
    from kfloop.pipelines.cluster.following import Progress, Task
    from kfloop.pipelines.cluster.submitting import Target

STEP_WORDS = {"succeeded": "succeeded", "failed": "failed", "skipped": "skipped", "canceled": "failed"}
UNKNOWN_REASON = "state cannot be read from here, so the reason is not known here"


def fetch(target: Target, progress: Progress) -> RunRecord:
    """The record of a run that has ended, also written as ``record.json`` into the run's folder here.

    Args:
        target: The loop and its server.
        progress: The end of the run as KFP told it.

    Raises:
        ConfigError: The run is of another loop.
    """
    if progress.loop not in {"", target.config.name}:
        raise ConfigError(
            f"run {progress.run_id} is of loop '{progress.loop}', not of '{target.config.name}'",
            hint="name its loop file with -c",
        )
    record = RunRecord(
        run_id=progress.run_id,
        loop=target.config.name,
        pipeline=progress.pipeline or "training",
        config_digest=target.config.digest(),
        engine="cluster",
    )
    events, trouble = _events(target, progress.run_id)
    record.steps = [_reachable(step, target) for step in _steps(events, progress)]
    record.digests = {step.name: step.artifact["digest"] for step in record.steps if step.artifact}
    record.seconds = sum(step.seconds for step in record.steps)
    record.status, record.exit_code, record.message = _ending(record, progress, target, trouble)
    save(target, record)
    return record


def save(target: Target, record: RunRecord) -> None:
    """Write ``record.json`` into the run's folder beside the loop file, atomically."""
    folder = run_folder(target.config.workspace(target.root), record.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    staging = folder / ".record.json.tmp"
    staging.write_text(json.dumps(record.as_dict(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
    staging.replace(folder / "record.json")


def places(target: Target, run_id: str) -> str:
    """Where the reports of a run are, in a sentence."""
    workspace = target.workspace
    return (
        f"reports: store '{workspace.store}', notification: '{run_folder(workspace, run_id)}' on volume "
        f"'{target.config.cluster.volume}' of namespace '{target.config.cluster.namespace}'"
    )


def _events(target: Target, run_id: str) -> tuple[list[StepEvent], str]:
    """What the steps told state; or why it cannot be read from here."""
    try:
        events = target.reachable_state().runs.events(run_id)
    except KfloopError as error:
        return [], error.message
    return events, "" if events else f"state '{target.workspace.state}' knows nothing of this run"


def _reachable(step: StepRecord, target: Target) -> StepRecord:
    """The step, with the place of its artifact here where the store can be read from here."""
    if step.artifact is None or Path(step.artifact["path"]).is_dir():
        return step
    try:
        store = Store(target.workspace.store)
        step.artifact["path"] = str(store.require(step.artifact["kind"], step.artifact["digest"]))
    except (KfloopError, OSError):
        return step
    return step


def _steps(events: list[StepEvent], progress: Progress) -> list[StepRecord]:
    """All steps: as they told state, else as KFP tells them. One that succeeded without a word to state came from KFP's cache."""
    plan = [{"name": name, "branch": []} for name in dict.fromkeys(event.step for event in events)]
    told = {step.name: step for step in step_records(plan, events, ended=True)}
    untold = {task.name: _step(task, cached=bool(events)) for task in progress.tasks}
    return list((untold | told).values())


def _step(task: Task, *, cached: bool) -> StepRecord:
    error = {"code": "kfp", "message": task.error, "hint": ""} if task.error else None
    status = STEP_WORDS.get(task.state, "not_run")
    status = "cached" if cached and status == "succeeded" else status
    return StepRecord(name=task.name, status=status, seconds=task.seconds, error=error)


def _ending(record: RunRecord, progress: Progress, target: Target, trouble: str) -> tuple[str, int, str]:
    """Status, exit code and message; fills decision, trigger and error of the record."""
    if progress.state == "canceled":
        return (
            "cancelled",
            EXIT_FAILED,
            "the run was cancelled; finished steps are cached, the same command goes on from there",
        )
    if progress.state != "succeeded":
        failed = next((step for step in record.steps if step.status == "failed"), None)
        task = next((task for task in progress.tasks if task.state == "failed"), None)
        name = failed.name if failed else task.name if task else ""
        reason = (failed.error or {}).get("message") if failed else None
        said = reason or (task.error if task else "") or progress.error or "KFP gives no reason"
        namespace = target.config.cluster.namespace
        log = (
            f"kubectl -n {namespace} logs {task.pod} -c main"
            if task and task.pod
            else f"the log of the step: {target.url(progress.run_id)}"
        )
        record.error = {"code": "step_failed", "message": said, "hint": log, "exit_code": EXIT_FAILED}
        return "failed", EXIT_FAILED, f"step '{name}': {said} ({log})" if name else f"{said} ({log})"
    record.decision, record.trigger = _told(record, "gate"), _told(record, "monitor")
    found = record.decision or record.trigger
    if found is None:
        return _by_branch(record, f"{UNKNOWN_REASON} ({trouble}); {places(target, progress.run_id)}")
    try:
        check_branches([*record.steps, *_not_reported(record)])
    except StateError as error:
        record.error = error.as_dict()
        return "failed", EXIT_FAILED, error.message
    status, code = ENDINGS.get(found["outcome"], ("succeeded", EXIT_DONE))
    return status, code, f"{found['outcome']}: {found['reason']}"


def _told(record: RunRecord, name: str) -> dict[str, Any] | None:
    """The conclusion of a deciding step; without its report only the outcome."""
    step = next((step for step in record.steps if step.name == name and step.artifact), None)
    if step is None or step.artifact is None or step.outcome is None:
        return None
    if report_if_any(Path(step.artifact["path"])):
        return conclusion([step], name)
    return {"outcome": step.outcome, "reason": f"its report is '{step.artifact['path']}' on the cluster"}


def _not_reported(record: RunRecord) -> list[StepRecord]:
    """Steps of a branch that told state nothing: they were skipped."""
    there = {step.name for step in record.steps}
    names = {name for outcomes in BRANCHES.values() for branch in outcomes.values() for name in branch}
    return [StepRecord(name=name, status="skipped") for name in sorted(names - there)]


def _by_branch(record: RunRecord, where: str) -> tuple[str, int, str]:
    """The ending as far as the branch that ran tells it. A training of which nothing tells a decision has none: that is a failure."""
    done = {step.name for step in record.steps if step.status == "succeeded"}
    if "deploy" in done:
        return "succeeded", EXIT_DONE, "promote: step deploy succeeded"
    if "keep" in done:
        return "not_promoted", EXIT_REJECTED, f"the challenger was not promoted: rejected, or on hold; {where}"
    if "stand_by" in done:
        return "succeeded", EXIT_DONE, f"monitoring ended without a retraining; {where}"
    return "not_evaluated", EXIT_FAILED, f"every step succeeded and none says what was decided; {where}"
