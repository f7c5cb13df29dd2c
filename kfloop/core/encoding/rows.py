"""Rows as they are, for a model that somebody else serves: a text, or the columns of a table, as JSON in bytes.

kfloop's own encoders turn words and categories into ids that only the model trained beside them understands. An endpoint wants the row itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from kfloop.core.encoding.base import Encoder as Base
from kfloop.core.encoding.base import columns_of, targets
from kfloop.core.encoding.examples import Examples
from kfloop.core.encoding.table import column_kind
from kfloop.core.external.rows import PORT, as_json, packed
from kfloop.core.signature import Port
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion


@dataclass(frozen=True, kw_only=True)
class Rows(Examples):
    """Rows as bytes of different lengths, filled up when a batch needs them."""

    def batch_inputs(self, rows: NDArray[np.int64]) -> tuple[NDArray[Any], ...]:
        """Bytes uint8 [B, W], as wide as the longest of these rows."""
        return (packed([self.inputs[0][row] for row in rows]),)


class Encoder(Base):
    """Gives ``row`` uint8 [W]: the JSON of a row in UTF-8, with spaces behind it.

    A text is a JSON string; a row of a table is an object by column: numbers, true or false, texts, times as ISO 8601, null where missing.

    Args:
        of: ``text`` or ``table``.
        columns: Of a table, in their order: ``name`` and ``kind`` (``number``, ``flag``, ``time``, ``category``); of a text, the text alone.
    """

    modality = "rows"

    def __init__(self, of: str, columns: list[dict[str, str]]) -> None:
        self.of, self.columns = of, columns

    @classmethod
    def fit(cls, version: DatasetVersion, **options: Any) -> Self:
        """Names and kinds of the columns; nothing is learned."""
        del options
        schema = version.table("train", version.inputs)
        return cls(
            version.modality, [{"name": name, "kind": column_kind(name, schema[name])} for name in schema.column_names]
        )

    @classmethod
    def restore(cls, plain: Mapping[str, Any]) -> Self:
        """As ``state`` says."""
        return cls(str(plain["of"]), [dict(column) for column in plain["columns"]])

    def state(self) -> dict[str, Any]:
        """Modality of the data, and columns."""
        return {"of": self.of, "columns": self.columns}

    @property
    def ports(self) -> tuple[Port, ...]:
        """One row."""
        return (Port(name=PORT, dtype="uint8", shape=(-1,)),)

    def encode(self, table: pa.Table) -> tuple[NDArray[Any], ...]:
        """Bytes uint8 [N, W]."""
        return (packed(self._rows(table)),)

    def examples(self, version: DatasetVersion, split: str, objective: str, *, normal: str | None = None) -> Examples:
        """The rows of a split."""
        table = version.table(split)
        rows = np.empty(table.num_rows, dtype=object)
        rows[:] = self._rows(table)
        return Rows(
            inputs=(rows,),
            target=targets(table, version, objective, normal),
            weights=np.ones(table.num_rows, dtype=np.float32),
            **columns_of(table),
        )

    def _rows(self, table: pa.Table) -> list[bytes]:
        columns = []
        for column in self.columns:
            name = column["name"]
            if name not in table.column_names:
                raise InputError(
                    f"column '{name}' is missing: the rows have {table.column_names}",
                    hint=nearest(name, table.column_names),
                    column=name,
                )
            columns.append([_plain(value) for value in table[name].to_pylist()])
        if self.of == "text":
            return [as_json(text or "") for text in columns[0]]
        names = [column["name"] for column in self.columns]
        return [as_json(dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]


def _plain(value: Any) -> Any:
    """A value as JSON has it; what is no finite number is missing."""
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else float(value)  # times; decimals
