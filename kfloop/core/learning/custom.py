"""The user's own LightningModule, trained through kfloop's: its steps and hooks are called, what it logs becomes the learning curve."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from kfloop.core.learning.base import Learner
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Batch, Plan

LOSSES = ("validation_loss", "val_loss")
# What Lightning calls on the module it trains, and the user's may define. Those of validation and of the end of an epoch are called below.
HOOKS = (
    "on_fit_start",
    "on_fit_end",
    "on_train_start",
    "on_train_end",
    "on_train_epoch_start",
    "on_train_epoch_end",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_validation_start",
    "on_validation_end",
    "on_validation_batch_start",
    "on_validation_batch_end",
    "on_before_backward",
    "on_after_backward",
    "on_before_optimizer_step",
    "on_before_zero_grad",
    "on_save_checkpoint",
    "on_load_checkpoint",
    "optimizer_step",
    "optimizer_zero_grad",
    "lr_scheduler_step",
    "configure_gradient_clipping",
)


class Custom(Learner):
    """Calls the user's ``training_step``, ``validation_step`` and ``configure_optimizers`` with kfloop's ``Batch``.

    What the module logs in validation is averaged over rows and processes; ``validation_loss`` (or ``val_loss``) must be among it.

    Args:
        network: The user's module inside ``kfloop.core.families.custom.Answers``.
        spec: Its description.
        plan: Hyper-parameters.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        super().__init__(network, spec, plan)
        self.automatic_optimization = self.module.automatic_optimization
        self._logged: dict[str, list[tuple[float, float]]] = {}
        self._metrics: dict[str, Any] = {}  # torchmetrics objects, computed when the epoch ends
        self._rows = 0.0
        self._validating = False
        cast("Any", self.module).log = self._log
        for name in HOOKS:
            own = getattr(type(self.module), name)
            if own is not getattr(pl.LightningModule, name):
                setattr(self, name, getattr(self.module, name))

    @property
    def module(self) -> pl.LightningModule:
        """The user's module."""
        return cast("pl.LightningModule", self.network.module)

    @property
    def name(self) -> str:
        """``package.module:Class``, for messages."""
        return str(self.spec.options["model"])

    def setup(self, stage: str) -> None:
        """Let the module see the trainer, as one that is trained directly does."""
        self.module.trainer = self.trainer
        self.module.setup(stage)

    def teardown(self, stage: str) -> None:
        """Let the module clear up."""
        self.module.teardown(stage)

    def configure_optimizers(self) -> Any:
        """The module's own; kfloop's AdamW with ``train.schedule`` where it has none."""
        if type(self.module).configure_optimizers is pl.LightningModule.configure_optimizers:
            return super().configure_optimizers()
        return self.module.configure_optimizers()

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        """The module's own step.

        Raises:
            TerminalError: It gives no loss, or one that is not finite.
        """
        self.seed_step(batch_idx)
        self._rows, self._validating = float(batch.weight.sum()), False
        found = _call(self.module.training_step, batch, batch_idx)
        loss = found.get("loss") if isinstance(found, dict) else found
        if not isinstance(loss, Tensor):
            if self.automatic_optimization:
                raise TerminalError(
                    f"training_step of '{self.name}' gives {found!r} in epoch {self.current_epoch}, step {self.global_step}; "
                    "expected the loss of the batch, a tensor, or a dict with 'loss'",
                    hint="end training_step with: return loss",
                )
            loss = torch.full((), math.nan, device=self.device)  # steps its optimisers by itself and tells no loss
        else:
            self.require_finite(loss.detach(), "training")
        weight = batch.weight.sum()
        self.train_sums.append(torch.stack([loss.detach().to(weight) * weight, weight]))
        return found

    def on_validation_epoch_start(self) -> None:
        """Forget what was logged before."""
        super().on_validation_epoch_start()
        self._logged, self._validating = {}, True
        for metric in self._metrics.values():
            metric.reset()
        self._metrics = {}
        self.module.on_validation_epoch_start()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]  # users' steps take both
        """The module's own step."""
        self._rows, self._validating = float(batch.weight.sum()), True
        _call(self.module.validation_step, batch, batch_idx)

    def on_validation_epoch_end(self) -> None:
        """Average what was logged.

        Raises:
            TerminalError: The validation loss was not logged, or is not finite.
        """
        self._rows = 1.0
        self.module.on_validation_epoch_end()
        names = sorted(self._logged)
        sums = torch.tensor(
            [[sum(v * w for v, w in pairs), sum(w for _, w in pairs)] for pairs in self._logged.values()]
        )
        found = {}
        if names:
            totals = self.over_processes(sums.to(self.device)).tolist()
            found = {
                name: total / max(weight, 1e-12) for name, (total, weight) in zip(self._logged, totals, strict=True)
            }
        found |= {name: float(metric.compute()) for name, metric in self._metrics.items()}
        loss = next((name for name in LOSSES if name in found), None)
        if loss is None:
            raise TerminalError(
                f"'{self.name}' logs no validation_loss in its validation_step; it logs {names or 'nothing'}",
                hint="add to validation_step: self.log('validation_loss', loss)",
            )
        if not math.isfinite(found[loss]):
            self.require_finite(torch.tensor(found[loss]), "validation")
        renamed = {_renamed(name): value for name, value in found.items()}
        self.epoch_metrics = {"validation_loss": found[loss]} | renamed
        self.log("validation_loss", found[loss], prog_bar=False)

    def _log(self, name: str, value: Any, *_: Any, **__: Any) -> None:
        """Stands in for the module's ``log`` (and so ``log_dict``): kfloop keeps its own curve."""
        if hasattr(value, "compute") and hasattr(value, "reset"):
            self._metrics[name] = value
        elif self._validating:
            self._logged.setdefault(name, []).append((float(value), self._rows))


def _renamed(name: str) -> str:
    """``val_x`` and ``x`` as ``validation_x``."""
    return name if name.startswith("validation_") else f"validation_{name.removeprefix('val_')}"


def _call(step: Callable[..., Any], batch: Batch, batch_idx: int) -> Any:
    """The step, with the number of the batch where it takes one."""
    takes = [item for item in inspect.signature(step).parameters.values() if item.kind is not item.KEYWORD_ONLY]
    return step(batch, batch_idx) if len(takes) > 1 else step(batch)
