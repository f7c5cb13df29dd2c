"""One entrypoint, alone and under torchrun: what it refuses, that the result is the same, and that nothing is left behind."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest

import trainings
from kfloop.components.train.__main__ import main
from kfloop.components.train.fitting import fit
from kfloop.components.train.group import Group
from kfloop.components.train.launching import forget_error, read_job, told_error, write_error
from kfloop.components.train.preparing import prepare
from kfloop.components.train.resuming import last_good, work_folder
from kfloop.components.train.training import run
from kfloop.core.artifacts import folder_digest, read_report
from kfloop.core.sections import TrainConfig
from kfloop.core.versions import read_version
from kfloop.errors import ConfigError, InputError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.digits(tmp_path_factory.mktemp("data") / "digits")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.no_doubts(tmp_path_factory.mktemp("data") / "labels")
    return folder


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    """A job of folders that are there and empty."""
    for name in ("dataset", "labels"):
        (tmp_path / name).mkdir()
    path = tmp_path / "job.json"
    trainings.job(tmp_path, tmp_path / "dataset", tmp_path / "labels", trainings.config()).write(path)
    return path


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    told = capsys.readouterr().out
    assert "torchrun --standalone" in told
    assert '"workspace"' in told


def test_without_a_job_file_the_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2
    assert "--config" in capsys.readouterr().err


def test_a_job_file_is_read_as_it_was_written(job_file: Path) -> None:
    job = read_job(job_file)
    assert job.config == trainings.config()
    assert job.workspace.loop == "digits"
    assert job.out.is_absolute()


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    plain = json.loads(path.read_text())
    change(plain)
    path.write_text(json.dumps(plain))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.write_text("{"), "no JSON"),
        (lambda path: path.write_bytes(b"\x80\x81"), "no JSON"),
        (lambda path: path.write_text("[1]"), "has list, expected"),
        (lambda path: changed(path, lambda job: job.pop("labels")), "expected .*'labels'"),
        (lambda path: changed(path, lambda job: job["config"].update(epochs=-1)), r"config.epochs is -1: "),
        (lambda path: changed(path, lambda job: job["config"].update(epoch=1)), r"config.epoch is 1: "),
        (lambda path: changed(path, lambda job: job["workspace"].pop("root")), "is wrong: 'root'"),
        (lambda path: changed(path, lambda job: job.update(dataset="/nowhere")), "dataset '/nowhere' is no folder"),
        (lambda path: changed(path, lambda job: job.update(out=3)), "is wrong: "),
    ],
)
def test_a_wrong_job_file_says_what_is_wrong_and_gives_status_2(
    job_file: Path, spoil: Callable[[Path], object], told: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(job_file)
    with pytest.raises(ConfigError, match=told):
        read_job(job_file)
    with caplog.at_level(logging.ERROR, logger="kfloop"):
        assert main(["--config", str(job_file)]) == 2
    assert str(job_file) in caplog.text


def test_the_group_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # left over in an environment, without torchrun
    assert Group.here() == Group()
    told = {"RANK": 5, "WORLD_SIZE": 8, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 4, "TORCHELASTIC_RESTART_COUNT": 2}
    for name, value in told.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    group = Group.here()
    assert (group.rank, group.world, group.local_rank, group.nodes, group.restarts) == (5, 8, 1, 2, 2)
    assert group.launched
    assert not group.first


def test_of_several_reasons_the_final_one_is_told(tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    assert told_error(file) is None
    write_error(file, 1, TransientError("the connection broke"))
    write_error(file, 0, InputError("row 7 is wrong", hint="mend it", row=7))
    error = told_error(file)
    assert isinstance(error, InputError)
    assert (error.message, error.hint, error.data) == ("row 7 is wrong", "mend it", {"row": 7})
    forget_error(file, 0, 2)
    assert isinstance(told_error(file), TransientError)


def test_what_is_final_is_not_tried_again_by_torchrun(
    job_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_error(job_file, 1, TerminalError("the loss is nan"))
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    monkeypatch.setattr("kfloop.components.train.__main__.bind_to_parent", lambda: None)
    assert main(["--config", str(job_file)]) == 1
    assert not caplog.messages


def below(process: psutil.Process) -> list[psutil.Process]:
    return [child for child in process.children(recursive=True) if "RANK" in child.environ()]


def until(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("waited too long")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_learn_the_same_curve_as_one(dataset: Path, labels: Path, tmp_path: Path) -> None:
    """50 steps, two in an epoch, no batch norm and no dropout; with FSDP too."""
    told = {"epochs": 25, "batch_size": 100, "schedule": "constant", "learning_rate": 0.003}
    reports = {}
    for name, more in {
        "one": {},
        "ddp": {"processes": 2},
        "fsdp": {"processes": 2, "strategy": "fsdp"},
    }.items():
        job = trainings.job(tmp_path / name, dataset, labels, trainings.config(**told, **more))
        reports[name] = run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
    one = reports.pop("one")
    assert one.plan["total_steps"] == 50
    assert one.history[-1]["train_loss"] < 0.5 * one.history[0]["train_loss"]
    for name, report in reports.items():
        assert report.processes == 2
        for key in ("train_loss", "validation_loss"):
            found = [row[key] for row in report.history]
            assert found == pytest.approx([row[key] for row in one.history], rel=1e-4), name
        assert len(list((tmp_path / name / ".kfloop").rglob("mlflow_run_id"))) == 1


OWN = """
import pytorch_lightning as pl
import torch
from torch import nn
from torch.nn import functional


