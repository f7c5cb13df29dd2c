"""A folder of image files, and the digits that scikit-learn ships."""

from __future__ import annotations

import hashlib
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.columns import choose_labels, choose_task, row_label, row_types, times
from kfloop.components.ingest.files.listing import files_digest, has_files, list_files
from kfloop.components.ingest.limits import smallest
from kfloop.components.ingest.readers.images.decoding import all_grey, choose_side, decode
from kfloop.components.ingest.readers.images.facts import FACTS, fact_types, picture_facts
from kfloop.components.ingest.source import FILES_PER_BATCH, Batch, Source
from kfloop.core.versions import image_column
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.components.ingest.files.items import FileItem
    from kfloop.core.sections import DataConfig

DIGITS = "digits"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
_KINDS = {"metadata": "image_table"}


def recognise(path: Path, config: DataConfig) -> bool:
    """Whether ``path`` is a folder with image files."""
    return config.modality in {"auto", "image"} and has_files(path, SUFFIXES)


def open_source(path: Path, config: DataConfig, like: Source | None = None) -> Source:
    """Open a folder of images; headers are read, and bytes for the digest.

    Args:
        path: The folder: class subfolders, ``metadata.csv``, names with a pattern, or split folders of class folders.
        config: What the loop file says; ``image_size`` and ``channels`` say what pictures are turned into.
        like: The source whose classes and shape the images must have.

    Raises:
        InputError: No images, no labels, one class only, or a class that ``like`` does not have.
        ConfigError: ``data.pattern`` cannot be read.
    """
    listing = list_files(path, config, SUFFIXES, what="image")
    kept = smallest([item.id for item in listing.items], config.limit)
    items = [listing.items[row] for row in kept]
    task = choose_task(listing, config, like)
    labels = choose_labels(listing.items, task, str(path), like)
    shape = list(like.schema["image_shape"]) if like else _choose_shape([item.path for item in items], config)
    foreign = listing.foreign
    notes = (
        [f"{len(foreign)} files were not used, such as '{foreign[0]}': not an image by its suffix"] if foreign else []
    )
    return Source(
        kind=_KINDS.get(listing.layout, "image_folder"),
        modality="image",
        task=task,
        uri=str(path),
        labels=labels,
        n=len(listing.items) + len(listing.unlabelled),
        digest=files_digest(listing.items),
        schema={"image_shape": shape},
        inputs=("image",),
        facts=FACTS,
        batches=lambda: _batches(items, listing.unlabelled, task, labels, shape),
        suggestions=listing.suggestions,
        notes=(*listing.notes, *notes),
    )


def _choose_shape(paths: Sequence[Path], config: DataConfig) -> list[int]:
    """Side, side, channels: as told, else from the files."""
    side = config.image_size or choose_side(paths)
    return [side, side, config.channels or (1 if all_grey(paths) else 3)]


def _batches(
    items: Sequence[FileItem],
    unlabelled: Sequence[tuple[str, str]],
    task: str,
    labels: Sequence[str],
    shape: Sequence[int],
) -> Iterator[Batch]:
    index = {name: place for place, name in enumerate(labels)}
    told = times(items) or [None] * len(items)
    types = row_types(items, told, task) | fact_types()
    rows = zip(items, told, strict=True)
    aside = [{"id": name, "reason": reason} for name, reason in unlabelled]
    while chunk := list(islice(rows, FILES_PER_BATCH)):
        columns: dict[str, list[Any]] = {name: [] for name in types}
        images = np.empty((len(chunk), *shape), dtype=np.uint8)
        for item, moment in chunk:
            try:
                label, picture = row_label(item, task, index), decode(item.path, shape[0], shape[2])
            except InputError as error:
                aside.append({"id": item.id, "label": item.label, "reason": error.message})
                continue
            images[len(columns["id"])] = picture.pixels
            row = {"id": item.id, "label": label, "group": item.group, "time": moment, "split": item.split}
            for name, column in columns.items():
                column.append(picture.facts[name] if name in picture.facts else row[name])
        table = {name: _array(values, types[name]) for name, values in columns.items()}
        yield Batch(table=_table(images[: len(columns["id"])], table), quarantined=aside)
        aside = []


def digits_source(config: DataConfig) -> Source:
    """The handwritten digits of scikit-learn."""
    images, labels = digit_arrays()
    ids = [f"{DIGITS}/{row:04d}" for row in range(len(labels))]
    kept = smallest(ids, config.limit)
    side, channels = config.image_size or images.shape[1], config.channels or 1

    def batches() -> Iterator[Batch]:
        facts = [picture_facts(image, size=image.size, kind="array", mode="L") for image in images[kept]]
        sized = images[kept] if side == images.shape[1] else np.stack([_resized(image, side) for image in images[kept]])
        columns = {
            "id": _array([ids[row] for row in kept], None),
            "label": _array(labels[kept], None),
        } | {name: _array([fact[name] for fact in facts], kind) for name, kind in fact_types().items()}
        yield Batch(table=_table(np.repeat(sized, channels, axis=3), columns))

    return Source(
        kind=DIGITS,
        modality="image",
        task="multiclass",
        uri=DIGITS,
        labels=tuple(str(digit) for digit in range(10)),
        n=len(labels),
        digest=hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest(),
        schema={"image_shape": [side, side, channels]},
        inputs=("image",),
        facts=FACTS,
        batches=batches,
    )


def digit_arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The 1797 handwritten digits of scikit-learn: uint8 [N, 8, 8, 1] with 0..16 stretched to 0..255, and labels int64 [N]."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    return images, digits.target.astype(np.int64)


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BILINEAR))[..., np.newaxis]


def _array(values: Any, kind: pa.DataType | None) -> pa.Array:
    import pyarrow as pa

    return pa.array(values, type=kind)


def _table(images: np.ndarray, columns: dict[str, Any]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"id": columns["id"], "image": image_column(images)} | columns)
