"""A few of the latest requests, for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.signature import read_signature

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kfloop.components.monitor.traffic import Traffic

SAMPLES = "samples.npz"
MOST = 12


def write_samples(out: Path, package: Path, traffic: Traffic, rows: NDArray[np.intp]) -> int:
    """Write up to 12 of the latest images as uint8 [n, H, W, C], with ids, predicted class and confidence; only an image classifier has them.

    Args:
        out: Folder for `samples.npz`; nothing is written when no row holds an image of the model's shape.
        package: The champion's package; its signature names the shape.
        traffic: The log.
        rows: Rows to choose from, oldest first.

    Returns:
        Number of images written.
    """
    signature = read_signature(package)
    if (signature.modality, signature.objective) != ("image", "classification"):
        return 0
    shape = signature.inputs[0].shape
    chosen = [
        (row, image) for row in rows[::-1][: 4 * MOST] if (image := _image(traffic.images[row], shape)) is not None
    ]
    chosen = chosen[:MOST]
    if not chosen:
        return 0
    picked = np.array([row for row, _ in chosen])
    probabilities = traffic.answers[picked]
    np.savez_compressed(
        out / SAMPLES,
        images=np.stack([image for _, image in chosen]),
        ids=traffic.ids[picked],
        predicted=probabilities.argmax(axis=1),
        confidence=probabilities.max(axis=1),
    )
    return len(chosen)


def _image(flat: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.uint8] | None:
    return flat.astype(np.uint8).reshape(shape) if flat.size == int(np.prod(shape)) else None
