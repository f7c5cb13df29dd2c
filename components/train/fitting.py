"""One run of the Lightning trainer, quiet, with checkpoints from which it can go on."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from kfloop.components.train.curves import LearningCurve
from kfloop.components.train.examples import Batches, Examples, epoch_batches
from kfloop.core.families import NetworkSpec, build_network
from kfloop.core.families.classifier import ImageClassifier
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kfloop.components.train.resuming import ResumePoint
    from kfloop.core.sections import TrainConfig

VALIDATION_BATCH = 512
CHECKPOINTS_KEPT = 2  # one may be torn by a power cut, the one before it is then whole


class ExamplesModule(pl.LightningDataModule):
    """Hands the trainer one epoch of batches at a time.

    Args:
        train: Rows to learn from.
        validation: Rows to choose the best epoch on.
        config: Batch size, seed, augmentation.
    """

    def __init__(self, train: Examples, validation: Examples, config: TrainConfig) -> None:
        super().__init__()
        self.train = train
        self.validation = validation
        self.config = config

    def train_dataloader(self) -> Any:
        """Batches of the epoch that is about to start."""
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        config = self.config
        return epoch_batches(self.train, config.batch_size, seed=config.seed, epoch=epoch, augment=config.augment)

    def val_dataloader(self) -> Any:
        """Validation rows in their own order."""
        return Batches(self.validation, VALIDATION_BATCH)


def fit(
    spec: NetworkSpec,
    train: Examples,
    validation: Examples,
    config: TrainConfig,
    *,
    work: Path,
    resume: ResumePoint | None,
    listen: Callable[[dict[str, Any]], None],
) -> tuple[LearningCurve, int, str]:
    """Train a network and keep its best epoch.

    Args:
        spec: The network.
        train: Rows to learn from.
        validation: Rows to choose the best epoch on.
        config: Hyper-parameters.
        work: Folder of the checkpoints.
        resume: Checkpoint to go on from, or null to start.
        listen: Called with each row of the learning curve.

    Returns:
        The learning curve with the best weights, the number of parameters, the device (``cpu`` or ``cuda``).
    """
    accelerator = chosen_accelerator(config.accelerator)
    pl.seed_everything(config.seed, workers=False, verbose=False)
    network = build_network(spec)
    data = ExamplesModule(train, validation, config)
    module = ImageClassifier(
        network,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        total_steps=config.epochs * len(Batches(train, config.batch_size)),
        seed=config.seed,
    )
    curve = LearningCurve(config.epochs, listen)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    device = "cuda" if accelerator == "gpu" else "cpu"
    if resume is not None and (resume.stopped or resume.epochs_done >= config.epochs):
        # Killed between its last epoch and its end: nothing is left to train.
        content = torch.load(resume.path, map_location="cpu", weights_only=True)
        curve.load_state_dict(content["callbacks"][curve.state_key])
        return curve, parameters, device
    with _quiet():
        trainer = _trainer(config, accelerator, work, curve)
        trainer.fit(module, data, ckpt_path=str(resume.path) if resume is not None else None, weights_only=True)
    return curve, parameters, device


def _trainer(config: TrainConfig, accelerator: str, work: Path, curve: LearningCurve) -> pl.Trainer:
    checkpoints = ModelCheckpoint(
        dirpath=work,
        filename="{epoch:05d}",
        monitor="epoch",
        mode="max",
        save_top_k=CHECKPOINTS_KEPT,
        save_last=True,
        save_on_exception=True,
        every_n_epochs=1,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    stopping = EarlyStopping("validation_loss", patience=config.patience, mode="min", check_finite=False)
    return pl.Trainer(
        max_epochs=config.epochs,
        accelerator=accelerator,
        devices=1,
        callbacks=[curve, stopping, checkpoints],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        default_root_dir=work,
        gradient_clip_val=5.0,
    )


def chosen_accelerator(wanted: str) -> str:
    """``cpu`` or ``gpu``.

    Raises:
        TerminalError: A GPU is asked for and there is none.
    """
    if wanted == "cpu" or torch.cuda.is_available():
        return "cpu" if wanted == "cpu" else "gpu"
    if wanted == "gpu":
        raise TerminalError(
            f"train.accelerator is 'gpu', but torch {torch.__version__} sees no CUDA device on this machine",
            hint="use train.accelerator: auto or cpu, or run where a GPU and a CUDA build of torch are",
        )
    return "cpu"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Lightning's own messages and advice stay off the console; errors still come through."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning")]
    loggers += [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if "lightning" in name]
    levels = [(item, item.level) for item in loggers]
    for item in loggers:
        item.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(pytorch_lightning|lightning_fabric|torch)\.")
            yield
    finally:
        for item, level in levels:
            item.setLevel(level)