class Own(pl.LightningModule):
    def __init__(self, spec, width: int = 16) -> None:
        super().__init__()
        size = spec.inputs[0].shape[0]
        self.layers = nn.Sequential(nn.Linear(size, width), nn.Tanh(), nn.Linear(width, len(spec.labels)))

    def forward(self, vector):
        return self.layers(vector / 16)

    def loss(self, batch):
        losses = functional.cross_entropy(self(*batch.inputs), batch.target, reduction="none")
        return (losses * batch.weight).sum() * batch.scale

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch):
        self.log("validation_loss", functional.cross_entropy(self(*batch.inputs), batch.target))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_module_of_ones_own_learns_the_same_curve_on_two_processes(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    told = {"model": "own_vectors:Own", "epochs": 4, "batch_size": 60, "accelerator": "cpu", "schedule": "constant"}
    curves = []
    for processes in (1, 2):
        config = TrainConfig.model_validate(told | {"processes": processes})
        job = trainings.job(tmp_path / str(processes), dataset, labels, config)
        (job.workspace.root / "own_vectors.py").write_text(OWN)
        report = run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
        assert (report.family, report.processes) == ("custom", processes)
        curves.append([row["validation_loss"] for row in report.history])
    assert curves[0][-1] < curves[0][0]
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_training_goes_on_with_the_other_strategy(dataset: Path, labels: Path, tmp_path: Path) -> None:
    config = trainings.config(strategy="fsdp")
    job = trainings.job(tmp_path / "cut", dataset, labels, config)
    version = read_version(dataset)
    prepared = prepare(config, version, labels)
    work = work_folder(job.workspace, config, version.digest, folder_digest(labels))
    work.mkdir(parents=True)
    (tmp_path / "whole").mkdir()
    whole = fit(prepared, config, work=tmp_path / "whole", resume=None, listen=None)[0]
    with pytest.raises(TransientError):  # in this process, alone
        fit(prepared, config, work=work, resume=None, listen=None, callbacks=[trainings.StopAt(1, 2)])
    report = run(
        config, dataset=dataset, labels=labels, out=job.out, workspace=job.workspace
    )  # under torchrun, shared out
    assert report.resumed_from_epoch == 1
    wanted = [row["validation_loss"] for row in whole.history]
    assert [row["validation_loss"] for row in report.history] == pytest.approx(wanted, rel=1e-5)
    max(work.glob("*.ckpt")).unlink()
    back = fit(prepared, config, work=work, resume=last_good(work), listen=None)[0]
    assert [row["validation_loss"] for row in back.history] == pytest.approx(wanted, rel=1e-5)


def start(tmp_path: Path, dataset: Path, labels: Path, **told: Any) -> tuple[subprocess.Popen[bytes], Any]:
    """``python -m kfloop.components.train`` with two processes, a checkpoint after each of 2000 batches."""
    told = {"epochs": 100, "batch_size": 10, "processes": 2, "checkpoint_minutes": trainings.OFTEN} | told
    job = trainings.job(tmp_path, dataset, labels, trainings.config(**told))
    job.write(tmp_path / "job.json")
    with (tmp_path / "log.txt").open("a") as log:
        command = [sys.executable, "-m", "kfloop.components.train", "--config", str(tmp_path / "job.json")]
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return process, job


def checkpoint_in(root: Path) -> Callable[[], list[Path]]:
    return lambda: list((root / ".kfloop" / "work").rglob("*.ckpt"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_restarts_the_group_and_sigterm_ends_it(dataset: Path, labels: Path, tmp_path: Path) -> None:
    process, job = start(tmp_path, dataset, labels)
    log = tmp_path / "log.txt"
    until(checkpoint_in(tmp_path))
    for restarts, victim in enumerate((1, 0)):
        until(lambda: len(below(psutil.Process(process.pid))) == 2)
        for worker in below(psutil.Process(process.pid)):
            if worker.environ()["RANK"] == str(victim):
                worker.kill()
        until(lambda wanted=restarts: log.read_text().count("training goes on after") > wanted)
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 1
    told = log.read_text()
    assert "told to stop (SIGTERM)" in told
    assert "run the same command again" in told

    finish, _ = start(tmp_path, dataset, labels)
    assert finish.wait(300) == 0, log.read_text()[-3000:]
    report = read_report(job.out)
    assert len(report["history"]) == 100
    assert report["resumed_from_epoch"] is not None
    assert len(list((tmp_path / ".kfloop" / "work").rglob("mlflow_run_id"))) == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_process_outlives_a_killed_launcher(dataset: Path, labels: Path, tmp_path: Path) -> None:
    process, _ = start(tmp_path, dataset, labels)
    until(checkpoint_in(tmp_path))
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    process.kill()
    process.wait(10)
    _, alive = psutil.wait_procs(family, timeout=10)
    assert not alive


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_reason_of_a_worker_reaches_the_caller(dataset: Path, labels: Path, tmp_path: Path) -> None:
    job = trainings.job(tmp_path, dataset, labels, trainings.config(processes=2, learning_rate=1e38, epochs=9))
    began = time.monotonic()
    with pytest.raises(TerminalError, match=r"loss is (nan|inf) .*epoch \d+, step \d+") as caught:
        run(job.config, dataset=job.dataset, labels=job.labels, out=job.out, workspace=job.workspace)
    assert "checkpoint" in caught.value.hint
    assert time.monotonic() - began < 200
