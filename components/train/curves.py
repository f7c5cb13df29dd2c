"""The learning curve: one row per epoch, one log line per epoch, the best weights so far, and the end when they get no better."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.learning.base import Learner

STATE_KEY = "LearningCurve"
PREFIX = "network."  # of the network's tensors among those of its learner
logger = logging.getLogger("kfloop")


class LearningCurve(pl.Callback):
    """Keeps what every checkpoint must carry, so that any single good one is enough to go on from.

    Args:
        epochs: Largest number of epochs, for the log line.
        patience: Epochs without a better validation loss after which training stops.
        listen: Called with each finished row; null on processes that tell nobody.
    """

    def __init__(self, epochs: int, patience: int, listen: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.epochs, self.patience = epochs, patience
        self.listen = listen
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self.best_loss = math.inf
        self.best_weights: dict[str, Any] = {}

    @property
    def state_key(self) -> str:
        """Name of this state inside a checkpoint."""
        return STATE_KEY

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        last = len(self.history) - 1
        return last + 1 >= self.epochs or (last >= 0 and last - self.best_epoch >= self.patience)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the row of this epoch; checkpoints are written after this."""
        module = cast("Learner", pl_module)
        row: dict[str, Any] = {
            "epoch": trainer.current_epoch,
            "train_loss": module.take_train_loss(),
            **module.epoch_metrics,
        }
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_epoch, self.best_loss = row["epoch"], row["validation_loss"]
            weights = whole_weights(trainer)
            self.best_weights = {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}
        if self.finished:
            trainer.should_stop = True
        if self.listen is not None:
            told = ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in row.items() if key != "epoch")
            logger.info("epoch %d of %d: %s", row["epoch"] + 1, self.epochs, told)
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


def whole_weights(trainer: pl.Trainer) -> dict[str, Any]:
    """The network's weights as they were validated. Called on every process; where weights are shared out, only the first has all of them."""
    whole = trainer.strategy.lightning_module_state_dict()
    return {name.removeprefix(PREFIX): tensor for name, tensor in whole.items() if name.startswith(PREFIX)}
