"""``transformer``: attention over words, patches of images, and segments of time series.

Layers normalise before each part (Xiong et al., ICML 2020). Images are cut into patches (Dosovitskiy et al., "An image is worth 16 x 16 words",
ICLR 2021), series into overlapping segments (Nie et al., "PatchTST", ICLR 2023).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head, standardiser
from kfloop.core.families.sequences import Forecast, Level, Segments, Words, embed, forecast_defaults, pool
from kfloop.core.sections import Positive, Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

FEW = 1000  # training rows below which a data set is small
SIDE = 7  # patches along the longer side of an image, by default
SEGMENTS = 21  # segments of a window, by default, each twice as long as the step between two
EXPANSION = 2  # features inside a layer's second part, as a multiple of its width


class Options(Section):
    """What ``train.options`` may say."""

    width: Positive = 64
    """Features of an element; a multiple of ``heads``."""
    depth: Positive = 2
    """Layers."""
    heads: Positive = 4
    """Attention patterns of a layer."""
    patch: Positive | None = None
    """Side of a patch of an image, or steps of a segment of a series; null means chosen from the size of an example."""
    level: Literal["mean", "last", "none"] = "last"
    """What is taken off each window before a forecast and added back to it: its mean and spread, its last value, or nothing."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the features that is left out in a training step."""
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the words that is left out in a training step."""

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Options:
        if self.width % self.heads:
            message = f"width {self.width} is not a multiple of heads {self.heads}"
            raise ValueError(message)
        return self


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    options = Options(**spec.options)
    if spec.modality == "text":
        return Transformer(spec, options, _TextElements(spec, options))
    if spec.modality == "image":
        return Transformer(spec, options, _ImageElements(spec, options))
    steps, channels = spec.inputs[0].shape
    size = min(options.patch or -(-2 * steps // SEGMENTS), steps)
    segments = Segments(steps, size, max(1, size // 2))
    if spec.objective != "forecasting":
        return Transformer(spec, options, _SeriesElements(spec, options, segments, size * channels))
    return Forecast(spec, _Channel(spec, options, segments), segments, Level(spec, options.level), options.dropout)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Small data need more passes in smaller steps."""
    if spec.objective == "forecasting":
        return forecast_defaults(n_train)
    if n_train < FEW:
        return Defaults(epochs=40, batch_size=16, learning_rate=1e-3, patience=8)
    return Defaults(epochs=10, batch_size=64, learning_rate=1e-3, patience=4)


class Layer(nn.Module):
    """Attention, then two layers on each element by itself, each beside a shortcut.

    Args:
        width: Features of an element.
        heads: Attention patterns.
        dropout: Share of the features that is left out in a training step.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.asks, self.joins = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.inner, self.outer = nn.Linear(width, EXPANSION * width), nn.Linear(EXPANSION * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, elements: Tensor, present: Tensor | None) -> Tensor:
        """Elements [B, L, W]; only elements where ``present`` bool [B, L] is true are attended to, at least one in each row."""
        length, width = elements.shape[1], elements.shape[2]
        asked = self.asks(self.before(elements)).reshape(-1, length, 3, self.heads, width // self.heads)
        queries, keys, values = asked.permute(2, 0, 3, 1, 4).unbind(0)
        mask = None if present is None else present[:, None, None, :]
        found = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        elements = elements + self.dropout(self.joins(found.transpose(1, 2).reshape(-1, length, width)))
        return elements + self.dropout(self.outer(functional.gelu(self.inner(self.between(elements)))))


class Stack(nn.Module):
    """Layers of attention over elements with places.

    Args:
        options: Width, depth, heads, dropout.
        length: Largest number of elements.
    """

    def __init__(self, options: Options, length: int) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.randn(1, length, options.width) * 0.02)
        self.layers = nn.ModuleList(Layer(options.width, options.heads, options.dropout) for _ in range(options.depth))
        self.last = nn.LayerNorm(options.width)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, elements: Tensor, present: Tensor | None = None) -> Tensor:
        """Elements [B, L, W] to states of the same shape."""
        states = self.dropout(elements + self.places[:, : elements.shape[1]])
        for layer in self.layers:
            states = layer(states, present)
        found: Tensor = self.last(states)
        return found


class Transformer(nn.Module):
    """Examples to an answer.

    A learnt element stands before all others: it is there even in an empty text, so that attention always has something to look at.

    Args:
        spec: Shapes and answers.
        options: ``train.options``.
        elements: Inputs to elements [B, L, W] and where they are, bool [B, L].
    """

    def __init__(self, spec: NetworkSpec, options: Options, elements: _Elements) -> None:
        super().__init__()
        self.elements = elements
        self.summary = nn.Parameter(torch.randn(1, 1, options.width) * 0.02)
        self.stack = Stack(options, elements.length + 1)
        self.dropout = nn.Dropout(options.dropout)
        self.embed = nn.Linear(3 * options.width, spec.embedding_size)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D] of the tensors that the spec names."""
        elements, present = self.elements(*inputs)
        elements = torch.cat([self.summary.expand(elements.shape[0], -1, -1), elements], 1)
        states = self.stack(elements, torch.cat([torch.ones_like(present[:, :1]), present], 1))
        hidden = torch.cat([states[:, 0], pool(states[:, 1:], present)], 1)
        embedding = embed(self.dropout(hidden), self.embed)
        return self.head(self.dropout(embedding)), embedding


class _Elements(nn.Module):
    length: int


class _TextElements(_Elements):
    """Word vectors."""

    def __init__(self, spec: NetworkSpec, options: Options) -> None:
        super().__init__()
        self.length = spec.inputs[0].shape[0]
        self.words = Words(spec, options.width, options.word_dropout)

    def forward(self, tokens: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        vectors, present = self.words(tokens, pieces)
        return vectors, present


class _ImageElements(_Elements):
    """Patches of images uint8 [B, H, W, C]; a border of the mean colour completes the last ones."""

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec, options: Options) -> None:
        super().__init__()
        height, width, channels = spec.inputs[0].shape
        side = min(options.patch or -(-max(height, width) // SIDE), max(height, width))
        mean, std = standardiser(spec.facts, 1, channels, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.border = (0, -width % side, 0, -height % side)
        self.patches = nn.Conv2d(channels, options.width, side, stride=side)
        self.length = -(-height // side) * -(-width // side)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        pixels = (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        found = self.patches(functional.pad(pixels, self.border)).flatten(2).transpose(1, 2)
        return found, torch.ones_like(found[:, :, 0], dtype=torch.bool)


class _SeriesElements(_Elements):
    """Segments of all channels together."""

    def __init__(self, spec: NetworkSpec, options: Options, segments: Segments, width_in: int) -> None:
        super().__init__()
        self.level, self.segments = Level(spec, "none"), segments
        self.lift = nn.Linear(width_in, options.width)
        self.length = segments.count

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        found = self.lift(self.segments(self.level(window)[0]).flatten(2))
        return found, torch.ones_like(found[:, :, 0], dtype=torch.bool)


class _Channel(nn.Module):
    """Segments [N, n, size] of one channel to an embedding [N, D]."""

    def __init__(self, spec: NetworkSpec, options: Options, segments: Segments) -> None:
        super().__init__()
        self.lift = nn.Linear(segments.places.shape[1], options.width)
        self.stack = Stack(options, segments.count)
        self.embed = nn.Linear(segments.count * options.width, spec.embedding_size)

    def forward(self, segments: Tensor) -> Tensor:
        return embed(self.stack(self.lift(segments)).flatten(1), self.embed)
