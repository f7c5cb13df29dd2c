"""Descriptions of rows as vectors, one module for each modality: what stand-in models, outliers and near duplicates work on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

MODULES = ("audio", "graphs", "image", "nodes", "series", "table", "text", "vector")


def features(version: DatasetVersion, splits: Sequence[str]) -> NDArray[np.floating]:
    """Finite features of all rows of some splits, in the order of the splits.

    Args:
        version: The dataset version.
        splits: Names of splits.

    Returns:
        float32 or float64 [N, D].

    Raises:
        InputError: The version holds something kfloop cannot describe.
    """
    if version.modality not in MODULES:
        raise InputError(
            f"dataset version '{version.digest}' holds '{version.modality}' rows, which cannot be described",
            hint=nearest(version.modality, MODULES),
        )
    module = import_module(f"{__name__}.{version.modality}")
    described: NDArray[np.floating] = module.describe(version, splits)
    return np.nan_to_num(described, nan=0.0, posinf=0.0, neginf=0.0)
