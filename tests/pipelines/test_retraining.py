"""The trigger on a cluster: one training run at a time, against a server that is held to KFP's published API."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster_loops import IMAGE, QUICK
from kfloop.components.monitor.policy.circumstances import awaited, past_attempts
from kfloop.core.cluster import AuthConfig, ClusterConfig
from kfloop.core.config import LoopConfig
from kfloop.core.image import NAMES, locked_images
from kfloop.core.records import StepRecord
from kfloop.core.state import open_state
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, KfloopError, ServerUnavailable, StateError, TerminalError
from kfloop.pipelines.arguments import pipeline_arguments
from kfloop.pipelines.cluster.auth import MOUNTED_TOKEN_VARIABLE, Credentials
from kfloop.pipelines.cluster.client import Server
from kfloop.pipelines.cluster.compiling import compile_pipelines
from kfloop.pipelines.cluster.platform import cluster_for_pods
from kfloop.pipelines.cluster.starting import Started, close_ended, start_training, tell
from kfloop.pipelines.local import check_branches, run_pipeline
from kfp_server import KfpServer, Step, Trouble, kfp_server

LOCKED = {name: f"registry.example/kfloop-{name}@sha256:{digit * 64}" for name, digit in zip(NAMES, "123", strict=True)}


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with kfp_server() as server:
        yield server


@pytest.fixture(autouse=True)
def _released(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ``monitoring`` is compiled the lock names images by digest; the lock in the pod's own image never does."""
    monkeypatch.setattr("kfloop.pipelines.cluster.platform.locked_images", lambda: LOCKED)


@pytest.fixture
def config(tmp_path: Path) -> LoopConfig:
    """A loop whose shared volume is a folder here."""
    state = f"sqlite:///{tmp_path}/digits/.kfloop/state.db"
    return LoopConfig.model_validate({"name": "digits", "state": state, "train": {"epochs": 3}})


@pytest.fixture
def workspace(config: LoopConfig, tmp_path: Path) -> Workspace:
    return config.workspace(tmp_path / "digits")


def cluster_json(kfp: KfpServer, **told: Any) -> str:
    """Section ``cluster`` as the compiled pipeline holds it."""
    return cluster_for_pods(ClusterConfig.model_validate({"inner_endpoint": kfp.url} | told))


def images_of(run: dict[str, Any]) -> dict[str, str]:
    """Image of each executor of a run."""
    executors = run["pipeline_spec"]["pipeline_spec"]["deploymentSpec"]["executors"]
    return {name: executor["container"]["image"] for name, executor in executors.items()}


def sections(config: LoopConfig, workspace: Workspace) -> dict[str, str]:
    arguments = pipeline_arguments("training", config, workspace)
    return {name: value for name, value in arguments.items() if name != "workspace"}


def start(kfp: KfpServer, config: LoopConfig, workspace: Workspace, **told: Any) -> str:
    return started(kfp, config, workspace, **told).run_id


def started(kfp: KfpServer, config: LoopConfig, workspace: Workspace, **told: Any) -> Started:
    cluster = cluster_json(kfp, **told)
    compiled = workspace.root.parent / "ir"  # in this process, which is faster than in one of its own
    plain = json.loads(cluster)
    images = plain.pop("images", None)
    compile_pipelines(ClusterConfig.model_validate(plain), compiled, images)
    return start_training(workspace, cluster, sections(config, workspace), compiled=compiled, patience=QUICK)


