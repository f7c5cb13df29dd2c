"""Tables and vectors: some cells come from another row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SWAPPED = 0.1  # share of the cells


def swapped(inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """A tenth of the cells of each input [B, columns...] take the value of the same column in another row of the batch.

    Swap noise, as denoising autoencoders of tables use it (Bahri et al., "SCARF", ICLR 2022): every value is one that occurs, numbers,
    categories and missing ones alike.
    """
    found = []
    for values in inputs:
        if values.ndim < 2 or len(values) < 2:  # noqa: PLR2004 - rows and columns, and another row to take from
            found.append(values)
            continue
        other = values[generator.permutation(len(values))]
        found.append(np.where(generator.random(values.shape, dtype=np.float32) < SWAPPED, other, values))
    return tuple(found)
