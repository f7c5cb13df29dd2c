"""Dataset versions: immutable folders of Arrow splits and a card, named by the digest of their content.

A row's split depends on its pixels alone, by a stable hash: it never changes between versions, and exact duplicates always fall into
the same split, so that no test row was trained on.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.artifacts import DIGEST_LENGTH
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SPLITS = ("train", "validation", "test")
CARD = "card.json"
QUARANTINE = "quarantine.jsonl"
HASH_RANGE = float(1 << 64)


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one split.

    Attributes:
        ids: Where each row came from, str [N].
        images: uint8 [N, H, W, C].
        labels: Class index, int64 [N].
        origin: ``base`` or ``fresh``, str [N].
        content: sha256 of the pixels, str [N].
    """

    ids: np.ndarray
    images: np.ndarray
    labels: np.ndarray
    origin: np.ndarray
    content: np.ndarray

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)


def content_hash(image: np.ndarray) -> str:
    """sha256 of an image's shape and pixels (uint8)."""
    head = ",".join(map(str, image.shape)).encode()
    return hashlib.sha256(head + b"\0" + np.ascontiguousarray(image).tobytes()).hexdigest()


def stable_share(text: str, purpose: str) -> float:
    """A number in [0, 1) that depends on nothing but ``text`` and ``purpose``."""
    return int.from_bytes(hashlib.blake2b(f"{purpose}\0{text}".encode(), digest_size=8).digest(), "big") / HASH_RANGE


def split_of(content: str, validation: float, test: float) -> str:
    """The split of a row with these pixels."""
    share = stable_share(content, "split")
    if share < test:
        return "test"
    return "validation" if share < test + validation else "train"


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows that are to become a version.

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


def version_digest(rows: Rows, content: Sequence[str], splits: Sequence[str], labels: Sequence[str]) -> str:
    """Content digest: what is in the version, whatever the order, the paths or the encoding."""
    lines = sorted(
        f"{pixels}\0{labels[label]}\0{origin}\0{split}"
        for pixels, label, origin, split in zip(content, rows.labels, rows.origin, splits, strict=True)
    )
    head = json.dumps({"labels": list(labels), "shape": [int(size) for size in rows.images.shape[1:]]})
    return hashlib.sha256("\n".join([head, *lines]).encode()).hexdigest()[:DIGEST_LENGTH]


