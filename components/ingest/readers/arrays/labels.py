"""Arrays of one value a row: labels, ids, times, official splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.files.items import SPLITS_BY_NAME
from kfloop.components.ingest.labels.encoding import encode
from kfloop.components.ingest.labels.plan import LabelScan, plain_labels, settle
from kfloop.components.ingest.readers.table.kinds import lists_of, normalise
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pyarrow as pa

    from kfloop.components.ingest.readers.arrays.blocks import Block

Columns = dict[str, np.ndarray]
_MATRIX = 2


@dataclass(frozen=True, kw_only=True)
class ArrayLabels:
    """Labels of all rows.

    Attributes:
        task: ``multiclass``, ``multilabel`` or ``regression``.
        names: Class names.
        encoded: Column ``label``, and what is wrong with a label, by row.
        notes: What a person should know.
    """

    task: str
    names: tuple[str, ...]
    encoded: tuple[pa.Array, dict[int, str]]
    notes: tuple[str, ...]


def labels_of(blocks: Sequence[Block], where: str, task: str, known: Sequence[str] | None) -> ArrayLabels:
    """Labels of the rows of one or more arrays.

    Args:
        blocks: Arrays [N], [N, 1], or 0/1 [N, K] of several labels a row.
        where: The file, for messages.
        task: ``data.task``, or the base source's task.
        known: Class names of the base source, for freshly labelled rows.

    Raises:
        InputError: The labels cannot be used.
    """
    name = blocks[0].name
    values = np.concatenate([_flat(block) for block in blocks])
    notes: list[str] = []
    if values.ndim == _MATRIX:
        values = _one_hot(values, name, task, notes) if task != "multilabel" else values
    if values.ndim == _MATRIX:
        return _matrix(values, name, where, known)
    if task == "auto" and values.dtype.kind == "f" and _fractional(values):
        task = "regression"
    labels = plain_labels(normalise(name, _arrow(values, name, where)), split=task == "multilabel")
    scan = LabelScan(task)
    scan.add(labels, np.arange(len(values)))
    plan = settle(scan, name, where, lambda number: f"row {number + 1}", known, task)
    return ArrayLabels(task=plan.task, names=plan.names, encoded=encode(plan, labels), notes=(*notes, *plan.notes))


def ids_column(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Ids as texts.

    Raises:
        InputError: One repeats.
    """
    ids = _texts(values).reshape(-1)
    _, first, back = np.unique(ids, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[back] != np.arange(len(ids)))
    if len(again):
        row = int(again[0])
        raise InputError(
            f"'{path}': id '{ids[row]}' in array '{name}' stands in row {int(first[back[row]]) + 1} and in row {row + 1}",
            hint="give each row an id of its own",
        )
    return ids


def time_column(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Times as datetime64[us] or int64.

    Raises:
        InputError: They are neither times nor whole numbers.
    """
    values = values.reshape(-1)
    if values.dtype.kind == "M":
        return values.astype("datetime64[us]")
    try:
        if values.dtype.kind in "US":
            return _texts(values).astype("datetime64[us]")
    except ValueError as error:
        raise InputError(
            f"'{path}': array '{name}' holds no times: {error}", hint="write them as datetime64"
        ) from error
    if values.dtype.kind not in "iuf" or not (np.isfinite(values).all() and (values == np.rint(values)).all()):
        raise InputError(
            f"'{path}': array '{name}' {list(values.shape)} of {values.dtype} holds no times",
            hint="write datetime64 or whole numbers",
        )
    return values.astype(np.int64)


def split_column(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Official splits as kfloop spells them.

    Raises:
        InputError: A value is no split.
    """
    names = _texts(values).reshape(-1)
    known, first, back = np.unique(names, return_index=True, return_inverse=True)
    for value, row in zip(known, first, strict=True):
        if value.strip().lower() not in SPLITS_BY_NAME:
            raise InputError(
                f"'{path}' row {int(row) + 1}, array '{name}': '{value}' is no split",
                hint="expected train, validation (or val, dev) or test",
            )
    return np.array([SPLITS_BY_NAME[value.strip().lower()] for value in known])[back]


def _flat(block: Block) -> np.ndarray:
    values = block.whole()
    if values.ndim > _MATRIX:
        raise InputError(
            f"'{block.path}': array '{block.name}' {list(block.shape)} cannot be labels: expected [N], or [N, K] of 0 and 1",
            hint="write one label for each row",
        )
    values = values[:, 0] if values.ndim == _MATRIX and values.shape[1] == 1 else values
    return values.astype(values.dtype.newbyteorder("="))


def _texts(values: np.ndarray) -> np.ndarray:
    return np.char.decode(values, "utf-8", "replace") if values.dtype.kind == "S" else values.astype(str)


def _arrow(values: np.ndarray, name: str, where: str) -> Any:
    import pyarrow as pa

    if values.dtype.kind in "US":
        return pa.array(_texts(values).tolist(), pa.string())
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: array '{name}' is of type {values.dtype}: expected classes or numbers")
    return pa.array(values)


def _fractional(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    return bool((finite != np.rint(finite)).any())


def _one_hot(values: np.ndarray, name: str, task: str, notes: list[str]) -> np.ndarray:
    """Class indices where each row of a 0/1 matrix has a single 1; otherwise the matrix as it is."""
    if values.dtype.kind not in "biuf" or not (
        ((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all()
    ):
        return values
    if task == "auto":
        notes.append(
            f"array '{name}' {list(values.shape)} has a single 1 in each row: taken as classes; for several labels a row set data.task: multilabel"
        )
    return np.argmax(values, axis=1)


def _matrix(values: np.ndarray, name: str, where: str, known: Sequence[str] | None) -> ArrayLabels:
    """Several labels a row from 0/1 [N, K]; class k is called k."""
    import pyarrow as pa

    names = tuple(str(column) for column in range(values.shape[1]))
    if known is not None and tuple(known) != names:
        raise InputError(
            f"{where}: array '{name}' {list(values.shape)} has {len(names)} labels, but data.source has {len(known)}"
        )
    if values.dtype.kind not in "biuf":
        raise InputError(f"{where}: array '{name}' {list(values.shape)} of {values.dtype}: expected 0 and 1")
    gone = np.isnan(values).any(axis=1) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    odd = np.argwhere(~((values == 0) | (values == 1)) & ~gone[:, np.newaxis])
    if len(odd):
        row, column = odd[0].tolist()
        raise InputError(
            f"{where} row {row + 1}, array '{name}' column {column + 1}: {values[row, column]} is neither 0 nor 1",
            hint="several labels a row are given as 0 and 1; several targets a row are not known",
        )
    values = np.where(gone[:, np.newaxis], 0, values)
    _, columns = np.nonzero(values)
    lists = lists_of(pa.array(columns, pa.int64()), (values != 0).sum(axis=1), gone)
    problems = dict.fromkeys(np.flatnonzero(gone).tolist(), "no label")
    return ArrayLabels(task="multilabel", names=names, encoded=(lists, problems), notes=())
