"""``gan``: a small class-conditional generator of images, and the critic it learns from.

A DCGAN (Radford et al., ICLR 2016) whose batch normalisation is conditioned on the class (Dumoulin et al., ICLR 2017); the critic has
a projection of the class (Miyato & Koyama, ICLR 2018) and no normalisation: a penalty on its gradient keeps it tame. The generator alone is
what a checkpoint holds; the critic lives in its learner.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.sections import Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

SMALLEST_SIDE = 7  # images are halved until the shorter side is at most this
WIDEST = 4  # channels at the smallest size, in widths
STEPS = 6000  # what a small generator needs, whatever the number of rows
GREY = 127.5  # pixels are drawn in -1..1
LEAK = 0.1


class Options(Section):
    """What ``train.options`` may say."""

    penalty: Annotated[float, Field(gt=0)] = 0.1
    """Weight of the penalty on the critic's gradient: more is safer and slower."""
    width: Annotated[int, Field(ge=4, le=256)] = 24
    """Channels at the full size of the image; four times as many at the smallest."""
    latent: Annotated[int, Field(ge=2, le=1024)] = 64
    """Numbers of the noise that are used, at most as many as an image has."""


def build(spec: NetworkSpec) -> nn.Module:
    """The generator."""
    return Generator(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """About ``STEPS`` steps, and no early stop: the distance that chooses the best epoch goes up and down."""
    del spec
    batch_size = 64
    epochs = max(1, round(STEPS * batch_size / max(n_train, 1)))
    return Defaults(epochs=epochs, batch_size=batch_size, learning_rate=2e-3, weight_decay=0.0, patience=epochs)


class Generator(nn.Module):
    """Noise and class to images.

    Args:
        spec: Shape of the noise (that of the images), classes, options.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options(**spec.options)
        self.height, self.width, channels = spec.inputs[0].shape
        self.latent = min(options.latent, self.height * self.width * channels)
        sizes = _sizes(self.height, self.width)
        widths = [options.width * min(WIDEST, 2**stage) for stage in range(len(sizes))][::-1]
        self.start = (widths[0], *sizes[-1])
        self.first = nn.Linear(self.latent, widths[0] * sizes[-1][0] * sizes[-1][1])
        self.norms = nn.ModuleList(ClassNorm(width, len(spec.labels)) for width in widths)
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(wide, narrow, 4, stride=2, padding=1) for wide, narrow in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)

    def forward(self, noise: Tensor, label: Tensor) -> tuple[Tensor]:
        """Images float32 [B, H, W, C] in 0..255 from noise float32 [B, H, W, C] and classes int64 [B]."""
        maps = self.first(noise.flatten(1)[:, : self.latent]).unflatten(1, self.start)
        maps = functional.relu(self.norms[0](maps, label))
        for grow, norm in zip(self.grow, list(self.norms)[1:], strict=True):
            maps = functional.relu(norm(grow(maps), label))
        # Doubling may overshoot an odd side by a row or more: those are cut off.
        pixels = self.last(maps)[:, :, : self.height, : self.width]
        return ((pixels.tanh() + 1).permute(0, 2, 3, 1) * GREY,)


class ClassNorm(nn.Module):
    """Batch normalisation with a gain and a shift for each class.

    Args:
        channels: Channels of the maps.
        n_classes: Number of classes.
    """

    def __init__(self, channels: int, n_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.gain = nn.Embedding(n_classes, channels)
        self.shift = nn.Embedding(n_classes, channels)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, maps: Tensor, label: Tensor) -> Tensor:
        """Maps [B, C, H, W] of the same shape."""
        found: Tensor = self.norm(maps) * self.gain(label)[:, :, None, None] + self.shift(label)[:, :, None, None]
        return found


class Critic(nn.Module):
    """How real images look, given their classes.

    Args:
        spec: As of the generator.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options(**spec.options)
        height, width, channels = spec.inputs[0].shape
        widths = [options.width * min(WIDEST, 2**stage) for stage in range(len(_sizes(height, width)))]
        layers: list[nn.Module] = [nn.Conv2d(channels, widths[0], 3, padding=1), nn.LeakyReLU(LEAK)]
        for narrow, wide in itertools.pairwise(widths):
            layers += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.LeakyReLU(LEAK)]
        layers += [nn.Conv2d(widths[-1], widths[-1], 3, padding=1), nn.LeakyReLU(LEAK)]
        self.layers = nn.Sequential(*layers)
        self.score = nn.Linear(widths[-1], 1)
        self.classes = nn.Embedding(len(spec.labels), widths[-1])

    def forward(self, pixels: Tensor, label: Tensor) -> Tensor:
        """Scores [B], higher for what looks real, of images float32 [B, H, W, C] in 0..255 and classes int64 [B]."""
        features = self.layers(pixels.permute(0, 3, 1, 2) / GREY - 1).sum((2, 3))
        found: Tensor = self.score(features)[:, 0] + (self.classes(label) * features).sum(1)
        return found


def _sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Heights and widths from the full image to the smallest maps."""
    sizes = [(height, width)]
    while min(sizes[-1]) > SMALLEST_SIDE:
        sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
    return sizes
