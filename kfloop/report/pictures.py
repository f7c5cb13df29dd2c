"""Rows of the run's dataset version to look at, found by their ids, and images as PNG data URIs: the only way into a file that loads nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import KfloopError
from kfloop.report.values import compact, items, mapping, number, text

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

SPLITS = (
    "test",
    "validation",
    "train",
    "rest",
)  # the order in which an id is looked for: most examples shown are test rows
LONGEST_SIDE = 96  # pixels: a report with 100 pictures stays below 2 MB
LOOKED_AT = 20_000  # rows at the head of a split among which examples are chosen
CLASSES = 30  # classes that examples are shown of
COUNTED = 2_000_000  # rows up to which origins are counted by split
DAMAGE = (KfloopError, ArithmeticError, AttributeError, OSError, ValueError, TypeError, LookupError, RuntimeError)
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One example that can be looked at.

    Attributes:
        id: Id of the row.
        label: Its given label, in words.
        uri: PNG as a ``data:`` URI.
    """

    id: str
    label: str
    uri: str


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a version.

    Attributes:
        split: Where it is.
        table: Rows, this one among them.
        place: Its position there.
    """

    split: str
    table: pa.Table
    place: int

    def value(self, name: str) -> Any:
        """A scalar of the row, None where there is no such column."""
        return self.table[name][self.place].as_py() if name in self.table.column_names else None

    def array(self, name: str) -> NDArray[Any]:
        """A list of the row as an array, without making a Python number of each value."""
        return self.table[name][self.place].values.to_numpy(zero_copy_only=False)


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The rows of one dataset version, read at the first use.

    Attributes:
        folder: Folder of the dataset version, None if the run has none.
    """

    folder: Path | None

    @cached_property
    def _read(self) -> tuple[DatasetVersion | None, str]:
        if self.folder is None:
            return None, "the run left no dataset version"
        try:
            from kfloop.core.versions import read_version

            version = read_version(self.folder)
            # A damaged card or split shows itself only when it is asked for something: ask here, where that is caught.
            _ = (version.labels, version.schema, {**version.card}, [version.table(name) for name in version.splits])
        except DAMAGE as error:
            return None, text(error) or type(error).__name__
        return version, ""

    @property
    def version(self) -> DatasetVersion | None:
        """The dataset version, None if it cannot be read."""
        return self._read[0]

    @property
    def problem(self) -> str:
        """Why there are no examples, empty if there may be."""
        return self._read[1]

    @property
    def labels(self) -> list[str]:
        """Names of the classes, empty without classes or if the dataset version cannot be read."""
        return [] if self.version is None else [text(name, limit=60) for name in self.version.labels]

    @property
    def card(self) -> dict[str, Any]:
        """The dataset version's card, empty if it cannot be read."""
        return {} if self.version is None else dict(self.version.card)

    @property
    def has_clock(self) -> bool:
        """Whether the times of the rows are moments, and not mere numbers."""
        import pyarrow as pa

        if self.version is None or not self.version.splits:
            return False
        schema = self.version.table(self.version.splits[0]).schema
        return "time" in schema.names and bool(pa.types.is_timestamp(schema.field("time").type))

    def origins(self, split: str) -> dict[str, int]:
        """Rows of a split by where they come from, ``base`` or ``fresh``; empty for a very large version."""
        import pyarrow.compute as pc

        if self.version is None or (number(self.card.get("n_rows")) or 0) > COUNTED:
            return {}
        counted = pc.value_counts(self.version.table(split)["origin"]).to_pylist()
        return dict(sorted((str(line["values"]), int(line["counts"])) for line in counted))

    def rows_by_id(self, ids: Iterable[Any]) -> dict[str, Row]:
        """The rows that have one of these ids; never raises."""
        import pyarrow as pa
        import pyarrow.compute as pc

        wanted = {text(identity) for identity in ids} - {""}
        found: dict[str, Row] = {}
        if self.version is None or not wanted:
            return found
        try:
            for split in (name for name in SPLITS if name in self.version.splits):
                table = self.version.table(split)
                places = pc.indices_nonzero(pc.is_in(table["id"], value_set=pa.array(sorted(wanted), pa.string())))
                part = table.take(places).combine_chunks()
                for place, identity in enumerate(part["id"].to_pylist()):
                    found.setdefault(str(identity), Row(split=split, table=part, place=place))
        except DAMAGE:
            return {}  # the section then shows its rows without pictures, and `problem` of the data section says why
        return found

    def head(self, split: str, n: int) -> list[Row]:
        """The first rows of a split; the order of a version never changes."""
        if self.version is None:
            return []
        part = self.version.table(split).slice(0, n).combine_chunks()
        return [Row(split=split, table=part, place=place) for place in range(part.num_rows)]

    def head_by_class(self, split: str, per_class: int) -> dict[int, list[Row]]:
        """The first rows of each of the first classes among the head of a split, by index of the class."""
        import numpy as np

        if self.version is None or self.version.task != "multiclass":
            return {}
        table = self.version.table(split).slice(0, LOOKED_AT)
        given = table["label"].to_numpy()
        chosen = {}
        for label in range(min(len(self.version.labels), CLASSES)):
            part = table.take(np.flatnonzero(given == label)[:per_class]).combine_chunks()
            chosen[label] = [Row(split=split, table=part, place=place) for place in range(part.num_rows)]
        return chosen

    def by_id(self, ids: Iterable[Any]) -> dict[str, Picture]:
        """The pictures of the rows that have one, by id; none if the rows are not images."""
        if self.version is None or self.version.modality != "image":
            return {}
        found = self.rows_by_id(ids)
        try:
            return {
                name: Picture(id=name, label=self.given(row), uri=self.image_uri(row)) for name, row in found.items()
            }
        except DAMAGE:
            return {}

    def given(self, row: Row) -> str:
        """The label of a row in words."""
        return label_words(row.value("label"), "" if self.version is None else self.version.task, self.labels)

    def image_uri(self, row: Row) -> str:
        """The image of a row."""
        shape = () if self.version is None else self.version.image_shape
        return png_uri(row.array("image").reshape(shape))


