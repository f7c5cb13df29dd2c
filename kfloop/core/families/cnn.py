"""``cnn``: a compact residual convolutional network for images, and for sounds through their log-mel spectrograms.

Residual blocks after He et al., "Deep residual learning for image recognition", CVPR 2016. Large inputs are halved before the blocks, so that
the cost of an example stays in the same range; small ones (up to 16 pixels) have a net of their own with less than 100 000 weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head, standardiser
from kfloop.core.families.spectrogram import LogMel
from kfloop.core.sections import Positive, Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

FEW, MANY = 240, 10_000  # training rows below which a data set is small, and from which it is big
LARGEST_SIDE = 16  # sides are halved before the blocks until they are at most this


class Options(Section):
    """What ``train.options`` may say."""

    width: Positive = 32
    """Channels of the first stage; the others have 2 and 4 times as many (1.5 times as many for images of up to 16 pixels)."""
    depth: Positive = 1
    """Residual blocks in each stage."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the embedding that is left out in a training step."""
    bands: Annotated[int, Field(ge=8, le=256)] = 40
    """Mel bands of a sound."""
    masking: bool = True
    """Mask bands and frames of a sound while training."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    return Cnn(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Small data need more passes in smaller steps."""
    if n_train < FEW:
        return Defaults(epochs=40, batch_size=16)
    if n_train < MANY:
        return Defaults(epochs=20, batch_size=32, patience=10) if spec.modality == "audio" else Defaults()
    return Defaults(epochs=12, batch_size=128, learning_rate=4e-3)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut around them.

    Args:
        channels_in: Channels of the input.
        channels_out: Channels of the output.
        stride: Stride of the first convolution.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _convolution(channels_in, channels_out, stride)
        self.second = _convolution(channels_out, channels_out)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps [B, C, H, W] to [B, C', H', W']."""
        hidden = functional.relu(self.first(maps))
        return functional.relu(self.second(hidden) + self.shortcut(maps))


class Pixels(nn.Module):
    """Images uint8 [B, H, W, C] to standardised maps [B, C, H, W].

    Args:
        spec: Shape and constants.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        mean, std = standardiser(spec.facts, 1, spec.inputs[0].shape[2], 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, image: Tensor) -> Tensor:
        """The maps."""
        pixels = image.permute(0, 3, 1, 2).to(self.mean.dtype)
        return (pixels - self.mean) / self.std


class Cnn(nn.Module):
    """The network: uint8 images or int16 samples in, an answer and an embedding out.

    Args:
        spec: Shape, classes and normalisation constants.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options.model_validate(spec.options)
        shape = spec.inputs[0].shape
        if spec.modality == "audio":
            picture = LogMel(shape[0], spec.facts["sample_rate"], options.bands, masking=options.masking)
            self.front: nn.Module = picture
            sides, channels = (picture.bands, picture.frames), 1
        else:
            self.front = Pixels(spec)
            sides, channels = (shape[0], shape[1]), shape[2]
        small = max(sides) <= LARGEST_SIDE
        stem, sides = _stem(channels, options.width, sides)
        widths = [options.width, options.width * 3 // 2] if small else [options.width * factor for factor in (1, 2, 4)]
        blocks: list[nn.Module] = []
        for stage, width in enumerate(widths):
            before = widths[max(0, stage - 1)]
            blocks.append(ResidualBlock(before, width, stride=2 if stage else 1))
            blocks += [ResidualBlock(width, width) for _ in range(options.depth - 1)]
            sides = _halved(sides) if stage else sides
        self.stages = nn.Sequential(*stem, *blocks)
        # Pool to about 2 x 2: where a stroke lies tells digits apart, a global mean would forget it.
        self.pool = (max(1, sides[0] // 2), max(1, sides[1] // 2))
        cells = (sides[0] // self.pool[0]) * (sides[1] // self.pool[1])
        self.embed = nn.Linear(widths[-1] * cells, spec.embedding_size)
        self.dropout = nn.Dropout(options.dropout)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, example: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D] of images uint8 [B, H, W, C] or sounds int16 [B, T]."""
        maps = self.stages(self.front(example))
        pooled = functional.avg_pool2d(maps, self.pool).flatten(1)
        embedding = functional.relu(self.embed(pooled))
        return self.head(self.dropout(embedding)), embedding


def _stem(channels: int, width: int, sides: tuple[int, int]) -> tuple[list[nn.Module], tuple[int, int]]:
    """A convolution, and halvings of the sides that are too long: the last one by taking maxima, which costs least and keeps most."""
    halvings = 0
    while max(sides) > LARGEST_SIDE << halvings:
        halvings += 1
    layers: list[nn.Module] = []
    for step in range(max(1, halvings)):
        stride = _stride(sides) if step < halvings - 1 else (1, 1)
        layers += [_convolution(width if step else channels, width, stride), nn.ReLU()]
        sides = (-(-sides[0] // stride[0]), -(-sides[1] // stride[1]))
    if halvings:
        stride = _stride(sides)
        layers.append(nn.MaxPool2d(stride, ceil_mode=True))
        sides = (-(-sides[0] // stride[0]), -(-sides[1] // stride[1]))
    return layers, sides


def _stride(sides: tuple[int, int]) -> tuple[int, int]:
    """2 along the sides that are too long, else 1."""
    return (2 if sides[0] > LARGEST_SIDE else 1, 2 if sides[1] > LARGEST_SIDE else 1)


def _halved(sides: tuple[int, int]) -> tuple[int, int]:
    return (-(-sides[0] // 2), -(-sides[1] // 2))


def _convolution(channels_in: int, channels_out: int, stride: int | tuple[int, int] = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(channels_out)
    )