def test_it_starts_the_round_that_the_loop_file_describes(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    run_id = start(kfp, config, workspace, labels={"team": "vision"}, namespace="team-a")
    (run,) = kfp.runs
    assert run["run_id"] == run_id
    assert run["service_account"] == "kfloop-runner"
    assert run["runtime_config"]["parameters"] == pipeline_arguments("training", config, workspace, ledger=False)
    spec = run["pipeline_spec"]
    assert spec["pipeline_spec"]["pipelineInfo"]["name"] == "training"
    pods = spec["platform_spec"]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert {pod["podMetadata"]["labels"]["team"] for pod in pods.values()} == {"vision"}
    assert kfp.stored["experiments"][run["experiment_id"]]["display_name"] == "digits"


def test_one_round_at_a_time_however_often_it_is_asked_for(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    first = start(kfp, config, workspace)
    workspace.request_log.mkdir(parents=True)
    (workspace.request_log / "new.parquet").write_bytes(b"new requests change the parameters")
    assert start(kfp, config, workspace) == first
    kfp.runs[0]["state"] = "SUCCEEDED"
    second = start(kfp, config, workspace)
    assert second != first
    assert len(kfp.runs) == 2


def test_another_loop_of_the_same_experiment_is_not_in_its_way(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, tmp_path: Path
) -> None:
    first = start(kfp, config, workspace, experiment="shared")
    other = config.model_copy(update={"name": "digits2"})
    assert start(kfp, other, other.workspace(tmp_path / "digits2"), experiment="shared") != first


def test_a_start_whose_answer_is_lost_is_found(kfp: KfpServer, config: LoopConfig, workspace: Workspace) -> None:
    lost = iter([Trouble(done=True)])
    kfp.trouble = lambda request: next(lost, None) if request == "POST runs" else None
    run_id = start(kfp, config, workspace)
    assert next(lost, None) is None, "the answer was lost"
    assert [run["run_id"] for run in kfp.runs] == [run_id]


def schedule(kfp: KfpServer, loop: str = "digits", pipeline: str = "training") -> str:
    """A run at work of a recurring run, as KFP makes it: it has the id of that one, and no description."""
    server = Server(kfp.url, Credentials(AuthConfig(), Path()), patience=QUICK)
    home = server.experiment("digits", "kubeflow")
    spec: dict[str, Any] = {"pipeline_spec": {"pipelineInfo": {"name": pipeline}}, "experiment_id": home}
    about = f"kfloop {pipeline} of loop {loop}; kfloop-schedule set=s name=weekly digest=0a"
    wanted = {"display_name": "weekly", "description": about, "trigger": {"cron_schedule": {"cron": "0 0 3 * * *"}}}
    made = server.create_recurring(spec | wanted, lambda: None)
    run = server.create_run(spec | {"display_name": "weekly-1"}, lambda: None)
    now = datetime.now(UTC).isoformat()
    kfp.stored["runs"][run["run_id"]] |= {"recurring_run_id": made["recurring_run_id"], "created_at": now}
    return str(run["run_id"])


def test_a_scheduled_training_at_work_is_found(kfp: KfpServer, config: LoopConfig, workspace: Workspace) -> None:
    weekly = schedule(kfp)
    assert started(kfp, config, workspace) == Started(run_id=weekly, own=False)
    kfp.stored["runs"][weekly]["state"] = "FAILED"
    after = started(kfp, config, workspace)
    assert (after.own, after.run_id == weekly) == (True, False)


@pytest.mark.parametrize("of", [{"loop": "digits2"}, {"pipeline": "monitoring"}])
def test_a_schedule_of_another_loop_or_of_monitoring_is_not_in_its_way(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, of: dict[str, str]
) -> None:
    other = schedule(kfp, **of)
    found = started(kfp, config, workspace)
    assert (found.own, found.run_id == other) == (True, False)


def test_a_scheduled_training_that_is_older_than_a_run_may_be_is_not_at_work(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    """A server that lost sight of its pods calls it RUNNING for ever."""
    weekly = schedule(kfp)
    kfp.stored["runs"][weekly]["created_at"] = (datetime.now(UTC) - timedelta(hours=49)).isoformat()
    assert started(kfp, config, workspace).own


def triggered(workspace: Workspace, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round of monitoring that concluded to retrain, up to the step that starts the training."""
    monkeypatch.setenv("KFLOOP_RUN_ID", run)
    state = open_state(workspace.state)
    of = {"champion_digest": "m1", "fingerprint": "f", "cause": "drift", "labels": 70}
    state.triggers.add("digits", run_id=run, trigger="retrain", reason="drift", **of)
    state.runs.step(run, "submit_training", "started", {})


def ended(workspace: Workspace, run: str, found: Started) -> dict[str, Any]:
    facts = tell(workspace, found, until=time.time() + 3600)
    open_state(workspace.state).runs.step(run, "submit_training", "succeeded", facts)
    return facts


def test_of_a_start_and_of_finding_it_again_one_is_an_attempt(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    triggered(workspace, "r1", monkeypatch)
    first = started(kfp, config, workspace)
    ended(workspace, "r1", first)
    triggered(workspace, "r2", monkeypatch)
    again = started(kfp, config, workspace)
    assert again == Started(run_id=first.run_id, own=False, asked_by="r1")
    assert f"run {first.run_id} trains this loop already" in ended(workspace, "r2", again)["reason"]
    state = open_state(workspace.state)
    assert [item.trigger for item in state.triggers.history("digits")] == ["retrain", "retrain", "in_flight"]
    assert len(past_attempts(state, "digits")) == 1
    assert len(state.runs.events("r1")) == 2


@pytest.mark.parametrize("cut_short", ["started", "failed"])
def test_a_start_that_was_cut_short_is_told_by_whoever_finds_it(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, cut_short: str
) -> None:
    """The round was killed, or heard no answer, after its training had started: that is the one attempt, and its decision counts for it."""
    triggered(workspace, "r1", monkeypatch)
    first = started(kfp, config, workspace)
    runs = open_state(workspace.state).runs
    if cut_short == "failed":
        runs.step("r1", "submit_training", "failed", {})
    triggered(workspace, "r2", monkeypatch)
    ended(workspace, "r2", started(kfp, config, workspace))
    runs.add_ended(first.run_id, "digits", "training", "rejected", {"started": 0.0, "status": "rejected"})
    (attempt,) = past_attempts(open_state(workspace.state), "digits")
    assert (attempt.begun, attempt.decided, attempt.labels) == (True, True, 70)


def test_a_round_that_asks_again_finds_its_own_training(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    triggered(workspace, "r1", monkeypatch)
    first = started(kfp, config, workspace)
    again = started(kfp, config, workspace)
    assert (again.run_id, again.own) == (first.run_id, True)
    assert "reason" not in ended(workspace, "r1", again)


def test_no_server_is_an_error_that_may_pass(kfp: KfpServer, config: LoopConfig, workspace: Workspace) -> None:
    with pytest.raises(ServerUnavailable):
        start(kfp, config, workspace, inner_endpoint="http://127.0.0.1:9")
    assert kfp.runs == []


def test_an_image_that_is_not_released_is_refused(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kfloop.pipelines.cluster.platform.locked_images", locked_images)
    with pytest.raises(ConfigError, match="is not released"):
        start(kfp, config, workspace)
    assert kfp.runs == []


def test_the_token_that_kubeflow_mounts_is_shown(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kfp.secret = "Bearer hunter2"
    with pytest.raises(ConfigError, match="401"):
        start(kfp, config, workspace)
    (tmp_path / "token").write_text("hunter2\n")
    monkeypatch.setenv(MOUNTED_TOKEN_VARIABLE, str(tmp_path / "token"))
    assert start(kfp, config, workspace) == kfp.runs[0]["run_id"]
    assert "hunter2" not in json.dumps(kfp.bodies)


def test_the_step_starts_a_training_and_tells_state_which(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As KFP runs it: there, a step cannot import all of KFP."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    state = open_state(workspace.state)
    state.runs.start("r1", "digits", "monitoring", "", {})
    arguments = {
        "workspace": workspace.to_json(),
        "cluster_config": cluster_json(kfp, deadline_hours=2, resources={"train": {"gpus": 1}}),
        **sections(config, workspace),
    }
    finished = run_pipeline("sample_pipelines:starting", arguments, workspace, state, "r1")
    assert finished.returncode == 0, finished.log.read_text()
    last = state.runs.events("r1")[-1]
    (run,) = kfp.runs
    assert (last.step, last.event, last.payload["outcome"]) == ("submit_training", "succeeded", run["run_id"])
    assert last.payload["until"] == pytest.approx(last.at + 2 * 3600, abs=60)
    assert images_of(run) == {name: LOCKED["gpu" if name == "exec-train" else "cpu"] for name in images_of(run)}


def test_an_image_of_ones_own_is_that_of_every_step(kfp: KfpServer, config: LoopConfig, workspace: Workspace) -> None:
    start(kfp, config, workspace, image=IMAGE, resources={"train": {"gpus": 1}})
    assert set(images_of(kfp.runs[0]).values()) == {IMAGE}


def test_a_pipeline_that_cannot_be_compiled_is_told(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TerminalError, match="cannot be compiled"):
        start_training(workspace, cluster_json(kfp), sections(config, workspace), patience=QUICK)
    assert kfp.runs == []


def waited_for(kfp: KfpServer, config: LoopConfig, workspace: Workspace) -> str:
    """A training at work that the last round of the monitor started."""
    run_id = start(kfp, config, workspace)
    state = open_state(workspace.state)
    state.runs.step("round", "submit_training", "succeeded", {"outcome": run_id, "until": time.time() + 48 * 3600})
    told = {"trigger": "retrain", "reason": "r", "champion_digest": "d", "fingerprint": "f"}
    state.triggers.add(workspace.loop, run_id="round", **told)
    return run_id


@pytest.mark.parametrize(
    ("how", "status"),
    [("CANCELED", "cancelled"), ("FAILED", "failed"), ("SKIPPED", "failed"), ("deleted", "cancelled")],
)
def test_a_training_that_cannot_say_that_it_is_over_is_asked_for(
    how: str, status: str, kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    run_id = waited_for(kfp, config, workspace)
    state = open_state(workspace.state)
    assert awaited(state, workspace.loop)["outcome"] == run_id
    if how == "deleted":
        kfp.stored["runs"].clear()
    else:
        kfp.story = [Step(how)]
    assert close_ended(workspace, cluster_json(kfp), patience=QUICK) == run_id
    record = state.runs.get(run_id)
    assert record is not None
    assert (record["status"], record["exit_code"]) == (status, 1)
    assert awaited(state, workspace.loop) == {}
    asked = len(kfp.requests)
    assert close_ended(workspace, cluster_json(kfp), patience=QUICK) == ""
    assert len(kfp.requests) == asked


@pytest.mark.parametrize("state_there", ["PENDING", "RUNNING", "CANCELING", "PAUSED"])
def test_a_training_at_work_is_waited_for(
    state_there: str, kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    run_id = waited_for(kfp, config, workspace)
    kfp.story = [Step(state_there)]
    assert close_ended(workspace, cluster_json(kfp), patience=QUICK) == ""
    assert awaited(open_state(workspace.state), workspace.loop)["outcome"] == run_id


@pytest.mark.parametrize("status", [0, 403, 500, 503])
def test_a_server_that_does_not_say_leaves_everything_as_it_is(
    status: int, kfp: KfpServer, config: LoopConfig, workspace: Workspace
) -> None:
    run_id = waited_for(kfp, config, workspace)
    kfp.trouble = lambda _: Trouble(status)
    with pytest.raises(KfloopError):
        close_ended(workspace, cluster_json(kfp), patience=QUICK)
    assert awaited(open_state(workspace.state), workspace.loop)["outcome"] == run_id


@pytest.mark.parametrize("away", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_step_that_stands_by_sees_the_end_of_a_training(
    kfp: KfpServer, config: LoopConfig, workspace: Workspace, monkeypatch: pytest.MonkeyPatch, *, away: bool
) -> None:
    """As KFP runs it; a server that is away does not spoil the round."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    run_id = waited_for(kfp, config, workspace)
    kfp.story = [Step("CANCELED")]
    kfp.trouble = lambda _: Trouble(403) if away else None
    state = open_state(workspace.state)
    state.runs.start("r2", "digits", "monitoring", "", {})
    arguments = {"workspace": workspace.to_json(), "cluster_config": cluster_json(kfp)}
    finished = run_pipeline("sample_pipelines:waiting", arguments, workspace, state, "r2")
    assert finished.returncode == 0, finished.log.read_text()
    last = state.runs.events("r2")[-1]
    assert (last.step, last.event, last.payload["outcome"]) == ("stand_by", "succeeded", "in_flight")
    assert awaited(state, workspace.loop).get("outcome") == (run_id if away else None)


@pytest.mark.parametrize(
    ("outcome", "submit", "stand_by", "fine"),
    [
        ("retrain", "succeeded", "skipped", True),
        ("retrain", "skipped", "succeeded", False),
        ("retrain", "skipped", "skipped", False),
        ("none", "skipped", "succeeded", True),
        ("none", "succeeded", "succeeded", False),
    ],
)
def test_the_local_engine_knows_the_branch_of_this_form(
    outcome: str, submit: str, stand_by: str, *, fine: bool
) -> None:
    steps = [
        StepRecord(name="monitor", status="succeeded", outcome=outcome),
        StepRecord(name="submit_training", status=submit),
        StepRecord(name="stand_by", status=stand_by),
    ]
    if fine:
        check_branches(steps)
    else:
        with pytest.raises(StateError, match="'monitor' decided"):
            check_branches(steps)
