"""What the readers of CSV, Parquet, JSON lines and text lines have in common: a stream of typed columns with row numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

Texts = Callable[[Sequence[str]], frozenset[str]]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Some rows of a file.

    Attributes:
        table: The columns asked for, in their normal types.
        numbers: Number of each row in the file, from 0, int64 [N].
        bad: What is wrong with a row, by its number; such a row may or may not be in ``table``.
    """

    table: pa.Table
    numbers: np.ndarray
    bad: dict[int, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Feed:
    """A file or folder of rows, looked at but not loaded.

    Attributes:
        kind: ``csv``, ``parquet``, ``json_lines`` or ``text_lines``.
        where: Its name, for messages.
        types: Type of each column, in the order of the file.
        n: Rows, those that cannot be used included.
        digest: Digest of the bytes.
        read: Gives the rows, with the columns asked for.
        place: Names a row, by its number, for messages: ``row 7, line 8``.
        notes: What a person should know.
    """

    kind: str
    where: str
    types: dict[str, pa.DataType]
    n: int
    digest: str
    read: Callable[[Sequence[str]], Iterator[Rows]]
    place: Callable[[int], str]
    notes: tuple[str, ...] = ()


def row_place(number: int) -> str:
    """Names a row of a file without lines, from 1."""
    return f"row {number + 1}"
