"""The launcher of TrainJobs against a server that speaks the Kubernetes API: attach, create, follow, cancel, and all that goes wrong on the way."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import kubernetes_server
import trainings
from kfloop.components.train.launching import Job, write_error
from kfloop.components.train.trainjob.api import AlreadyThere, KubernetesApi
from kfloop.components.train.trainjob.attaching import Pace
from kfloop.components.train.trainjob.launching import launch_train_job
from kfloop.components.train.trainjob.manifest import DIGEST
from kfloop.components.train.trainjob.order import Order
from kfloop.errors import ConfigError, StateError, TerminalError, TransientError

PACE = Pace(poll=0.02, patience=5.0, settle=0.1)
WEIGHTS = bytes(range(64))
Cluster = kubernetes_server.Cluster


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.digits(tmp_path_factory.mktemp("data") / "digits")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.no_doubts(tmp_path_factory.mktemp("data") / "labels")
    return folder


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with kubernetes_server.running() as found:
        yield found


@pytest.fixture
def account(tmp_path: Path) -> Path:
    folder = tmp_path / "account"
    folder.mkdir()
    (folder / "token").write_text(f"{kubernetes_server.TOKEN}\n")
    (folder / "namespace").write_text(kubernetes_server.NAMESPACE)
    return folder


@pytest.fixture
def api(cluster: Cluster, account: Path) -> KubernetesApi:
    return KubernetesApi(url=cluster.url, namespace=kubernetes_server.NAMESPACE, account=account, seconds=5.0)


@pytest.fixture
def job(tmp_path: Path, dataset: Path, labels: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.setenv("KFLOOP_RUN_ID", "0F3C9A12-7b1d-4f6e-9d7c-1a2b3c4d5e6f")
    return ordered(tmp_path, dataset, labels)


def ordered(tmp_path: Path, dataset: Path, labels: Path, **told: Any) -> Job:
    """A job for pods that see this machine's own temporary folder."""
    launcher = {
        "kind": "trainjob",
        "claim": None,
        "volume_mounts": [{"name": "tmp", "mountPath": str(tmp_path.parents[1])}],
    }
    launcher |= {"volumes": [{"name": "tmp", "hostPath": {"path": str(tmp_path.parents[1])}}]}
    config = trainings.config(launcher=launcher | told)
    return trainings.job(tmp_path / "loop", dataset, labels, config)


def finish(order: Order, **changed: Any) -> None:
    """What the pods leave at the end."""
    report = {"dataset_digest": order.dataset_digest, "labels_digest": order.labels_digest, "work": "w"} | changed
    (order.job.out / "report.json").write_text(json.dumps(report))
    (order.job.out / "train_content.txt").write_text("abc\n")
    torch.save({"weights": torch.frombuffer(bytearray(WEIGHTS), dtype=torch.uint8)}, order.job.out / "model.ckpt")


def completing(cluster: Cluster, order: Order) -> Callable[[dict[str, Any]], None]:
    """Pods that train in no time."""

    def created(found: dict[str, Any]) -> None:
        name = found["metadata"]["name"]
        cluster.pod(name, "Succeeded")
        finish(order)
        cluster.condition(name, "Complete")

    return created


def counted(cluster: Cluster, method: str, part: str = "/trainjobs") -> int:
    return sum(line.startswith(method) and part in line for line in cluster.requests)


def until(condition: Callable[[], Any], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Launched:
    """A launcher in a thread, whose end the test waits for."""

    def __init__(self, job: Job, api: KubernetesApi, pace: Pace = PACE) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(job, api, pace))
        self._thread.start()

    def _run(self, job: Job, api: KubernetesApi, pace: Pace) -> None:
        try:
            launch_train_job(job, api=api, pace=pace)
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test looks at it
            self.error = error

    def end(self) -> BaseException | None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        return self.error


