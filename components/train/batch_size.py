"""Looking for the batch size that trains the most examples in a second and fits into memory."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import pytorch_lightning as pl
import torch

from kfloop.components.train.batches import Batches
from kfloop.components.train.group import Group
from kfloop.components.train.preparing import replanned
from kfloop.errors import ConfigError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.train.preparing import Prepared
    from kfloop.core.sections import TrainConfig

FOUND = "batch_size.json"  # in the work folder: a training that goes on keeps its batch size
SMALLEST = 8
FEWEST_STEPS = 16  # of an epoch: with fewer the schedule of the learning rate has nothing to work with
GAIN = 1.1  # a batch of twice the size must train so many times the examples in a second
WARM_UP, MEASURED = 2, 4  # batches
MEMORY_SHARE = 0.8  # of the memory that is free
logger = logging.getLogger("kfloop")


class Stopwatch(pl.Callback):
    """Seconds of each batch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The loader's time counts too."""
        del trainer, pl_module
        self._last = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """One batch more."""
        del trainer, outputs, batch, batch_idx
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now


def found_batch_size(
    prepared: Prepared, config: TrainConfig, *, work: Path, group: Group | None = None
) -> tuple[TrainConfig, Prepared]:
    """The same training with the batch size that runs fastest.

    Batches of 8, 16, 32, ... examples are tried on a network of its own until twice as many examples bring less than a tenth more of them
    in a second, memory is short, or an epoch would have fewer than 16 steps. The learning rate stays.

    Args:
        prepared: The training with the usual batch size.
        config: Section ``train``.
        work: Folder of the training, where the answer is kept: what is measured differs from run to run.
        group: The processes that train together; each tries its share of a batch.

    Raises:
        ConfigError: ``deterministic`` is on.
        TerminalError: Not even the smallest batch fits into memory.
    """
    group = group or Group()
    if config.deterministic:
        raise ConfigError(
            "train.find_batch_size measures time, so two runs may choose differently, but train.deterministic is on",
            hint="set train.batch_size and train.find_batch_size: false",
        )
    path = work / FOUND
    size = group.agree(json.loads(path.read_text())["batch_size"] if group.first and path.is_file() else 0)
    if not size:
        speeds = _speeds(prepared, config, work, group)
        size = group.agree(_fastest(speeds))
        if group.first:
            work.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps({"batch_size": size, "examples_per_second": speeds}))
            part.replace(path)
            told = ", ".join(f"{one}: {speed:.0f}" for one, speed in speeds.items())
            logger.info("batch size %d runs fastest (examples a second with each: %s)", size, told)
    chosen = config.model_copy(update={"batch_size": size, "find_batch_size": False})
    return chosen, replanned(prepared, chosen)


def _fastest(speeds: dict[int, float]) -> int:
    """The smallest batch that no larger one beats by a tenth."""
    sizes = sorted(speeds)
    best = sizes[0]
    for size in sizes[1:]:
        if speeds[size] > GAIN * speeds[best]:
            best = size
    return best


def _speeds(prepared: Prepared, config: TrainConfig, work: Path, group: Group) -> dict[int, float]:
    """Examples a second by batch size."""
    found: dict[int, float] = {}
    size, last, slower = SMALLEST * group.world, 0.0, 0
    largest = max(size, len(prepared.train) // FEWEST_STEPS)
    while size <= largest:
        free = psutil.virtual_memory().available
        speed = group.agree(_speed(prepared, config, size, work, group))
        if not speed:
            break
        found[size] = speed
        slower = 0 if speed > GAIN * last else slower + 1
        used = free - psutil.virtual_memory().available
        if slower > 1 or group.agree(2 * used > MEMORY_SHARE * psutil.virtual_memory().available):
            break
        last = max(last, speed)
        size *= 2
    if not found:
        raise TerminalError(
            f"a batch of {size} examples does not fit into memory",
            hint="set train.batch_size to less and train.find_batch_size: false, or use a smaller network",
        )
    return found


def _speed(prepared: Prepared, config: TrainConfig, size: int, work: Path, group: Group) -> float:
    """Examples a second with one batch size, 0 where memory is short."""
    from kfloop.components.train.fitting import build_learner, chosen_accelerator, quiet
    from kfloop.components.train.options import augmentation, prepare_module, trainer_options
    from kfloop.components.train.strategies import chosen_strategy

    parts, stopwatch = config.accumulate, Stopwatch()
    spec, train = prepared.spec, prepared.train
    steps = max(prepared.plan.total_steps, WARM_UP + MEASURED)  # of a schedule that lasts as long as the trial
    plan = replace(prepared.plan, batch_size=size, total_steps=steps)
    learner = prepare_module(build_learner(spec, plan), config)
    batches = Batches(train, size, augment=augmentation(config, spec), rank=group.rank, world=group.world, parts=parts)
    try:
        with quiet():
            trainer = pl.Trainer(
                accelerator=chosen_accelerator(config.accelerator),
                devices=group.local_world,
                num_nodes=group.nodes,
                strategy=chosen_strategy(config.strategy, group, learner),
                **trainer_options(config, plan, learner) | {"max_epochs": 1},
                callbacks=[stopwatch],
                limit_train_batches=(WARM_UP + MEASURED) * parts,
                limit_val_batches=0,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                default_root_dir=work,
            )
            trainer.fit(learner, batches)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return 0.0
    except RuntimeError as error:
        if "not enough memory" not in str(error):  # what torch says on the CPU
            raise
        return 0.0
    measured = sorted(stopwatch.seconds[WARM_UP * parts :] or stopwatch.seconds)  # of few rows there is no more
    return size / parts / measured[len(measured) // 2]
