"""A dataset version with other rows: what a corruption or an explanation shows to models that read versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.versions import DatasetVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray


class AlteredVersion(DatasetVersion):
    """A dataset version with other rows in some tables; its encoder-facing side is that of the original.

    Args:
        version: The original.
        tables: Rows by split.
        extras: Tables beside the rows, by name.
    """

    def __init__(
        self, version: DatasetVersion, tables: dict[str, pa.Table], extras: dict[str, pa.Table] | None = None
    ) -> None:
        super().__init__(version.folder)
        self._tables, self._extras = tables, extras or {}

    def table(self, split: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Rows of a split, the altered ones where there are such."""
        if split not in self._tables:
            return super().table(split, columns)
        table = self._tables[split]
        return table if columns is None else table.select(list(columns))

    def beside(self, name: str) -> pa.Table | None:
        """A table beside the rows."""
        return self._extras[name] if name in self._extras else super().beside(name)


def with_lists(table: pa.Table, column: str, values: NDArray[Any]) -> pa.Table:
    """The table with another column of lists of one length, [N, ...]."""
    import pyarrow as pa

    kind = table.schema.field(column).type
    flat = pa.array(values.reshape(-1), type=kind.value_type)
    return with_column(table, column, pa.FixedSizeListArray.from_arrays(flat, kind.list_size))


def with_column(table: pa.Table, column: str, values: Any) -> pa.Table:
    """The table with other values in a column."""
    return table.set_column(table.column_names.index(column), column, values)


def vectors_of(table: pa.Table) -> NDArray[Any]:
    """The column ``vector`` as [N, n]."""
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat).reshape(table.num_rows, -1)