def test_a_train_job_is_created_followed_and_its_result_delivered(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    order = Order.of(job)
    caplog.set_level(logging.INFO, logger="kfloop")
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    assert order.name.startswith("train-0f3c9a12-")
    assert json.loads(order.file.read_text())["out"] == str(order.job.out)
    pod = cluster.pod(order.name, "Running")
    cluster.pod(order.name, "Running", index=1)
    cluster.write(pod, "INFO epoch 1 of 3", "something of a library")
    until(lambda: "epoch 1 of 3" in caplog.text)
    finish(order)
    cluster.condition(order.name, "Complete")
    assert launched.end() is None
    assert sorted(path.name for path in job.out.iterdir()) == ["model.ckpt", "report.json", "train_content.txt"]
    assert counted(cluster, "POST") == 1
    assert counted(cluster, "DELETE") == 0


def test_the_same_order_has_the_same_name_and_another_one_another(
    job: Job, tmp_path: Path, dataset: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = Order.of(job).name
    assert Order.of(job).name == name
    others = [Order.of(ordered(tmp_path, dataset, labels, nodes=2)).name]
    others.append(
        Order.of(trainings.job(tmp_path / "loop", dataset, labels, job.config.model_copy(update={"seed": 7}))).name
    )
    monkeypatch.setenv("KFLOOP_RUN_ID", "0f3c9a12-another")  # as far as the name shows it, the same run
    others.append(Order.of(job).name)
    monkeypatch.delenv("KFLOOP_RUN_ID")
    others.append(Order.of(job).name)
    assert others[-1].startswith("train-alone-")
    assert len({name, *others}) == 5


def test_a_retry_attaches_to_the_running_job_and_owns_it_too(
    cluster: Cluster, api: KubernetesApi, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order.of(job)
    owners = lambda: [item["uid"] for item in cluster.jobs[order.name]["metadata"].get("ownerReferences", [])]  # noqa: E731
    for attempt in ("first", "second"):
        monkeypatch.setenv("KFP_POD_NAME", f"train-{attempt}")
        monkeypatch.setenv("KFP_POD_UID", attempt)
        if attempt == "first":
            launched = Launched(job, api, Pace(poll=0.02, patience=0.0, settle=0.1))
            until(lambda: order.name in cluster.jobs)
            assert owners() == ["first"]
            cluster.fault("GET", "/trainjobs", 503)  # the first launcher gives up, the job runs on
            assert isinstance(launched.end(), TransientError)
    launched = Launched(job, api)
    until(lambda: owners() == ["first", "second"])
    finish(order)
    cluster.condition(order.name, "Complete")
    assert launched.end() is None
    assert counted(cluster, "POST") == 1
    assert (job.out / "model.ckpt").is_file()


def test_a_retry_takes_the_result_of_a_finished_job(
    cluster: Cluster, api: KubernetesApi, job: Job, tmp_path: Path
) -> None:
    cluster.created = completing(cluster, Order.of(job))
    for _ in range(2):
        launch_train_job(job, api=api, pace=PACE)
        assert (job.out / "model.ckpt").is_file()
        for path in job.out.iterdir():
            path.unlink()
    assert counted(cluster, "POST") == 1


@pytest.mark.parametrize("fault", ["drop", "lose", 500, 503, 429, "garbage"])
def test_a_create_that_is_not_answered_is_asked_again_and_makes_one_job(
    cluster: Cluster, api: KubernetesApi, job: Job, fault: int | str
) -> None:
    cluster.created = completing(cluster, Order.of(job))
    cluster.fault("POST", "/trainjobs", fault, times=2 if fault != "lose" else 1)
    launch_train_job(job, api=api, pace=PACE)
    assert len(cluster.jobs) == 1
    assert counted(cluster, "POST") >= 2


@pytest.mark.parametrize("fault", ["drop", 500, 504, "garbage", "cut"])
def test_an_api_that_fails_for_a_while_ends_no_training(
    cluster: Cluster, api: KubernetesApi, job: Job, fault: int | str
) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    cluster.fault("GET", "/trainjobs", fault, times=5)
    until(lambda: not any(item.times for item in cluster.faults))
    finish(order)
    cluster.condition(order.name, "Complete")
    assert launched.end() is None


def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(cluster: Cluster, account: Path, job: Job) -> None:
    hasty = KubernetesApi(url=cluster.url, namespace=kubernetes_server.NAMESPACE, account=account, seconds=0.2)
    cluster.created = completing(cluster, Order.of(job))
    cluster.fault("GET", "/trainjobs", "hang", times=1)
    launch_train_job(job, api=hasty, pace=PACE)
    cluster.fault("GET", "/trainjobs", "hang", times=99)
    with pytest.raises(TransientError, match=r"did not answer GET .*timed out"):
        launch_train_job(job, api=hasty, pace=Pace(poll=0.02, patience=0.3))


def test_no_server_at_all_is_transient_and_names_it(account: Path, job: Job) -> None:
    nobody = KubernetesApi(url="http://127.0.0.1:9", namespace="team", account=account)
    with pytest.raises(TransientError, match=r"127\.0\.0\.1:9.*refused"):
        launch_train_job(job, api=nobody, pace=Pace(poll=0.01, patience=0.0))


@pytest.mark.parametrize(("method", "part"), [("GET", "/trainjobs"), ("POST", "/trainjobs")])
def test_a_missing_right_is_final_and_says_which_ones_are_needed(
    cluster: Cluster, api: KubernetesApi, job: Job, method: str, part: str
) -> None:
    cluster.fault(method, part, 403, times=9)
    with pytest.raises(TerminalError, match="403: told by the test") as caught:
        launch_train_job(job, api=api, pace=PACE)
    assert "pods/log: get" in caught.value.hint
    assert counted(cluster, method, part) == 1


def test_a_wrong_token_is_final_and_not_repeated_in_the_message(
    cluster: Cluster, api: KubernetesApi, job: Job, account: Path
) -> None:
    (account / "token").write_text("stolen")
    with pytest.raises(TerminalError, match="401") as caught:
        launch_train_job(job, api=api, pace=PACE)
    assert "stolen" not in f"{caught.value.message}{caught.value.hint}"


def test_what_the_server_refuses_is_told_in_its_words(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    cluster.fault("POST", "/trainjobs", 422)
    with pytest.raises(ConfigError, match="422: told by the test"):
        launch_train_job(job, api=api, pace=PACE)


def test_a_runtime_that_is_not_there_is_a_matter_of_the_config(
    cluster: Cluster, api: KubernetesApi, tmp_path: Path, dataset: Path, labels: Path
) -> None:
    with pytest.raises(ConfigError, match="ClusterTrainingRuntime 'other' must be created before") as caught:
        launch_train_job(ordered(tmp_path, dataset, labels, runtime="other"), api=api, pace=PACE)
    assert "train.launcher" in caught.value.hint
    assert cluster.jobs == {}


def test_without_rights_to_the_logs_the_training_goes_on(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    order = Order.of(job)
    cluster.fault("GET", "/pods", 403, times=10**6)
    launched = Launched(job, api)
    until(lambda: counted(cluster, "GET", "/pods") >= 5)
    finish(order)
    cluster.condition(order.name, "Complete")
    assert launched.end() is None
    assert caplog.text.count("cannot be followed") == 1


def test_a_log_that_breaks_off_is_told_once_and_whole(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kfloop")
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    lines = [f"INFO line {number:03d} {'x' * 50}" for number in range(200)]
    cluster.fault("GET", "/log", "cut", times=3)
    cluster.fault("GET", "/log", "drop", times=1)
    cluster.fault("GET", "/log", 500, times=1)
    pod = cluster.pod(order.name, "Running")
    cluster.write(pod, *lines[:90], at="2026-11-22T08:50:40.123456789Z")  # all at one time, as a buffer that is flushed
    until(lambda: "line 089" in caplog.text)
    cluster.write(pod, *lines[90:], at="2026-11-22T08:50:40.123456790Z")
    until(lambda: "line 199" in caplog.text)
    finish(order)
    cluster.condition(order.name, "Complete")
    assert launched.end() is None
    told = [record.getMessage()[:8] for record in caplog.records if record.getMessage().startswith("line ")]
    assert told == [f"line {number:03d}" for number in range(200)]


def test_the_log_goes_on_with_the_pod_that_takes_the_place_of_another(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kfloop")
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    first = cluster.pod(order.name, "Running")
    cluster.write(first, "INFO from the first")
    until(lambda: "from the first" in caplog.text)
    cluster.pod(order.name, "Failed", name=first)
    cluster.pods[first]["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    second = cluster.pod(order.name, "Running")
    cluster.write(second, "INFO from the second", at="2020-01-01T00:00:01.5Z")  # its node's clock is late
    until(lambda: "from the second" in caplog.text)
    cluster.condition(order.name, "Failed", "BackoffLimitExceeded", "too often")
    assert isinstance(launched.end(), TransientError)


def test_what_a_pod_waits_for_is_told_once(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": "0/3 nodes: 3 Insufficient nvidia.com/gpu",
    }
    pod = cluster.pod(order.name, "Pending", conditions=[condition])
    until(lambda: "Insufficient nvidia.com/gpu" in caplog.text)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    container = {"name": "node", "ready": False, "restartCount": 0, "image": "i", "imageID": "", "state": state}
    cluster.pod(order.name, "Pending", name=pod, containerStatuses=[container])
    until(lambda: "ImagePullBackOff: no such image" in caplog.text)
    looks = counted(cluster, "GET", "/pods")
    until(lambda: counted(cluster, "GET", "/pods") > looks + 3)
    assert caplog.text.count("ImagePullBackOff") == 1
    cluster.condition(order.name, "Failed")
    launched.end()


def test_a_failed_job_is_an_error_at_once_with_its_last_words(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    pod = cluster.pod(order.name, "Failed")
    cluster.write(pod, *(f"line {number}" for number in range(40)), "torch.OutOfMemoryError: CUDA out of memory")
    cluster.condition(
        order.name, "Failed", "BackoffLimitExceeded", "jobset failed due to reaching max number of restarts"
    )
    error = launched.end()
    assert isinstance(error, TransientError)
    assert "max number of restarts" in error.message
    assert "CUDA out of memory" in error.hint
    assert "line 39" in error.hint
    assert "line 1 " not in error.hint


def test_a_reason_that_a_process_told_goes_before_that_of_the_cluster(
    cluster: Cluster, api: KubernetesApi, job: Job
) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    write_error(order.file, 3, TerminalError("the loss is nan in epoch 2, step 7", hint="lower the rate"))
    cluster.condition(order.name, "Failed", "PodFailurePolicy")
    error = launched.end()
    assert isinstance(error, TerminalError)
    assert error.message == "the loss is nan in epoch 2, step 7"
    # It would come again: a retry says so and starts nothing.
    cluster.created = completing(cluster, order)
    with pytest.raises(TerminalError, match="loss is nan"):
        launch_train_job(job, api=api, pace=PACE)
    assert counted(cluster, "POST") == 1


def test_a_job_that_failed_for_a_passing_reason_is_made_anew_beside_its_checkpoints(
    cluster: Cluster, api: KubernetesApi, job: Job
) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    checkpoint = order.folder.parent.parent / "000001-000.ckpt"
    checkpoint.write_bytes(b"kept")
    write_error(order.file, 0, TransientError("told to stop (SIGTERM)"))
    (order.job.out / "half").write_text("of an earlier attempt")
    cluster.condition(order.name, "Failed")
    assert isinstance(launched.end(), TransientError)
    first = cluster.jobs[order.name]["metadata"]["uid"]
    cluster.created = completing(cluster, order)
    launch_train_job(job, api=api, pace=PACE)
    assert cluster.jobs[order.name]["metadata"]["uid"] != first
    assert not (job.out / "half").exists()
    assert checkpoint.read_bytes() == b"kept"


def test_an_own_job_that_is_going_is_waited_for(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    cluster.condition(order.name, "Failed")
    launched.end()
    cluster.lingering = True
    cluster.created = completing(cluster, order)
    again = Launched(job, api)
    until(lambda: "deletionTimestamp" in cluster.jobs[order.name]["metadata"])
    asked = len(cluster.requests)
    until(lambda: len(cluster.requests) > asked + 3)
    assert counted(cluster, "POST") == 1
    cluster.vanish(order.name)
    assert again.end() is None
    assert counted(cluster, "DELETE") == 1


def test_a_job_of_somebody_else_is_left_alone(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    cluster.condition(order.name, "Failed")
    launched.end()
    cluster.jobs[order.name]["metadata"]["annotations"][DIGEST] = "another"
    cluster.created = completing(cluster, order)
    with pytest.raises(TerminalError, match="'another', expected") as caught:
        launch_train_job(job, api=api, pace=PACE)
    assert f"kubectl get trainjob {order.name}" in caught.value.hint
    assert counted(cluster, "DELETE") == 0


def test_a_job_that_took_the_place_of_a_useless_one_is_not_deleted(
    cluster: Cluster, api: KubernetesApi, job: Job
) -> None:
    order = Order.of(job)
    cluster.created = completing(cluster, order)
    launch_train_job(job, api=api, pace=PACE)
    with pytest.raises(AlreadyThere, match="UID in the precondition"):
        api.delete(order.name, "of the one before")
    assert order.name in cluster.jobs
    api.delete(order.name, cluster.jobs[order.name]["metadata"]["uid"])
    assert cluster.jobs == {}
    api.delete(order.name, "gone")  # as was wished


def test_a_job_that_somebody_deletes_is_no_result(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    order = Order.of(job)
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    cluster.vanish(order.name)
    error = launched.end()
    assert isinstance(error, TransientError)
    assert "was deleted while it trained" in error.message


def flip(path: Path) -> None:
    """Change one bit of a tensor, which nothing but its CRC would notice."""
    content = bytearray(path.read_bytes())
    content[content.index(WEIGHTS) + 5] ^= 1
    path.write_bytes(content)


SPOILED: dict[str, tuple[Callable[[Order], object], str]] = {
    "no report": (lambda order: (order.job.out / "report.json").unlink(), "report.*cannot be read.*No such file"),
    "half a report": (lambda order: (order.job.out / "report.json").write_text('{"a'), "report.*cannot be read"),
    "a list": (lambda order: (order.job.out / "report.json").write_text("[]"), "expected one JSON object"),
    "other data": (lambda order: finish(order, dataset_digest="x"), "dataset_digest 'x', expected"),
    "no checkpoint": (lambda order: (order.job.out / "model.ckpt").unlink(), "there is no .*|cannot be read.*"),
    "half a checkpoint": (
        lambda order: (order.job.out / "model.ckpt").write_bytes((order.job.out / "model.ckpt").read_bytes()[:-40]),
        "'model.ckpt' cannot be read: File is not a zip file",
    ),
    "a flipped bit": (lambda order: flip(order.job.out / "model.ckpt"), "'model.ckpt' is damaged at record"),
    "no contents": (lambda order: (order.job.out / "train_content.txt").unlink(), "there is no '.*train_content.txt'"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_complete_job_without_a_usable_result_is_an_error_and_the_next_attempt_makes_it_anew(
    cluster: Cluster, api: KubernetesApi, job: Job, case: str
) -> None:
    order = Order.of(job)
    spoil, told = SPOILED[case]
    launched = Launched(job, api)
    until(lambda: order.name in cluster.jobs)
    finish(order)
    spoil(order)
    cluster.condition(order.name, "Complete")
    error = launched.end()
    assert isinstance(error, StateError)
    with pytest.raises(StateError, match=told):
        raise error
    assert list(job.out.iterdir()) == []
    cluster.created = completing(cluster, order)
    launch_train_job(job, api=api, pace=PACE)
    assert (job.out / "model.ckpt").is_file()
    assert (counted(cluster, "POST"), counted(cluster, "DELETE")) == (2, 1)


def test_a_result_that_a_share_shows_late_is_waited_for(cluster: Cluster, api: KubernetesApi, job: Job) -> None:
    order = Order.of(job)
    launched = Launched(job, api, Pace(poll=0.02, patience=5.0, settle=30.0))
    until(lambda: order.name in cluster.jobs)
    looks = counted(cluster, "GET")  # before the end is told: the look that sees it may be the launcher's last
    cluster.condition(order.name, "Complete")
    until(lambda: counted(cluster, "GET") > looks)
    finish(order)
    assert launched.end() is None


def test_the_deadline_counts_from_the_first_pod_that_runs_and_over_retries(
    cluster: Cluster, api: KubernetesApi, tmp_path: Path, dataset: Path, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KFLOOP_RUN_ID", "0f3c9a12-7b1d-4f6e-9d7c-1a2b3c4d5e6f")
    job = ordered(tmp_path, dataset, labels, deadline_minutes=0.5)
    order = Order.of(job)
    launched = Launched(job, api, Pace(poll=0.02, patience=0.0, settle=0.1))
    until(lambda: order.name in cluster.jobs)
    cluster.condition(order.name, "Suspended", "Queued")
    cluster.jobs[order.name]["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    pod = cluster.pod(order.name, "Pending")
    looks = counted(cluster, "GET", "/pods")
    until(lambda: counted(cluster, "GET", "/pods") > looks + 3)
    started = order.folder / "started.json"
    assert not started.exists()  # years in the queue do not count
    cluster.pod(order.name, "Running", name=pod)
    until(started.exists)
    cluster.fault("GET", "/trainjobs", 503)  # the launcher dies
    assert isinstance(launched.end(), TransientError)
    assert order.name in cluster.jobs
    kept = json.loads(started.read_text())
    started.write_text(json.dumps(kept | {"started": kept["started"] - 31}))
    with pytest.raises(TerminalError, match=r"deadline_minutes, 0\.5: it was deleted"):
        launch_train_job(job, api=api, pace=PACE)
    assert cluster.jobs == {}
    with pytest.raises(
        TerminalError, match=r"deadline_minutes, 0\.5: it was deleted"
    ) as again:  # KFP tries the step again
        launch_train_job(job, api=api, pace=PACE)
    assert "raise the deadline" in again.value.hint
    assert counted(cluster, "POST") == 1


def test_outside_of_a_run_the_same_order_starts_anew_after_its_deadline(
    cluster: Cluster, api: KubernetesApi, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KFLOOP_RUN_ID")
    order = Order.of(job)
    order.folder.mkdir(parents=True)
    order.give_up(TerminalError("past its deadline"))
    cluster.created = completing(cluster, order)
    launch_train_job(job, api=api, pace=PACE)
    assert (job.out / "model.ckpt").is_file()


def test_sigterm_deletes_the_job_also_while_the_api_keeps_silent(
    cluster: Cluster, api: KubernetesApi, job: Job
) -> None:
    order = Order.of(job)
    before = signal.getsignal(signal.SIGTERM)

    def created(_: dict[str, Any]) -> None:
        cluster.fault("GET", "/trainjobs", "hang", times=1)

    def terminate() -> None:
        until(lambda: any(item.kind == "hang" and not item.times for item in cluster.faults))
        os.kill(os.getpid(), signal.SIGTERM)

    cluster.created = created
    killer = threading.Thread(target=terminate)
    killer.start()
    slow = KubernetesApi(url=api.url, namespace=api.namespace, account=api.account, seconds=60.0)
    with pytest.raises(TransientError, match=rf"SIGTERM.*'{order.name}' was deleted") as caught:
        launch_train_job(job, api=slow, pace=PACE)
    killer.join()
    assert "last checkpoint" in caught.value.hint
    assert cluster.jobs == {}
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_job_that_cannot_be_deleted_on_cancel_is_named(
    cluster: Cluster, api: KubernetesApi, job: Job, caplog: pytest.LogCaptureFixture
) -> None:
    order = Order.of(job)
    cluster.created = lambda _: os.kill(os.getpid(), signal.SIGTERM)
    cluster.fault("DELETE", "/trainjobs", 500, times=9)
    with pytest.raises(TransientError):
        launch_train_job(job, api=api, pace=PACE)
    assert f"kubectl delete trainjob {order.name} -n {kubernetes_server.NAMESPACE}" in caplog.text


def test_outside_of_a_cluster_the_launcher_says_so(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBERNETES_SERVICE_HOST", "KFLOOP_KUBERNETES_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="in no Kubernetes pod") as caught:
        launch_train_job(job)
    assert "train.launcher.kind: local" in caught.value.hint


def test_the_cluster_is_found_by_what_kubernetes_tells_a_pod(account: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KFLOOP_KUBERNETES_URL", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = KubernetesApi.here(None, account)
    assert (found.url, found.namespace) == ("https://[fd00::1]:6443", "team")
    assert KubernetesApi.here("other", account).namespace == "other"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_the_server_is_the_one_that_the_service_account_vouches_for(account: Path, job: Job) -> None:
    key, certificate = account / "key.pem", account / "ca.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", certificate, "-days", "2",
         "-subj", "/CN=kubernetes", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with kubernetes_server.running(context) as cluster:
        cluster.created = completing(cluster, Order.of(job))
        api = KubernetesApi(url=cluster.url, namespace=kubernetes_server.NAMESPACE, account=account, seconds=5.0)
        launch_train_job(job, api=api, pace=PACE)
        assert len(cluster.jobs) == 1
        asked = len(cluster.requests)
        certificate.unlink()
        with pytest.raises(TerminalError, match=r"is not the one that '.*ca\.crt' vouches for"):
            launch_train_job(job, api=api, pace=PACE)
        assert len(cluster.requests) == asked
