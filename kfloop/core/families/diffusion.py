"""``diffusion``: a denoising diffusion model of images with a deterministic sampler of few steps.

Denoising diffusion (Ho et al., NeurIPS 2020) with the cosine schedule of Nichol & Dhariwal (ICML 2021), prediction of the velocity
(Salimans & Ho, ICLR 2022), and the sampler of Song et al. ("Denoising diffusion implicit models", ICLR 2021), which
draws no random numbers: the same noise gives the same image, in torch and in the exported graph. The network is a small U-Net on 2 x 2 patches.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.sections import Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

STEPS = 8000  # training steps a small model needs, whatever the number of rows
STEPS_SMALL = 3000  # for images of fewer pixels than PATCHED on the shorter side
GREY = 127.5  # pixels are drawn in -1..1
PATCHED = 16  # shorter side from which pixels are taken 2 x 2 at a time
WIDTH, WIDTH_SMALL = 32, 16
TIMES = 32  # sines and cosines that tell the time
LAST_ANGLE = math.acos(0.02)  # the noisiest image keeps a trace of the signal, as in the schedule's paper


class Options(Section):
    """What ``train.options`` may say."""

    width: Annotated[int, Field(ge=8, le=256, multiple_of=8)] | None = None
    """Channels of the U-Net at its upper level, three times as many below; null means 32, or 16 for images of fewer than 16 pixels a side."""
    steps: Annotated[int, Field(ge=2, le=200)] = 20
    """Steps of the sampler; each costs one pass through the U-Net."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    return Diffusion(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """A number of steps, whatever the number of rows."""
    batch_size = 64
    steps = STEPS if min(spec.inputs[0].shape[:2]) >= PATCHED else STEPS_SMALL
    epochs = max(1, round(steps * batch_size / max(n_train, 1)))
    return Defaults(epochs=epochs, batch_size=batch_size, learning_rate=2e-3, weight_decay=1e-4, patience=epochs)


def signal(time: Tensor) -> Tensor:
    """Share of the signal at a time in 0..1: the root of the cosine schedule's cumulative alpha; that of the noise is its complement."""
    return torch.cos(time * LAST_ANGLE)


class Diffusion(nn.Module):
    """Noise and class to images.

    Its steps are all alike but for numbers in a table, so that an exported graph holds one step and a loop around it:
    ``kfloop.components.package`` asks for ``one_step`` and how many ``steps`` there are.

    Args:
        spec: Shape of the noise (that of the images), classes, options.
    """

    numbers: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options(**spec.options)
        self.steps = options.steps
        self.register_buffer("numbers", torch.tensor(_numbers(options.steps)), persistent=False)
        shape = spec.inputs[0].shape
        width = options.width or (WIDTH if min(shape[:2]) >= PATCHED else WIDTH_SMALL)
        self.velocity = Unet(shape, len(spec.labels), width)

    def forward(self, noise: Tensor, label: Tensor) -> tuple[Tensor]:
        """Images float32 [B, H, W, C] in 0..255 from noise float32 [B, H, W, C] and classes int64 [B]."""
        pixels = noise
        for number in range(self.steps):
            pixels = self.step(pixels, label, self.numbers[number])
        return (pixels,)

    def step(self, pixels: Tensor, label: Tensor, numbers: Tensor) -> Tensor:
        """One step of the sampler, with its row of the table: images [B, H, W, C] that are less noisy; the last ones in 0..255."""
        time, own, loud, following, noisy, gain, lift = numbers.unbind()
        pixels = pixels.permute(0, 3, 1, 2)
        velocity = self.velocity(pixels, time.reshape(1), label)
        clean = (own * pixels - loud * velocity).clamp(-1, 1)
        pixels = following * clean + noisy * (pixels - own * clean)
        return (gain * pixels + lift).permute(0, 2, 3, 1)

    def one_step(self) -> nn.Module:
        """A network of one step: what is carried from step to step, the classes, and the number of the step (int64 without axes)."""
        return Step(self)


class Step(nn.Module):
    """One step of the sampler as a network of its own.

    Args:
        network: Whose step it is.
    """

    def __init__(self, network: Diffusion) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor, label: Tensor, number: Tensor) -> Tensor:
        """What the next step begins with."""
        return self.network.step(pixels, label, self.network.numbers.index_select(0, number.reshape(1))[0])