def write_version(
    out: Path,
    *,
    name: str,
    rows: Rows,
    labels: Sequence[str],
    validation: float,
    test: float,
    sources: Sequence[Mapping[str, Any]] = (),
    quarantined: Sequence[Mapping[str, Any]] = (),
    lineage: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write a version into an empty folder.

    Args:
        out: The folder.
        name: Name of the dataset.
        rows: All rows.
        labels: Class names by index.
        validation: Share of the validation split.
        test: Share of the test split.
        sources: Where the rows came from.
        quarantined: What was set aside, with the reason.
        lineage: Revisions of code and data.

    Returns:
        The card.

    Raises:
        InputError: A class has no row in one of the splits.
    """
    content = [content_hash(image) for image in rows.images]
    splits = np.array([split_of(text, validation, test) for text in content], dtype=str)
    per_class = {
        split: {label: int(((rows.labels == index) & (splits == split)).sum()) for index, label in enumerate(labels)}
        for split in SPLITS
    }
    _refuse_empty(per_class)
    order = np.lexsort((np.array(rows.ids), np.array(content)))
    for split in SPLITS:
        _write_arrow(out / f"{split}.arrow", rows, content, order[splits[order] == split])
    card = {
        "digest": version_digest(rows, content, splits.tolist(), labels),
        "name": name,
        "task": "image_classification",
        "labels": list(labels),
        "image_shape": [int(size) for size in rows.images.shape[1:]],
        "n_rows": len(content),
        "splits": {split: int((splits == split).sum()) for split in SPLITS},
        "per_class": per_class,
        "origins": dict(Counter(rows.origin)),
        "quarantined": len(quarantined),
        "sources": [dict(source) for source in sources],
        "lineage": dict(lineage or {}),
    }
    (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    lines = "".join(json.dumps(dict(row), sort_keys=True) + "\n" for row in quarantined)
    (out / QUARANTINE).write_text(lines, encoding="utf-8")
    return card


def _refuse_empty(per_class: Mapping[str, Mapping[str, int]]) -> None:
    for split, counts in per_class.items():
        for label, count in counts.items():
            if count == 0:
                total = sum(part[label] for part in per_class.values())
                raise InputError(
                    f"class '{label}' has {total} usable images, and none of them falls into the {split} split",
                    hint="add images of that class (30 or more are safe), or remove the class",
                    label=label,
                    split=split,
                )


def _write_arrow(path: Path, rows: Rows, content: Sequence[str], picked: np.ndarray) -> None:
    from datasets import Features, List, Value
    from datasets.arrow_writer import ArrowWriter

    width = int(np.prod(rows.images.shape[1:]))
    features = Features(
        {
            "id": Value("string"),
            "image": List(Value("uint8"), length=width),
            "label": Value("int64"),
            "origin": Value("string"),
            "content": Value("string"),
        }
    )
    with ArrowWriter(path=str(path), features=features) as writer:
        if len(picked) == 0:
            writer.write_table(features.arrow_schema.empty_table())
        for start in range(0, len(picked), 1000):
            part = picked[start : start + 1000]
            writer.write_batch(
                {
                    "id": [str(rows.ids[row]) for row in part],
                    "image": list(rows.images[part].reshape(len(part), width)),
                    "label": [int(label) for label in rows.labels[part]],
                    "origin": [str(rows.origin[row]) for row in part],
                    "content": [content[row] for row in part],
                }
            )
        writer.finalize()


class DatasetVersion:
    """A dataset version on disk; splits are memory-mapped when asked for.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
            _ = self.digest, self.labels, self.image_shape
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"'{folder}' is no dataset version: {error}", hint="make one with: kfloop step ingest"
            ) from error

    @property
    def digest(self) -> str:
        """Content digest."""
        return str(self.card["digest"])

    @property
    def labels(self) -> list[str]:
        """Class names by index."""
        return list(self.card["labels"])

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.card["image_shape"]
        return int(height), int(width), int(channels)

    def split(self, name: str) -> Split:
        """Rows of ``train``, ``validation`` or ``test``."""
        import pyarrow as pa

        path = self.folder / f"{name}.arrow"
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
            flat = table["image"].combine_chunks()
            pixels = flat.flatten().to_numpy(zero_copy_only=False) if table.num_rows else np.empty(0, np.uint8)
            images = pixels.reshape(table.num_rows, *self.image_shape)
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise StateError(
                f"'{path}' cannot be read: {error}", hint="bring it back with DVC, or ingest again"
            ) from error
        return Split(
            ids=np.array(table["id"].to_pylist(), dtype=str),
            images=images,
            labels=table["label"].to_numpy().astype(np.int64),
            origin=np.array(table["origin"].to_pylist(), dtype=str),
            content=np.array(table["content"].to_pylist(), dtype=str),
        )


def read_version(folder: Path) -> DatasetVersion:
    """The dataset version in ``folder``.

    Raises:
        StateError: There is none.
    """
    return DatasetVersion(folder)


def verify_version(folder: Path) -> DatasetVersion:
    """The dataset version in ``folder``, after its content was hashed again.

    Raises:
        StateError: It is no version, or not the one its card names.
    """
    version = read_version(folder)
    parts = {name: version.split(name) for name in SPLITS}
    rows = Rows(
        ids=[],
        images=np.concatenate([part.images for part in parts.values()]),
        labels=np.concatenate([part.labels for part in parts.values()]),
        origin=[str(origin) for part in parts.values() for origin in part.origin],
    )
    content = [content_hash(image) for image in rows.images]
    splits = [name for name, part in parts.items() for _ in range(len(part))]
    if version_digest(rows, content, splits, version.labels) != version.digest:
        raise StateError(
            f"dataset version '{folder}' is damaged: its content is not '{version.digest}'",
            hint="remove that folder and ingest again, or restore it from DVC's remote",
        )
    return version
