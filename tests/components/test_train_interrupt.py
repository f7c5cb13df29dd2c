"""Interruption is normal: whatever ends a training, the same call goes on to the same weights."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import torch

import trainings
from kfloop.components.train.fitting import fit
from kfloop.components.train.preparing import prepare
from kfloop.components.train.resuming import exclusive, last_good, work_folder
from kfloop.components.train.training import run
from kfloop.components.train.watching import Watch
from kfloop.core.artifacts import folder_digest, read_report
from kfloop.core.versions import read_version
from kfloop.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from kfloop.components.train.curves import LearningCurve
    from kfloop.components.train.launching import Job
    from kfloop.core.sections import TrainConfig


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.digits(tmp_path_factory.mktemp("data") / "digits")
    return folder


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = trainings.no_doubts(tmp_path_factory.mktemp("data") / "labels")
    return folder


class Bench:
    """One prepared training, run in folders of its own."""

    def __init__(self, config: TrainConfig, dataset: Path, labels: Path, root: Path) -> None:
        self.config, self.root = config, root
        self.prepared = prepare(config, read_version(dataset), labels)

    def go(self, name: str, *callbacks: Any) -> LearningCurve:
        work = self.root / name
        work.mkdir(exist_ok=True)
        return fit(
            self.prepared, self.config, work=work, resume=last_good(work), listen=None, callbacks=list(callbacks)
        )[0]


def same(one: LearningCurve, other: LearningCurve) -> bool:
    weights = all(torch.equal(tensor, other.best_weights[name]) for name, tensor in one.best_weights.items())
    return weights and one.history == other.history and one.best_epoch == other.best_epoch


@pytest.mark.parametrize(
    "told",
    [
        {"options": {"dropout": 0.3}},
        {"schedule": "cosine", "accumulate": 2},
        {"weight_averaging": "ema", "schedule": "constant"},
    ],
    ids=["dropout", "accumulate", "averaged"],
)
def test_stopped_anywhere_and_going_on_is_never_having_stopped(
    told: dict[str, Any], dataset: Path, labels: Path, tmp_path: Path
) -> None:
    bench = Bench(trainings.config(**told), dataset, labels, tmp_path)
    whole = bench.go("whole")
    steps = -(-len(bench.prepared.train) // 24) * bench.config.accumulate
    for epoch, batch in ((0, 0), (0, 3), (0, steps - 1), (1, 0), (1, steps - 2), (2, 1), (2, 4)):
        with pytest.raises(TransientError, match="told to stop") as caught:
            bench.go("cut", trainings.StopAt(epoch, batch))
        assert "same command" in caught.value.hint
        assert len(list((tmp_path / "cut").glob("*.ckpt"))) in {1, 2}
    assert same(bench.go("cut"), whole)


def test_two_optimisers_go_on_too(tmp_path: Path, labels: Path) -> None:
    from sklearn.datasets import load_digits

    from kfloop.core.versions import Rows, write_version

    pixels, classes = load_digits(n_class=3, return_X_y=True)
    rows = Rows(
        ids=[f"r{row}" for row in range(120)],
        images=(pixels[:120].reshape(-1, 8, 8, 1) * 15).astype("uint8"),
        labels=classes[:120].astype("int64"),
        origin=["base"] * 120,
    )
    (tmp_path / "images").mkdir()
    write_version(tmp_path / "images", name="d", rows=rows, labels=["0", "1", "2"], validation=0.2, test=0.2)
    config = trainings.config(family="gan", epochs=2, learning_rate=None)
    config = config.model_copy(update={"options": {"width": 8}})
    bench = Bench(config, tmp_path / "images", labels, tmp_path)
    whole = bench.go("whole")
    for epoch, batch in ((0, 1), (1, 1)):
        with pytest.raises(TransientError, match="told to stop"):
            bench.go("cut", trainings.StopAt(epoch, batch))
    assert same(bench.go("cut"), whole)


def test_a_torn_file_is_passed_over_and_two_torn_files_mean_a_new_start(
    dataset: Path, labels: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bench = Bench(trainings.config(checkpoint_minutes=trainings.OFTEN), dataset, labels, tmp_path)
    whole = bench.go("whole")
    for torn in (1, 2):
        with pytest.raises(TransientError):
            bench.go("cut", trainings.StopAt(1, 2))
        files = sorted((tmp_path / "cut").glob("*.ckpt"), reverse=True)
        assert [file.name for file in files] == ["00001-00000003.ckpt", "00001-00000002.ckpt"]
        for file in files[:torn]:
            content = bytearray(file.read_bytes())
            middle = len(content) // 2
            content[middle : middle + 64] = bytes(64)
            file.write_bytes(content if torn == 1 else content[:middle])
        found = last_good(tmp_path / "cut")
        assert f"'{files[0].name}' is damaged" in caplog.text
        assert (found and found.path) == (files[1] if torn == 1 else None)
        for file in (tmp_path / "cut").glob("*.ckpt") if torn == 1 else ():
            file.unlink()
    assert same(bench.go("cut"), whole)


def test_a_loss_that_is_no_number_names_the_step_and_keeps_the_checkpoint(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    class Poison(trainings.StopAt):  # type: ignore[misc, name-defined] # a module loaded from its path has no types
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            del pl_module
            if (trainer.current_epoch, batch_idx) == self.at:
                batch.weight.fill_(float("nan"))

    bench = Bench(trainings.config(), dataset, labels, tmp_path)
    with pytest.raises(TerminalError, match=r"training loss is nan in epoch 1, step \d+") as caught:
        bench.go("cut", Poison(1, 2))
    assert "checkpoint is kept" in caught.value.hint
    point = last_good(tmp_path / "cut")
    assert point is not None
    assert (point.epochs_done, point.batches_done) == (1, 0)


def test_a_full_disk_names_the_step_and_keeps_the_checkpoint(dataset: Path, labels: Path, tmp_path: Path) -> None:
    bench = Bench(trainings.config(), dataset, labels, tmp_path)
    whole = bench.go("whole")
    with pytest.raises(TransientError):
        bench.go("cut", trainings.StopAt(1, 1))
    kept = sorted((tmp_path / "cut").iterdir())
    with (
        trainings.no_file_above(8192),
        pytest.raises(TerminalError, match=r"no space left for the checkpoint .* in epoch 1, step \d+") as caught,
    ):
        bench.go("cut")
    assert "free disk space" in caught.value.hint
    assert sorted((tmp_path / "cut").iterdir()) == kept
    assert same(bench.go("cut"), whole)


def test_what_does_not_change_the_result_does_not_change_the_folder(tmp_path: Path) -> None:
    def folder(**told: Any) -> Path:
        path: Path = work_folder(trainings.place(tmp_path), trainings.config(**told), "d", "l")
        return path

    assert folder() == folder(processes=4, strategy="fsdp", restarts=0, checkpoint_minutes=9.0, price_per_hour=2.0)
    assert folder() == folder(watts=100.0, accelerator="auto")
    assert folder() != folder(seed=1)
    assert folder() != folder(accumulate=2)


def test_an_interrupted_training_goes_on_in_another_way_of_computing(
    dataset: Path, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its MLflow run too, whose parameters can never be changed."""
    told = trainings.job(tmp_path, dataset, labels, trainings.config())
    places = {"dataset": dataset, "labels": labels, "out": told.out, "workspace": told.workspace}
    stop = trainings.StopAt(1, 1)
    monkeypatch.setattr(Watch, "on_train_batch_start", stop.on_train_batch_start)
    with pytest.raises(TransientError, match="told to stop"):
        run(told.config, **places)
    monkeypatch.undo()
    other = told.config.model_copy(update={"checkpoint_minutes": 9.0, "price_per_hour": 2.0})
    report = run(other, **places)
    assert report.resumed_from_epoch == 1
    assert report.throughput["cost"] > 0


