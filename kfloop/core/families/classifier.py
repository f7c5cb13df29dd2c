"""The LightningModule that trains any family as a classifier."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from kfloop.errors import TerminalError

Batch = tuple[Tensor, Tensor, Tensor]
SEED_STRIDE = 1_000_003  # a prime: seeds of different runs and epochs do not collide for any sensible number of epochs


class ImageClassifier(pl.LightningModule):
    """Weighted cross-entropy, AdamW, one-cycle learning rate.

    The random numbers of an epoch depend on the seed and the number of the epoch alone, so that a resumed training ends
    with the same weights as one that was never interrupted (on the same device with the same number of threads).

    Args:
        network: Network that gives logits and embedding.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        total_steps: Optimiser steps of the whole training, for the schedule.
        seed: Seed of dropout.
    """

    def __init__(
        self, network: nn.Module, *, learning_rate: float, weight_decay: float, total_steps: int, seed: int
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.total_steps = total_steps
        self.seed = seed
        self.epoch_metrics: dict[str, float] = {}
        self._sums: dict[str, list[Tensor]] = {"train": [], "validation": []}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted mean loss of one batch (images, labels, weights).

        Raises:
            TerminalError: The loss is not a finite number.
        """
        if batch_idx == 0:
            torch.manual_seed(self.seed * SEED_STRIDE + self.current_epoch)
        images, labels, weights = batch
        logits, _ = self.network(images)
        losses = functional.cross_entropy(logits, labels, reduction="none")
        loss = (losses * weights).sum() / weights.sum().clamp(min=1e-12)
        if not torch.isfinite(loss):
            raise TerminalError(
                f"the training loss is {loss.item()} in epoch {self.current_epoch}, step {self.global_step}; "
                "expected a finite number",
                hint=f"lower train.learning_rate (now {self.learning_rate}) or look at the data of this version",
                epoch=self.current_epoch,
                step=self.global_step,
            )
        detached = losses.detach()
        self._sums["train"].append(torch.stack([(detached * weights).sum(), weights.sum()]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget the sums of the epoch before."""
        self._sums["validation"] = []

    def validation_step(self, batch: Batch) -> None:
        """Add up loss and hits of one batch."""
        images, labels, _ = batch
        logits, _ = self.network(images)
        losses = functional.cross_entropy(logits, labels, reduction="sum")
        hits = (logits.argmax(1) == labels).sum().to(losses.dtype)
        count = torch.tensor(float(len(labels)), device=losses.device)
        self._sums["validation"].append(torch.stack([losses, hits, count]))

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss, which early stopping and the choice of the best epoch follow.

        Raises:
            TerminalError: The loss is not a finite number.
        """
        loss, hits, count = torch.stack(self._sums["validation"]).sum(0).tolist()
        if not math.isfinite(loss):
            raise TerminalError(
                f"the validation loss is {loss} after epoch {self.current_epoch}, step {self.global_step}; "
                "expected a finite number",
                hint=f"lower train.learning_rate (now {self.learning_rate}) or look at the data of this version",
                epoch=self.current_epoch,
                step=self.global_step,
            )
        self.epoch_metrics = {"validation_loss": loss / count, "validation_accuracy": hits / count}
        self.log("validation_loss", loss / count, prog_bar=False)

    def take_train_loss(self) -> float:
        """Mean training loss since the last call."""
        total, weight = torch.stack(self._sums["train"]).sum(0).tolist()
        self._sums["train"] = []
        return float(total / max(weight, 1e-12))

    def configure_optimizers(self) -> Any:
        """AdamW with a one-cycle schedule (Smith & Topin 2017) stepped after every batch."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.learning_rate, total_steps=self.total_steps + 1
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
