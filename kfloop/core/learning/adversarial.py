"""Learning to draw from a critic that learns to tell drawn images from real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from kfloop.core.families.gan import GREY, Critic, Options
from kfloop.core.generation.measures import frechet_distance
from kfloop.core.learning.generative import Generative

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec
    from kfloop.core.learning.plan import Batch, Plan

BETAS = (0.0, 0.99)  # as in the paper of the penalty: momentum lets generator and critic circle around each other
FALLING = 0.5  # share of the steps, at the end, in which the learning rate falls to nothing
EYE_SEED = 20_170_412
EYE_WIDTHS = (32, 64, 64)
EYE_FEATURES = 96


class Adversarial(Generative):
    """Non-saturating losses of a generator and a critic, with a penalty on the critic's gradient at real images.

    Both take their steps at the same time, which converges with that penalty (R1 of Mescheder et al., "Which training methods for GANs do
    actually converge?", ICML 2018).

    One backward pass serves both: the generator sees the critic with fixed weights, the critic sees images that are cut off from the
    generator. So one optimiser is enough, and a step is the same thing as in every other training: it is counted once,
    clipped, accumulated, resumed and shared between processes like any other.

    ``validation_loss`` is the Frechet distance between validation rows and as many samples of the same classes, with fixed noise, in the
    features of a fixed random network joined with the class (after DeVries et al., "On the evaluation of conditional GANs", 2019): unlike
    the losses of the players it falls when the samples get better, and it needs no trained judge.

    Args:
        network: The generator.
        spec: Its description.
        plan: Hyper-parameters.
    """

    def __init__(self, network: nn.Module, spec: NetworkSpec, plan: Plan) -> None:
        super().__init__(network, spec, plan)
        self.critic = Critic(spec)
        self.penalty = Options(**spec.options).penalty
        self.eye = Eye(spec)
        self._moments: list[Tensor] = []

    def losses(self, batch: Batch) -> Tensor:
        """Sum of the losses of both players for each real image and one drawn image of its class, float32 [B]."""
        real, label = batch.inputs[0].float().requires_grad_(), batch.target
        drawn = self.trained(torch.randn(real.shape, device=real.device), label)[0]
        on_real, on_drawn = self.critic(real, label), self.critic(drawn.detach(), label)
        fixed = {name: value.detach() for name, value in self.critic.named_parameters()}
        fooled: Tensor = functional_call(self.critic, fixed, (drawn, label))
        (slope,) = torch.autograd.grad(on_real.sum(), real, create_graph=True)
        penalty = 0.5 * self.penalty * (slope * GREY).square().flatten(1).sum(1)
        return functional.softplus(-on_real) + functional.softplus(on_drawn) + functional.softplus(-fooled) + penalty

    def on_validation_epoch_start(self) -> None:
        """Forget the moments of the epoch before."""
        super().on_validation_epoch_start()
        self._moments = []

    def validation_step(self, batch: Batch) -> None:
        """Add up the moments of real and of drawn images."""
        real = batch.inputs[0].float()
        drawn = self.network(self.noise_like(real), batch.target)[0]
        weight = batch.weight.double()[:, None]
        found = []
        for pixels in (real, drawn):
            classes = functional.one_hot(batch.target, len(self.spec.labels))
            features = torch.cat([self.eye(pixels).double(), classes.double()], 1)
            found.append(torch.cat([features.T @ (features * weight), (features * weight).sum(0, keepdim=True)]))
        sums = torch.stack(found)
        count = weight.sum().expand(1)
        self._moments.append(torch.cat([sums.flatten(), count]))

    def on_validation_epoch_end(self) -> None:
        """Log the Frechet distance as validation loss.

        Raises:
            TerminalError: The generator draws no finite numbers.
        """
        moments = self.over_processes(torch.stack(self._moments).sum(0)).cpu()
        self.require_finite(moments.sum(), "validation")
        size = EYE_FEATURES + len(self.spec.labels)
        both = (moments[:-1] / moments[-1]).reshape(2, size + 1, size).numpy()
        (real, mean), (drawn, drawn_mean) = ((part[:size], part[size]) for part in both)
        distance = frechet_distance(
            drawn_mean, drawn - drawn_mean[:, None] * drawn_mean, mean, real - mean[:, None] * mean
        )
        self.epoch_metrics = {"validation_loss": float(distance)}
        self.log("validation_loss", self.epoch_metrics["validation_loss"], prog_bar=False)

    def configure_optimizers(self) -> Any:
        """One Adam without momentum for both players."""
        players = [*self.critic.parameters(), *self.trained.parameters()]
        optimizer = torch.optim.AdamW(
            players, lr=self.plan.learning_rate, betas=BETAS, weight_decay=self.plan.weight_decay
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"}}

    def schedule(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """``constant``, or (for the other two) constant and then falling linearly: a rise would let one player run away."""
        steps, falling = self.plan.total_steps, FALLING if self.plan.schedule != "constant" else 0.0

        def factor(step: int) -> float:
            return min(1.0, (steps - step) / max(1.0, falling * steps)) if falling else 1.0

        return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Eye(nn.Module):
    """Features of images from convolutions with fixed random weights; the same for every training.

    Args:
        spec: Shape of the images.
    """

    project: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(EYE_SEED)
        channels = spec.inputs[0].shape[2]
        for number, width in enumerate(EYE_WIDTHS):
            weight = torch.randn((width, channels, 3, 3), generator=generator) * (2 / (9 * channels)) ** 0.5
            self.register_buffer(f"weight{number}", weight, persistent=False)
            channels = width
        project = torch.randn((16 * channels, EYE_FEATURES), generator=generator) / (16 * channels) ** 0.5
        self.register_buffer("project", project, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features [B, ``EYE_FEATURES``] of images [B, H, W, C] in 0..255."""
        maps = pixels.permute(0, 3, 1, 2) / GREY - 1
        for number in range(len(EYE_WIDTHS)):
            weight: Tensor = getattr(self, f"weight{number}")
            maps = functional.relu(functional.conv2d(maps, weight, stride=2 if number else 1, padding=1))
        found: Tensor = functional.adaptive_avg_pool2d(maps, (4, 4)).flatten(1) @ self.project
        return found
