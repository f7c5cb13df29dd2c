"""The light columns that duplicates are judged by: split, content, label, group."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]

CONFLICT_SPREADS = 0.25  # regression: how many standard deviations apart the targets of duplicates conflict


@dataclass(frozen=True, kw_only=True)
class LightRows:
    """What is asked of every row: split, content and label as numbers (NaN: no label), group as a number (-1: none).

    Contents are numbered in the order in which they first come.
    """

    split: NDArray[np.str_]
    content: Ints
    label: Floats
    tolerance: float
    group: Ints


def read_light_rows(version: DatasetVersion) -> LightRows:
    """The light columns of all splits."""
    import pyarrow as pa

    splits: list[NDArray[np.str_]] = []
    contents: list[pa.Array] = []
    labels: list[Any] = []
    groups: list[Any] = []
    for split in version.splits:
        names = version.table(split).column_names
        wanted = [name for name in ("content", "label", "group") if name in names]
        table = version.table(split, wanted)
        n = table.num_rows
        splits.append(np.full(n, split))
        contents.extend(table["content"].chunks)
        labels.extend(table["label"].to_pylist() if "label" in wanted else [None] * n)
        groups.extend(table["group"].to_pylist() if "group" in wanted else [None] * n)
    number, tolerance = _label_numbers(labels)
    codes: dict[Any, int] = {}
    group = [-1 if name is None else codes.setdefault(name, len(codes)) for name in groups]
    return LightRows(
        split=np.concatenate(splits) if splits else np.empty(0, dtype=str),
        content=_numbered(pa.chunked_array(contents, pa.string())),
        label=number,
        tolerance=tolerance,
        group=np.array(group, dtype=np.int64),
    )


def _numbered(column: pa.ChunkedArray) -> Ints:
    """Equal texts, equal numbers, in the order in which they first come."""
    if not len(column):
        return np.empty(0, dtype=np.int64)
    return np.asarray(column.combine_chunks().dictionary_encode().indices.to_numpy(), dtype=np.int64)


def _label_numbers(labels: list[Any]) -> tuple[Floats, float]:
    """Labels as numbers, and the difference up to which two of them are the same."""
    known = [label for label in labels if label is not None]
    if known and isinstance(known[0], float):
        numbers = np.array([math.nan if label is None else float(label) for label in labels])
        finite = numbers[np.isfinite(numbers)]
        size = float(np.abs(finite).max(initial=0.0)) or 1.0  # squares of huge numbers would overflow
        return numbers, CONFLICT_SPREADS * float((finite / size).std()) * size if len(finite) else 0.0
    codes: dict[Any, int] = {}
    keys = [tuple(label) if isinstance(label, list) else label for label in labels]
    numbers = np.array(
        [math.nan if key is None else codes.setdefault(key, len(codes)) for key in keys], dtype=np.float64
    )
    return numbers, 0.0


def readable(version: DatasetVersion, wanted: Ints) -> tuple[dict[int, str], dict[int, Any]]:
    """Id and readable label of rows."""
    ids: dict[int, str] = {}
    labels: dict[int, Any] = {}
    start = 0
    for split in version.splits:
        have = [name for name in ("id", "label") if name in version.table(split).column_names]
        table = version.table(split, have)
        inside = wanted[(wanted >= start) & (wanted < start + table.num_rows)]
        part = table.take(inside - start)
        ids.update(zip(inside.tolist(), part["id"].to_pylist(), strict=True))
        values = part["label"].to_pylist() if "label" in have else [None] * len(inside)
        labels.update(
            (row, _readable(value, version.labels)) for row, value in zip(inside.tolist(), values, strict=True)
        )
        start += table.num_rows
    return ids, labels


def _readable(label: Any, names: list[str]) -> Any:
    if isinstance(label, list):
        return [names[index] for index in label]
    return names[label] if isinstance(label, int) and names else label
