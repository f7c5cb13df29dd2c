"""Images: their pixels when they are small; means of blocks and directions of edges when they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

LARGEST_SIDE = 32  # of images that are described by their pixels
CELLS = 8  # blocks along a side of larger ones
DIRECTIONS = 8
AT_ONCE = 2000


def describe(version: DatasetVersion, splits: Sequence[str]) -> NDArray[np.float32]:
    """Features of all images, in order, float32 [N, D]."""
    parts = []
    for split in splits:
        for table in version.batches(split):
            flat = table["image"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
            images = flat.reshape(table.num_rows, *version.image_shape)
            parts += [
                image_features(images[start : start + AT_ONCE]).astype(np.float32)
                for start in range(0, len(images), AT_ONCE)
            ]
    return np.concatenate(parts) if parts else np.empty((0, 1), dtype=np.float32)


def image_features(images: NDArray[np.uint8]) -> Floats:
    """Features of images uint8 [N, H, W, C]: pixels up to 32 by 32, else block means and edges; float64 [N, D]."""
    if max(images.shape[1:3]) <= LARGEST_SIDE:
        return pixel_features(images)
    return np.concatenate([_block_means(images), edge_features(images)], axis=1)


def pixel_features(images: Iterable[NDArray[np.uint8]] | NDArray[np.uint8]) -> Floats:
    """Pixels scaled to [0, 1] as rows; large images are averaged down to at most 16 by 16 per channel."""
    array = np.asarray(images, dtype=np.float64) / 255.0
    step = max(1, array.shape[1] // 16)
    height, width = (size // step * step for size in array.shape[1:3])
    blocks = array[:, :height, :width].reshape(len(array), height // step, step, width // step, step, -1)
    return np.asarray(blocks.mean(axis=(2, 4)).reshape(len(array), -1))


def edge_features(images: NDArray[np.uint8]) -> Floats:
    """Strength of edges by direction in 8 by 8 cells, each cell row scaled to length one over the image.

    After Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005, without overlapping blocks.
    """
    grey = images.mean(axis=3) / 255.0
    down, across = np.gradient(grey, axis=(1, 2))
    strength = np.hypot(down, across)
    direction = ((np.arctan2(down, across) % np.pi) / np.pi * DIRECTIONS).astype(np.int64) % DIRECTIONS
    histogram = np.stack([_cells(strength * (direction == k)) for k in range(DIRECTIONS)], axis=-1)
    histogram = np.sqrt(histogram.reshape(len(images), -1))
    return np.asarray(histogram / np.maximum(np.linalg.norm(histogram, axis=1, keepdims=True), 1e-9) * CELLS)


def _block_means(images: NDArray[np.uint8]) -> Floats:
    return np.stack([_cells(images[..., channel] / 255.0) for channel in range(images.shape[3])], axis=-1).reshape(
        len(images), -1
    )


def _cells(maps: Floats) -> Floats:
    """Means of cells, [N, cells, cells]; sides that are smaller than the number of cells have fewer."""
    for axis in (1, 2):
        size = maps.shape[axis]
        edges = np.linspace(0, size, min(CELLS, size) + 1).astype(np.int64)
        widths = np.diff(edges).reshape([-1 if other == axis else 1 for other in range(3)])
        maps = np.add.reduceat(maps, edges[:-1], axis=axis) / widths
    return maps
