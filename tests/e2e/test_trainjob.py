"""TrainJobs whose pods really train: two of them on this machine's CPU, started by a double of Trainer, JobSet and kubelet."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import kubelet
import kubernetes_server
import trainings
from kfloop.components.train.launching import Job
from kfloop.components.train.training import after_publish, run
from kfloop.core.artifacts import read_report
from kfloop.core.families.checkpoints import load_checkpoint
from kfloop.errors import TerminalError

RUNTIME = Path(__file__).resolve().parents[2] / "infra" / "base" / "trainer" / "clustertrainingruntime.yaml"
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[kubernetes_server.Cluster]:
    with kubernetes_server.running() as found:
        found.token = ""
        monkeypatch.setenv("KFLOOP_KUBERNETES_URL", found.url)
        monkeypatch.setenv("KFLOOP_RUN_ID", "0f3c9a12-7b1d-4f6e-9d7c-1a2b3c4d5e6f")
        yield found


@pytest.fixture
def pods(cluster: kubernetes_server.Cluster) -> Iterator[kubelet.Kubelet]:
    with kubelet.running(cluster, yaml.safe_load(RUNTIME.read_text())) as found:
        yield found


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("data")
    return trainings.digits(folder / "digits"), trainings.no_doubts(folder / "labels")


def ordered(tmp_path: Path, data: tuple[Path, Path], **told: Any) -> Job:
    base = tmp_path.parents[1]
    launcher = {
        "kind": "trainjob",
        "nodes": 2,
        "namespace": kubernetes_server.NAMESPACE,
        "claim": None,
        "volumes": [{"name": "shared", "hostPath": {"path": str(base)}}],
        "volume_mounts": [{"name": "shared", "mountPath": str(base)}],
    }
    return trainings.job(tmp_path / "loop", *data, trainings.config(launcher=launcher, **told))


def until(condition: Callable[[], Any], seconds: float = 200) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def test_two_pods_train_what_one_process_trains(
    cluster: kubernetes_server.Cluster, pods: kubelet.Kubelet, data: tuple[Path, Path], tmp_path: Path
) -> None:
    job = ordered(tmp_path, data)
    report = run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
    assert report.processes == 2
    assert load_checkpoint(job.out / "model.ckpt").spec.family == "mlp"
    alone = trainings.job(tmp_path / "alone", *data, trainings.config())
    other = run(alone.config, dataset=alone.dataset, labels=alone.labels, out=alone.out, workspace=alone.workspace)
    assert other.processes == 1
    losses = [[row["validation_loss"] for row in found.history] for found in (report, other)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    after_publish(job.out, job.workspace)
    assert list((tmp_path / "loop" / ".kfloop" / "work" / "train").iterdir()) == []  # orders go with their training


def test_a_training_that_would_fail_again_fails_at_once_in_the_words_of_its_process(
    cluster: kubernetes_server.Cluster, pods: kubelet.Kubelet, data: tuple[Path, Path], tmp_path: Path
) -> None:
    job = ordered(tmp_path, data, learning_rate=1e38, epochs=9)
    with pytest.raises(TerminalError, match=r"loss is (nan|inf) .*epoch \d+, step \d+"):
        run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
    assert pods.starts == 1
    (found,) = cluster.jobs.values()
    assert found["status"]["conditions"][0]["message"] == "FailedJobs: PodFailurePolicy"


def test_pods_and_launchers_that_die_cost_no_more_than_a_few_batches(
    cluster: kubernetes_server.Cluster, pods: kubelet.Kubelet, data: tuple[Path, Path], tmp_path: Path
) -> None:
    told = {"epochs": 24, "batch_size": 10}
    file, log = tmp_path / "job.json", tmp_path / "log.txt"
    ordered(tmp_path, data, checkpoint_minutes=trainings.OFTEN, **told).write(file)
    command = [sys.executable, "-m", "kfloop.components.train", "--config", str(file)]

    def launcher() -> subprocess.Popen[bytes]:
        with log.open("a") as stream:
            return subprocess.Popen(command, stderr=stream, stdout=stream, env=os.environ | {"OMP_NUM_THREADS": "1"})

    def posts() -> int:
        return sum(line.startswith("POST") for line in cluster.requests)

    def checkpoints() -> list[Path]:
        return list((tmp_path / "loop" / ".kfloop" / "work" / "train").glob("*/*.ckpt"))

    first = launcher()
    try:
        until(checkpoints)
        os.killpg(pods.pods[1].pid, signal.SIGKILL)  # a node that goes without a word: JobSet starts both pods anew
        until(lambda: pods.starts == 2)
        until(lambda: log.read_text().count("training goes on after") == 1)
    finally:
        first.kill()
        first.wait()
    second = launcher()
    try:
        until(lambda: "attached to TrainJob" in log.read_text())
        assert posts() == 1
        second.send_signal(signal.SIGTERM)
        assert second.wait(60) == 1
    finally:
        second.kill()
        second.wait()
    assert "told to stop (SIGTERM): TrainJob" in log.read_text()
    until(lambda: not cluster.jobs)
    assert all(pod.returncode is not None for pod in pods.pods)
    assert checkpoints()

    job = ordered(
        tmp_path, data, **told
    )  # now without a checkpoint after each batch: it has been shown, and takes its time
    job.write(file)
    third = launcher()
    try:
        assert third.wait(300) == 0, log.read_text()[-3000:]
    finally:
        third.kill()
        third.wait()
    report = read_report(job.out)
    assert posts() == 2
    assert len(report["history"]) == 24
    assert report["resumed_from_epoch"] is not None
    assert report["processes"] == 2
