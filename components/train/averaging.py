"""Averages of the weights: what is validated and kept is the average, what is trained goes on untouched."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch

if TYPE_CHECKING:
    from torch import Tensor

    from kfloop.core.learning.base import Learner

STATE_KEY = "WeightAverage"
DECAY = 0.999  # of the moving average, once it has seen some thousand steps
logger = logging.getLogger("kfloop")
QUARTER = 0.75  # share of the epochs after which ``swa`` begins


class WeightAverage(pl.Callback):
    """An average over steps of all weights and of the buffers that batch norm keeps.

    ``ema`` is the exponential moving average (Polyak & Juditsky 1992) whose decay grows as (1 + n) / (10 + n) up to 0.999, so that short
    trainings forget their start. ``swa`` is the plain mean over the steps of the last quarter of the epochs (after Izmailov et al. 2018);
    before that the weights themselves are validated. Statistics of batch norm are averaged like the weights, not computed anew.

    The average takes the place of the weights from the start of a validation to the end of the epoch, when ``LearningCurve`` has kept what
    it wants; so this callback must stand after ``LearningCurve`` and before the checkpoint callback. A checkpoint written while it does
    (on an exception) still holds the trained weights. Lightning's own callback gives the weights back before the curve can see the average.

    Args:
        kind: ``ema`` or ``swa``.
        epochs: Epochs of the training.
    """

    def __init__(self, kind: str, epochs: int) -> None:
        self.kind = kind
        self.first_epoch = int(QUARTER * epochs) if kind == "swa" else 0
        self.average: dict[str, Tensor] = {}
        self.count = 0
        self.last_step = 0
        self._trained: dict[str, Tensor] | None = None  # the weights themselves, while the average has their place

    @property
    def state_key(self) -> str:
        """Name of this state inside a checkpoint."""
        return STATE_KEY

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take the new weights into the average, if this batch ended a step."""
        del outputs, batch, batch_idx
        if trainer.global_step == self.last_step or trainer.current_epoch < self.first_epoch:
            return
        self.last_step = trainer.global_step
        self.update(_tensors(pl_module))

    @torch.no_grad()
    def update(self, weights: dict[str, Tensor]) -> None:
        """Add one state of the weights."""
        numbers = [name for name, tensor in weights.items() if tensor.is_floating_point()]
        if not self.average:
            self.average = {name: weights[name].clone() for name in numbers}
        share = 1 / (self.count + 1) if self.kind == "swa" else 1 - min(DECAY, (1 + self.count) / (10 + self.count))
        self.count += 1
        average = [self.average[name] for name in numbers]
        torch._foreach_lerp_(average, [weights[name] for name in numbers], share)

    @torch.no_grad()
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Put the average in the place of the weights."""
        del trainer
        if not self.average or self._trained is not None:
            return
        weights = _tensors(pl_module)
        self._trained = {name: weights[name].clone() for name in self.average}
        for name, tensor in self.average.items():
            weights[name].copy_(tensor)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Give the weights their place back."""
        del trainer
        self.give_back(pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Say so when early stopping came before the average began."""
        del pl_module
        if not self.average and trainer.is_global_zero:
            logger.warning(
                "train.weight_averaging '%s' averages from epoch %d on, but early stopping ended the training in epoch %d: nothing "
                "was averaged; raise train.patience, or lower train.epochs",
                self.kind,
                self.first_epoch + 1,
                trainer.current_epoch,
            )

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Give the weights their place back."""
        del trainer, exception
        self.give_back(pl_module)

    @torch.no_grad()
    def give_back(self, module: pl.LightningModule) -> None:
        """Put the trained weights back."""
        if self._trained is None:
            return
        weights = _tensors(module)
        for name, tensor in self._trained.items():
            weights[name].copy_(tensor)
        self._trained = None

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """A checkpoint holds the weights that are trained, whatever stands in their place."""
        del trainer, pl_module
        for name, tensor in (self._trained or {}).items():
            checkpoint["state_dict"][f"network.{name}"] = tensor

    def state_dict(self) -> dict[str, Any]:
        """The average."""
        return {"average": self.average, "count": self.count, "last_step": self.last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the average of an interrupted training."""
        self.average = dict(state_dict["average"])
        self.count, self.last_step = int(state_dict["count"]), int(state_dict["last_step"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move a restored average to the device of the weights."""
        del trainer
        weights = _tensors(pl_module)
        self.average = {name: tensor.to(weights[name].device) for name, tensor in self.average.items()}


def _tensors(module: pl.LightningModule) -> dict[str, Tensor]:
    """The network's own weights and buffers, by name; changing them changes the network."""
    found: dict[str, Tensor] = cast("Learner", module).network.state_dict()
    return found