def test_a_disk_that_does_not_answer_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torn = tmp_path / "00001-00000000.ckpt"
    torn.write_bytes(b"content")

    def fails(path: Path) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("kfloop.components.train.resuming.read_tensors", fails)
    with pytest.raises(TransientError, match=r"cannot be read at this moment: .*Input/output error"):
        last_good(tmp_path)
    assert torn.exists()


def test_another_process_holds_the_folder_and_a_lock_of_a_dead_one_does_not(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    told = trainings.job(tmp_path, dataset, labels, trainings.config(epochs=1))
    version = read_version(dataset)
    work = work_folder(told.workspace, told.config, version.digest, folder_digest(labels))
    with exclusive(work), pytest.raises(TransientError, match="another process"):
        run(told.config, dataset=dataset, labels=labels, out=told.out, workspace=told.workspace)
    assert (work / "lock").is_file()
    report = run(told.config, dataset=dataset, labels=labels, out=told.out, workspace=told.workspace)
    assert report.resumed_from_epoch is None
    assert report.epochs == 1


# One process imports everything once and makes a child for each attempt: 20 attempts would otherwise be 20 times the imports.
NURSERY = """
import os, sys
import mlflow, torch, kfloop.components.train.fitting, kfloop.components.train.preparing, kfloop.components.train.training
import kfloop.components.train.watching, kfloop.components.train.grids, kfloop.core.families.mlp, kfloop.core.learning.supervised
from kfloop.components.train.__main__ import main
torch.set_num_threads(1)
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        os._exit(main(["--config", line.strip()]))
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Nursery:
    """Runs job files in children of a warm process."""

    def __init__(self, log: Path) -> None:
        self.log = log.open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-c", NURSERY],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert self.read() == "ready"

    def read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def start(self, file: Path) -> psutil.Process:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{file}\n")
        self.process.stdin.flush()
        return psutil.Process(int(self.read()))

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()
        self.log.close()


def workers(process: psutil.Process) -> list[psutil.Process]:
    """The training processes below torchrun."""
    found = []
    for child in process.children(recursive=True):
        try:
            if "RANK" in child.environ():
                found.append(child)
        except psutil.Error:
            continue
    return found


def interrupt(process: psutil.Process, work: Path, dice: random.Random, *, several: bool) -> str:
    """End an attempt at some moment after its training has begun; gives what was done, empty when it was over before."""
    started = {file.name for file in work.glob("*.ckpt")}
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if {file.name for file in work.glob("*.ckpt")} - started:
            break
        time.sleep(0.01)
    time.sleep(dice.uniform(0, 0.4))
    kind = dice.choice(["SIGTERM", "SIGKILL", "worker"] if several else ["SIGTERM", "SIGKILL"])
    try:
        if kind == "worker":
            victims = workers(process)
            if not victims:
                return ""
            dice.choice(victims).kill()
        else:
            process.send_signal(getattr(signal, kind))
    except psutil.NoSuchProcess:
        return ""
    return kind


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_interruptions_at_random_moments_end_in_the_same_metric(
    dataset: Path, labels: Path, tmp_path: Path
) -> None:
    told = {"epochs": 100, "patience": 999, "batch_size": 8, "checkpoint_minutes": trainings.OFTEN}
    whole: Job = trainings.job(tmp_path / "whole", dataset, labels, trainings.config(**told, seed=3))
    expected = run(whole.config, dataset=dataset, labels=labels, out=whole.out, workspace=whole.workspace)
    jobs: dict[bool, Job] = {
        several: trainings.job(
            tmp_path / "cut", dataset, labels, trainings.config(**told, seed=3, processes=1 + several)
        )
        for several in (False, True)
    }
    for several, one in jobs.items():
        one.write(tmp_path / f"job{several:d}.json")
    version = read_version(dataset)
    work = work_folder(jobs[False].workspace, jobs[False].config, version.digest, folder_digest(labels))
    dice = random.Random(20)  # noqa: S311 - moments, not secrets
    nursery = Nursery(tmp_path / "log.txt")
    done: list[str] = []
    try:
        while len(done) < 20:
            several = len(done) % 5 == 4  # a start of several processes takes its time
            process = nursery.start(tmp_path / f"job{several:d}.json")
            kind = interrupt(process, work, dice, several=several)
            status = int(nursery.read())
            assert status != 0 or kind in {"", "worker"}, (tmp_path / "log.txt").read_text()[-2000:]
            assert kind, f"the training was over after {len(done)} interruptions"
            done.append(kind)
            if status == 0:  # the group started anew and came to its end by itself: begin again
                for file in work.glob("*.ckpt"):
                    file.unlink()
        nursery.start(tmp_path / "job0.json")
        assert nursery.read() == "0", (tmp_path / "log.txt").read_text()[-2000:]
    finally:
        nursery.close()
    assert len(set(done)) == 3
    report = read_report(jobs[False].out)
    assert len(report["history"]) == 100
    for row, wanted in zip(report["history"], expected.history, strict=True):
        assert row["validation_loss"] == pytest.approx(wanted["validation_loss"], rel=0.02, abs=2e-3)
