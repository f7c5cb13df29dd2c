"""Training examples: rows, labels and weights of a dataset version, and batches made of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.errors import InputError, StateError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

WEIGHTS = "weights.parquet"
SHIFT = 1  # pixels, the largest shift of augmentation


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows to learn from.

    Attributes:
        images: uint8 [N, H, W, C].
        labels: int64 [N].
        weights: float32 [N], 0 or more.
        content: sha256 of each row's pixels, [N].
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32]
    content: NDArray[np.str_]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)


def training_examples(split: Any, labels_folder: Path, classes: Sequence[str], *, balance_origins: bool) -> Examples:
    """The train split without quarantined rows, weighted as the label check said.

    Args:
        split: Train split of the dataset version.
        labels_folder: Folder of ``check_labels``.
        classes: Class names.
        balance_origins: Give each origin the same total weight.

    Raises:
        InputError: A weight is negative or not a number, or there are no training rows.
        StateError: The label check does not belong to this dataset.
        TerminalError: A class has no row left.
    """
    weights, quarantined = _label_weights(labels_folder, split.ids)
    keep = ~quarantined
    weights, origin = weights[keep], split.origin[keep]
    if balance_origins:
        for name in np.unique(origin):
            rows = origin == name
            weights[rows] /= max(float(weights[rows].sum()), 1e-12)
    labels = split.labels[keep]
    present = np.bincount(labels, weights=weights > 0, minlength=len(classes))
    empty = [name for name, count in zip(classes, present, strict=True) if not count]
    if empty:
        raise TerminalError(
            f"no training row is left for {len(empty)} class(es), such as {empty[0]!r}, out of {len(split.ids)} rows "
            f"({int(quarantined.sum())} quarantined)",
            hint="add examples of that class, or use labels.policy: report",
            classes=empty,
        )
    weights *= len(weights) / weights.sum()  # mean 1, so that the learning rate keeps its meaning
    return Examples(images=split.images[keep], labels=labels, weights=weights, content=split.content[keep])


def _label_weights(folder: Path, ids: NDArray[np.str_]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weight and quarantine of every id; a row the label check does not name counts fully."""
    import pyarrow.parquet as pq

    path = folder / WEIGHTS
    if not path.is_file():
        raise StateError(
            f"the label check '{folder}' has no {WEIGHTS}", hint="run the label check again: kfloop step check_labels"
        )
    table = pq.read_table(path, columns=["id", "weight", "quarantined"])
    known = {
        name: (weight, bool(set_aside))
        for name, weight, set_aside in zip(*(table[key].to_pylist() for key in table.column_names), strict=True)
    }
    if known and len(ids) and not any(name in known for name in ids.tolist()):
        raise StateError(
            f"none of the {len(known)} ids in '{path}' is among the {len(ids)} training rows",
            hint="run the label check again on this dataset version",
        )
    rows = [known.get(name, (1.0, False)) for name in ids.tolist()]
    weights = np.array([np.nan if weight is None else weight for weight, _ in rows], dtype=np.float32)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"'{path}' gives row '{ids[first]}' the weight {weights[first]}, expected a number of at least 0",
            hint="run the label check again: kfloop step check_labels",
        )
    return weights, np.array([set_aside for _, set_aside in rows], dtype=np.bool_)


def plain_examples(split: Any) -> Examples:
    """All rows of a split, each with weight 1.

    Raises:
        InputError: The split is empty.
    """
    if not len(split.ids):
        raise InputError(
            "the validation split has no rows, but the best epoch is chosen on it",
            hint="add examples, or raise data.split.validation",
        )
    weights = np.ones(len(split.ids), dtype=np.float32)
    return Examples(images=split.images, labels=split.labels, weights=weights, content=split.content)


def with_shuffled_labels(examples: Examples, seed: int) -> Examples:
    """The same rows with their labels permuted: what is learned from them is noise."""
    return replace(examples, labels=np.random.default_rng(seed).permutation(examples.labels))


def normalisation(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (at least 1, in 0..255) of each channel of images [N, H, W, C]."""
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64)
    mean, std = pixels.mean(0), np.maximum(pixels.std(0), 1.0)
    return tuple(mean.tolist()), tuple(std.tolist())


class Batches:
    """Batches of tensors, in an order that depends on seed and epoch alone.

    A plain iterable: for examples that fit in memory, a DataLoader's collation costs more than the training itself. The
    last batch is never tiny, because rows are divided as evenly as they go.

    Args:
        examples: Rows.
        batch_size: Largest number of rows in a batch.
        order: Permutation of the rows, or null for their own order.
        augment: Generator of shifts, or null for none.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        order: NDArray[np.int64] | None = None,
        augment: np.random.Generator | None = None,
    ) -> None:
        self.examples = examples
        self.count = max(1, -(-len(examples) // batch_size))
        self.order = np.arange(len(examples)) if order is None else order
        self.augment = augment

    def __len__(self) -> int:
        """Number of batches."""
        return self.count

    def __iter__(self) -> Iterator[tuple[Any, Any, Any]]:
        """Tensors images, labels, weights of each batch."""
        import torch

        for rows in np.array_split(self.order, self.count):
            images = self.examples.images[rows]
            if self.augment is not None:
                images = shifted(images, self.augment)
            yield (
                torch.from_numpy(images),
                torch.from_numpy(self.examples.labels[rows]),
                torch.from_numpy(self.examples.weights[rows]),
            )


def shifted(images: NDArray[np.uint8], generator: np.random.Generator) -> NDArray[np.uint8]:
    """Each image [B, H, W, C] moved by up to one pixel in both directions; edges are repeated."""
    count, height, width, _ = images.shape
    moves = generator.integers(-SHIFT, SHIFT + 1, size=(2, count, 1))
    rows = np.clip(np.arange(height) + moves[0], 0, height - 1)
    columns = np.clip(np.arange(width) + moves[1], 0, width - 1)
    return images[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]


def epoch_batches(examples: Examples, batch_size: int, *, seed: int, epoch: int, augment: bool) -> Batches:
    """The training batches of one epoch."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(examples))
    return Batches(examples, batch_size, order, generator if augment else None)
