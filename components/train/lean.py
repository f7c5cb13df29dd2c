"""What Lightning does in every step and a kfloop training can do without: a small network's step is shorter than all of it together."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from pytorch_lightning.profilers import Profiler

if TYPE_CHECKING:
    from collections import OrderedDict

    import pytorch_lightning as pl

NOTHING = contextlib.nullcontext()


class NoProfiler(Profiler):
    """Measures nothing, and unlike Lightning's own makes no generator for each of the thirty things in a step that it does not measure."""

    def start(self, action_name: str) -> None:
        """Nothing."""

    def stop(self, action_name: str) -> None:
        """Nothing."""

    def profile(self, action_name: str) -> Any:
        """The same empty context every time."""
        del action_name
        return NOTHING


def lean(trainer: pl.Trainer) -> None:
    """Spare what Lightning has no switch for: it reads the signature of ``training_step`` anew in every step."""
    epoch_loop: Any = trainer.fit_loop.epoch_loop
    epoch_loop._build_kwargs = _arguments  # noqa: SLF001 - there is no switch for it


def _arguments(kwargs: OrderedDict[str, Any], batch: Any, batch_idx: int) -> OrderedDict[str, Any]:
    """Arguments of ``Learner.training_step``."""
    kwargs["batch"] = batch
    kwargs["batch_idx"] = batch_idx
    return kwargs
