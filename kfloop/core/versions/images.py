"""Writing labelled images that are in memory as a dataset version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.versions.assigning import Splitter
from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import Cutoffs
from kfloop.core.versions.writing import VersionWriter

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

AT_ONCE = 1000


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Labelled images.

    Attributes:
        ids: Where each row came from, unique.
        images: uint8 [N, H, W, C].
        labels: Class index, int64 [N].
        origin: ``base`` or ``fresh`` of each row.
    """

    ids: Sequence[str]
    images: np.ndarray
    labels: np.ndarray
    origin: Sequence[str]


def write_version(
    out: Path, *, name: str, rows: Rows, labels: Sequence[str], validation: float, test: float
) -> dict[str, Any]:
    """Write images into an empty folder as a version, split at random by content.

    Args:
        out: The folder.
        name: Name of the dataset.
        rows: All rows.
        labels: Class names by index.
        validation: Share of the validation split.
        test: Share of the test split.

    Returns:
        The card.

    Raises:
        InputError: A class has no row in one of the splits.
    """
    shape = [int(size) for size in rows.images.shape[1:]]
    writer = VersionWriter(
        out,
        name=name,
        hasher=Hasher(
            modality="image", task="multiclass", labels=labels, schema={"image_shape": shape}, inputs=["image"]
        ),
        splitter=Splitter(Cutoffs(method="random", validation=validation, test=test), labels, "image"),
    )
    for start in range(0, len(rows.ids), AT_ONCE):
        writer.add(image_table(rows, slice(start, start + AT_ONCE)))
    return writer.finish()


def image_table(rows: Rows, part: slice) -> pa.Table:
    """Some rows as an Arrow table with the columns id, image, label, origin."""
    import pyarrow as pa

    images = np.ascontiguousarray(rows.images[part])
    return pa.table(
        {
            "id": pa.array([str(name) for name in rows.ids[part]], type=pa.string()),
            "image": image_column(images),
            "label": pa.array(np.asarray(rows.labels[part], dtype=np.int64)),
            "origin": pa.array([str(name) for name in rows.origin[part]], type=pa.string()),
        }
    )


def image_column(images: np.ndarray) -> pa.Array:
    """Images uint8 [N, H, W, C] as an Arrow array of fixed-size lists."""
    import pyarrow as pa

    width = int(np.prod(images.shape[1:]))
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(images).reshape(-1), type=pa.uint8()), width)
