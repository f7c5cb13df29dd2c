"""What a finished run on Kubeflow Pipelines came to: its record, fetched to where the loop file is.

KFP says which steps ran. Why a challenger was rejected, or that it waits for a person, stands in state and in the reports in the store.
Where these can be reached from here they are read; where not, the record says so and where they are, and nothing is guessed.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kfloop.components.monitor.policy.circumstances import awaited
from kfloop.core.records import RunRecord, StepRecord
from kfloop.core.run_endings import close_record, concluded, ending_of, record_from_events
from kfloop.core.store import Store
from kfloop.errors import EXIT_DONE, EXIT_FAILED, EXIT_REJECTED, ConfigError, KfloopError, StateError
from kfloop.pipelines.local import BRANCHES, check_branches, run_folder

if TYPE_CHECKING:
    from kfloop.pipelines.cluster.following import Progress, Task
    from kfloop.pipelines.cluster.submitting import Target

STEP_WORDS = {"succeeded": "succeeded", "failed": "failed", "skipped": "skipped", "canceled": "failed"}


def fetch(target: Target, progress: Progress) -> RunRecord:
    """The record of a run that has ended, also written as ``record.json`` into the run's folder here.

    A run that was cancelled or that died has no last step which closes its record in state. It is closed here where state can be reached, so that
    the monitor knows at once that it is over.

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
    if progress.ended and progress.state != "succeeded" and progress.loop == target.config.name:
        with contextlib.suppress(KfloopError):  # out of reach: the monitor counts the run for as long as it may take
            state, error = target.reachable_state(), progress.error
            close_record(state, target.config.name, progress.run_id, progress.state, error)
    record = _record(target, progress)
    record.status, record.exit_code, record.message = _ending(record, progress, target)
    save(target, record)
    return record


def close_gone(target: Target, run_id: str) -> bool:
    """Close the record of a training that a trigger started and that the server knows no more: somebody deleted it.

    Returns:
        Whether there was such a one.

    Raises:
        KfloopError: State cannot be reached from here.
    """
    state, loop = target.reachable_state(), target.config.name
    if awaited(state, loop).get("outcome") != run_id:
        return False
    close_record(state, loop, run_id, "CANCELED", "")
    return True


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


def _record(target: Target, progress: Progress) -> RunRecord:
    """What state and KFP say together; ``substitutes`` says why state says nothing."""
    try:
        state = target.reachable_state()
        events = state.runs.events(progress.run_id)
        closed = state.runs.get(progress.run_id) or {}
        record = record_from_events(state, target.config.name, progress.run_id, events)
        trouble = "" if events else f"state '{target.workspace.state}' knows nothing of this run"
    except KfloopError as error:
        record = RunRecord(
            run_id=progress.run_id, loop=target.config.name, pipeline="", config_digest="", engine="cluster"
        )
        closed, trouble = {}, error.message
    if trouble:
        record.substitutes = [f"steps as KFP tells them, because {trouble}"]
    record.pipeline = progress.pipeline or record.pipeline or "training"
    record.config_digest = target.config.digest()
    untold = {task.name: _step(task, cached=not trouble) for task in progress.tasks}
    record.steps = list((untold | {step.name: _reachable(step, target) for step in record.steps}).values())
    record.seconds = record.seconds if not trouble else sum(step.seconds for step in record.steps)
    for name, step in (("decision", "gate"), ("trigger", "monitor")):  # pods can read reports that we may not
        setattr(record, name, closed.get(name) or concluded(record.steps, step))
    return record


def _reachable(step: StepRecord, target: Target) -> StepRecord:
    """The step, with the place of its artifact here where the store can be read from here."""
    if step.artifact is None or Path(step.artifact["path"]).is_dir():
        return step
    try:
        store = Store.of(
            replace(target.workspace, root=target.root)
        )  # what is elsewhere is brought beside the loop file
        step.artifact["path"] = str(store.require(step.artifact["kind"], step.artifact["digest"]))
    except (KfloopError, OSError):
        return step
    return step


def _step(task: Task, *, cached: bool) -> StepRecord:
    error = {"code": "kfp", "message": task.error, "hint": ""} if task.error else None
    status = STEP_WORDS.get(task.state, "not_run")
    status = "cached" if cached and status == "succeeded" else status
    return StepRecord(name=task.name, status=status, seconds=task.seconds, error=error)


def _ending(record: RunRecord, progress: Progress, target: Target) -> tuple[str, int, str]:
    """Status, exit code and message; a success is believed only where the branch that ran is the one that was decided."""
    if progress.state not in {"succeeded", "canceled"}:
        task = next((task for task in progress.tasks if task.state == "failed"), None)
        error = (task.error if task else "") or progress.error
        status, code, message = ending_of(record, "FAILED", error)
        return status, code, f"{message} (log: {_log(target, progress, task)})"
    if progress.state == "canceled":
        return ending_of(record, "CANCELED", "")
    if record.decision is None and record.trigger is None:
        reason = "; ".join([*record.substitutes, places(target, progress.run_id)])
        return _by_branch(record, f"the reason is not known here ({reason})")
    try:
        check_branches([*record.steps, *_not_reported(record)])
    except StateError as error:
        record.error = error.as_dict()
        return "failed", EXIT_FAILED, error.message
    return ending_of(record, "SUCCEEDED", "")


def _log(target: Target, progress: Progress, task: Task | None) -> str:
    """Where the log of a failed step is: here, if it can be had, else how to read it."""
    if task is None or not task.pod:
        return target.url(progress.run_id)
    namespace = target.config.cluster.namespace
    text = target.server.log(progress.run_id, task.pod, namespace)
    if text is None:
        return f"kubectl -n {namespace} logs {task.pod} -c main"
    file = run_folder(target.config.workspace(target.root), progress.run_id) / f"{task.name}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


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
    if "submit_training" in done:
        return "succeeded", EXIT_DONE, f"retrain: a training was started as a run of its own; {where}"
    if "stand_by" in done:
        return "succeeded", EXIT_DONE, f"monitoring ended without a retraining; {where}"
    return "not_evaluated", EXIT_FAILED, f"every step succeeded and none says what was decided; {where}"