def label_words(value: Any, task: str, names: list[str]) -> str:
    """A label as people say it: the name of a class, several names, or a number; names are left as they are."""
    if isinstance(value, list | tuple):
        return ", ".join(label_words(item, "multiclass", names) for item in value) or "none of them"
    if task in {"regression", "forecasting"} and number(value) is not None:
        return compact(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names):
        return names[value]
    return compact(value) if isinstance(value, float) else text(value, limit=60)


def class_counts(card: Mapping[str, Any], labels: list[str]) -> dict[str, list[int]]:
    """Rows of each class by split as the card or the report of the ingest counted them, in the order of ``labels``."""
    names = [str(name) for name in items(card.get("labels"))]
    if not names or len(names) != len(labels):
        return {}
    found = {text(split): mapping(sizes) for split, sizes in mapping(card.get("per_class")).items()}
    return {split: [round(number(sizes.get(name)) or 0) for name in names] for split, sizes in found.items() if sizes}


def png_uri(image: NDArray[np.uint8], longest: int = LONGEST_SIDE) -> str:
    """An image as a PNG ``data:`` URI, made smaller if its longer side has more than ``longest`` pixels.

    Args:
        image: Pixels, uint8 [H, W, C] with C of 1, 3 or 4.
        longest: Largest side, in pixels.

    Raises:
        ValueError: It has another number of channels.
    """
    from PIL import Image

    height, width, channels = image.shape
    if channels not in _CHANNELS:
        message = f"rows of shape {tuple(image.shape)} are not pictures"
        raise ValueError(message)
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    if max(height, width) > longest:
        picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
