"""Vectors: standardised; long ones turned onto their 128 main axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float32]

LONGEST = 256
AXES = 128
MOST_FITTED = 20_000
SPREAD = 10.0


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all vectors, in order, float32 [N, D]."""
    return vector_features(read_vectors(version, splits))


def read_vectors(version: DatasetVersion, splits: Sequence[str], name: str = "vector") -> Floats:
    """The vectors as they are, float32 [N, D]."""
    parts = []
    for split in splits:
        column = version.table(split, [name])[name].combine_chunks()
        parts.append(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size))
    return np.concatenate(parts).astype(np.float32, copy=False)


def vector_features(vectors: Floats) -> Floats:
    """Standardised columns, missing ones at their mean, cut at 10 standard deviations; by principal axes beyond 256 columns."""
    if not len(vectors) or not vectors.shape[1]:
        return np.zeros((len(vectors), 1), dtype=np.float32)
    known = np.isfinite(vectors)
    rows = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, vectors, 0.0).sum(axis=0, dtype=np.float64) / rows
    centred = np.where(known, vectors - mean, 0.0)
    spread = np.sqrt((centred**2).sum(axis=0) / rows)
    scaled = np.clip(centred / np.where(spread > 0, spread, 1.0), -SPREAD, SPREAD).astype(np.float32)
    return by_main_axes(scaled) if scaled.shape[1] > LONGEST else scaled


def by_main_axes(scaled: Floats) -> Floats:
    """Principal components, as many as 128, of rows that are centred already."""
    from sklearn.decomposition import PCA

    step = max(1, len(scaled) // MOST_FITTED)
    axes = min(AXES, len(scaled[::step]), scaled.shape[1])
    return np.asarray(PCA(axes, random_state=0).fit(scaled[::step]).transform(scaled), dtype=np.float32)
