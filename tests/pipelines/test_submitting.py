"""Submitting a loop, following it and fetching what it came to, against a server that is held to KFP's published API."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from cluster_loops import IMAGE, QUICK, write_loop
from kfloop.cli.submit import submit_command
from kfloop.components.gate.overriding import overrides_in_force
from kfloop.components.monitor.policy.circumstances import judge
from kfloop.core.artifacts import write_report
from kfloop.core.config import load_config, parse_section
from kfloop.core.sections import GateConfig
from kfloop.core.state import open_state
from kfloop.core.store import Store
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError, KfloopError, ServerUnavailable, TerminalError
from kfloop.pipelines.cluster.compiling import compile_pipelines
from kfloop.pipelines.cluster.fetching import fetch
from kfloop.pipelines.cluster.following import Progress, follow
from kfloop.pipelines.cluster.submitting import Target, open_target, pipeline_spec, submit
from kfp_server import LOGIN, KfpServer, Step, Trouble, kfp_server

BEFORE_THE_GATE = dict.fromkeys(
    ("ingest", "validate-data", "check-labels", "train", "package", "evaluate", "bless"), "SUCCEEDED"
)
DECIDED = BEFORE_THE_GATE | {"gate": "SUCCEEDED"}
PROMOTED = Step("SUCCEEDED", DECIDED | {"deploy": "SUCCEEDED", "keep": "SKIPPED", "notify": "SUCCEEDED"})
KEPT = Step("SUCCEEDED", DECIDED | {"deploy": "SKIPPED", "keep": "SUCCEEDED", "notify": "SUCCEEDED"})


@pytest.fixture
def kfp() -> Iterator[KfpServer]:
    with kfp_server() as server:
        yield server


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The IR of a loop of the tests, compiled once."""
    folder = tmp_path_factory.mktemp("compiled")
    config = load_config(write_loop(folder, "http://nobody"), on_cluster=True)
    compile_pipelines(config.cluster, folder)
    return folder


def target_of(kfp: KfpServer, folder: Path, **cluster: Any) -> Target:
    return open_target(write_loop(folder, kfp.url, **cluster), patience=QUICK)


def finished(kfp: KfpServer, target: Target, compiled: Path, *story: Step) -> Progress:
    """Submit, follow to the end of the story."""
    kfp.story = list(story)
    submitted = submit(target, compiled=compiled)
    return follow(target.server, submitted.run_id, lambda _: None, every=0.001)


