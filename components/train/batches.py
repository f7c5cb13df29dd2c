"""Batches: which rows of the examples make which step, the same for any number of processes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples
    from kfloop.core.learning.plan import Batch

    Augment = Callable[[tuple[NDArray[Any], ...], np.random.Generator], tuple[NDArray[Any], ...]]


class Batches:
    """Batches of tensors, in an order that depends on seed and epoch alone.

    A plain iterable: for examples that fit in memory, a DataLoader's collation costs more than the training itself. The last batch is never
    tiny, because rows are divided as evenly as they go. Each process takes its own part of every batch, so that the number of processes
    changes nothing but the speed.

    Args:
        examples: Rows.
        batch_size: Largest number of rows in a batch, over all processes.
        order: Permutation of the rows, or null for their own order.
        seed: Seeds augmentation together with the number of the batch, so that any batch can be made again alone.
        augment: Changes the inputs of a batch, or null.
        rank: Number of this process.
        world: Number of processes.
        first: Batches to leave out at the start: those that an interrupted epoch has done.
        parts: Parts in which each batch is handed out, one after the other, for those who add gradients up to save memory.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        order: NDArray[np.int64] | None = None,
        *,
        seed: tuple[int, ...] = (0,),
        augment: Augment | None = None,
        rank: int = 0,
        world: int = 1,
        first: int = 0,
        parts: int = 1,
    ) -> None:
        self.examples = examples
        self.steps = max(1, -(-len(examples) // batch_size))
        self.order = np.arange(len(examples)) if order is None else order
        self.seed, self.augment = seed, augment
        self.rank, self.world, self.first, self.parts = rank, world, first, parts
        # Since someone last set them to 0: time spent on making batches, rows handed out over all processes.
        self.seconds, self.rows = 0.0, 0

    def __len__(self) -> int:
        """Number of batches in an epoch, each part counted."""
        return self.steps * self.parts

    def __iter__(self) -> Iterator[Batch]:
        """The batches from ``first`` on."""
        for step, rows in enumerate(np.array_split(self.order, self.steps)):
            for part in range(self.parts):
                number = step * self.parts + part
                if number >= self.first:
                    began = time.perf_counter()
                    batch = self.batch(number, rows, part)
                    self.seconds += time.perf_counter() - began
                    full, rest = divmod(len(rows), self.world * self.parts)
                    self.rows += full * self.world + min(max(0, rest - self.world * part), self.world)
                    yield batch

    def batch(self, number: int, rows: NDArray[np.int64], part: int = 0) -> Batch:
        """This process's share of one batch, or of one part of it."""
        import torch

        from kfloop.core.learning.plan import Batch

        examples = self.examples
        total = max(float(examples.weights[rows].sum(dtype=np.float64)), 1e-12)
        mine = rows[self.rank + self.world * part :: self.world * self.parts]
        weight = examples.weights[mine]
        if not len(mine):  # fewer rows than processes: all of them must take part, one with a row that does not count
            mine, weight = rows[:1], np.zeros(1, dtype=np.float32)
        inputs = examples.batch_inputs(mine)
        if self.augment is not None:
            inputs = self.augment(inputs, np.random.default_rng([*self.seed, number, self.rank]))
        places = examples.batch_rows(mine)
        own_order = len(inputs[0]) == len(mine) and bool((places == np.arange(len(places))).all())
        return Batch(
            inputs=tuple(torch.from_numpy(array) for array in inputs),
            rows=None if own_order else torch.from_numpy(places),
            target=torch.from_numpy(np.ascontiguousarray(examples.target[mine])),
            weight=torch.from_numpy(weight),
            # The trainer divides the loss of a part by their number, and takes the mean over processes.
            scale=torch.tensor(self.world * self.parts / total, dtype=torch.float32),
        )
