"""The learning curve: one row per epoch, one log line per epoch, and the best weights so far."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.families.classifier import ImageClassifier

STATE_KEY = "LearningCurve"
logger = logging.getLogger("kfloop")


class LearningCurve(pl.Callback):
    """Keeps what every checkpoint must carry, so that any single good one is enough to go on from.

    Args:
        epochs: Largest number of epochs, for the log line.
        listen: Called with each finished row.
    """

    def __init__(self, epochs: int, listen: Callable[[dict[str, Any]], None]) -> None:
        self.epochs = epochs
        self.listen = listen
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self.best_loss = math.inf
        self.best_weights: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """Name of this state inside a checkpoint."""
        return STATE_KEY

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the row of this epoch; checkpoints are written after this."""
        module = cast("ImageClassifier", pl_module)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "train_loss": module.take_train_loss(),
            **module.epoch_metrics,
        }
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_epoch, self.best_loss = row["epoch"], row["validation_loss"]
            weights = module.network.state_dict()
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        logger.info(
            "epoch %d of %d: train loss %.4f, validation loss %.4f, validation accuracy %.4f",
            row["epoch"] + 1,
            self.epochs,
            row["train_loss"],
            row["validation_loss"],
            row["validation_accuracy"],
        )
        self.listen(row)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors only: checkpoints are loaded without pickled code."""
        return {
            "history": [dict(row) for row in self.history],
            "best_epoch": self.best_epoch,
            "best_loss": self.best_loss,
            "best_weights": self.best_weights,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an interrupted training."""
        self.history = list(state_dict["history"])
        self.best_epoch = int(state_dict["best_epoch"])
        self.best_loss = float(state_dict["best_loss"])
        self.best_weights = dict(state_dict["best_weights"])
