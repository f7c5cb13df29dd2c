"""The rows of a dataset version as the label check needs them: all splits in one order, without their heavy inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.folds import clusters

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Ints = NDArray[np.int64]

HEX_DIGITS = 13  # 52 bits: every such number is a float
MOST_VALUES = 20  # of a fact or feature that makes groups


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of a version, split after split.

    Attributes:
        manifest: The light columns.
        task: What is to be learned.
        names: Class names.
        given: Labels: int64 [N] for classes, bool [N, K] for sets of classes, float64 [N] for numbers, empty for forecasting.
        cluster: Rows with the same number share a group or a content, int64 [N].
    """

    manifest: pa.Table
    task: str
    names: list[str]
    given: NDArray[Any]
    cluster: Ints

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.manifest.num_rows)

    def texts(self, name: str, rows: Ints | None = None) -> NDArray[np.str_]:
        """Values of a column as text, of some rows or all; a missing one is empty, str [N]."""
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.manifest[name] if rows is None else self.manifest[name].take(pa.array(rows))
        return np.array(pc.fill_null(column.cast(pa.string()), "").to_pylist(), dtype=str)

    @property
    def in_train(self) -> NDArray[np.bool_]:
        """Rows of the train split, bool [N]."""
        import pyarrow.compute as pc

        return np.asarray(pc.equal(self.manifest["split"], "train").to_numpy(zero_copy_only=False), dtype=np.bool_)

    @property
    def settled(self) -> NDArray[np.bool_]:
        """Rows whose label a person confirmed or corrected, bool [N]."""
        import pyarrow.compute as pc

        result = np.zeros(len(self), dtype=np.bool_)
        for name in {"label_by", "label_at"} & set(self.manifest.column_names):
            result |= np.asarray(pc.is_valid(self.manifest[name]).to_numpy(zero_copy_only=False), dtype=np.bool_)
        return result

    def stable_order(self, seed: int) -> Ints:
        """All rows in an order that depends on their content and the seed alone, int64 [N]."""
        shares = np.array([int(text[:HEX_DIGITS], 16) for text in self.manifest["content"].to_pylist()], dtype=np.int64)
        return np.argsort(shares ^ (seed * 0x9E3779B1 & 0xFFFFFFFF), kind="stable")

    def named(self, row: int) -> Any:
        """Given label of a row in words."""
        return self.in_words(self.given[row])

    def in_words(self, label: Any) -> Any:
        """A label in words: a name, a list of names, a number."""
        if self.task == "multiclass":
            return self.names[int(label)]
        if self.task == "multilabel":
            return [self.names[k] for k in np.flatnonzero(label)]
        return float(label)

    def group_columns(self, wanted: Sequence[str]) -> dict[str, NDArray[np.str_]]:
        """Columns whose values make groups: the origin, the group, those wanted, and light columns with at most 20 values, as text."""
        import pyarrow as pa
        import pyarrow.compute as pc

        plain = {"id", "content", "label", "split", "time", "label_at"}
        result = {}
        for field in self.manifest.schema:
            simple = (
                pa.types.is_string(field.type) or pa.types.is_integer(field.type) or pa.types.is_boolean(field.type)
            )
            asked = field.name in wanted or field.name in {"origin", "group"}
            if asked or (
                simple and field.name not in plain and _few(pc.count_distinct(self.manifest[field.name]).as_py())
            ):
                result[field.name] = self.texts(field.name)
        return result


def _few(distinct: int) -> bool:
    return 1 < distinct <= MOST_VALUES


def read_rows(version: DatasetVersion) -> Rows:
    """The rows of a version."""
    manifest = version.manifest()
    given = _given(version, manifest)
    keys = [_codes(manifest[name]) for name in ("group", "content") if name in manifest.column_names]
    if version.modality == "series":
        keys = [_time_blocks(version)]
    return Rows(
        manifest=manifest,
        task=version.task,
        names=version.labels,
        given=given,
        cluster=clusters(manifest.num_rows, *keys),
    )


def _given(version: DatasetVersion, manifest: pa.Table) -> NDArray[Any]:
    if version.task == "forecasting":
        return np.empty(0)
    column = manifest["label"]
    if version.task == "multilabel":
        lists = column.combine_chunks()
        result = np.zeros((len(column), len(version.labels)), dtype=np.bool_)
        lengths = lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
        result[np.repeat(np.arange(len(column)), lengths), lists.flatten().to_numpy(zero_copy_only=False)] = True
        return result
    kind = np.int64 if version.task == "multiclass" else np.float64
    return np.asarray(column.to_numpy(), dtype=kind)


def _codes(column: pa.ChunkedArray) -> Ints:
    """Number of each row's value, -1 where there is none, int64 [N]."""
    encoded = column.combine_chunks().dictionary_encode()
    return np.asarray(encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), dtype=np.int64)


def _time_blocks(version: DatasetVersion) -> Ints:
    """Neighbours in time are nearly copies: stretches as long as a model's context stay together, int64 [N]."""
    length = max(1, int(version.schema.get("series", {}).get("context", 96)))
    parts, offset = [], 0
    for split in version.splits:
        rows = version.table(split).num_rows
        parts.append(offset + np.arange(rows) // length)
        offset += rows // length + 1
    return np.concatenate(parts)
