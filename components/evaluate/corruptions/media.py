"""Corruptions of images and sounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.corruptions.altered import with_column, with_lists

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Numbers = np.random.Generator

PIXEL = 255.0
LOUDEST = 32767


def pixels(change: Callable[[NDArray[np.float64], float, Numbers], NDArray[Any]]) -> Callable[..., Any]:
    """A change of images float64 [N, H, W, C] in 0..255 as one of a table."""

    def apply(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
        shape = version.image_shape
        flat = table["image"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        images = flat.reshape(-1, *shape).astype(np.float64)
        pixels = np.clip(np.rint(change(images, amount, random)), 0, PIXEL).astype(np.uint8)
        return with_lists(table, "image", pixels)

    return apply


def blurred(images: NDArray[np.float64], share: float, random: Numbers) -> NDArray[Any]:
    """A Gaussian blur, its width a share of the shorter side, at least half a pixel."""
    from scipy.ndimage import gaussian_filter

    del random
    sigma = max(0.5, share * min(images.shape[1:3]))
    return np.asarray(gaussian_filter(images, (0, sigma, sigma, 0), mode="nearest"))


def less_contrast(images: NDArray[np.float64], factor: float, random: Numbers) -> NDArray[Any]:
    """The share ``factor`` of the contrast, around the mean of each image."""
    del random
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    return mean + factor * (images - mean)


def shifted(images: NDArray[np.float64], share: float, random: Numbers) -> NDArray[Any]:
    """Each image moved in one of eight directions; what comes in is its edge."""
    height, width = images.shape[1:3]
    steps = np.array([[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1) if y or x])
    found = np.empty_like(images)
    far = [max(1, round(share * side)) for side in (height, width)]
    for row, (down, right) in enumerate(steps[random.integers(0, len(steps), len(images))]):
        ys = np.clip(np.arange(height) - down * far[0], 0, height - 1)
        xs = np.clip(np.arange(width) - right * far[1], 0, width - 1)
        found[row] = images[row][np.ix_(ys, xs)]
    return found


def samples(
    change: Callable[[NDArray[np.float64], NDArray[np.float64], float, Numbers], NDArray[Any]],
) -> Callable[..., Any]:
    """A change of sounds, given as all samples in a line and the root mean square of each one's sound."""

    def apply(table: pa.Table, amount: float, random: Numbers, version: DatasetVersion) -> pa.Table:
        import pyarrow as pa

        del version
        column = table["audio"].combine_chunks()
        lengths = column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        wave = column.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        owner = np.repeat(np.arange(len(lengths)), lengths)
        power = np.bincount(owner, wave**2, minlength=len(lengths)) / np.maximum(lengths, 1)
        changed = np.clip(np.rint(change(wave, np.sqrt(power)[owner], amount, random)), -LOUDEST - 1, LOUDEST)
        ends = pa.array(np.concatenate([[0], np.cumsum(lengths)]), type=pa.int32())
        return with_column(table, "audio", pa.ListArray.from_arrays(ends, pa.array(changed.astype(np.int16))))

    return apply


def hiss(wave: NDArray[Any], loudness: NDArray[Any], decibels: float, random: Numbers) -> NDArray[Any]:
    """White noise so many decibels below the sound."""
    return np.asarray(wave + loudness * 10 ** (-decibels / 20) * random.standard_normal(len(wave)))
