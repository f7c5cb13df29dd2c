"""The demo's camera: real digits that the loop has never seen, and a simulated change of the camera.

The images are scikit-learn's handwritten digits. What is simulated is the change: the new camera delivers negatives with less contrast
and some noise. That is stated wherever the demo speaks of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

CHANGE = "a simulated new camera: the same real digits, delivered as negatives with 30% less contrast and noise"


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Images [N, 8, 8, 1] uint8 with their true labels [N] int64."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.labels)


def unseen_digits(version: Path, seed: int = 7) -> Stream:
    """The digits that are in no split of the dataset version, shuffled."""
    from kfloop.components.ingest.readers.images.reader import digit_arrays
    from kfloop.core.versions import content_hash, read_version

    images, labels = digit_arrays()
    dataset = read_version(version)
    used = {str(content) for name in ("train", "validation", "test") for content in dataset.split(name).content}
    free = np.array([content_hash(image) not in used for image in images])
    order = np.random.default_rng(seed).permutation(int(free.sum()))
    return Stream(images=images[free][order], labels=labels[free][order])


def part(stream: Stream, start: int, stop: int) -> Stream:
    """Rows ``start`` to ``stop`` of a stream."""
    return Stream(images=stream.images[start:stop], labels=stream.labels[start:stop])


def new_camera(stream: Stream, seed: int = 11) -> Stream:
    """The same scenes through the changed camera."""
    noise = np.random.default_rng(seed).normal(0.0, 12.0, stream.images.shape)
    changed = 255.0 - 0.7 * stream.images.astype(np.float64) + noise
    return Stream(images=np.clip(np.rint(changed), 0, 255).astype(np.uint8), labels=stream.labels)


def save_labelled(stream: Stream, folder: Path, prefix: str) -> int:
    """Write a stream as an image folder, one subfolder per class; what a labelling team hands in."""
    from PIL import Image

    for number, (image, label) in enumerate(zip(stream.images, stream.labels, strict=True)):
        place = folder / str(label)
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[:, :, 0]).save(place / f"{prefix}-{number:04d}.png")
    return len(stream)