def _numbers(steps: int) -> list[list[float]]:
    """A row for each step: time, share of signal and of noise, share of signal after the step, of noise by noise, and the unit of the result."""
    rows = []
    signals = [math.cos((1 - step / steps) * LAST_ANGLE) for step in range(steps + 1)]
    for step, (own, following) in enumerate(itertools.pairwise(signals)):
        loud = math.sqrt(1 - own * own)
        unit = [GREY, GREY] if step == steps - 1 else [1.0, 0.0]
        rows.append([1 - step / steps, own, loud, following, math.sqrt(1 - following * following) / loud, *unit])
    return rows


class Unet(nn.Module):
    """The velocity of noisy images: two levels of residual blocks that know time and class.

    Args:
        shape: Height, width, channels of the images.
        n_classes: Number of classes.
        width: Channels at the upper level.
    """

    frequencies: Tensor

    def __init__(self, shape: tuple[int, ...], n_classes: int, width: int) -> None:
        super().__init__()
        height, wide, channels = shape
        self.patch = 2 if min(height, wide) >= PATCHED else 1
        self.size = (height, wide)
        unit = 2 * self.patch
        self.padding = (0, -wide % unit, 0, -height % unit)
        deep, known = 3 * width, 4 * width
        self.register_buffer("frequencies", torch.logspace(0, 3, TIMES) * math.pi / 2, persistent=False)
        self.time = nn.Sequential(nn.Linear(2 * TIMES, known), nn.SiLU(), nn.Linear(known, known))
        self.classes = nn.Embedding(n_classes, known)
        self.enter = nn.Conv2d(channels * self.patch**2, width, 3, padding=1)
        self.above = nn.ModuleList([Block(width, width, known), Block(width, width, known)])
        self.down = nn.Conv2d(width, deep, 2, stride=2)
        self.below = nn.ModuleList([Block(deep, deep, known), Block(deep, deep, known)])
        self.up = nn.ConvTranspose2d(deep, width, 2, stride=2)
        self.again = nn.ModuleList([Block(2 * width, width, known), Block(width, width, known)])
        self.norm = nn.GroupNorm(8, width)
        self.leave = nn.Conv2d(width, channels * self.patch**2, 3, padding=1)
        nn.init.zeros_(self.leave.weight)

    def forward(self, pixels: Tensor, time: Tensor, label: Tensor) -> Tensor:
        """Velocities [B, C, H, W] of noisy images [B, C, H, W] in -1..1 at times float32 [B] or [1] and classes int64 [B]."""
        angles = time[:, None] * self.frequencies
        known = functional.silu(self.time(torch.cat([angles.sin(), angles.cos()], 1)) + self.classes(label))
        maps = self.enter(functional.pixel_unshuffle(functional.pad(pixels, self.padding), self.patch))
        for block in self.above:
            maps = block(maps, known)
        deep = self.down(maps)
        for block in self.below:
            deep = block(deep, known)
        maps = torch.cat([maps, self.up(deep)], 1)
        for block in self.again:
            maps = block(maps, known)
        found = functional.pixel_shuffle(self.leave(functional.silu(self.norm(maps))), self.patch)
        return found[:, :, : self.size[0], : self.size[1]]


class Block(nn.Module):
    """Two convolutions with a shortcut, the second normalised as time and class say.

    Args:
        channels_in: Channels of the maps.
        channels_out: Channels of the result.
        known: Length of what is known of time and class.
    """

    def __init__(self, channels_in: int, channels_out: int, known: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, channels_in), nn.GroupNorm(8, channels_out)])
        self.first = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.told = nn.Linear(known, 2 * channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.shortcut = nn.Conv2d(channels_in, channels_out, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, maps: Tensor, known: Tensor) -> Tensor:
        """Maps [B, C, H, W] and what is known [B, K] to maps [B, C', H, W]."""
        hidden = self.first(functional.silu(self.norms[0](maps)))
        gain, shift = self.told(known)[:, :, None, None].chunk(2, 1)
        hidden = self.second(functional.silu(self.norms[1](hidden) * (1 + gain) + shift))
        found: Tensor = self.shortcut(maps) + hidden
        return found
