"""``mlp``: tables and vectors, numbers through intervals, categories through embeddings, then residual fully connected blocks.

Numbers are laid out over intervals of the training rows (piecewise linear encoding) and embedded column by column, after Gorishniy et al.,
"On embeddings for numerical features in tabular deep learning", NeurIPS 2022; that is what lets such a network compete with boosted trees,
and no transformation of skewed columns is needed. Blocks after Gorishniy et al., "Revisiting deep learning models for tabular data",
NeurIPS 2021.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from kfloop.core.families import Defaults
from kfloop.core.families.heads import Head, standardiser
from kfloop.core.sections import Positive, Section

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kfloop.core.families import NetworkSpec

SPREAD = 10.0  # standard deviations at which a number is cut, as an input beside its intervals
STEPS = 1700  # about how many a small data set needs
BATCHES = ((500, 16), (2000, 32), (10_000, 128), (200_000, 256))  # below so many rows, steps of so many


class Options(Section):
    """What ``train.options`` may say."""

    width: Positive = 192
    """Width of the hidden layers."""
    depth: Annotated[int, Field(ge=0)] = 2
    """Residual blocks."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Share of the hidden numbers that is left out in a training step."""
    intervals: bool = True
    """Lay numbers out over intervals of the training rows, where there are at most 128 columns of them."""
    number_width: Positive = 12
    """Length of the embedding of one number."""
    category_width: Positive = 12
    """Length of the embedding of one category."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    return Mlp(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """Small data need more passes in smaller steps."""
    del spec
    batch = next((size for below, size in BATCHES if n_train < below), 512)
    epochs = min(60, max(12, STEPS * batch // max(1, n_train)))
    return Defaults(
        epochs=epochs, batch_size=batch, learning_rate=2e-3, weight_decay=1e-2, patience=max(5, epochs // 4)
    )


class Numbers(nn.Module):
    """Numbers float32 [B, n], NaN where missing, to features [B, F].

    Args:
        facts: What the encoder told: ``mean``, ``std``, ``missing``, ``edges``.
        options: ``Options``.
    """

    mean: Tensor
    std: Tensor
    absent: Tensor
    left: Tensor
    steps: Tensor
    scale: Tensor

    def __init__(self, facts: dict[str, Any], options: Options) -> None:
        super().__init__()
        mean, std = standardiser(facts, 1, -1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.register_buffer("absent", torch.tensor(facts["missing"], dtype=torch.int64))
        count = mean.shape[1]
        self.features = count + len(facts["missing"])
        self.intervals = options.intervals and bool(facts["edges"])
        if self.intervals:
            left, scale = _intervals(facts["edges"])
            self.register_buffer("left", left)
            self.register_buffer("scale", scale)
            self.weight = nn.Parameter(torch.empty(count, left.shape[1], options.number_width))
            self.bias = nn.Parameter(torch.zeros(count, options.number_width))
            nn.init.normal_(self.weight, std=left.shape[1] ** -0.5)
            self.features += count * options.number_width

    def forward(self, numbers: Tensor) -> Tensor:
        """The features."""
        missing = torch.isnan(numbers)
        known = torch.where(missing, self.mean, numbers)
        parts = [((known - self.mean) / self.std).clamp(-SPREAD, SPREAD)]
        if len(self.absent):
            parts.append(missing[:, self.absent].to(known.dtype))
        if self.intervals:
            places = ((known[:, :, None] - self.left) * self.scale).clamp(0, 1)
            hidden = torch.einsum("bnt,ntd->bnd", places, self.weight) + self.bias
            parts.append(functional.relu(hidden).flatten(1))
        return torch.cat(parts, dim=1)


def _intervals(edges: Sequence[Sequence[float]]) -> tuple[Tensor, Tensor]:
    """Left borders and reciprocal lengths [n, T] of the intervals of each column; padding has length infinity, so that it gives zero."""
    most = max([1, *(len(borders) - 1 for borders in edges)])
    left, scale = torch.zeros(len(edges), most), torch.zeros(len(edges), most)
    for row, borders in enumerate(edges):
        found = torch.tensor(borders, dtype=torch.float64)
        count = max(0, len(borders) - 1)
        left[row, :count] = found[:-1].float() if count else 0
        scale[row, :count] = (1 / found.diff()).float() if count else 0
    return left, scale


class Categories(nn.Module):
    """Codes int64 [B, m] to features [B, m * width]; a code that no row of the training could have counts as unknown.

    Args:
        cardinalities: Number of codes of each column; 0 is missing, 1 unknown.
        width: Length of an embedding.
    """

    first: Tensor
    count: Tensor

    def __init__(self, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        count = torch.tensor([list(cardinalities)], dtype=torch.int64)
        first = count.cumsum(1) - count
        self.register_buffer("count", count)
        self.register_buffer("first", first)
        self.features = len(cardinalities) * width
        self.embedding = nn.Embedding(int(count.sum()), width)
        nn.init.normal_(self.embedding.weight, std=width**-0.5)
        with torch.no_grad():  # neutral until they have been seen
            self.embedding.weight[torch.cat([first[0], first[0] + 1])] = 0.0

    def forward(self, codes: Tensor) -> Tensor:
        """The features."""
        possible = (codes >= 0) & (codes < self.count)
        found: Tensor = self.embedding(torch.where(possible, codes, 1) + self.first)
        return found.flatten(1)


class Block(nn.Module):
    """Residual block: normalisation, two linear layers, dropout.

    Args:
        width: Width of the stream.
        dropout: Share left out.
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout / 2),
        )

    def forward(self, stream: Tensor) -> Tensor:
        """[B, width] to [B, width]."""
        result: Tensor = stream + self.layers(stream)
        return result


class Mlp(nn.Module):
    """The network: numbers and categories in, an answer and an embedding out.

    Args:
        spec: Inputs ``number`` or ``vector``, and ``category``; constants of the numbers and cardinalities among the facts.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options.model_validate(spec.options)
        readers = [
            Categories(spec.facts["cardinalities"], options.category_width)
            if port.name == "category"
            else Numbers(spec.facts, options)
            for port in spec.inputs
        ]
        self.readers = nn.ModuleList(readers)
        features = sum(reader.features for reader in readers)
        self.stem = nn.Linear(features, options.width)
        self.blocks = nn.Sequential(*(Block(options.width, options.dropout) for _ in range(options.depth)))
        self.norm = nn.LayerNorm(options.width)
        self.embed = nn.Linear(options.width, spec.embedding_size)
        self.dropout = nn.Dropout(options.dropout)
        self.head = Head(spec, spec.embedding_size)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Answer and embedding [B, D]."""
        features = torch.cat([reader(part) for reader, part in zip(self.readers, inputs, strict=True)], dim=1)
        hidden = self.norm(self.blocks(self.stem(features)))
        embedding = functional.relu(self.embed(functional.relu(hidden)))
        return self.head(self.dropout(embedding)), embedding
