"""What generators share: the network that is validated and kept is a moving average of the one that is trained."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kfloop.core.learning.base import Learner

if TYPE_CHECKING:
    from torch import nn

    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Plan

MEMORY = (20, 1000)  # fewest and most steps over which the weights are averaged
MEMORY_SHARE = 0.05  # of all steps, in between
VALIDATION_SEED = 20_020_613


class Generative(Learner):
    """Keeps a moving average of the weights: samples of single steps vary far more than their average.

    Args:
        network: The generator; it becomes the average, and a copy of it is trained.
        spec: Its description.
        plan: Hyper-parameters.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        super().__init__(network, spec, plan)
        self.trained = copy.deepcopy(network)
        self.network.requires_grad_(requires_grad=False)
        self.memory = min(MEMORY[1], max(MEMORY[0], round(MEMORY_SHARE * plan.total_steps)))
        self.draws = torch.Generator()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """One step, and the average follows."""
        super().optimizer_step(*args, **kwargs)
        # Young averages forget faster: the first weights are random.
        share = max(1 / self.memory, 9 / (10 + self.global_step))
        with torch.no_grad():
            for kept, new in zip(self.network.parameters(), self.trained.parameters(), strict=True):
                kept.lerp_(new, share)
            for own, other in zip(self.network.buffers(), self.trained.buffers(), strict=True):
                own.copy_(other)

    def train(self, mode: bool = True) -> Generative:
        """The average is never in training mode: it only answers."""
        super().train(mode)
        self.network.eval()
        return self

    def on_validation_epoch_start(self) -> None:
        """Draw the same noise for the same validation rows in every epoch."""
        super().on_validation_epoch_start()
        self.draws.manual_seed(VALIDATION_SEED + self.global_rank)

    def noise_like(self, pixels: Tensor) -> Tensor:
        """Noise for validation rows, float32 of the shape of ``pixels``; the same on every kind of device."""
        return torch.randn(pixels.shape, generator=self.draws).to(pixels.device)
