"""The plan of one training: every hyper-parameter after defaults were filled in, and what a step is given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Batch(NamedTuple):
    """What a step is given, on every process its own part of the batch.

    Attributes:
        inputs: The network's inputs.
        rows: Where the answers for these examples stand in the network's output, int64 [B]; null for their own order.
        target: What is to be learned, as ``kfloop.core.encoding.Examples.target`` has it, [B, ...].
        weight: Weight of each example, float32 [B].
        scale: Number of processes over the sum of all weights in the whole batch, so that the weighted sum of losses times this is, after
            the average over processes, the weighted mean of the whole batch.
    """

    inputs: tuple[Tensor, ...]
    rows: Tensor | None
    target: Tensor
    weight: Tensor
    scale: Tensor


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hyper-parameters of one training.

    Attributes:
        epochs: Largest number of passes over the training rows.
        batch_size: Examples in a step, over all processes together.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay of AdamW.
        patience: Epochs without a better validation loss after which training stops.
        seed: Seed of weights, order, dropout and augmentation.
        total_steps: Optimiser steps of the whole training.
        schedule: Course of the learning rate: ``one_cycle``, ``cosine`` (after a warm-up) or ``constant``.
        label_smoothing: Share of the target spread over all classes.
        class_weights: Weight of each class in the loss; null for equal ones.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    patience: int
    seed: int
    total_steps: int
    schedule: str = "one_cycle"
    label_smoothing: float = 0.0
    class_weights: tuple[float, ...] | None = None
