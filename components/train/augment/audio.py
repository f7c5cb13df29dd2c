"""Audio: the same sound a little earlier or later, louder or softer, over a faint noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHIFT = 0.1  # of the length, to either side; what comes free is silent
GAIN = 6.0  # decibels to either side
NOISE = 0.01  # most of it, as a share of the root mean square of the sound


def changed(inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Waves [B, samples] (int16 or float) first among the inputs: shifted in time by up to a tenth, by up to 6 dB in gain, with noise."""
    waves, *rest = inputs
    length = waves.shape[1]
    most = int(SHIFT * length)
    moves: list[int] = generator.integers(-most, most + 1, size=len(waves)).tolist()
    found = np.zeros(waves.shape, dtype=np.float32)
    for row, move in enumerate(moves):
        found[row, max(0, move) : length + min(0, move)] = waves[row, max(0, -move) : length - max(0, move)]
    axes = tuple(range(1, waves.ndim))
    loudness = np.sqrt(np.square(found).mean(axis=axes, keepdims=True))
    found += generator.standard_normal(found.shape, dtype=np.float32) * (
        loudness * generator.random(loudness.shape, dtype=np.float32) * NOISE
    )
    found *= np.float32(10.0) ** (generator.uniform(-GAIN, GAIN, size=loudness.shape) / 20).astype(np.float32)
    if np.issubdtype(waves.dtype, np.integer):
        limits = np.iinfo(waves.dtype)
        np.clip(np.rint(found, out=found), limits.min, limits.max, out=found)
    return (found.astype(waves.dtype, copy=False), *rest)
