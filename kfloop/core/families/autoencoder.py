"""``autoencoder``: learns to say normal rows again through a bottleneck; what it cannot say again is odd.

The score of a row is the mean over its columns of their surprise: of a number minus twice the log-likelihood, up to a constant, under a normal
distribution whose spread is learned for each column (so it may be negative), of a category the cross-entropy as a share of that of a blind
guess; columns that are missing do not count. Of an image it is the mean squared error in standard deviations. Higher is odder. Inputs are disturbed in
training, after Vincent et al., "Extracting and composing robust features with denoising autoencoders", ICML 2008, so that the network does not
learn to pass rows on as they are. The bottleneck is bounded: a linear one carries values far outside of the training rows through, and says them
again all too well.
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
from kfloop.core.families.heads import standardiser
from kfloop.core.sections import Positive, Section

if TYPE_CHECKING:
    from kfloop.core.families import NetworkSpec

FARTHEST = 20.0  # standard deviations at which a number is cut: one such column is odd enough
LEAST = 2 * math.log(0.03)  # of the logarithm of a column's variance
STEPS = 4000  # about how many are taken
SMALLEST_SIDE = 4  # images are halved until a side is smaller than twice this
PIXEL_WIDTHS = (16, 32, 48, 64)


class Options(Section):
    """What ``train.options`` may say."""

    width: Positive = 64
    """Width of the hidden layers (tables and vectors)."""
    depth: Annotated[int, Field(ge=1, le=6)] = 2
    """Hidden layers before the bottleneck, and after it (tables and vectors)."""
    bottleneck: Positive | None = None
    """Numbers a row is told in; null means half of its columns, at least 2 and at most 32."""
    noise: Annotated[float, Field(ge=0)] = 0.2
    """Noise that is added to the inputs in a training step, in standard deviations."""


def build(spec: NetworkSpec) -> nn.Module:
    """The network."""
    return ImageAutoencoder(spec) if spec.modality == "image" else RowAutoencoder(spec)


def defaults(spec: NetworkSpec, n_train: int) -> Defaults:
    """A number of steps that does not depend on the number of rows, while the validation loss falls."""
    batch = 32 if n_train < 2000 else 128  # noqa: PLR2004 - below, steps are scarce
    most = 40 if spec.modality == "image" else 200
    epochs = min(most, max(10, STEPS * batch // max(1, n_train)))
    return Defaults(
        epochs=epochs, batch_size=batch, learning_rate=2e-3, weight_decay=1e-4, patience=max(5, epochs // 5)
    )


class RowAutoencoder(nn.Module):
    """Rows of numbers and categories in, their score and their bottleneck out.

    Args:
        spec: Inputs ``number`` or ``vector``, and ``category``; constants of the numbers and cardinalities among the facts.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options.model_validate(spec.options)
        self.cards: list[int] = []
        self.numbers, sizes = 0, []
        for port in spec.inputs:
            if port.name == "category":
                self.cards = [int(count) for count in spec.facts["cardinalities"]]
                sizes.append(sum(self.cards))
            else:
                self.numbers = math.prod(port.shape)
                sizes.append(2 * self.numbers)  # each with whether it is missing
                mean, std = standardiser(spec.facts, 1, self.numbers)
                self.register_buffer("mean", mean)
                self.register_buffer("std", std)
        columns = self.numbers + len(self.cards)
        narrow = options.bottleneck or min(32, max(2, columns // 2))
        hidden = [options.width] * options.depth
        self.noise = options.noise
        # How well each column can be said again, learned along: what strays little by little where others never do is odd, too.
        self.log_variance = nn.Parameter(torch.zeros(self.numbers))
        self.encode = _stack([sum(sizes), *hidden, narrow])
        self.decode = _stack([narrow, *hidden, self.numbers + sum(self.cards)])

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Score [B] and bottleneck [B, D] of numbers float32 [B, n] (NaN missing), codes int64 [B, m], or both."""
        parts: list[Tensor] = []
        known = values = codes = None
        if self.numbers:
            numbers = inputs[0].flatten(1)
            known = ~torch.isnan(numbers)
            standard = ((numbers - self.mean) / self.std).clamp(-FARTHEST, FARTHEST)
            values = torch.where(known, standard, 0.0)
            seen = values + self.noise * torch.randn_like(values) if self.training and self.noise else values
            parts += [seen, known.to(seen.dtype)]
        if self.cards:
            codes = self._possible(inputs[-1])
            parts += [functional.one_hot(codes[:, at], size).float() for at, size in enumerate(self.cards)]
        embedding = torch.tanh(self.encode(torch.cat(parts, dim=1)))
        told = self.decode(embedding)
        errors = []
        counted = torch.full_like(embedding[:, 0], len(self.cards))  # columns that are there
        if known is not None and values is not None:
            variance = self.log_variance.clamp(min=LEAST)
            errors.append(((told[:, : self.numbers] - values).square() / variance.exp() + variance) * known)
            counted = counted + known.sum(1)
        if codes is not None:
            errors.append(self._surprise(told[:, self.numbers :], codes))
        return torch.cat(errors, dim=1).sum(1) / counted.clamp(min=1), embedding

    def _possible(self, codes: Tensor) -> Tensor:
        """Codes; one that no row of the training could have is the unknown one."""
        count = torch.tensor(self.cards, device=codes.device)
        return torch.where((codes >= 0) & (codes < count), codes, 1)

    def _surprise(self, logits: Tensor, codes: Tensor) -> Tensor:
        """Cross-entropy of each category [B, m], as a share of that of a blind guess."""
        found = [  # not functional.cross_entropy: with reduction "none" torch cannot export it
            part.log_softmax(dim=1).gather(1, codes[:, at : at + 1]) / -math.log(self.cards[at])
            for at, part in enumerate(logits.split(self.cards, dim=1))
        ]
        return torch.cat(found, dim=1)


class ImageAutoencoder(nn.Module):
    """Images in, their score and their bottleneck out.

    Args:
        spec: Shape and normalisation constants.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        options = Options.model_validate(spec.options)
        height, width, channels = spec.inputs[0].shape
        mean, std = standardiser(spec.facts, 1, channels, 1, 1)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.noise = options.noise
        sizes, widths = [(height, width)], [channels]
        while min(sizes[-1]) >= 2 * SMALLEST_SIDE or len(widths) == 1:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
            widths.append(PIXEL_WIDTHS[min(len(widths) - 1, len(PIXEL_WIDTHS) - 1)])
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for at in range(1, len(widths)):
            down += [nn.Conv2d(widths[at - 1], widths[at], 3, stride=2, padding=1), nn.ReLU()]
            up = [nn.Upsample(size=sizes[at - 1]), nn.Conv2d(widths[at], widths[at - 1], 3, padding=1), nn.ReLU(), *up]
        flat = widths[-1] * math.prod(sizes[-1])
        narrow = options.bottleneck or 32
        self.encode = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, narrow))
        self.decode = nn.Sequential(
            nn.Linear(narrow, flat), nn.ReLU(), nn.Unflatten(1, (widths[-1], *sizes[-1])), *up[:-1]
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Score [B] and bottleneck [B, D] of images uint8 [B, H, W, C]."""
        values = (image.permute(0, 3, 1, 2).to(self.mean.dtype) - self.mean) / self.std
        seen = values + self.noise * torch.randn_like(values) if self.training and self.noise else values
        embedding = torch.tanh(self.encode(seen))
        return (self.decode(embedding) - values).square().flatten(1).mean(1), embedding


def _stack(widths: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])
