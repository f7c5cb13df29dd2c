"""What people watch while a model trains, and what is told of it afterwards: speed, memory, power, cost."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch

if TYPE_CHECKING:
    from kfloop.core.progress import ProgressTeller
    from kfloop.core.sections import TrainConfig

MEBIBYTE = 2**20
WARM_UP = 3  # steps before the clock counts: the first ones allocate, compile and choose kernels


class Watch(pl.Callback):
    """Tells progress, and measures what the training costs. On every process; rank 0 tells.

    Args:
        config: Section ``train``: price and power.
        teller: Where progress is told.
    """

    def __init__(self, config: TrainConfig, teller: ProgressTeller) -> None:
        self.config, self.teller = config, teller
        self.batches = 0  # after the warm-up; parts of a batch that is computed in several count each
        self.rows = 0  # of them, over all processes
        self.seconds = 0.0  # spent in training steps and in waiting for their batches, after the warm-up
        self.waited = 0.0  # of which for batches
        self.began = 0.0
        self._mark = 0.0
        self._seen = 0
        self._rows = 0  # of the batch in work
        self._utilisation: list[float] = []

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        del trainer, pl_module
        self.began = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A new epoch: what lay between two epochs is no training step."""
        del trainer, pl_module
        self._mark = time.perf_counter()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The batch is here: what the loader took for it was waiting, for it works in this very process."""
        del pl_module, batch, batch_idx
        now = time.perf_counter()
        loader: Any = trainer.train_dataloader
        waited, self._rows = loader.seconds, loader.rows
        loader.seconds, loader.rows = 0.0, 0
        if self._seen >= WARM_UP:
            self.waited += waited
            self.seconds += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done."""
        del pl_module, outputs, batch
        now = time.perf_counter()
        self._seen += 1
        if self._seen > WARM_UP:
            self.batches += 1
            self.rows += self._rows
            self.seconds += now - self._mark
        self._mark = now
        if self.teller.due and trainer.is_global_zero:
            self._tell(trainer, batch_idx)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Wipe the progress away."""
        del trainer, pl_module
        self.teller.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """As at the end."""
        del trainer, pl_module, exception
        self.teller.close()

    def _tell(self, trainer: pl.Trainer, batch_idx: int) -> None:
        per_epoch, epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        done, total = trainer.current_epoch * per_epoch + batch_idx + 1, epochs * per_epoch
        # Validation and checkpoints are part of what is left, so it comes from the whole time and not from the steps alone.
        elapsed = time.perf_counter() - self.began
        left = elapsed / max(1, self._seen) * (total - done)
        text = f"epoch {trainer.current_epoch + 1} of {epochs}"
        if torch.cuda.is_available():
            with contextlib.suppress(Exception):  # needs NVIDIA's management library
                self._utilisation.append(float(torch.cuda.utilization()))
                text += f"  GPU {self._utilisation[-1]:.0f}%"
            text += f"  {torch.cuda.max_memory_allocated() / MEBIBYTE:,.0f} MiB"
        self.teller.tell(done, total, rate=self.samples_per_second, seconds_left=left, text=text)

    @property
    def samples_per_second(self) -> float:
        """Examples per second of training steps, over all processes; 0 before the warm-up is over."""
        return self.rows / self.seconds if self.seconds else 0.0

    def summary(self) -> dict[str, Any]:
        """What is told in the report; null where it could not be measured.

        Returns:
            ``samples_per_second``, ``ms_per_step``, ``waiting_share`` (of the time of a step, for its batch), ``peak_memory_mb`` of this
            process, ``gpu_memory_mb``, ``gpu_utilisation`` (mean, in percent), ``cost`` of this process's time in the unit of ``train.price_per_hour``,
            ``samples_per_unit`` of that, ``samples_per_joule``.
        """
        speed = self.samples_per_second or None
        wall = time.perf_counter() - self.began if self.began else 0.0
        cuda = torch.cuda.is_available()
        price, watts = self.config.price_per_hour, self.config.watts
        return {
            "samples_per_second": speed,
            "ms_per_step": 1000 * self.seconds / self.batches * self.config.accumulate if self.batches else None,
            "waiting_share": self.waited / self.seconds if self.seconds else None,
            "peak_memory_mb": _peak_memory(),
            "gpu_memory_mb": torch.cuda.max_memory_allocated() / MEBIBYTE if cuda else None,
            "gpu_utilisation": sum(self._utilisation) / len(self._utilisation) if self._utilisation else None,
            "cost": price * wall / 3600 if price else None,
            "samples_per_unit": speed * 3600 / price if speed and price else None,
            "samples_per_joule": speed / watts if speed and watts else None,
        }


def _peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
