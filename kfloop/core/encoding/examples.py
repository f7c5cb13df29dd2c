"""Examples: the encoded rows of a split, with what is to be learned from each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Encoded rows; the first axis of every array is the row.

    Attributes:
        inputs: The tensors of each row, in the order of the encoder's ports. Read-only views where copying would cost memory.
        target: What is to be learned: class int64 [N] (-1 unknown), several labels float32 [N, K], a number float32 [N], a forecast
            float32 [N, horizon, C]; for anomalies 1 (odd), 0 (normal), -1 (unknown).
        weights: Weight of each row in the loss, float32 [N], 0 or more.
        ids: Where each row came from, str [N].
        content: Hash of each row's inputs, str [N].
        origin: ``base`` or ``fresh``, str [N].
    """

    inputs: tuple[NDArray[Any], ...]
    target: NDArray[Any]
    weights: NDArray[np.float32]
    ids: NDArray[np.str_]
    content: NDArray[np.str_]
    origin: NDArray[np.str_]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.target)

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """The network's inputs for some rows: the tensors of those rows. Graphs override this: their rows do not stack."""
        return tuple(np.ascontiguousarray(array[rows]) for array in self.inputs)

    def batch_rows(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the answers for ``rows`` stand in the network's output: in their own order."""
        return np.arange(len(rows))

    def take(self, rows: NDArray[Any]) -> Examples:
        """Some rows, by index or mask."""
        return replace(
            self,
            inputs=tuple(array[rows] for array in self.inputs),
            target=self.target[rows],
            weights=self.weights[rows],
            ids=self.ids[rows],
            content=self.content[rows],
            origin=self.origin[rows],
        )
