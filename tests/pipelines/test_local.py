"""The local engine on small real pipelines: branches, cache, failures, refusals, and death."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from kfloop.core.records import StepRecord
from kfloop.core.state import State, open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, StateError, TerminalError
from kfloop.pipelines.honouring import refuse_unsupported
from kfloop.pipelines.local import Finished, check_branches, run_pipeline
from kfloop.pipelines.worker import compiled_documents, load_pipeline

HERE = Path(__file__).parent


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    root = tmp_path
    return Workspace(
        loop="small",
        root=root,
        state=f"sqlite:///{root}/.kfloop/state.db",
        store=str(root / ".kfloop/store"),
        mlflow="",
    )


@pytest.fixture
def state(workspace: Workspace) -> State:
    return open_state(workspace.state)


def go(workspace: Workspace, state: State, pipeline: str, run_id: str = "r1") -> Finished:
    state.runs.start(run_id, workspace.loop, pipeline, "", {})
    return run_pipeline(f"sample_pipelines:{pipeline}", {"workspace": workspace.to_json()}, workspace, state, run_id)


def statuses(finished: Finished) -> dict[str, str]:
    return {step.name: step.status for step in finished.steps}


def test_only_the_branch_that_was_asked_for_runs_and_the_other_is_recorded_as_skipped(
    workspace: Workspace, state: State
) -> None:
    finished = go(workspace, state, "branching")
    assert finished.returncode == 0
    assert statuses(finished) == {"decide": "succeeded", "act": "succeeded", "other": "skipped"}


def test_a_second_run_takes_the_cacheable_step_from_the_cache_with_its_outcome(
    workspace: Workspace, state: State
) -> None:
    go(workspace, state, "branching")
    again = go(workspace, state, "branching", "r2")
    assert statuses(again) == {"decide": "cached", "act": "succeeded", "other": "skipped"}
    decide = next(step for step in again.steps if step.name == "decide")
    assert decide.outcome == "yes"
    assert decide.artifact is not None
    assert decide.artifact["digest"] == "0123"


def test_a_cached_artifact_that_is_gone_is_made_again(workspace: Workspace, state: State) -> None:
    go(workspace, state, "branching")
    (Path(workspace.store) / "kind" / "0123").rmdir()
    assert statuses(go(workspace, state, "branching", "r2"))["decide"] == "succeeded"


def test_a_failure_stops_what_stands_behind_it_and_keeps_its_error(workspace: Workspace, state: State) -> None:
    finished = go(workspace, state, "failing")
    assert finished.returncode != 0
    assert statuses(finished) == {"act": "failed", "other": "not_run"}
    error = finished.steps[0].error
    assert error is not None
    assert (error["code"], error["exit_code"]) == ("input", 2)


def test_a_setting_the_local_runner_would_drop_is_an_error_before_anything_runs(
    workspace: Workspace, state: State
) -> None:
    with pytest.raises(ConfigError, match="secretAsEnv: TOKEN"):
        go(workspace, state, "secretive")
    assert state.runs.events("r1") == []


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("fielded", "fieldPathAsEnv: POD"),
        ("secret_files", "secretAsVolume, which the local engine cannot honour"),
        ("mounted", "volume at '/nowhere'"),
        ("looping", "is a loop"),
    ],
)
def test_so_is_what_has_no_equivalent_on_one_machine(monkeypatch: pytest.MonkeyPatch, pipeline: str, told: str) -> None:
    monkeypatch.syspath_prepend(HERE)
    with pytest.raises(ConfigError, match=told):
        refuse_unsupported(compiled_documents(load_pipeline(f"sample_pipelines:{pipeline}")))


def test_what_has_an_equivalent_on_one_machine_runs(
    workspace: Workspace, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFLOOP_TEST_SECRET", "s")
    finished = go(workspace, state, "borrowed")
    assert statuses(finished) == {"act": "succeeded"}
    assert finished.left_out == ""


def test_what_the_run_goes_without_is_said_once(workspace: Workspace, state: State) -> None:
    finished = go(workspace, state, "greedy")
    assert statuses(finished) == {"act": "succeeded"}
    assert "accelerators of 'act' (8 of nvidia.com/gpu), CPU and memory of 1 of 1 steps" in finished.left_out
    assert finished.log.read_text().count(finished.left_out) == 1


def test_a_step_is_ended_when_its_time_is_over(workspace: Workspace, state: State) -> None:
    finished = go(workspace, state, "endless")
    assert finished.returncode != 0
    *_, last = finished.steps
    assert (last.status, last.seconds) == ("failed", 2.0)
    assert last.error is not None
    assert "longer than the 2 s it has" in last.error["message"]
    processes = [event.payload["pid"] for event in state.runs.events("r1") if event.event == "started"]
    assert processes
    assert not [pid for pid in processes if psutil.pid_exists(pid) and _runs(psutil.Process(pid))]


def test_a_pipeline_that_does_not_exist_fails_with_the_last_line_of_the_log(workspace: Workspace, state: State) -> None:
    with pytest.raises(TerminalError, match="no attribute"):
        go(workspace, state, "nothing")


ENGINE = """
import sys
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.pipelines.honouring import refuse_unsupported
from kfloop.pipelines.local import run_pipeline
workspace = Workspace.from_json(sys.argv[1])
state = open_state(workspace.state)
state.runs.start("r1", "small", "slow", "", {})
run_pipeline("sample_pipelines:slow", {"workspace": workspace.to_json()}, workspace, state, "r1")
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM])
def test_no_step_outlives_its_killed_run(workspace: Workspace, state: State, sign: signal.Signals) -> None:
    engine = subprocess.Popen([sys.executable, "-c", ENGINE, workspace.to_json()], env=dict(os.environ))
    deadline = time.monotonic() + 30
    while not (events := state.runs.events("r1")) and time.monotonic() < deadline:
        assert engine.poll() is None
        time.sleep(0.1)
    step = psutil.Process(events[0].payload["pid"])
    family = [step, *step.parents()[:2]]  # the step, the shell KFP puts around it, the worker
    family = [process for process in family if process.pid not in {os.getpid(), engine.pid}]
    engine.send_signal(sign)
    engine.wait()
    psutil.wait_procs(family, timeout=2.0)
    assert not [process for process in family if _runs(process)]


def _runs(process: psutil.Process) -> bool:
    """Whether it still runs: a zombie has ended, and on a busy machine its new parent takes a while to notice."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def record(name: str, status: str, outcome: str | None = None) -> StepRecord:
    return StepRecord(name=name, status=status, outcome=outcome)


@pytest.mark.parametrize(
    ("outcome", "deploy", "keep"),
    [("promote", "skipped", "skipped"), ("promote", "skipped", "succeeded"), ("reject", "succeeded", "skipped"),
     ("promote", "succeeded", "succeeded"), ("banana", "succeeded", "skipped")],
)  # fmt: skip
def test_a_branch_the_decision_did_not_ask_for_is_an_error(outcome: str, deploy: str, keep: str) -> None:
    steps = [record("gate", "succeeded", outcome), record("deploy", deploy), record("keep", keep)]
    with pytest.raises(StateError, match=outcome):
        check_branches(steps)


@pytest.mark.parametrize(
    ("outcome", "deploy", "keep"), [("promote", "succeeded", "skipped"), ("hold", "skipped", "succeeded")]
)
def test_the_right_branch_is_fine(outcome: str, deploy: str, keep: str) -> None:
    check_branches([record("gate", "cached", outcome), record("deploy", deploy), record("keep", keep)])
