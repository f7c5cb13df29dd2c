"""Examples of a dataset version as PNG data URIs, the only way a picture gets into a file that loads nothing."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kfloop.errors import KfloopError
from kfloop.report.values import text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion, Split

SPLITS = ("test", "validation", "train")  # the order in which an id is looked for: most examples shown are test rows
LONGEST_SIDE = 96  # pixels: a report with 100 pictures stays below 2 MB
_CHANNELS = (1, 3, 4)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One example that can be looked at.

    Attributes:
        id: Id of the row.
        label: Index of its given class.
        uri: PNG as a ``data:`` URI.
    """

    id: str
    label: int
    uri: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The images of one dataset version, read at the first use and never raising.

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
            # A damaged card shows itself only when it is asked for something: ask here, where that is caught.
            _ = (version.labels, version.image_shape, {**version.card})
        except (KfloopError, OSError, ValueError, TypeError, LookupError, RuntimeError) as error:
            return None, text(error) or type(error).__name__
        return version, ""

    @cached_property
    def _splits(self) -> dict[str, Split]:
        return {}

    def _split(self, name: str) -> Split:
        """A split, read once: each picture asks for it again."""
        version = self._read[0]
        if version is None:
            message = self._read[1]
            raise LookupError(message)
        if name not in self._splits:
            self._splits[name] = version.split(name)
        return self._splits[name]

    @property
    def problem(self) -> str:
        """Why there are no pictures, empty if there may be."""
        return self._read[1] or self._shape_problem

    @property
    def _shape_problem(self) -> str:
        version = self._read[0]
        if version is None or (version.image_shape[2] in _CHANNELS):
            return ""
        return f"rows of shape {tuple(version.image_shape)} are not pictures"

    @property
    def labels(self) -> list[str]:
        """Names of the classes, empty if the dataset version cannot be read."""
        version = self._read[0]
        return [] if version is None else [text(name, limit=60) for name in version.labels]

    @property
    def card(self) -> dict[str, Any]:
        """The dataset version's card, empty if it cannot be read."""
        version = self._read[0]
        return {} if version is None else dict(version.card)

    def class_counts(self) -> dict[str, list[int]]:
        """Rows of each class by split, empty if the dataset version cannot be read."""
        import numpy as np

        version = self._read[0]
        if version is None:
            return {}
        size = len(version.labels)
        return {
            name: [int(found) for found in np.bincount(self._split(name).labels, minlength=size)[:size]]
            for name in reversed(SPLITS)
        }

    def origins(self, split: str) -> dict[str, int]:
        """Rows of a split by where they come from, ``base`` or ``fresh``."""
        version = self._read[0]
        return {} if version is None else dict(sorted(Counter(str(name) for name in self._split(split).origin).items()))

    @cached_property
    def _index(self) -> dict[str, tuple[str, int]]:
        version = self._read[0]
        if version is None or self._shape_problem:
            return {}
        places: dict[str, tuple[str, int]] = {}
        for name in SPLITS:
            for row, identity in enumerate(self._split(name).ids):
                places.setdefault(str(identity), (name, row))
        return places

    def by_id(self, ids: Iterable[Any]) -> dict[str, Picture]:
        """The pictures of the rows that have one, by id."""
        try:
            wanted = [text(identity) for identity in ids]
            return {name: self._picture(*self._index[name]) for name in wanted if name in self._index}
        except (KfloopError, OSError, ValueError, TypeError, LookupError, RuntimeError):
            return {}  # the section then shows its rows without pictures, and `problem` of the data section says why

    def sample(self, per_class: int, *, split: str = "test") -> dict[int, list[Picture]]:
        """The first pictures of each class in the order of their ids: the same rows for the same dataset version.

        Args:
            per_class: How many at most.
            split: Where from.
        """
        import numpy as np

        version = self._read[0]
        if version is None or self._shape_problem:
            return {}
        part = self._split(split)
        order = np.argsort(part.ids, kind="stable")
        chosen: dict[int, list[Picture]] = {}
        for label in range(len(version.labels)):
            rows = [int(row) for row in order if part.labels[row] == label][:per_class]
            chosen[label] = [self._picture(split, row) for row in rows]
        return chosen

    def _picture(self, split: str, row: int) -> Picture:
        part = self._split(split)
        return Picture(id=str(part.ids[row]), label=int(part.labels[row]), uri=png_uri(part.images[row]))


def png_uri(image: NDArray[np.uint8]) -> str:
    """An image as a PNG ``data:`` URI, made smaller if its longer side has more than ``LONGEST_SIDE`` pixels.

    Args:
        image: Pixels, uint8 [H, W, C] with C of 1, 3 or 4.
    """
    from PIL import Image

    height, width, channels = image.shape
    picture = Image.fromarray(image[:, :, 0] if channels == 1 else image)
    if max(height, width) > LONGEST_SIDE:
        picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
