"""One run of the Lightning trainer, quiet, with checkpoints from which it can go on."""

from __future__ import annotations

import contextlib
import importlib
import logging
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytorch_lightning as pl
import torch

from kfloop.components.train.batches import Batches
from kfloop.components.train.curves import STATE_KEY, LearningCurve
from kfloop.components.train.group import Group
from kfloop.components.train.keeping import Checkpoints, WholeFiles
from kfloop.components.train.lean import NoProfiler, lean
from kfloop.components.train.options import augmentation, extra_callbacks, prepare_module, reproducible, trainer_options
from kfloop.components.train.strategies import chosen_strategy
from kfloop.core.families import FAMILIES, build_network, family_module
from kfloop.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from kfloop.components.train.batches import Augment
    from kfloop.components.train.preparing import Prepared
    from kfloop.components.train.resuming import ResumePoint
    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.base import Learner
    from kfloop.core.learning.plan import Plan
    from kfloop.core.sections import TrainConfig

VALIDATION_BATCH = 512


class ExamplesModule(pl.LightningDataModule):
    """Hands the trainer one epoch of batches at a time.

    Args:
        prepared: Rows to learn from, rows to choose the best epoch on, batch size and seed.
        group: The processes that train together.
        augment: Changes the inputs of a training batch, or null.
        resume: Where an interrupted training goes on: batches that are done are not made again.
        parts: Parts in which a batch is computed, one after the other.
    """

    def __init__(
        self,
        prepared: Prepared,
        group: Group,
        augment: Augment | None = None,
        resume: ResumePoint | None = None,
        parts: int = 1,
    ) -> None:
        super().__init__()
        self.prepared, self.group, self.augment, self.parts = prepared, group, augment, parts
        self.half_done = (resume.epochs_done, resume.batches_done) if resume is not None else (-1, 0)

    def train_dataloader(self) -> Batches:
        """Batches of the epoch that is about to start."""
        plan, train = self.prepared.plan, self.prepared.train
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        return Batches(
            train,
            plan.batch_size,
            np.random.default_rng([plan.seed, epoch]).permutation(len(train)),
            seed=(plan.seed, epoch),
            augment=self.augment,
            rank=self.group.rank,
            world=self.group.world,
            first=self.half_done[1] if epoch == self.half_done[0] else 0,
            parts=self.parts,
        )

    def val_dataloader(self) -> Batches:
        """Validation rows in their own order."""
        size = max(VALIDATION_BATCH, self.prepared.plan.batch_size)
        return Batches(self.prepared.validation, size, rank=self.group.rank, world=self.group.world)


def build_learner(spec: NetworkSpec, plan: Plan) -> Learner:
    """The LightningModule around a fresh network."""
    own = getattr(family_module(spec.family), "LEARNER", None)  # of custom and finetune, which are no families
    module, name = (own or FAMILIES[spec.family].learner).split(":")
    learner: Learner = getattr(importlib.import_module(module), name)(build_network(spec), spec, plan)
    return learner


def fit(
    prepared: Prepared,
    config: TrainConfig,
    *,
    work: Path,
    resume: ResumePoint | None,
    listen: Callable[[dict[str, Any]], None] | None,
    group: Group | None = None,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[LearningCurve, int, str]:
    """Train a network and keep its best epoch.

    Args:
        prepared: Network, rows, hyper-parameters.
        config: Section ``train``: how it is computed.
        work: Folder of the checkpoints.
        resume: Checkpoint to go on from, or null to start.
        listen: Called with each row of the learning curve; null on processes that tell nobody.
        group: The processes that train together; null for this one alone.
        callbacks: Whoever else looks on.

    Returns:
        The learning curve with the best weights (on the first process), the number of parameters, the device (``cpu`` or ``cuda``).
    """
    group = group or Group()
    accelerator = chosen_accelerator(config.accelerator)
    plan = prepared.plan
    pl.seed_everything(plan.seed, workers=False, verbose=False)
    learner = prepare_module(build_learner(prepared.spec, plan), config)
    curve = LearningCurve(plan.epochs, plan.patience, listen)
    parameters = sum(parameter.numel() for parameter in learner.network.parameters())
    device = "cuda" if accelerator == "gpu" else "cpu"
    if resume is not None:
        curve.load_state_dict(torch.load(resume.path, map_location="cpu", weights_only=True)["callbacks"][STATE_KEY])
        if curve.finished:  # killed between its last epoch and its end
            return curve, parameters, device
    data = ExamplesModule(prepared, group, augmentation(config, prepared.spec), resume, config.accumulate)
    with quiet(), reproducible(config):
        trainer = pl.Trainer(
            **_where(config, group, learner, accelerator),
            **trainer_options(config, plan, learner),
            callbacks=[
                curve,
                *extra_callbacks(config, prepared),
                *callbacks,
                Checkpoints(work, group, config.checkpoint_minutes),
            ],
            plugins=[WholeFiles()],
            profiler=NoProfiler(),
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            default_root_dir=work,
        )
        lean(trainer)
        trainer.fit(learner, data, ckpt_path=str(resume.path) if resume is not None else None, weights_only=True)
    return curve, parameters, device


def _where(config: TrainConfig, group: Group, learner: Learner, accelerator: str) -> dict[str, Any]:
    """Devices and nodes, as torchrun's environment has them."""
    return {
        "accelerator": accelerator,
        "devices": group.local_world,
        "num_nodes": group.nodes,
        "strategy": chosen_strategy(config.strategy, group, learner),
    }


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
def quiet() -> Iterator[None]:
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
