"""The local engine: the compiled pipeline on KFP's own local runner, made to tell the truth.

The runner works in a process of its own (``kfloop.pipelines.worker``). Steps report to state; this module follows them, ends everything
when told to, checks that the branch the decision asked for is the branch that ran, and closes the run record.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.core.artifacts import sha256_text
from kfloop.core.execution import TELEMETRY_OFF
from kfloop.core.lifetime import RUN_PID_VARIABLE
from kfloop.core.progress import read_progress
from kfloop.core.records import step_records
from kfloop.core.workspace import RUN_ID_VARIABLE
from kfloop.errors import ConfigError, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kfloop.core.progress import Progress
    from kfloop.core.records import StepRecord
    from kfloop.core.state import State
    from kfloop.core.workspace import Workspace

POLL_SECONDS = 0.2
GRACE_SECONDS = 5.0
# Which step must have run for each outcome of a deciding step, and which must not.
BRANCHES = {
    "gate": {"promote": ("deploy", "keep"), "reject": ("keep", "deploy"), "hold": ("keep", "deploy")},
    "monitor": {"retrain": ("ingest", "stand_by")},
}
OTHERWISE = {"monitor": ("stand_by", "ingest")}
INSTEAD = {"ingest": "submit_training"}  # monitoring as compiled for a cluster
DONE = ("succeeded", "cached")


@dataclass(frozen=True, kw_only=True)
class Finished:
    """How the worker ended: its steps, exit status, log file, and what the pipeline asked of a cluster and went without, in a sentence."""

    steps: list[StepRecord]
    returncode: int
    log: Path
    left_out: str = ""


def run_pipeline(
    pipeline: str,
    arguments: dict[str, str],
    workspace: Workspace,
    state: State,
    run_id: str,
    progress: Callable[[list[StepRecord]], None] | None = None,
    until: str | None = None,
    own: str = "",
) -> Finished:
    """Run one pipeline to its end and follow its steps.

    Args:
        pipeline: ``training``, ``monitoring``, or ``module:attribute`` of a KFP pipeline.
        arguments: Its arguments.
        workspace: The loop's places.
        state: Opened state.
        run_id: Id of the run that owns the steps.
        progress: Called with all steps whenever one changed.
        until: Last step to run; null means all.
        own: Digest of code and weights that are not kfloop's but part of what steps compute.

    Raises:
        ConfigError: The pipeline has no step ``until``, or asks for what the local engine cannot honour.
        TerminalError: The worker failed before its first step.
        StateError: A branch ran that the decision did not ask for.
    """
    folder = run_folder(workspace, run_id)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    with tempfile.TemporaryDirectory(prefix="kfloop-run-", dir=_scratch(workspace)) as private:
        plan_file, error_file, told_file = (Path(private) / name for name in ("plan.json", "error.json", "told.txt"))
        order = {
            "pipeline": pipeline,
            "until": until,
            "arguments": arguments,
            "run_id": run_id,
            "state": workspace.state,
            "private": private,
            "plan": str(plan_file),
            "error": str(error_file),
            "told": str(told_file),
            "cache": str(workspace.kfloop_dir / "cache" / sha256_text(code_digest() + own)),
        }
        order_file = Path(private) / "order.json"
        order_file.write_text(json.dumps(order), encoding="utf-8")
        with log.open("ab") as stream:
            worker = _start(order_file, run_id, stream)
            try:
                _follow(worker, state, run_id, folder, plan_file, progress)
            finally:
                _end_group(worker)
        plan = _plan(plan_file)
        _raise_refusal(error_file)
        left_out = told_file.read_text(encoding="utf-8") if told_file.is_file() else ""
    if not plan:
        raise TerminalError(
            f"pipeline '{pipeline}' did not start: {_last_line(log)}", hint=f"the whole story is in {log}"
        )
    steps = step_records(plan, state.runs.events(run_id), ended=True)
    if progress is not None:
        progress(steps)
    finished = Finished(steps=steps, returncode=worker.returncode, log=log, left_out=left_out)
    if worker.returncode == 0 and until is None:
        check_branches(steps)
    return finished


def run_folder(workspace: Workspace, run_id: str) -> Path:
    """Where the record, the report and the log of a run stand."""
    return workspace.kfloop_dir / "runs" / run_id


def code_digest() -> str:
    """Digest of kfloop's own code: part of every cache, so that changed code never answers from an old result."""
    import kfloop

    root = Path(kfloop.__file__).parent
    modules = [path for part in ("core", "components", "serving") for path in (root / part).resolve().rglob("*.py")]
    lines = "".join(f"{path.name}\0{path.stat().st_size}\0{path.read_bytes().hex()}\n" for path in sorted(modules))

    return sha256_text(lines + sys.version)


def check_branches(steps: Sequence[StepRecord]) -> None:
    """Make sure the branch that each decision asks for is the one that ran.

    Raises:
        StateError: It is not; KFP's local runner skips a branch without a word when it cannot evaluate a condition.
    """
    by_name = {step.name: step for step in steps}
    for decider, outcomes in BRANCHES.items():
        step = by_name.get(decider)
        if step is None or step.status not in DONE or step.outcome is None:
            continue
        found = outcomes.get(step.outcome, OTHERWISE.get(decider, ("", "")))
        expected, forbidden = (INSTEAD[name] if INSTEAD.get(name) in by_name else name for name in found)
        if expected not in by_name:
            raise StateError(f"'{decider}' decided '{step.outcome}', for which the pipeline has no branch")
        if by_name[expected].status not in DONE or by_name[forbidden].status in DONE:
            raise StateError(
                f"'{decider}' decided '{step.outcome}', but '{expected}' is {by_name[expected].status} "
                f"and '{forbidden}' is {by_name[forbidden].status}",
                hint="nothing may be taken for done; the run's log says what the runner did",
            )


def _scratch(workspace: Workspace) -> Path:
    scratch = workspace.kfloop_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return scratch


def _start(order: Path, run_id: str, log: Any) -> subprocess.Popen[bytes]:
    environment = TELEMETRY_OFF | dict(os.environ)
    environment |= {RUN_ID_VARIABLE: run_id, RUN_PID_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "kfloop.pipelines.worker", str(order)],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,
    )


def _follow(
    worker: subprocess.Popen[bytes],
    state: State,
    run_id: str,
    folder: Path,
    plan_file: Path,
    progress: Callable[[list[StepRecord]], None] | None,
) -> None:
    seen: tuple[int, Progress | None] = (-1, None)
    while True:
        try:
            worker.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            ended = False
        else:
            ended = True
        if progress is not None:
            events = state.runs.events(run_id)
            plan = _plan(plan_file)
            now = (len(events), read_progress(folder))
            if plan and now != seen:
                seen = now
                progress(step_records(plan, events, ended=False, progress=now[1]))
        if ended:
            return


def _end_group(worker: subprocess.Popen[bytes]) -> None:
    """End the worker and every step in its group; a group that is gone already is fine."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, sign)
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(GRACE_SECONDS)


def _plan(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError):  # not written yet, or half written: look again later
        return []


def _raise_refusal(path: Path) -> None:
    """Raise what the worker refused to do, as the error it was."""
    if path.is_file():
        refusal = json.loads(path.read_text(encoding="utf-8"))
        raise ConfigError(refusal["message"], hint=refusal["hint"], **refusal["data"])


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "no output"
