"""Checkpoints: at the end of each epoch, in between when the last one is old, and when someone asks the training to stop."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from lightning_fabric.plugins.io import CheckpointIO
from pytorch_lightning.callbacks import Checkpoint

from kfloop.components.train.resuming import CHECKPOINT_STATE
from kfloop.errors import TerminalError, TransientError

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from kfloop.components.train.group import Group
    from kfloop.core.learning.base import Learner

KEPT = 2  # one may be torn by a power cut, the one before it is then whole
FULL_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
logger = logging.getLogger("kfloop")


class WholeFiles(CheckpointIO):
    """Writes a checkpoint under another name first, so that what bears the name of a checkpoint is complete."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write, force it to the disk, then rename.

        Raises:
            OSError: The disk is full, for example; nothing is left behind then.
        """
        del storage_options
        unfinished = Path(f"{path}.unfinished")
        try:
            with unfinished.open("wb") as stream:
                _save(checkpoint, stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = None) -> Any:
        """Read tensors and plain values only."""
        del weights_only
        return torch.load(path, map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Remove a checkpoint."""
        Path(path).unlink(missing_ok=True)


class _Watched:
    """A file that remembers the error of a write: torch's writer, in C++, tells of it in words of its own."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, content: Any) -> int:
        try:
            return int(self.stream.write(content))
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def _save(content: dict[str, Any], stream: Any) -> None:
    watched = _Watched(stream)
    try:
        torch.save(content, cast("Any", watched))
    except (RuntimeError, OSError) as error:
        if watched.error is not None:
            raise watched.error from error
        raise


class Checkpoints(Checkpoint):
    """Keeps the training resumable, to the very batch.

    The processes of a group agree on when to write: one that is told to stop, or whose clock says that it is time, tells the others in a
    message that travels while the next step is computed.

    Args:
        folder: Where the checkpoints are.
        group: The processes that train together.
        minutes: Age of the last checkpoint after which another one is written within an epoch.
    """

    def __init__(self, folder: Path, group: Group, minutes: float) -> None:
        self.folder, self.group = folder, group
        self.seconds = 60 * minutes
        self.told_to_stop = False
        self.progress = (0, 0)  # epochs done, batches done of the next one
        self.written = time.monotonic()
        self.sums: list[torch.Tensor] = []  # of each process, from a checkpoint
        self.message = torch.zeros(2, dtype=torch.int32)
        self.sent: Any = None

    @property
    def state_key(self) -> str:
        """Name of this state inside a checkpoint."""
        return CHECKPOINT_STATE

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signal over from Lightning, whose handler sends messages to other processes in the middle of whatever was going on."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
        # And spare the message to all processes that Lightning waits for in every step.
        epoch_loop: Any = trainer.fit_loop.epoch_loop
        epoch_loop._broadcast_sigterm_tensor = _nothing  # noqa: SLF001 - there is no switch for it
        self.written = time.monotonic()
        self._hand_back(cast("Learner", pl_module))

    def _on_signal(self, number: int, frame: Any) -> None:
        del number, frame
        self.told_to_stop = True

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """An epoch from its beginning."""
        del pl_module
        self.progress = (trainer.current_epoch, 0)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write when it is time; the last batch is followed by the end of the epoch, where one is written anyway."""
        del outputs, batch
        stop, due = self._wishes()
        done = batch_idx + 1
        if not (stop or due) or done >= trainer.num_training_batches or done % trainer.accumulate_grad_batches:
            return
        self.progress = (trainer.current_epoch, done)
        self._write(trainer, pl_module)
        if stop:
            raise self._stopped(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what the epoch left behind."""
        self.progress = (trainer.current_epoch + 1, 0)
        self._write(trainer, pl_module)
        self._wait()
        stop = torch.tensor(int(self.told_to_stop))
        if self.group.world > 1:
            torch.distributed.all_reduce(stop, op=torch.distributed.ReduceOp.MAX)
        if stop:
            raise self._stopped(trainer)

    def _wishes(self) -> tuple[bool, bool]:
        """Whether any process is told to stop, and whether a checkpoint is due; with several processes, as of the batch before."""
        due = time.monotonic() - self.written > self.seconds
        if self.group.world == 1:
            return self.told_to_stop, due
        answer = self._wait()
        self.message = torch.tensor([self.told_to_stop, due and self.group.first], dtype=torch.int32)
        self.sent = torch.distributed.all_reduce(self.message, op=torch.distributed.ReduceOp.MAX, async_op=True)
        return answer

    def _wait(self) -> tuple[bool, bool]:
        """What the last message said."""
        if self.sent is None:
            return False, False
        self.sent.wait()
        self.sent = None
        stop, due = self.message.tolist()
        return bool(stop), bool(due)

    def _write(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        learner = cast("Learner", pl_module)
        learner.check_losses()  # nothing is kept of a training that has gone wrong
        own = torch.stack(learner.train_sums) if learner.train_sums else torch.zeros(0, 2)
        self.sums = self.group.gather(own.cpu())
        path = self.folder / "{:05d}-{:08d}.ckpt".format(*self.progress)
        try:
            trainer.save_checkpoint(path)
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            raise TerminalError(
                f"no space left for the checkpoint '{path}' in epoch {trainer.current_epoch}, step {trainer.global_step}",
                hint="free disk space and run again: the training goes on from the checkpoint before it",
                step=trainer.global_step,
            ) from error
        self.written = time.monotonic()
        if self.group.first:
            for old in sorted(self.folder.glob("*.ckpt"))[:-KEPT]:
                old.unlink(missing_ok=True)

    def _stopped(self, trainer: pl.Trainer) -> TransientError:
        epochs, batches = self.progress
        return TransientError(
            f"told to stop (SIGTERM) after {epochs} epochs and {batches} batches; a checkpoint is written",
            hint="run the same command again: the training goes on from here",
            epoch=epochs,
            step=trainer.global_step,
        )

    def state_dict(self) -> dict[str, Any]:
        """How far it is, and the sums behind the training loss of the epoch."""
        epochs, batches = self.progress
        return {"epochs_done": epochs, "batches_done": batches, "train_sums": self.sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an interrupted training."""
        self.progress = (int(state_dict["epochs_done"]), int(state_dict["batches_done"]))
        self.sums = list(state_dict["train_sums"])

    def _hand_back(self, learner: Learner) -> None:
        """The sums of an interrupted epoch go to the processes they came from; with another number of processes, to the first."""
        if not self.sums:
            return
        if len(self.sums) == self.group.world:
            own = self.sums[self.group.rank]
        else:
            own = torch.cat(self.sums) if self.group.first else torch.zeros(1, 2)
        learner.train_sums = list(own.to(learner.device))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Wait for the last message, so that no process leaves while it is on its way."""
        del trainer, pl_module, stage
        with contextlib.suppress(RuntimeError):
            self._wait()


def _nothing() -> None:
    """In place of what costs a message in every step."""
