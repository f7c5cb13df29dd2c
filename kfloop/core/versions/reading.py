"""Reading a dataset version: Arrow splits, memory-mapped, and the card that says what they hold."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.versions.keys import Hasher
from kfloop.core.versions.splitting import CODES, SPLITS
from kfloop.core.versions.writing import CARD
from kfloop.core.windows import windows
from kfloop.errors import InputError, StateError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import pyarrow as pa

HEAVY = frozenset({"image", "audio", "vector", "nodes", "graphs"})


@dataclass(frozen=True, kw_only=True)
class Split:
    """Rows of one split of an image version.

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


class DatasetVersion:
    """A dataset version on disk; splits are memory-mapped when asked for.

    Args:
        folder: Its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.card: dict[str, Any] = json.loads((folder / CARD).read_text(encoding="utf-8"))
            _ = self.digest, self.labels, self.modality, self.task, self.schema, self.inputs
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(
                f"'{folder}' is no dataset version: {error}", hint="make one with: kfloop step ingest"
            ) from error

    @property
    def digest(self) -> str:
        """Content digest."""
        return str(self.card["digest"])

    @property
    def modality(self) -> str:
        """What a row is, such as ``image`` or ``table``."""
        return str(self.card["modality"])

    @property
    def task(self) -> str:
        """``multiclass``, ``multilabel``, ``regression`` or ``forecasting``."""
        return str(self.card["task"])

    @property
    def labels(self) -> list[str]:
        """Class names by index; empty for regression and forecasting."""
        return list(self.card["labels"])

    @property
    def schema(self) -> dict[str, Any]:
        """Facts about the inputs, such as ``image_shape`` or ``sample_rate``."""
        return dict(self.card["schema"])

    @property
    def inputs(self) -> list[str]:
        """Names of the input columns."""
        return list(self.card["inputs"])

    @property
    def facts(self) -> list[str]:
        """Names of the fact columns."""
        return list(self.card["facts"])

    @property
    def splits(self) -> list[str]:
        """The splits that exist: train, validation, test, and ``rest`` for rows outside all official ones."""
        return [split for split in CODES if split in self.card["splits"]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels.

        Raises:
            InputError: The version does not hold images.
        """
        if self.modality != "image":
            raise InputError(
                f"dataset version '{self.digest}' holds {self.modality} rows, but images are needed here",
                hint="this step works on images so far; run the others with: kfloop run --until check_labels",
                modality=self.modality,
            )
        height, width, channels = self.schema["image_shape"]
        return int(height), int(width), int(channels)

    def path(self, split: str) -> Path:
        """The Arrow stream file of a split; ``datasets.Dataset.from_file`` reads it too."""
        return self.folder / f"{split}.arrow"

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a split, memory-mapped: what is not touched is not read.

        Args:
            split: Its name.
            columns: Names; null means all.

        Raises:
            StateError: The file is missing or damaged.
        """
        import pyarrow as pa

        path = self.path(split)
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
            return table if columns is None else table.select(list(columns))
        except (OSError, KeyError, ValueError, pa.ArrowException) as error:
            raise StateError(
                f"'{path}' cannot be read: {error}", hint="bring it back with DVC, or ingest again"
            ) from error

    def batches(self, split: str) -> Iterator[pa.Table]:
        """Rows of a split, a record batch at a time."""
        import pyarrow as pa

        for batch in self.table(split).to_batches():
            yield pa.Table.from_batches([batch])

    def manifest(self) -> pa.Table:
        """All rows of all splits without their heavy inputs, with a column ``split``."""
        import pyarrow as pa

        parts = []
        for split in self.splits:
            table = self.table(split)
            light = [name for name in table.column_names if name not in self.inputs or self.modality not in HEAVY]
            table = table.select(light)
            name = pa.DictionaryArray.from_arrays(np.zeros(table.num_rows, np.int32), pa.array([split]))
            parts.append(table.append_column("split", name.dictionary_decode()))
        return pa.concat_tables(parts)

    def windows(self, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Windows of a time series that lie in one split as a whole; see :func:`kfloop.core.windows.windows`.

        Returns:
            Inputs [N, context, channels], targets [N, horizon, channels], first row of each window int64 [N].

        Raises:
            InputError: The version holds something else.
        """
        if self.modality != "series":
            raise InputError(
                f"dataset version '{self.digest}' holds {self.modality} rows: only a time series has windows",
                hint="read its rows with table()",
                modality=self.modality,
            )
        told, table = self.schema["series"], self.table(split)
        values = np.stack([table[name].to_numpy() for name in told["channels"]], axis=1)
        groups = np.array(table["group"].to_pylist()) if "group" in table.column_names else None
        return windows(values, groups, told["context"], told["horizon"], told["stride"])

    def beside(self, name: str) -> pa.Table | None:
        """A table beside the rows, such as ``edges`` or ``votes``; null where there is none."""
        return self.table(name) if name in self.card.get("extras", []) else None

    def split(self, name: str) -> Split:
        """Rows of a split of an image version with classes.

        Raises:
            InputError: The version holds something else.
            StateError: The file is missing or damaged.
        """
        shape = self.image_shape
        if self.task != "multiclass":
            raise InputError(
                f"dataset version '{self.digest}' is for {self.task}, but classes are needed here",
                hint="set data.task: multiclass if each image has one class",
                task=self.task,
            )
        table = self.table(name)
        flat = table["image"].combine_chunks()
        if flat.type.list_size != np.prod(shape):
            raise StateError(
                f"'{self.path(name)}' has {flat.type.list_size} values in each image, but the card says {list(shape)}",
                hint="bring the version back with DVC, or ingest again",
            )
        pixels = flat.flatten().to_numpy(zero_copy_only=False) if table.num_rows else np.empty(0, np.uint8)
        return Split(
            ids=np.array(table["id"].to_pylist(), dtype=str),
            images=pixels.reshape(table.num_rows, *shape),
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
    hasher = Hasher.of(version)
    keys: dict[str, list[np.ndarray]] = {}
    for split in version.splits:
        for table in version.batches(split):
            content, lanes, _ = hasher.contents(table)
            if not table["content"].combine_chunks().equals(content):
                keys = {}
                break
            keys.setdefault(split, []).append(hasher.keys(table, lanes))
    arrow = version.table(SPLITS[0]).schema
    extras = {name: version.table(name) for name in version.card.get("extras", [])}
    if hasher.digest(arrow, keys, extras) != version.digest:
        raise StateError(
            f"dataset version '{folder}' is damaged: its content is not '{version.digest}'",
            hint="remove that folder and ingest again, or bring it back from DVC's remote: kfloop restore --dataset DIGEST",
        )
    return version
