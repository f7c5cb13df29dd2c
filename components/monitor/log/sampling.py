"""A few of the latest requests, for people to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.signature import read_signature

if TYPE_CHECKING:
    from pathlib import Path

    from kfloop.components.monitor.log.traffic import Traffic

SAMPLES = "samples.npz"
MOST = 12


def write_samples(out: Path, package: Path, latest: Traffic) -> int:
    """Write up to 12 of the latest images as uint8 [n, H, W, C], with ids, predicted class and confidence; only an image classifier has them.

    Args:
        out: Folder for `samples.npz`; nothing is written when no row holds an image of the model's shape.
        package: The champion's package; its signature names the shape.
        latest: Rows to choose from, the oldest first.

    Returns:
        Number of images written.
    """
    signature = read_signature(package)
    if (signature.modality, signature.objective) != ("image", "classification"):
        return 0
    shape = signature.inputs[0].shape
    if latest.images.shape[1] != int(np.prod(shape)):
        return 0
    sane = np.flatnonzero(np.isfinite(latest.answers).all(axis=1))
    picked = sane[::-1][:MOST]
    if not len(picked):
        return 0
    probabilities = latest.answers[picked]
    np.savez_compressed(
        out / SAMPLES,
        images=latest.images[picked].astype(np.uint8).reshape(-1, *shape),
        ids=latest.ids[picked].astype(str),
        predicted=probabilities.argmax(axis=1),
        confidence=probabilities.max(axis=1),
    )
    return len(picked)
