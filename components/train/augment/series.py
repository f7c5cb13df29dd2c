"""Series: noise on every value, and another scale where the scale says nothing of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

JITTER = 0.03  # standard deviations of the channel
SCALE = 0.1  # standard deviation of the factor around 1


class Series:
    """Jitter and scaling (Um et al. 2017).

    Args:
        std: Standard deviation of each channel.
        scaled: Multiply each channel of a window by a factor of its own; wrong for forecasts, which would have to change as well.
    """

    def __init__(self, std: Sequence[float], *, scaled: bool) -> None:
        self.std = np.asarray(std, dtype=np.float32)
        self.scaled = scaled

    def __call__(self, inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Windows float32 [B, T, C] first among the inputs."""
        windows, *rest = inputs
        found = generator.standard_normal(windows.shape, dtype=np.float32)
        found *= JITTER * self.std
        found += windows
        if self.scaled:
            found *= 1 + SCALE * generator.standard_normal((len(windows), 1, windows.shape[2]), dtype=np.float32)
        return (found.astype(windows.dtype, copy=False), *rest)
