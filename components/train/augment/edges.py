"""Graphs: some edges are left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

DROPPED = 0.1  # share of the edges


@dataclass(frozen=True)
class EdgesDropped:
    """A tenth of the edges left out (Rong et al., "DropEdge", ICLR 2020).

    Attributes:
        place: Which of the inputs holds the edges, int64 [2, E].
    """

    place: int

    def __call__(self, inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Both directions of an edge go together."""
        found = list(inputs)
        ends = inputs[self.place]
        if ends.shape[1]:
            # The same number for (a, b) and (b, a), and another one in every batch.
            low, high = np.minimum(*ends).astype(np.uint64), np.maximum(*ends).astype(np.uint64)
            key, other = generator.integers(1, 2**63, size=2, dtype=np.uint64) | np.uint64(1)
            mixed = low * key + high * other
            mixed = (mixed ^ (mixed >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
            share = (mixed >> np.uint64(11)).astype(np.float64) / 2**53
            found[self.place] = np.ascontiguousarray(ends[:, share >= DROPPED])
        return tuple(found)
