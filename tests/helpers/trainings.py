"""Small trainings that several tests interrupt, spread over processes, and go on with."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl

from kfloop.components.train.launching import Job
from kfloop.core.sections import DataConfig, TrainConfig
from kfloop.core.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

TINY = {"width": 16, "depth": 1, "dropout": 0.0}
OFTEN = 1e-6  # minutes: a checkpoint after every batch


def config(**told: Any) -> TrainConfig:
    """A small perceptron without batch norm and without dropout, two steps in an epoch."""
    options = TINY | told.pop("options", {})
    return TrainConfig.model_validate(
        {
            "family": "mlp",
            "accelerator": "cpu",
            "epochs": 3,
            "batch_size": 24,
            "patience": 99,
            "learning_rate": 0.01,
            "options": options,
        }
        | told
    )


def digits(folder: Path, rows: int = 300) -> Path:
    """A version of handwritten digits as vectors."""
    from sklearn.datasets import load_digits

    from kfloop.components.ingest.ingestion import run

    pixels, labels = load_digits(return_X_y=True)
    folder.mkdir(parents=True)
    source = folder.parent / f"{folder.name}.npz"
    np.savez(source, X=pixels[:rows].astype(np.float32), y=labels[:rows])
    run(DataConfig(source=str(source)), out=folder, workspace=place(folder.parent / "ingest"))
    return folder


def no_doubts(folder: Path) -> Path:
    """A label check that found nothing."""
    folder.mkdir(parents=True)
    columns = {"id": pa.string(), "weight": pa.float64(), "quarantined": pa.bool_()}
    table = pa.table({name: pa.array([], kind) for name, kind in columns.items()})
    pq.write_table(table, folder / "weights.parquet")
    return folder


def place(root: Path) -> Workspace:
    """A workspace of its own."""
    root.mkdir(parents=True, exist_ok=True)
    return Workspace(
        loop="digits", root=root, state="", store=str(root / "store"), mlflow=f"sqlite:///{root}/.kfloop/mlflow.db"
    )


def job(root: Path, dataset: Path, labels: Path, told: TrainConfig) -> Job:
    """A job whose workspace and result are below ``root``."""
    (root / "out").mkdir(parents=True, exist_ok=True)
    return Job(config=told, dataset=dataset, labels=labels, out=root / "out", workspace=place(root))


class StopAt(pl.Callback):
    """Ends the training, or this process, when a certain batch of a certain epoch begins."""

    def __init__(self, epoch: int, batch: int, number: signal.Signals = signal.SIGTERM) -> None:
        self.at = (epoch, batch)
        self.number = number

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        del pl_module, batch
        if (trainer.current_epoch, batch_idx) == self.at:
            os.kill(os.getpid(), self.number)


@contextlib.contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """As on a full disk: a file that grows above ``size`` bytes cannot be written."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
