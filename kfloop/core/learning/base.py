"""What every kfloop LightningModule shares: a seed for each step, a finite loss or a clear end, sums for the learning curve."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Batch, Plan

SEED_STRIDE = 1_000_003  # a prime: seeds of different runs and steps do not collide for any sensible number of steps
PART_STRIDE = 2_147_483_647  # a prime far beyond the number of steps: parts of a batch draw different numbers
LATE = 20  # steps after which losses on a GPU are looked at
WARM_UP = 0.1  # share of the steps in which ``cosine`` rises


class Learner(pl.LightningModule):
    """AdamW and a learning-rate schedule around a network; subclasses say what the loss is.

    The random numbers of a step depend on the seed and the number of the step alone, so that a resumed training ends with the same weights
    as one that was never interrupted (on the same device with the same number of threads).

    Args:
        network: Network of a family.
        spec: Its description.
        plan: Hyper-parameters.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        super().__init__()
        self.network = network
        self.spec = spec
        self.plan = plan
        self.epoch_metrics: dict[str, float] = {}
        # Pairs (weighted loss, weight), one for each step since the last row of the curve.
        self.train_sums: list[Tensor] = []
        self._sums: dict[str, list[Tensor]] = {}
        self._unchecked: list[tuple[str, int, int, Tensor]] = []  # kind, epoch, step, loss

    def __setattr__(self, name: str, value: Any) -> None:
        """Lightning notes the name of each hook that it calls, dozens in a step: that needs none of the care for weights and modules."""
        if name == "_current_fx_name":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each example of a training batch, float32 [B]."""
        raise NotImplementedError

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over a validation batch: ``loss`` and ``count``, and others whose share of ``count`` becomes ``validation_<name>``."""
        raise NotImplementedError

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Weighted mean loss of the batch."""
        self.seed_step(batch_idx)
        losses = self.losses(batch)
        total = (losses * batch.weight).sum()
        loss = total * batch.scale
        self.require_finite(loss, "training")
        self.train_sums.append(torch.stack([total.detach(), batch.weight.sum()]))
        return loss

    def _apply_batch_transfer_handler(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        """Nothing to move on the CPU, where Lightning would still look through the batch and the signatures of three hooks."""
        if device is not None and device.type == "cpu":
            return batch
        return super()._apply_batch_transfer_handler(batch, device=device, dataloader_idx=dataloader_idx)

    def seed_step(self, batch_idx: int) -> None:
        """Seed torch for this batch.

        ``torch.manual_seed`` would also leave a note, with the whole call stack, for each kind of device that was never used: that costs
        more than the step of a small network.
        """
        part = batch_idx % self.trainer.accumulate_grad_batches
        seed = self.step_seed() + part * PART_STRIDE
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def step_seed(self) -> int:
        """Seed of the random numbers of this step; each process has its own."""
        return (self.plan.seed * SEED_STRIDE + self.global_step) * max(1, self.trainer.world_size) + self.global_rank

    def require_finite(self, loss: Tensor, kind: str) -> None:
        """Refuse to go on with a loss that is no number.

        To look at a loss on a GPU means to wait for it, so there it happens once in ``LATE`` steps, and before a validation or a checkpoint.

        Raises:
            TerminalError: The loss is not a finite number.
        """
        self._unchecked.append((kind, self.current_epoch, self.global_step, loss.detach()))
        if loss.device.type == "cpu" or len(self._unchecked) >= LATE:
            self.check_losses()

    def check_losses(self) -> None:
        """Look at the losses that nobody has looked at yet.

        Raises:
            TerminalError: One of them is not a finite number; the first is told.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked:
            return
        losses = [loss for *_, loss in unchecked]
        values = [losses[0].item()] if len(losses) == 1 else torch.stack(losses).tolist()
        for (kind, epoch, step, _), value in zip(unchecked, values, strict=True):
            if not math.isfinite(value):
                raise TerminalError(
                    f"the {kind} loss is {value} in epoch {epoch}, step {step}; expected a finite number",
                    hint=f"lower train.learning_rate (now {self.plan.learning_rate}) or look at the data of this version; "
                    "the last good checkpoint is kept",
                    epoch=epoch,
                    step=step,
                )

    def on_validation_epoch_start(self) -> None:
        """Forget the sums of the epoch before."""
        self.check_losses()
        self._sums = {}

    def validation_step(self, batch: Batch) -> None:
        """Add up what is measured."""
        for name, value in self.measures(batch).items():
            self._sums.setdefault(name, []).append(value.detach())

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss, which early stopping and the choice of the best epoch follow.

        Raises:
            TerminalError: The loss is not a finite number.
        """
        names = sorted(self._sums)
        sums = self.over_processes(torch.stack([torch.stack(self._sums[name]).sum() for name in names]))
        found = dict(zip(names, sums.tolist(), strict=True))
        count = found.pop("count")
        if not count > 0:
            raise TerminalError(
                "no validation row counts, so no epoch can be told from another",
                hint="add validation rows, or change data.split",
            )
        if not math.isfinite(found["loss"]):
            self.require_finite(torch.tensor(found["loss"]), "validation")
        self.epoch_metrics = {f"validation_{name}": value / count for name, value in found.items()}
        self.finish_metrics(self.epoch_metrics)
        self.log("validation_loss", self.epoch_metrics["validation_loss"], prog_bar=False)

    def finish_metrics(self, metrics: dict[str, float]) -> None:
        """Change the means of an epoch into what people read (a root, say)."""

    def over_processes(self, sums: Tensor) -> Tensor:
        """The sum over all processes; the same tensor where there is one."""
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        return sums

    def take_train_loss(self) -> float:
        """Mean training loss since the last call, over all processes."""
        total, weight = self.over_processes(torch.stack(self.train_sums).sum(0)).tolist()
        self.train_sums = []
        return float(total / max(weight, 1e-12))

    def configure_optimizers(self) -> Any:
        """AdamW, its rate changed after every step."""
        parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(parameters, lr=self.plan.learning_rate, weight_decay=self.plan.weight_decay)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """``one_cycle`` (Smith & Topin 2017), ``cosine`` after a linear warm-up (Loshchilov & Hutter 2017), or ``constant``."""
        steps = self.plan.total_steps
        if self.plan.schedule == "one_cycle":
            return torch.optim.lr_scheduler.OneCycleLR(optimizer, self.plan.learning_rate, total_steps=steps + 1)
        if self.plan.schedule == "constant":
            return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0)
        rising = max(1, round(WARM_UP * steps))

        def factor(step: int) -> float:
            if step < rising:
                return (step + 1) / rising
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rising) / max(1, steps - rising))))

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
