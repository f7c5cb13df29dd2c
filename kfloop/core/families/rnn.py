"""``rnn``: recurrent networks (LSTM, GRU) for texts and time series.

Texts are read in both directions (Hochreiter & Schmidhuber 1997; Schuster & Paliwal 1997). Series are read in segments rather than steps (Lin
et al., "SegRNN", 2023): fewer steps to remember, and many times faster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head
from kfloop.core.families.sequences import Forecast, Level, Segments, Words, embed, forecast_defaults, pool
from kfloop.core.sections import Positive, Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

FEW = 1000  # training rows below which a data set is small
SEGMENTS = 16  # into which windows are cut by default
CELLS = {"lstm": nn.LSTM, "gru": nn.GRU}


class Options(Section):
    """What ``train.options`` may say."""

    cell: Literal["lstm", "gru"] | None = None
    """Kind of memory; null means ``lstm`` for texts and ``gru`` for series."""
    width: Positive = 96
    """Features of the memory, in each direction."""
    depth: Positive = 1
    """Layers on top of each other."""
    words: Positive = 128
    """Length of word vectors."""
    segment: Positive | None = None
    """Steps of a series that are read at a time; null means a 16th of the window."""
    level: Literal["mean", "last", "none"] = "last"
    """What is taken off each window before a forecast and added back to it: its mean and spread, its last value, or nothing."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    """Share of the features that is left out in a training step."""
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Share of the words that is left out in a training step."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    options = Options(**spec.options)
    if spec.modality == "text":
        return TextRnn(spec, options)
    steps = spec.inputs[0].shape[0]
    size = min(options.segment or -(-steps // SEGMENTS), steps)
    segments = Segments(steps, size, size)
    if spec.objective != "forecasting":
        return SeriesRnn(spec, options, segments)
    body = _Channel(size, options, spec.embedding_size)
    return Forecast(spec, body, segments, Level(spec, options.level), options.dropout)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Small data need more passes in smaller steps."""
    if spec.objective == "forecasting":
        return forecast_defaults(n_train)
    if n_train < FEW:
        return Defaults(epochs=30, batch_size=16, learning_rate=2e-3, patience=6)
    return Defaults(epochs=8, batch_size=64, learning_rate=2e-3, patience=3)


class Recurrent(nn.Module):
    """Layers of memory over a sequence.

    Padding after the end of a sequence changes nothing before it, in either direction: the way back begins at the last element.

    Args:
        options: Cell, width, depth, dropout.
        cell: The cell where the options name none.
        width_in: Features of an element.
        both: Also read from the end to the start.
    """

    def __init__(self, options: Options, cell: str, width_in: int, *, both: bool) -> None:
        super().__init__()
        kind = CELLS[options.cell or cell]
        self.width = options.width * (2 if both else 1)
        sizes = [width_in, *[self.width] * (options.depth - 1)]
        self.there = nn.ModuleList(kind(size, options.width, batch_first=True) for size in sizes)
        self.back = nn.ModuleList(kind(size, options.width, batch_first=True) for size in sizes if both)
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, elements: Tensor, present: Tensor | None = None) -> Tensor:
        """Elements [B, L, W] to states [B, L, width]; ``present`` bool [B, L] is false after the end of each sequence."""
        for number, layer in enumerate(self.there):
            inputs = self.dropout(elements) if number else elements
            states = layer(inputs)[0]
            if self.back:
                states = torch.cat([states, self._backwards(self.back[number], inputs, present)], 2)
            elements = states
        return elements

    @staticmethod
    def _backwards(layer: nn.Module, elements: Tensor, present: Tensor | None) -> Tensor:
        if present is None:
            states: Tensor = layer(elements.flip(1))[0].flip(1)
            return states
        places = torch.arange(elements.shape[1], device=elements.device)
        mirrored = (present.sum(1, keepdim=True) - 1 - places).clamp(min=0)[:, :, None]
        turned = elements.gather(1, mirrored.expand(-1, -1, elements.shape[2]))
        found: Tensor = layer(turned)[0]
        return found.gather(1, mirrored.expand(-1, -1, found.shape[2]))


class TextRnn(nn.Module):
    """Texts to an answer.

    Args:
        spec: Words and answers.
        options: ``train.options``.
    """

    def __init__(self, spec: NetworkSpec, options: Options) -> None:
        super().__init__()
        self.words = Words(spec, options.words, options.word_dropout)
        self.dropout = nn.Dropout(options.dropout)
        self.memory = Recurrent(options, "lstm", options.words, both=True)
        self.embed = nn.Linear(2 * self.memory.width, spec.embedding_size)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, tokens: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D] of tokens int64 [B, L] and pieces int64 [B, L, P]."""
        vectors, present = self.words(tokens, pieces)
        states = self.memory(self.dropout(vectors), present)
        embedding = embed(self.dropout(pool(states, present)), self.embed)
        return self.head(self.dropout(embedding)), embedding


class SeriesRnn(nn.Module):
    """Windows to the label of their last step.

    Args:
        spec: Shape of a window, answers.
        options: ``train.options``.
        segments: Cuts windows.
    """

    def __init__(self, spec: NetworkSpec, options: Options, segments: Segments) -> None:
        super().__init__()
        size, channels = segments.places.shape[1], spec.inputs[0].shape[1]
        self.level = Level(spec, "none")
        self.segments = segments
        self.lift = nn.Linear(size * channels, options.width)
        self.memory = Recurrent(options, "gru", options.width, both=False)
        self.dropout = nn.Dropout(options.dropout)
        self.embed = nn.Linear(2 * self.memory.width + channels, spec.embedding_size)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D] of windows float32 [B, T, C]; the last step, which the label is about, is also seen directly."""
        values = self.level(window)[0]
        states = self.memory(nn.functional.gelu(self.lift(self.segments(values).flatten(2))))
        hidden = self.dropout(torch.cat([states[:, -1], states.mean(1)], 1))
        embedding = embed(torch.cat([hidden, values[:, -1]], 1), self.embed)
        return self.head(self.dropout(embedding)), embedding


class _Channel(nn.Module):
    """Segments [N, n, size] of one channel to an embedding [N, D]."""

    def __init__(self, size: int, options: Options, width_out: int) -> None:
        super().__init__()
        self.lift = nn.Linear(size, options.width)
        self.memory = Recurrent(options, "gru", options.width, both=False)
        self.embed = nn.Linear(self.memory.width, width_out)

    def forward(self, segments: Tensor) -> Tensor:
        return embed(self.memory(nn.functional.gelu(self.lift(segments)))[:, -1], self.embed)
