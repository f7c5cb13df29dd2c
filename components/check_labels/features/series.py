"""Rows of a series: their values, how they changed, and what the rows before them were like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

WINDOWS = (4, 16, 64)
MOST_COLUMNS = 256


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all rows, in order, standardised, float64 [N, D]; no row looks into another split, series or the future."""
    from kfloop.components.check_labels.features.vector import vector_features

    channels = [name for name in version.inputs if name != "time"]
    parts = []
    for split in splits:
        table = version.table(split)
        values = np.stack([table[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in channels], axis=1)
        grouped = "group" in table.column_names
        groups = (
            np.unique(table["group"].to_pylist(), return_inverse=True)[1]
            if grouped
            else np.zeros(len(values), np.int64)
        )
        part: Floats | None = None
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            described = series_features(values[rows])
            part = np.empty((len(values), described.shape[1])) if part is None else part
            part[rows] = described
        if part is not None:
            parts.append(part)
    joined = np.concatenate(parts) if parts else np.empty((0, 1))
    return np.asarray(vector_features(joined.astype(np.float32)), dtype=np.float64)


def series_features(values: Floats) -> Floats:
    """Features of rows in time order, [T, C] to [T, D]: value, last change, and mean and deviation over the last 4, 16 and 64 rows."""
    filled = np.nan_to_num(values, nan=0.0)
    windows = WINDOWS if values.shape[1] * (2 + 2 * len(WINDOWS)) <= MOST_COLUMNS else WINDOWS[1:2]
    parts = [filled, np.diff(filled, axis=0, prepend=filled[:1])]
    centre = filled.mean(axis=0, keepdims=True)
    sums = _sums(filled - centre), _sums((filled - centre) ** 2)
    for width in windows:
        count = np.minimum(np.arange(1, len(values) + 1), width)[:, None]
        mean, square = ((total[width:] - total[:-width]) / count for total in (_padded(part, width) for part in sums))
        parts += [mean + centre, np.sqrt(np.maximum(square - mean**2, 0.0))]
    return np.concatenate(parts, axis=1)


def _sums(values: Floats) -> Floats:
    return np.cumsum(values, axis=0)


def _padded(total: Floats, width: int) -> Floats:
    """Zeros before the first row, so that a window may begin there."""
    return np.concatenate([np.zeros((width, total.shape[1])), total])
