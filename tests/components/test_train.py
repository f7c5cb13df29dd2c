"""Training on real digits: it learns, it goes on after a kill, and it says what is wrong."""

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from kfloop.components.train.batches import Batches
from kfloop.components.train.fitting import chosen_accelerator
from kfloop.components.train.resuming import exclusive, last_good, work_root
from kfloop.components.train.training import TrainReport, _room_on_disk, after_publish, run
from kfloop.components.train.weighting import weighted
from kfloop.core.encoding import Examples, fit_encoder
from kfloop.core.families.checkpoints import load_checkpoint
from kfloop.core.sections import TrainConfig
from kfloop.core.versions import Rows, read_version, write_version
from kfloop.core.workspace import Workspace
from kfloop.errors import ConfigError, InputError, StateError, TerminalError, TransientError

SHORT = TrainConfig(epochs=3, accelerator="cpu")


def digits(folder: Path, limit: int) -> Path:
    from sklearn.datasets import load_digits

    folder.mkdir(parents=True)
    pixels, labels = load_digits(return_X_y=True)
    images = (pixels[:limit].reshape(-1, 8, 8, 1) / 16 * 255).round().astype(np.uint8)
    rows = Rows(
        ids=[f"r{row}" for row in range(limit)],
        images=images,
        labels=labels[:limit].astype(np.int64),
        origin=["fresh" if row < limit // 5 else "base" for row in range(limit)],
    )
    write_version(
        folder, name="digits", rows=rows, labels=[str(digit) for digit in range(10)], validation=0.15, test=0.25
    )
    return folder


def label_check(folder: Path, rows: dict[str, tuple[float, bool]] | None = None) -> Path:
    folder.mkdir(parents=True)
    rows = rows or {}
    columns = {
        "id": pa.array(list(rows), pa.string()),
        "weight": pa.array([weight for weight, _ in rows.values()], pa.float64()),
        "quarantined": pa.array([set_aside for _, set_aside in rows.values()], pa.bool_()),
    }
    pq.write_table(pa.table(columns), folder / "weights.parquet")
    return folder


def place(root: Path, mlflow: str = "") -> Workspace:
    return Workspace(
        loop="digits",
        root=root,
        state="",
        store=str(root / "store"),
        mlflow=mlflow or f"sqlite:///{root}/.kfloop/mlflow.db",
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digits(tmp_path_factory.mktemp("data") / "small", 400)


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


def train(config: TrainConfig, dataset: Path, workspace: Workspace, name: str = "out") -> tuple[TrainReport, Path]:
    labels = workspace.root / "labels"
    if not labels.exists():
        label_check(labels)
    out = workspace.root / name
    out.mkdir()
    return run(config, dataset=dataset, labels=labels, out=out, workspace=workspace), out


def test_full_digits_reach_95_percent(tmp_path: Path) -> None:
    workspace = place(tmp_path)
    report, out = train(TrainConfig(accelerator="cpu"), digits(tmp_path / "digits", 1797), workspace)
    checkpoint = load_checkpoint(out / "model.ckpt")
    test = checkpoint.encoder.examples(read_version(tmp_path / "digits"), "test", "classification")
    with torch.inference_mode():
        logits, embedding = checkpoint.network(torch.from_numpy(test.inputs[0].copy()))
    assert float((logits.argmax(1).numpy() == test.target).mean()) >= 0.95
    assert embedding.shape == (len(test), checkpoint.spec.embedding_size)
    assert report.parameters < 100_000
    assert report.resumed_from_epoch is None
    losses = [row["validation_loss"] for row in report.history]
    assert report.best_epoch == int(np.argmin(losses))


def test_learning_curve_reaches_mlflow_and_the_log(
    small: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    from mlflow import MlflowClient

    workspace = place(tmp_path)
    with caplog.at_level(logging.INFO, logger="kfloop"):
        report, out = train(SHORT, small, workspace)
    assert sum(message.startswith("epoch ") for message in caplog.messages) == 3
    assert capsys.readouterr().out == ""
    client = MlflowClient(tracking_uri=workspace.mlflow)
    logged = client.get_metric_history(report.mlflow_run_id, "validation_loss")
    assert [item.value for item in logged] == pytest.approx([row["validation_loss"] for row in report.history])
    assert client.get_run(report.mlflow_run_id).info.status == "FINISHED"
    assert client.get_run(report.mlflow_run_id).data.params["dataset_digest"] == report.dataset_digest
    after_publish(out, workspace)
    assert list(work_root(workspace).iterdir()) == []


KILLED = """
import logging, os, signal, sys
from pathlib import Path
from typing import Any
from kfloop.components.train.training import run
from kfloop.core.sections import TrainConfig
from kfloop.core.workspace import Workspace

class KillAtTheEndOfEpochThree(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("epoch 3 of"):
            os.kill(os.getpid(), signal.SIGKILL)

logging.getLogger("kfloop").setLevel(logging.INFO)
logging.getLogger("kfloop").addHandler(KillAtTheEndOfEpochThree())
workspace = Workspace.from_json(sys.argv[1])
run(TrainConfig(epochs=4, accelerator="cpu"), dataset=Path(sys.argv[2]), labels=workspace.root / "labels",
    out=workspace.root / "killed", workspace=workspace)
"""


def test_a_killed_training_ends_with_the_same_weights_even_with_a_torn_checkpoint(small: Path, tmp_path: Path) -> None:
    config = TrainConfig(epochs=4, accelerator="cpu")
    for name in ("whole", "cut"):
        (tmp_path / name).mkdir()
    _, whole_out = train(config, small, place(tmp_path / "whole"))
    workspace = place(tmp_path / "cut")
    label_check(workspace.root / "labels")
    (workspace.root / "killed").mkdir()
    done = subprocess.run([sys.executable, "-c", KILLED, workspace.to_json(), str(small)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    work = next(work_root(workspace).iterdir())
    last = max(work.glob("*.ckpt"))
    assert last.name == "00002-00000000.ckpt"
    os.truncate(last, last.stat().st_size // 2)

    report, out = train(config, small, workspace)

    assert report.resumed_from_epoch == 1
    assert [row["epoch"] for row in report.history] == [0, 1, 2, 3]
    assert report.mlflow_run_id == (work / "mlflow_run_id").read_text()
    assert (out / "model.ckpt").read_bytes() == (whole_out / "model.ckpt").read_bytes()
    again, _ = train(config, small, workspace, "again")  # killed between the end and the publication: nothing to train
    assert again.resumed_from_epoch == 4
    assert again.history == report.history


def test_nan_loss_names_epoch_and_step(small: Path, tmp_path: Path, tracking: str) -> None:
    from mlflow import MlflowClient

    workspace = place(tmp_path, tracking)
    config = TrainConfig(epochs=3, learning_rate=1e38, accelerator="cpu")
    with pytest.raises(TerminalError, match=r"loss is (nan|inf) .*epoch \d+, step \d+"):
        train(config, small, workspace)
    client = MlflowClient(tracking_uri=tracking)
    experiment = client.get_experiment_by_name("digits")
    assert experiment is not None
    assert client.search_runs([experiment.experiment_id])[0].info.status == "FAILED"


def test_corrupt_mlflow_database_names_the_file(small: Path, tmp_path: Path) -> None:
    workspace = place(tmp_path)
    workspace.kfloop_dir.mkdir()
    (workspace.kfloop_dir / "mlflow.db").write_bytes(b"this is not a database " * 100)
    with pytest.raises(StateError, match=r"mlflow\.db' cannot be used") as caught:
        train(SHORT, small, workspace)
    assert "move" in caught.value.hint
    assert caught.value.exit_code == 1


def test_gpu_without_a_gpu_is_an_error() -> None:
    if torch.cuda.is_available():
        assert chosen_accelerator("gpu") == chosen_accelerator("auto") == "gpu"
    else:
        assert chosen_accelerator("auto") == "cpu"
        with pytest.raises(TerminalError, match="sees no CUDA device"):
            chosen_accelerator("gpu")


def test_full_disk_is_told_and_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(TerminalError, match="no space left"), _room_on_disk(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError), _room_on_disk(tmp_path):
        raise PermissionError(errno.EACCES, "denied")


def test_shuffled_labels_learn_nothing(small: Path, tmp_path: Path, tracking: str) -> None:
    config = TrainConfig(epochs=2, shuffle_labels=True, augment=True, balance_origins=True, accelerator="cpu")
    report, _ = train(config, small, place(tmp_path, tracking))
    assert report.labels_shuffled
    assert report.history[-1]["validation_accuracy"] < 0.5


def test_two_trainings_of_the_same_thing_do_not_share_a_folder(tmp_path: Path) -> None:
    work = tmp_path / "work"
    with exclusive(work), pytest.raises(TransientError, match="another process"), exclusive(work):
        pass
    with exclusive(work):
        assert last_good(work) is None


def examples_of(version_folder: Path) -> tuple[Examples, list[str]]:
    version = read_version(version_folder)
    return fit_encoder(version).examples(version, "train", "classification"), version.labels


def test_quarantine_and_weights_are_honoured(small: Path, tmp_path: Path) -> None:
    plain, labels = examples_of(small)
    check = label_check(tmp_path / "labels", {plain.ids[0]: (1.0, True), plain.ids[1]: (0.5, False)})
    examples = weighted(plain, check, labels, balance_origins=False)
    assert len(examples) == len(plain) - 1
    assert plain.content[0] not in examples.content
    assert examples.weights[0] == pytest.approx(0.5 * examples.weights[1])
    assert examples.weights.mean() == pytest.approx(1.0)
    balanced = weighted(plain, check, labels, balance_origins=True)
    fresh = plain.origin[1:] == "fresh"
    assert balanced.weights[fresh].sum() == pytest.approx(balanced.weights[~fresh].sum(), rel=1e-4)


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_impossible_weight_is_refused(small: Path, tmp_path: Path, weight: float) -> None:
    plain, labels = examples_of(small)
    check = label_check(tmp_path / "labels", {plain.ids[3]: (weight, False)})
    with pytest.raises(InputError, match=str(plain.ids[3])):
        weighted(plain, check, labels, balance_origins=False)


def test_label_check_of_another_dataset_is_refused(small: Path, tmp_path: Path) -> None:
    plain, labels = examples_of(small)
    check = label_check(tmp_path / "labels", {"elsewhere": (1.0, False)})
    with pytest.raises(StateError, match="none of the 1 ids"):
        weighted(plain, check, labels, balance_origins=False)
    (tmp_path / "empty").mkdir()
    with pytest.raises(StateError, match=r"no weights\.parquet"):
        weighted(plain, tmp_path / "empty", labels, balance_origins=False)


def test_a_class_without_rows_is_named(small: Path, tmp_path: Path) -> None:
    plain, labels = examples_of(small)
    check = label_check(tmp_path / "labels", dict.fromkeys(plain.ids[plain.target == 7], (1.0, True)))
    with pytest.raises(TerminalError, match="such as '7'"):
        weighted(plain, check, labels, balance_origins=False)


def test_batches_cover_every_row_once_for_any_number_of_processes_and_parts(small: Path) -> None:
    examples, _ = examples_of(small)
    order = np.random.default_rng(1).permutation(len(examples))
    whole = list(Batches(examples, 50, order))
    assert max(len(batch.target) for batch in whole) <= 50
    assert sorted(torch.cat([batch.target for batch in whole]).tolist()) == sorted(examples.target.tolist())
    shares = [list(Batches(examples, 50, order, rank=rank, world=3, parts=2)) for rank in range(3)]
    for number, batch in enumerate(whole):
        pieces = [share[2 * number + part] for share in shares for part in range(2)]
        assert sorted(torch.cat([piece.target for piece in pieces]).tolist()) == sorted(batch.target.tolist())
        # The mean over processes and parts of what each makes of its piece is what one process makes of the whole.
        mean = sum(float(piece.weight.sum() * piece.scale) for piece in pieces) / 6
        assert mean == pytest.approx(float(batch.weight.sum() * batch.scale))


def test_the_rest_of_an_interrupted_epoch_is_the_same(small: Path) -> None:
    examples, _ = examples_of(small)

    def noisy(inputs: tuple[np.ndarray, ...], rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        return (rng.permuted(inputs[0]),)

    whole = list(Batches(examples, 32, seed=(4, 2), augment=noisy))
    rest = list(Batches(examples, 32, seed=(4, 2), augment=noisy, first=3))
    assert len(rest) == len(whole) - 3
    for one, other in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.inputs[0], other.inputs[0])
        assert torch.equal(one.target, other.target)


def test_fewer_rows_than_processes_still_give_each_a_batch(small: Path) -> None:
    examples, _ = examples_of(small)
    few = examples.take(np.arange(2))
    batches = [next(iter(Batches(few, 50, rank=rank, world=3))) for rank in range(3)]
    assert [float(batch.weight.sum()) for batch in batches] == [1.0, 1.0, 0.0]


def test_a_searched_network_is_the_one_that_is_kept(small: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    told = {"trials": 2, "epochs": 1, "space": {"options.width": [8, 9]}}
    config = TrainConfig.model_validate({"epochs": 1, "search": told, "options": {"width": 32}})
    report, out = train(config, small, place(tmp_path))
    assert report.options["width"] in {8, 9}
    checkpoint = load_checkpoint(out / "model.ckpt")
    assert checkpoint.spec.options == report.options


@pytest.mark.parametrize("told", [{"normal": "1"}, {"augment_flip": True}, {"seed": -1}, {"seed": 2**32}])
def test_keys_that_nothing_would_follow_are_refused(small: Path, tmp_path: Path, told: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValueError), match=next(iter(told))):
        train(TrainConfig.model_validate(told), small, place(tmp_path))
