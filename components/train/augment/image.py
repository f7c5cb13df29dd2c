"""Images: shifts, erased rectangles and, where asked for, mirror images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 16  # pixels of the shorter side up to which a shift is one pixel
SHIFT = 0.1  # of the side, for larger images
ERASED = 0.25  # share of the images that lose a rectangle
LARGEST_SIDE = 0.4  # of a rectangle, as a share of the image's side: at most 16% of the area


@dataclass(frozen=True, kw_only=True)
class Images:
    """Shift each image (edges are repeated), erase a rectangle of a quarter of them (Zhong et al. 2020), mirror half of them if asked.

    Attributes:
        flip: Mirror left and right.
    """

    flip: bool = False

    def __call__(self, inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
        """Images [B, H, W, C] first among the inputs."""
        images, *rest = inputs
        moved = shifted(images, generator)
        erase(moved, generator)
        if self.flip:
            mirror(moved, generator)
        return (moved, *rest)


def mirrored(inputs: tuple[NDArray[Any], ...], generator: np.random.Generator) -> tuple[NDArray[Any], ...]:
    """Half of the images mirrored, and nothing else."""
    images, *rest = inputs
    found = images.copy()
    mirror(found, generator)
    return (found, *rest)


def largest_shift(height: int, width: int) -> int:
    """Pixels by which an image may be moved: 1 up to sides of 16, a tenth of the side beyond."""
    side = min(height, width)
    return 1 if side <= SMALL else round(SHIFT * side)


def shifted(images: NDArray[Any], generator: np.random.Generator) -> NDArray[Any]:
    """Each image [B, H, W, C] moved in both directions by its own whole number of pixels; edges are repeated."""
    count, height, width, _ = images.shape
    most = largest_shift(height, width)
    starts = generator.integers(0, 2 * most + 1, size=(count, 2)).tolist()
    padded = np.pad(images, ((0, 0), (most, most), (most, most), (0, 0)), mode="edge")
    found = np.empty_like(images)
    # One copy of a slice for each image is some five times faster than indexing every pixel.
    for one, (top, left), source in zip(found, starts, padded, strict=True):
        one[...] = source[top : top + height, left : left + width]
    return found


def erase(images: NDArray[Any], generator: np.random.Generator) -> None:
    """Fill a rectangle of some of the images with the mean of the batch, in place."""
    count, height, width, channels = images.shape
    chosen = np.flatnonzero(generator.random(count) < ERASED)
    sides = generator.random((len(chosen), 2)) * LARGEST_SIDE
    places = generator.random((len(chosen), 2))
    fill = images.reshape(-1, channels).mean(axis=0).astype(images.dtype)
    for row, (tall, wide), (down, right) in zip(chosen.tolist(), sides.tolist(), places.tolist(), strict=True):
        rows, columns = max(1, round(tall * height)), max(1, round(wide * width))
        top, left = int(down * (height - rows + 1)), int(right * (width - columns + 1))
        images[row, top : top + rows, left : left + columns] = fill


def mirror(images: NDArray[Any], generator: np.random.Generator) -> None:
    """Mirror each image left to right with an even chance, in place."""
    chosen = generator.random(len(images)) < 0.5  # noqa: PLR2004 - an even chance
    images[chosen] = images[chosen][:, :, ::-1]
