"""What ``rnn`` and ``transformer`` share: words to vectors, windows to segments and back to forecasts, means over what is there.

Forecasts follow three ideas. Every channel is forecast by the same weights from its own past (Nie et al., "A time series is worth 64 words",
ICLR 2023). The network sees each window without its level, which is added back to the forecast (reversible instance normalisation, Kim et al.,
ICLR 2022; the last value in NLinear, Zeng et al., AAAI 2023). And a linear map of the window goes past the network (Lai et al., "Modeling long-
and short-term temporal patterns", SIGIR 2018), so that a deep model starts where a linear one ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import standardiser

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

FURTHEST = 1e4  # standard deviations at which absurd values are cut
LEAST_VARIANCE = 1e-5  # of a window, in training variances
WINDOWS_SEEN = 50_000  # in a training, repeats included: few windows are seen more often
FORECAST_EPOCHS = (6, 60)
WORD_SPREAD = 0.1  # standard deviation of fresh word vectors


def forecast_defaults(n_train: int) -> Defaults:
    """Passes over so many windows that the network has seen enough, whatever their number."""
    fewest, most = FORECAST_EPOCHS
    epochs = min(most, max(fewest, round(WINDOWS_SEEN / max(1, n_train))))
    return Defaults(epochs=epochs, batch_size=64, learning_rate=1e-3, patience=max(3, epochs // 4))


class Words(nn.Module):
    """Tokens and their pieces to vectors: the vector of the word plus the mean of those of its pieces.

    Args:
        spec: Numbers of ids, as the text encoder tells them.
        width: Length of a vector.
        dropout: Share of the words that are left out in a training step (word dropout, Iyyer et al., ACL 2015).
    """

    def __init__(self, spec: NetworkSpec, width: int, dropout: float) -> None:
        super().__init__()
        self.words = nn.Embedding(spec.facts["words"], width, padding_idx=0)
        self.pieces = nn.Embedding(spec.facts["pieces"], width, padding_idx=0)
        self.dropout = dropout
        for table in (self.words, self.pieces):
            nn.init.normal_(table.weight, std=WORD_SPREAD)
            with torch.no_grad():
                table.weight[0].zero_()

    def forward(self, tokens: Tensor, pieces: Tensor) -> tuple[Tensor, Tensor]:
        """Vectors [B, L, W], zero where there is no word, and where words are, bool [B, L]; ids beyond the tables are taken as the nearest."""
        present = tokens > 0
        tokens = tokens.clamp(0, self.words.num_embeddings - 1)
        pieces = pieces.clamp(0, self.pieces.num_embeddings - 1)
        counts = (pieces > 0).sum(2, keepdim=True).clamp(min=1)
        vectors = self.words(tokens) + self.pieces(pieces).sum(2) / counts
        kept = present
        if self.training and self.dropout:
            kept = present & (torch.rand(tokens.shape, device=tokens.device) >= self.dropout)
        return vectors * kept[:, :, None], present


class Level(nn.Module):
    """Windows in standard deviations of the training rows without their own level and spread, and back.

    A missing value is taken as the mean of the window's other values in that channel, and as the training mean where there is none.

    Args:
        spec: Means and standard deviations of the channels.
        mode: ``mean`` takes off mean and standard deviation of each window, ``last`` its last known value, ``none`` nothing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec, mode: str) -> None:
        super().__init__()
        mean, std = standardiser(spec.facts, 1, 1, spec.inputs[0].shape[1])
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.mode = mode

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values [B, T, C], level and spread [B, 1, C] of windows [B, T, C]."""
        known = torch.isfinite(window)
        values = torch.where(known, (window - self.mean) / self.std, 0.0).clamp(-FURTHEST, FURTHEST)
        counts = known.sum(1, keepdim=True).clamp(min=1)
        middle = values.sum(1, keepdim=True) / counts
        values = torch.where(known, values, middle)
        if self.mode == "none":
            return values, torch.zeros_like(middle), torch.ones_like(middle)
        if self.mode == "last":
            steps = torch.arange(values.shape[1], device=values.device)[None, :, None]
            last = values.gather(1, (known * steps).amax(1, keepdim=True))
            return values - last, last, torch.ones_like(middle)
        spread = torch.sqrt((values - middle).square().mean(1, keepdim=True) + LEAST_VARIANCE)
        return (values - middle) / spread, middle, spread

    def back(self, forecast: Tensor, level: Tensor, spread: Tensor) -> Tensor:
        """Forecasts [B, H, C] in the unit of the series."""
        return (forecast * spread + level) * self.std + self.mean


class Segments(nn.Module):
    """Steps to segments: what a recurrent network or a transformer takes one by one.

    Args:
        steps: Steps T of a window.
        size: Steps of a segment.
        stride: Steps between two segments.
    """

    places: Tensor

    def __init__(self, steps: int, size: int, stride: int) -> None:
        super().__init__()
        count = max(1, -(-(steps - size) // stride) + 1)
        # Counted from the end, so that the last step is in the last segment; the first step fills what is before the window.
        firsts = steps - size - stride * torch.arange(count - 1, -1, -1)
        places = (firsts[:, None] + torch.arange(size)).clamp(min=0)
        self.register_buffer("places", places, persistent=False)
        self.count = count

    def forward(self, values: Tensor) -> Tensor:
        """Steps [B, T, C] to segments [B, n, size, C]."""
        count, size = self.places.shape
        return values[:, self.places.flatten()].reshape(-1, count, size, values.shape[2])


class Forecast(nn.Module):
    """A body that embeds one channel's segments, and what makes forecasts of it.

    Args:
        spec: Shape of windows and forecasts.
        body: Segments [N, n, size] of one channel to an embedding [N, D].
        segments: Cuts windows.
        level: Takes the level of windows off and adds it back.
        dropout: Share of the embedding that is left out in a training step.
    """

    def __init__(self, spec: NetworkSpec, body: nn.Module, segments: Segments, level: Level, dropout: float) -> None:
        super().__init__()
        self.steps, self.channels = spec.inputs[0].shape
        self.horizon = spec.target_shape[0]
        self.body, self.segments, self.level = body, segments, level
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(spec.embedding_size, self.horizon)
        self.linear = nn.Linear(self.steps, self.horizon)
        nn.init.constant_(self.linear.weight, 1 / self.steps)  # forecasts begin as the mean of the window
        nn.init.zeros_(self.linear.bias)

    def forward(self, window: Tensor) -> tuple[Tensor, Tensor]:
        """Forecasts [B, H, C] in the unit of the series and the mean of the channels' embeddings [B, D]."""
        values, level, spread = self.level(window)
        one = values.transpose(1, 2).reshape(-1, self.steps, 1)
        embedding = self.body(self.segments(one)[..., 0])
        forecast = self.linear(one[..., 0]) + self.head(self.dropout(embedding))
        forecast = forecast.reshape(-1, self.channels, self.horizon).transpose(1, 2)
        pooled = embedding.reshape(-1, self.channels, embedding.shape[1]).mean(1)
        return self.level.back(forecast, level, spread), pooled


def pool(states: Tensor, present: Tensor) -> Tensor:
    """Largest value and mean of each feature over the places that count, [B, 2 W]; zeros where no place counts.

    Args:
        states: [B, L, W].
        present: Which places count, bool [B, L].
    """
    there = present[:, :, None]
    counts = there.sum(1)
    mean = (states * there).sum(1) / counts.clamp(min=1)
    largest = states.masked_fill(~there, torch.finfo(states.dtype).min).amax(1)
    return torch.cat([torch.where(counts > 0, largest, 0.0), mean], 1)


def embed(hidden: Tensor, layer: nn.Linear) -> Tensor:
    """The embedding: one layer, smooth."""
    return functional.gelu(layer(hidden))
