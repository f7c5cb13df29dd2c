"""What a reader of a source hands on: facts about the whole, and batches of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

ROWS_PER_BATCH = 65_536
FILES_PER_BATCH = 1000


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Some rows of a source.

    Attributes:
        table: Columns ``id``, inputs, facts, ``label`` (class index int64, float64, or list<int64>; absent for forecasting), and where they
            are known ``group``, ``time`` and ``split`` (the source's own).
        quarantined: Rows set aside: ``id`` and ``reason``, which names row and column.
    """

    table: pa.Table
    quarantined: list[dict[str, str]] = field(default_factory=list)


def _no_extras() -> dict[str, pa.Table]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Source:
    """An opened source; nothing of it is in memory yet.

    Attributes:
        kind: Name of the layout, such as ``csv`` or ``image_folder``.
        modality: What a row is: ``image``, ``audio``, ``text``, ``table``, ``vector``, ``series``, ``nodes`` or ``graphs``.
        task: ``multiclass``, ``multilabel``, ``regression`` or ``forecasting``.
        uri: Where it is.
        labels: Class names in the order of their indices; empty without classes.
        n: Rows, before any is set aside.
        digest: Digest of the source's bytes and names.
        schema: Facts that a reader of the version needs, such as ``image_shape``.
        inputs: Names of the input columns.
        facts: Names of the fact columns.
        batches: Gives the rows; may be called again.
        extras: Gives tables beside the rows, such as ``edges``.
        suggestions: Values of ``DataConfig`` fields that were guessed.
        notes: What a person should know.
    """

    kind: str
    modality: str
    task: str
    uri: str
    labels: tuple[str, ...]
    n: int
    digest: str
    schema: dict[str, Any]
    inputs: tuple[str, ...]
    facts: tuple[str, ...]
    batches: Callable[[], Iterator[Batch]]
    extras: Callable[[], dict[str, pa.Table]] = _no_extras
    suggestions: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
