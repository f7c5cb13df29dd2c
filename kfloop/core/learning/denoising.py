"""Learning to take noise away: the loss of diffusion models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kfloop.core.families.diffusion import GREY, signal
from kfloop.core.learning.generative import Generative

if TYPE_CHECKING:
    from torch import nn

    from kfloop.core.learning.plan import Batch


class Denoising(Generative):
    """Squared error of the velocity of noisy images at random times (Salimans & Ho 2022, equation 13 with v-prediction).

    ``validation_loss`` is the same error with the noise and the times of each validation row fixed, so that epochs can be compared.
    """

    def losses(self, batch: Batch) -> Tensor:
        """Loss of each image, float32 [B]."""
        pixels = batch.inputs[0].float()
        noise = torch.randn(pixels.shape, device=pixels.device)
        # One time from each of B equal parts of 0..1: less noise in the gradient than independent times.
        rows = len(pixels)
        times = (torch.randperm(rows, device=pixels.device) + torch.rand(rows, device=pixels.device)) / rows
        return self._errors(self.trained, pixels, batch.target, noise, times)

    def measures(self, batch: Batch) -> dict[str, Tensor]:
        """The loss."""
        pixels = batch.inputs[0].float()
        noise = self.noise_like(pixels)
        times = torch.rand(len(pixels), generator=self.draws).to(pixels.device)
        errors = self._errors(self.network, pixels, batch.target, noise, times)
        return {"loss": (errors * batch.weight).sum(), "count": batch.weight.sum()}

    def _errors(self, network: nn.Module, pixels: Tensor, label: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        clean, noise = (array.permute(0, 3, 1, 2) for array in (pixels / GREY - 1, noise))
        own = signal(times)[:, None, None, None]
        loud = (1 - own * own).sqrt()
        velocity = network.get_submodule("velocity")(own * clean + loud * noise, times, label)
        return (velocity - (own * noise - loud * clean)).square().flatten(1).mean(1)
