"""``cnn``: a compact residual convolutional network for small images (under 100 000 parameters at 8 x 8).

Residual blocks after He et al., "Deep residual learning for image recognition", CVPR 2016. Larger images pass more
stride-2 stages before the blocks, so that the cost of an example stays in the same range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

WIDTHS = (32, 48)
DROPOUT = 0.1
LARGEST_SIDE = 16  # stride-2 stems are added until the longer side is at most this


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


class Cnn(nn.Module):
    """The network: uint8 images in, logits and an embedding out.

    Args:
        spec: Shape, classes and normalisation constants.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        height, width, channels = spec.image_shape
        self.register_buffer("mean", torch.tensor(spec.mean, dtype=torch.float32).reshape(1, channels, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std, dtype=torch.float32).reshape(1, channels, 1, 1))
        stages: list[nn.Module] = [_convolution(channels, WIDTHS[0]), nn.ReLU()]
        while max(height, width) > LARGEST_SIDE:
            stages += [_convolution(WIDTHS[0], WIDTHS[0], stride=2), nn.ReLU()]
            height, width = -(-height // 2), -(-width // 2)
        stages += [ResidualBlock(WIDTHS[0], WIDTHS[0]), ResidualBlock(WIDTHS[0], WIDTHS[1], stride=2)]
        height, width = -(-height // 2), -(-width // 2)
        # Pool to about 2 x 2: where a stroke lies tells digits apart, a global mean would forget it.
        self.pool = (max(1, height // 2), max(1, width // 2))
        cells = (height // self.pool[0]) * (width // self.pool[1])
        self.stages = nn.Sequential(*stages)
        self.embed = nn.Linear(WIDTHS[1] * cells, spec.embedding_size)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(spec.embedding_size, len(spec.labels))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, K] and embedding [B, D] of images uint8 [B, H, W, C]."""
        pixels = image.permute(0, 3, 1, 2).to(torch.float32)
        maps = self.stages((pixels - self.mean) / self.std)
        pooled = functional.avg_pool2d(maps, self.pool).flatten(1)
        embedding = functional.relu(self.embed(pooled))
        return cast("Tensor", self.head(self.dropout(embedding))), embedding


def _convolution(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(channels_out)
    )
