"""One row of facts for each image: what a suite of expectations can judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.versions import SPLITS

if TYPE_CHECKING:
    import pandas as pd

    from kfloop.core.versions import DatasetVersion


def build_manifest(version: DatasetVersion) -> pd.DataFrame:
    """The manifest of a dataset version.

    Columns: id, split, label (name), origin, mean and std of the pixels (0 to 255), sharpness (variance of the Laplacian), constant (no two
    pixels differ), content.
    """
    import pandas as pd

    names = np.array(version.labels)
    parts = []
    for split in SPLITS:
        rows = version.split(split)
        grey = rows.images.astype(np.float64).mean(axis=3)
        flat = grey.reshape(len(grey), -1) if len(grey) else np.empty((0, 1))
        parts.append(
            pd.DataFrame(
                {
                    "id": rows.ids,
                    "split": split,
                    "label": names[rows.labels],
                    "origin": rows.origin,
                    "mean": flat.mean(axis=1),
                    "std": flat.std(axis=1),
                    "sharpness": _sharpness(grey),
                    "constant": np.ptp(flat, axis=1) == 0,
                    "content": rows.content,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _sharpness(grey: np.ndarray) -> np.ndarray:
    """Variance of the 4-neighbour Laplacian of each image [N, H, W]; 0 for images without an inside."""
    if min(grey.shape[1:], default=0) < 3:  # noqa: PLR2004 - a Laplacian needs a neighbour on each side
        return np.zeros(len(grey))
    inside = grey[:, 1:-1, 1:-1]
    laplacian = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:] - 4 * inside
    return np.asarray(laplacian.reshape(len(grey), -1).var(axis=1))
