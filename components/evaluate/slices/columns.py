"""Columns of a dataset version as values by which rows can be told apart: categories, numbers or times."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from kfloop.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

Kind = Literal["category", "number", "time"]
# Each row has its own value of the first two, the classes are slices already, and a perceptual hash is no quantity.
NOT_TOLD_APART = frozenset({"id", "content", "label", "phash"})
MISSING = "missing"
OTHER = "other values"  # that are no slice of their own
LONGEST = 60  # characters of a value in a name


@dataclass(frozen=True, kw_only=True)
class Column:
    """Values of some rows.

    Attributes:
        name: Name of the column.
        kind: What the values are.
        values: float64 [N] with NaN for missing ones (times in seconds since 1970), or text [N] with None (objects).
        whole: Whether all numbers are integers.
    """

    name: str
    kind: Kind
    values: NDArray[Any]
    whole: bool = False

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Rows without a value, bool [N]."""
        if self.kind == "category":
            return np.array([value is None for value in self.values], dtype=np.bool_)
        return np.isnan(self.values)

    def take(self, rows: NDArray[Any]) -> Column:
        """Some rows, by index or mask."""
        return Column(name=self.name, kind=self.kind, values=self.values[rows], whole=self.whole)


def column_names(version: DatasetVersion, wanted: Sequence[str] | None, key: str) -> list[str]:
    """The columns named by the configuration; for null the inputs of a table and the facts, as far as they hold single values.

    Args:
        version: Dataset version.
        wanted: Names, or null.
        key: Key of the configuration, for the message.

    Raises:
        ConfigError: There is no such column, or it holds no single values.
    """
    stored = {} if version.modality == "series" else dict(_stored(version))
    known = [name for name, kind in stored.items() if kind and name not in NOT_TOLD_APART]
    if wanted is None:
        offered = dict.fromkeys([*(version.inputs if version.modality == "table" else []), *version.facts])
        return [name for name in offered if name in known]
    for name in wanted:
        if name not in known:
            raise ConfigError(
                f"{key} names the column '{name}', {_why_not(version, name, stored)}",
                hint=nearest(name, known) if known else f"leave {key} out",
            )
    return list(dict.fromkeys(wanted))


def read_column(version: DatasetVersion, name: str, most: int) -> Column:
    """A column of the training rows, of at most ``most`` of them, evenly spread."""
    table = version.table("train", [name])
    stride = -(-table.num_rows // most) or 1
    return _column(name, table[name] if stride == 1 else table.take(np.arange(0, table.num_rows, stride))[name])


def read_columns(version: DatasetVersion, split: str, names: Sequence[str], ids: NDArray[np.str_]) -> list[Column]:
    """Columns of some rows of a split.

    Args:
        version: Dataset version.
        split: Name of the split.
        names: The columns.
        ids: The rows, in the order that is wanted.
    """
    if not names:
        return []
    table = version.table(split, ["id", *names])
    columns = [_column(name, table[name]) for name in names]
    own = table["id"].to_pylist()
    if len(own) == len(ids) and own == ids.tolist():
        return columns
    place = {name: row for row, name in enumerate(own)}
    rows = np.array([place[name] for name in ids.tolist()], dtype=np.int64)
    return [column.take(rows) for column in columns]


def spelled(value: str) -> str:
    """A column's name or a text value as names of slices have it: in quotes where it could be taken for something else.

    ``missing`` alone is a missing value, ``other values`` are those without a slice, ``=`` stands between name and value, a ``*`` at the end is a wildcard of the gate, a bracket begins a
    range, and line breaks would break a report.
    """
    plain = (
        value.isprintable()
        and value == value.strip()
        and value not in {"", MISSING, OTHER}
        and value[0] not in '"['
        and value[-1] != "*"
        and "=" not in value
    )
    if len(value) > LONGEST:
        from kfloop.core.artifacts import sha256_text

        value, plain = f"{value[:LONGEST]}... {sha256_text(value)[:6]}", plain and value[LONGEST - 1] != " "
    return value if plain else json.dumps(value, ensure_ascii=False)


def _why_not(version: DatasetVersion, name: str, stored: dict[str, str | None]) -> str:
    if version.modality == "series":
        return "but a window of a series has no columns: its slices are channels and origins"
    if name == "label":
        return "but the classes are slices already (class:NAME)"
    if name in NOT_TOLD_APART and name in stored:
        return "by whose values no rows belong together"
    if name in stored:
        return "which holds no single values"
    return "which the dataset does not have"


def _stored(version: DatasetVersion) -> list[tuple[str, str | None]]:
    """The columns of the version and what they hold; null for lists and bytes."""
    schema = version.table("test").schema
    return [(name, _kind(schema.field(name).type)) for name in schema.names]


def _kind(kind: pa.DataType) -> Kind | None:
    import pyarrow as pa

    types = pa.types
    if types.is_dictionary(kind):
        return "category" if _kind(kind.value_type) == "category" else None
    if types.is_string(kind) or types.is_large_string(kind) or types.is_boolean(kind):
        return "category"
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        return "number"
    return "time" if types.is_timestamp(kind) or types.is_date(kind) else None


def _column(name: str, column: pa.ChunkedArray) -> Column:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _kind(column.type)
    if kind == "category":
        texts = np.empty(len(column), dtype=object)
        texts[:] = pc.cast(column, pa.string()).to_pylist()
        return Column(name=name, kind="category", values=texts)
    whole = pa.types.is_integer(column.type)
    scale = 1.0
    if kind == "time":
        column, scale = pc.cast(pc.cast(column, pa.timestamp("us"), safe=False), pa.int64()), 1e6
    numbers = pc.cast(column, pa.float64(), safe=False).to_numpy().astype(np.float64) / scale
    return Column(name=name, kind="time" if kind == "time" else "number", values=numbers, whole=whole)