def test_a_run_says_all_a_cluster_needs(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    state = "postgresql+psycopg://kfloop:${STATE_PASSWORD}@postgres/kfloop"
    target = target_of(kfp, tmp_path, state=state, store="s3://kfloop/digits", mlflow="http://mlflow:5000")
    submitted = submit(target, name="nightly", experiment="trials", compiled=compiled)
    (run,) = kfp.runs
    assert run["run_id"] == submitted.run_id
    assert run["service_account"] == "kfloop-runner"
    assert run["display_name"].startswith("nightly-")
    assert kfp.stored["experiments"][run["experiment_id"]]["display_name"] == "trials"
    documents = list(yaml.safe_load_all((compiled / "training.yaml").read_text()))
    assert run["pipeline_spec"] == {"pipeline_spec": documents[0], "platform_spec": documents[1]}
    parameters = run["runtime_config"]["parameters"]
    assert set(parameters) == set(documents[0]["root"]["inputDefinitions"]["parameters"])
    workspace = json.loads(parameters["workspace"])
    assert workspace == {
        "loop": "digits",
        "root": "/kfloop/digits",
        "state": state,
        "store": "s3://kfloop/digits",
        "mlflow": "http://mlflow:5000",
    }
    assert str(tmp_path) not in json.dumps(parameters)


def test_the_gate_of_a_cluster_asks_the_ledger_when_it_decides(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    """What was overridden after a run was submitted, or a schedule applied, holds all the same."""
    submit(target_of(kfp, tmp_path), compiled=compiled)
    gate = kfp.runs[0]["runtime_config"]["parameters"]["gate_config"]
    database = f"sqlite:///{tmp_path / 'state.db'}"
    workspace = Workspace(loop="digits", root=tmp_path, state=database, store="", mlflow="")
    assert overrides_in_force(parse_section("gate", gate), workspace) == []
    details = {"rule": "accuracy", "until": time.time() + 60.0}
    open_state(database).ledger.note("digits", action="override", actor="ada", reason="known", details=details)
    assert [override.rule for override in overrides_in_force(parse_section("gate", gate), workspace)] == ["accuracy"]
    assert overrides_in_force(GateConfig(), workspace) == []


def test_a_password_is_no_parameter(
    kfp: KfpServer, tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATE_URL", f"sqlite:///{tmp_path / 'hunter2.db'}")
    open_state(os.environ["STATE_URL"])
    target = target_of(kfp, tmp_path, state="${STATE_URL}")
    progress = finished(kfp, target, compiled, PROMOTED)
    with_state(target, progress.run_id, "promote", "deploy", tmp_path)
    record = fetch(target, progress)
    assert record.decision is not None  # state was opened here, by the variable
    assert "hunter2" not in json.dumps(kfp.runs) + json.dumps(record.as_dict())


def test_state_that_cannot_be_reached_is_told(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path, state="postgresql+psycopg://kfloop:${NOT_SET}@postgres/kfloop")
    record = fetch(target, finished(kfp, target, compiled, KEPT))
    assert "needs the environment variable NOT_SET, which is not set" in record.message


def test_paths_are_those_of_the_cluster(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    loop = {"name": "wine", "data": {"source": "data/wine.csv", "label": "kind"}, "cluster": {"root": "/work"}}
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(loop))
    config = load_config(tmp_path / "loop.yaml", on_cluster=True)
    assert config.data.source == "/work/wine/data/wine.csv"
    assert config.workspace(config.cluster_root).state == "sqlite:////work/wine/.kfloop/state.db"
    assert load_config(tmp_path / "loop.yaml").data.source == str(tmp_path / "data" / "wine.csv")


def test_no_image_that_is_not_released(kfp: KfpServer, tmp_path: Path) -> None:
    target = target_of(kfp, tmp_path, image=None)
    with pytest.raises(ConfigError, match=r"image '.*-unreleased' is not released") as told:
        submit(target)
    assert "docs/submit.md" in told.value.hint
    assert kfp.requests == []


def test_compiling_now_and_the_reviewed_ir_are_the_same(tmp_path: Path, compiled: Path) -> None:
    config = load_config(write_loop(tmp_path, "http://nobody"), on_cluster=True)
    assert pipeline_spec(config, "training") == pipeline_spec(config, "training", compiled)
    assert IMAGE in json.dumps(pipeline_spec(config, "training"))


@pytest.mark.parametrize("pipeline", ["training", "monitoring"])
def test_the_spec_means_what_kfps_own_client_would_send(pipeline: str, tmp_path: Path, compiled: Path) -> None:
    from google.protobuf.json_format import ParseDict
    from kfp.client.client import _extract_pipeline_yaml
    from kfp.pipeline_spec import pipeline_spec_pb2

    ours = pipeline_spec(load_config(write_loop(tmp_path, "http://nobody"), on_cluster=True), pipeline, compiled)
    theirs = _extract_pipeline_yaml(str(compiled / f"{pipeline}.yaml"))
    assert set(ours) == set(theirs.to_dict())
    assert ParseDict(ours["pipeline_spec"], pipeline_spec_pb2.PipelineSpec()) == theirs.pipeline_spec
    assert ParseDict(ours["platform_spec"], pipeline_spec_pb2.PlatformSpec()) == theirs.platform_spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no compiled pipeline at"),
        ("a: [", "is not valid YAML"),
        ("", "holds no compiled pipeline"),
        ("just text", "holds no compiled pipeline"),
        ("root: {inputDefinitions: {parameters: {workspace: {}, colour: {}}}}", "disagree about: .*colour.*"),
    ],
)
def test_an_ir_that_is_none(text: str | None, message: str, kfp: KfpServer, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "training.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        submit(target_of(kfp, tmp_path), compiled=tmp_path)
    assert kfp.count("POST runs") == 0


def test_no_endpoint(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text("name: digits\n")
    with pytest.raises(ConfigError, match="names no cluster"):
        open_target(tmp_path / "loop.yaml")


def test_the_same_again_attaches_while_it_is_at_work(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    first = submit(target, compiled=compiled)
    again = submit(target, name="another name", compiled=compiled)
    other = submit(target, "monitoring", compiled=compiled)
    assert (first.attached, again.attached, other.attached) == (False, True, False)
    assert again.run_id == first.run_id
    assert len(kfp.runs) == 2
    kfp.runs[0]["state"] = "CANCELING"  # on its way out: somebody wants a new one
    assert submit(target, compiled=compiled).attached is False


def test_two_at_the_same_moment_end_as_one(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    """Both see nothing at work and both make a run: one of the two is cancelled, and both follow the other."""
    target, meet = target_of(kfp, tmp_path), threading.Barrier(2)

    def wait_for_each_other(asked: str) -> None:
        if asked == "POST runs":
            meet.wait(10)

    kfp.trouble = wait_for_each_other  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: submit(target, compiled=compiled), range(2)))
    assert found[0].run_id == found[1].run_id
    assert [one.attached for one in found].count(True) == 1
    assert sorted(run["state"] for run in kfp.runs) == ["CANCELING", "PENDING"]


@pytest.mark.parametrize(
    "trouble", [Trouble(done=True), Trouble(502, b"bad gateway", done=True), Trouble(done=True, hang=True)]
)
def test_an_answer_that_is_lost_starts_no_second_run(
    trouble: Trouble, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    lost = [trouble]
    kfp.trouble = lambda asked: lost.pop() if lost and asked == "POST runs" else None
    submitted = submit(target_of(kfp, tmp_path), compiled=compiled)
    assert [run["run_id"] for run in kfp.runs] == [submitted.run_id]
    assert lost == []


def test_a_request_that_is_lost_is_sent_again(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    lost = [Trouble(503), Trouble()]
    kfp.trouble = lambda asked: lost.pop() if lost and asked == "POST runs" else None
    submit(target_of(kfp, tmp_path), compiled=compiled)
    assert len(kfp.runs) == 1
    assert kfp.count("POST runs") == 3


def test_each_step_is_told_when_it_changes(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    kfp.story = [
        Step("PENDING"),
        Step("RUNNING", {"ingest-driver": "SUCCEEDED", "ingest": "RUNNING"}),
        Step("RUNNING", {"ingest-driver": "SUCCEEDED", "ingest": "RUNNING"}),
        Step("RUNNING", {"ingest": "SUCCEEDED", "validate-data": "RUNNING"}),
        PROMOTED,
    ]
    told: list[list[tuple[str, str]]] = []
    run_id = submit(target, compiled=compiled).run_id
    end = follow(
        target.server, run_id, lambda now: told.append([(task.name, task.state) for task in now.tasks]), every=0.001
    )
    assert told[:3] == [[], [("ingest", "running")], [("ingest", "succeeded"), ("validate_data", "running")]]
    assert len(told) == 4
    assert (end.state, end.pipeline, end.loop) == ("succeeded", "training", "digits")
    assert end.tasks[0].seconds == 60.0


def test_following_outlives_a_bad_hour(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    run_id = submit(target, compiled=compiled).run_id
    kfp.story = [Step("RUNNING"), PROMOTED]
    troubles: list[Trouble | None] = [None, *[Trouble(), Trouble(503), Trouble(200, b"{", cut=True)] * 4, None]
    kfp.trouble = lambda _: troubles.pop(0)
    assert follow(target.server, run_id, lambda _: None, every=0.001).state == "succeeded"
    assert troubles == []


@pytest.mark.parametrize(
    ("trouble", "message"),
    [(Trouble(503), "HTTP 503"), (Trouble(200, b'{"run_id": "x"}'), "does not say the state of the run")],
)
def test_following_ends_when_nobody_answers(
    trouble: Trouble, message: str, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    target = target_of(kfp, tmp_path)
    run_id = submit(target, compiled=compiled).run_id
    kfp.trouble = lambda _: trouble
    with pytest.raises(ServerUnavailable, match=f"may go on: .*{message}") as told:
        follow(target.server, run_id, lambda _: None, every=0.001, blindness=0.05)
    assert f"--attach {run_id}" in told.value.hint


def test_a_run_that_is_deleted_meanwhile(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    kfp.story = [Step("RUNNING")]
    run_id = submit(target, compiled=compiled).run_id
    with pytest.raises(TerminalError, match=f"cannot be followed any more.*{run_id} not found") as told:
        follow(target.server, run_id, lambda _: kfp.stored["runs"].clear(), every=0.001)
    assert told.value.exit_code == 1
    assert f"--attach {run_id}" in told.value.hint


def test_a_run_that_never_was(kfp: KfpServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nobody not found") as told:
        follow(target_of(kfp, tmp_path).server, "nobody", lambda _: None, every=0.001)
    assert told.value.exit_code == 2


@pytest.mark.parametrize("looks", [0, 2])
def test_a_login_that_ends_while_a_run_is_followed(looks: int, kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    """The run was sent, so that the exit status must not say that it was not."""
    kfp.story = [Step("RUNNING", {"ingest": "RUNNING"})]
    asked: list[str] = []

    def trouble(request: str) -> Trouble | None:
        asked.extend([request] * request.startswith("GET runs/"))
        return Trouble(401) if len(asked) > looks else None

    kfp.trouble = trouble
    told = command(write_loop(tmp_path, kfp.url), "--compiled", str(compiled), "--every", "0.01")
    assert isinstance(told.exception, KfloopError), told.output
    assert told.exception.exit_code == 1
    assert f"kfloop submit --attach {kfp.runs[0]['run_id']}" in told.exception.hint


# -- what it came to ---------------------------------------------------------------------------------


def with_state(target: Target, run_id: str, outcome: str, branch: str, folder: Path) -> None:
    """State as the steps of a run on the cluster leave it, and the report of the gate in the store."""
    state, store = target.reachable_state(), folder / "store"
    place = store / "decisions" / "d1"
    place.mkdir(parents=True, exist_ok=True)
    verdict = {
        "rule": "accuracy",
        "mode": "enforce",
        "verdict": "fail",
        "overridden_by": None,
        "sentence": "accuracy is 0.5",
    }
    report = {"outcome": outcome, "reason": "accuracy is 0.5, at least 0.9 is asked", "blocking": ["accuracy"]}
    more = {"verdicts": [verdict], "notes": [], "holdout": "", "code": "rules_failed", "evidence_digest": "e1"}
    write_report(place, report | more)
    gate = {"kind": "decisions", "digest": "d1", "path": "/kfloop/elsewhere", "outcome": outcome, "seconds": 2.0}
    for step, payload in (("gate", gate), (branch, {"seconds": 1.0})):
        state.runs.step(run_id, step, "started", {})
        state.runs.step(run_id, step, "succeeded", payload)


@pytest.mark.parametrize(
    ("outcome", "branch", "story", "status", "code"),
    [
        ("promote", "deploy", PROMOTED, "succeeded", 0),
        ("reject", "keep", KEPT, "rejected", 3),
        ("hold", "keep", KEPT, "held", 4),
        ("promote", "keep", KEPT, "failed", 1),  # the branch that ran is not the one that was decided
    ],
)
def test_the_decision_is_fetched_from_state_and_store(
    outcome: str, branch: str, story: Step, status: str, code: int, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    database = tmp_path / "state.db"
    open_state(f"sqlite:///{database}")
    target = target_of(kfp, tmp_path, state=f"sqlite:///{database}", store=str(tmp_path / "store"))
    progress = finished(kfp, target, compiled, story)
    with_state(target, progress.run_id, outcome, branch, tmp_path)
    record = fetch(target, progress)
    assert (record.status, record.exit_code) == (status, code)
    assert status == "failed" or "accuracy is 0.5, at least 0.9 is asked" in record.message
    written = json.loads((tmp_path / ".kfloop" / "runs" / progress.run_id / "record.json").read_text())
    assert written == record.as_dict()
    assert written["engine"] == "cluster"
    assert {step.name: step.status for step in record.steps}["train"] == "cached"  # state knows gate and branch only


@pytest.mark.parametrize(
    ("trigger", "branch", "status", "code"),
    [
        ("none", "stand_by", "succeeded", 0),
        ("retrain", "submit_training", "succeeded", 0),
        ("needs_labels", "stand_by", "needs_labels", 4),
        ("not_evaluated", "stand_by", "not_evaluated", 1),
        ("retrain", "stand_by", "failed", 1),  # nobody started the training that was asked for
    ],
)
def test_what_a_monitoring_run_came_to(
    trigger: str, branch: str, status: str, code: int, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    database = tmp_path / "state.db"
    open_state(f"sqlite:///{database}")
    target = target_of(kfp, tmp_path, state=f"sqlite:///{database}")
    kfp.story = [
        Step("SUCCEEDED", {"monitor": "SUCCEEDED", branch.replace("_", "-"): "SUCCEEDED", "notify": "SUCCEEDED"})
    ]
    progress = follow(
        target.server, submit(target, "monitoring", compiled=compiled).run_id, lambda _: None, every=0.001
    )
    runs = target.reachable_state().runs
    looked = {"kind": "evidence", "digest": "e1", "path": "/kfloop/elsewhere", "outcome": trigger, "seconds": 1.0}
    for step, payload in (("monitor", looked), (branch, {"seconds": 1.0})):
        runs.step(progress.run_id, step, "started", {})
        runs.step(progress.run_id, step, "succeeded", payload)
    record = fetch(target, progress)
    assert (record.pipeline, record.status, record.exit_code) == ("monitoring", status, code)
    assert status == "failed" or record.message.startswith(f"{trigger}: ")


def test_a_rejection_whose_reason_is_out_of_reach(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    record = fetch(target, finished(kfp, target, compiled, KEPT))
    assert (record.status, record.exit_code) == ("not_promoted", 3)
    assert "on volume 'kfloop-work' of namespace 'kubeflow'" in record.message
    assert "store '/kfloop/digits/.kfloop/store'" in record.message


def test_a_promotion_without_state(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    record = fetch(target, finished(kfp, target, compiled, PROMOTED))
    assert (record.status, record.exit_code) == ("succeeded", 0)


def test_a_training_that_was_started_without_state(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    story = Step("SUCCEEDED", {"monitor": "SUCCEEDED", "submit-training": "SUCCEEDED", "notify": "SUCCEEDED"})
    record = fetch(target, finished(kfp, target, compiled, story))
    assert (record.status, record.exit_code) == ("succeeded", 0)
    assert record.message.startswith("retrain: a training was started as a run of its own")


@pytest.mark.parametrize("tasks", [{}, DECIDED, DECIDED | {"deploy": "SKIPPED", "keep": "SKIPPED"}])
def test_a_success_that_decided_nothing_is_none(
    tasks: dict[str, str], kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    target = target_of(kfp, tmp_path)
    record = fetch(target, finished(kfp, target, compiled, Step("SUCCEEDED", tasks)))
    assert (record.status, record.exit_code) == ("not_evaluated", 1)


def test_a_failed_step_is_named_with_its_log(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    story = Step("FAILED", {"ingest": "SUCCEEDED", "train": "FAILED"}, {"train": "OOMKilled", "": "run failed"})
    progress = finished(kfp, target, compiled, Step("RUNNING"), story)
    record = fetch(target, progress)
    assert (record.status, record.exit_code) == ("failed", 1)
    assert "step 'train': OOMKilled" in record.message
    assert f"kubectl -n kubeflow logs {progress.run_id}-train -c main" in record.message


@pytest.mark.parametrize(
    "trouble", [None, Trouble(200, LOGIN), Trouble(401), Trouble(), Trouble(hang=True), Trouble(200)]
)
def test_the_log_of_a_failed_step_is_fetched_where_it_can_be_had(
    trouble: Trouble | None, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    target = target_of(kfp, tmp_path)
    progress = finished(kfp, target, compiled, Step("FAILED", {"train": "FAILED"}))
    kfp.logs[f"{progress.run_id}-train"] = "epoch 1\nCUDA out of memory\n"
    kfp.trouble = lambda asked: trouble if asked == "GET /k8s/pod/logs" else None
    record = fetch(target, progress)
    log = tmp_path / ".kfloop" / "runs" / progress.run_id / "train.log"
    assert log.is_file() is (trouble is None)
    assert (str(log) in record.message) is (trouble is None)
    assert ("kubectl -n kubeflow logs" in record.message) is (trouble is not None)
    assert record.exit_code == 1


def test_a_run_that_failed_before_any_step(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    target = target_of(kfp, tmp_path)
    record = fetch(target, finished(kfp, target, compiled, Step("FAILED", {}, {"": "ImagePullBackOff"})))
    assert (record.status, record.exit_code) == ("failed", 1)
    assert record.message.startswith("ImagePullBackOff")


def test_a_run_of_another_loop(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    progress = finished(kfp, target_of(kfp, tmp_path), compiled, PROMOTED)
    (tmp_path / "other").mkdir()
    other = open_target(write_loop(tmp_path / "other", kfp.url, name="wine"), patience=QUICK)
    with pytest.raises(ConfigError, match="is of loop 'digits', not of 'wine'"):
        fetch(other, progress)


# -- the command -------------------------------------------------------------------------------------


def command(path: Path, *arguments: str) -> Any:
    return CliRunner().invoke(submit_command, ["-c", str(path), *arguments], standalone_mode=False)


@pytest.mark.parametrize(("story", "code"), [(PROMOTED, 0), (KEPT, 3), (Step("FAILED"), 1), (Step("CANCELED"), 1)])
def test_the_exit_status(story: Step, code: int, kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    kfp.story = [Step("RUNNING", {"ingest": "RUNNING"}), story]
    path = write_loop(tmp_path, kfp.url)
    told = command(path, "--compiled", str(compiled), "--every", "0.01", "--json")
    assert told.return_value == code, told.output
    record = json.loads(told.stdout)
    assert record["exit_code"] == code
    assert record["url"] == f"{kfp.url}/#/runs/details/{record['run_id']}"
    assert "  running    ingest" in told.stderr
    assert Path(record["report"]).is_file()


def test_submit_attach_and_cancel(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    kfp.story = [Step("RUNNING")]
    path = write_loop(tmp_path, kfp.url)
    told = command(path, "--compiled", str(compiled), "--no-follow", "--json")
    run_id = json.loads(told.stdout)["run_id"]
    assert f"kfloop submit --attach {run_id}" in told.stderr
    again = command(path, "--compiled", str(compiled), "--no-follow")
    assert "the same run is at work already" in again.stderr
    assert command(path, "--cancel", run_id, "--every", "0.01").return_value == 0
    told = command(path, "--attach", run_id, "--every", "0.01")
    assert told.return_value == 1
    assert "cancelled: the run was cancelled" in told.stderr
    assert "has ended already: canceled" in command(path, "--cancel", run_id).stderr
    assert kfp.count(f"POST runs/{run_id}:terminate") == 1


def in_flight(target: Target, run_id: str) -> str:
    """What the monitor says to a person who wants a retraining, a minute after a trigger started this run."""
    state = target.reachable_state()
    champion = state.ledger.champion(target.config.name)
    assert champion is not None
    config = target.config.monitor.model_copy(update={"retrain": "somebody asked"})
    told = judge(
        config,
        causes=(),
        problem=None,
        champion=champion,
        state=state,
        workspace=replace(target.workspace, root=target.root, store=str(target.root / "store")),
        now=champion.at + 60,
    )
    return str(told["outcome"]) if run_id in told["reason"] else f"{told['outcome']} for another reason"


def triggered(kfp: KfpServer, tmp_path: Path, compiled: Path) -> tuple[Path, Target, str]:
    """A loop with a champion, and a training that its monitor started on the cluster an instant ago."""
    database = f"sqlite:///{tmp_path}/state.db"
    state = open_state(database)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "any").touch()
    Store(str(tmp_path / "store")).publish(tmp_path / "package", "models", "m1")
    intent = state.ledger.intend(
        "digits", action="promote", version=1, model_digest="m1", expected_champion=None, actor="t", reason="r"
    )
    done = state.ledger.close(intent, done=True)
    kfp.story = [Step("RUNNING")]
    path = write_loop(tmp_path, kfp.url, state=database)
    target = open_target(path, patience=QUICK)
    run_id = submit(target, compiled=compiled).run_id
    state.runs.step("round", "submit_training", "succeeded", {"outcome": run_id, "until": done.at + 48 * 3600})
    state.triggers.add(
        "digits", run_id="round", trigger="retrain", reason="r", champion_digest="m1", fingerprint="f", at=done.at
    )
    return path, target, run_id


@pytest.mark.parametrize("how", ["cancelled here", "cancelled elsewhere", "failed", "deleted"])
def test_a_triggered_training_that_is_over_is_not_waited_for(
    how: str, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    """Its last step never ran, so nobody closed its record: the monitor would wait for as long as a training may take."""
    path, target, run_id = triggered(kfp, tmp_path, compiled)
    assert in_flight(target, run_id) == "in_flight"
    if how == "cancelled here":
        told = command(path, "--cancel", run_id, "--every", "0.01", "--json")
        assert json.loads(told.stdout) == {"run_id": run_id, "cancelled": True, "state": "canceled"}
    elif how == "deleted":
        kfp.stored["runs"].clear()
        told = command(path, "--cancel", run_id, "--json")
        assert json.loads(told.stdout)["state"] == "gone"
    else:
        if how == "failed":
            kfp.story = [Step("FAILED", {"train": "FAILED"}, {"": "node lost"})]
        else:
            target.server.terminate(run_id)
        assert command(path, "--attach", run_id, "--every", "0.01").return_value == 1
    assert in_flight(target, run_id) == "retrain for another reason"
    status = "failed" if how == "failed" else "cancelled"
    record = target.reachable_state().runs.get(run_id)
    assert record is not None
    assert (record["status"], record["exit_code"], record["engine"]) == (status, 1, "cluster")


def test_a_cancel_that_nobody_waits_for_says_how_to_see_its_end(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    path, target, run_id = triggered(kfp, tmp_path, compiled)
    told = command(path, "--cancel", run_id, "--no-follow")
    assert f"kfloop submit --attach {run_id}" in told.stderr
    assert in_flight(target, run_id) == "in_flight"  # its steps may be at work still


def test_a_run_that_is_gone_and_that_no_trigger_started_is_an_error(
    kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    path, target, _ = triggered(kfp, tmp_path, compiled)
    told = command(path, "--cancel", "3f0c9a9e-0000-4000-8000-000000000000")
    assert isinstance(told.exception, InputError)
    assert target.reachable_state().runs.last("digits", 5) == []


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("submit", "-c", "loop.yaml"), "the same command again attaches to it"),
        (("schedule", "apply"), "the same command again does the rest"),
    ],
)
def test_an_interrupt_while_something_is_sent_says_what_may_be_there(
    arguments: tuple[str, ...], told: str, kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    arrived = threading.Event()

    def trouble(asked: str) -> Trouble | None:
        if not asked.startswith("POST r"):
            return None
        arrived.set()
        return Trouble(hang=True)

    kfp.trouble = trouble
    write_loop(tmp_path, kfp.url)
    (tmp_path / "schedules.yaml").write_text('schedules: {nightly: {cron: "0 0 3 * * *"}}', encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, "-m", "kfloop", *arguments, "--compiled", str(compiled)],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        assert arrived.wait(120)
        child.send_signal(signal.SIGINT)
        _, text = child.communicate(timeout=120)
    assert child.returncode == 1, text
    assert told in text
    assert "Traceback" not in text


def interrupted(arguments: list[str], upon: str) -> str:
    """What a command says that gets Ctrl-C at a line of its own; it ends with 1."""
    command = [sys.executable, "-m", "kfloop", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as child:
        assert child.stderr is not None
        lines = []
        for line in child.stderr:
            lines.append(line)
            if upon in line:
                child.send_signal(signal.SIGINT)
    text = "".join(lines)
    assert child.returncode == 1, text
    return text


def test_an_interrupt_while_a_run_is_cancelled_says_how_to_see_its_end(
    kfp: KfpServer, tmp_path: Path, compiled: Path
) -> None:
    kfp.story = [Step("RUNNING", {"train": "RUNNING"})]
    path = write_loop(tmp_path, kfp.url)
    submit(open_target(path, patience=QUICK), "training", compiled=compiled)
    run_id = kfp.runs[0]["run_id"]
    text = interrupted(["submit", "-c", str(path), "--cancel", run_id, "--every", "600"], "is being cancelled")
    assert f"kfloop submit --attach {run_id}" in text
    assert "Traceback" not in text
    assert kfp.count(f"POST runs/{run_id}:terminate") == 1


def test_an_interrupt_leaves_the_run_alone(kfp: KfpServer, tmp_path: Path, compiled: Path) -> None:
    kfp.story = [Step("RUNNING", {"train": "RUNNING"})]
    path = write_loop(tmp_path, kfp.url)
    arguments = ["submit", "-c", str(path), "--compiled", str(compiled), "--every", "0.05"]
    text = interrupted(arguments, "running    train")
    run_id = kfp.runs[0]["run_id"]
    assert f"kfloop submit --attach {run_id}" in text
    assert f"kfloop submit --cancel {run_id}" in text
    assert "Traceback" not in text
    assert kfp.count("POST runs/") == 0
