"""Features, labels and masks of the nodes in an npz file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.graphs.npz import FEATURES, LABELS, MASKS, PAIR, Arrays
from kfloop.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Features:
    """A matrix of node features that is made dense piece by piece.

    Attributes:
        name: Of its array.
        shape: Nodes, features.
        rows: Gives rows first to last - 1 as float32 [last - first, D].
    """

    name: str
    shape: tuple[int, int]
    rows: Callable[[int, int], NDArray[np.float32]]


def read_features(arrays: Arrays) -> Features:
    """The node features, checked for numbers that are none.

    Raises:
        InputError: There are none, they have no width, or one is not a finite number, naming array, row and column.
    """
    name = arrays.find(FEATURES)
    if name is None:
        raise InputError(
            f"'{arrays.path}' has no node features ({', '.join(FEATURES)}): it has {', '.join(sorted(arrays.names))}",
            hint="save an array 'features' of shape [N, D]; of ones when nothing is known about the nodes",
        )
    if arrays.is_sparse(name):
        return _sparse(arrays, name)
    matrix = arrays.read(name)
    _numbers(arrays, name, matrix.dtype)
    if matrix.ndim == 1:
        matrix = matrix[:, np.newaxis]
    if matrix.ndim != PAIR or matrix.shape[1] == 0:
        raise InputError(
            f"'{arrays.path}': array '{name}' has shape {list(matrix.shape)}: expected [N, D]",
            hint="a row of numbers for each node",
            array=name,
        )
    with np.errstate(over="ignore"):
        small = matrix.astype(np.float32)
    if not np.isfinite(small).all():
        row, column = (int(place) for place in np.argwhere(~np.isfinite(small))[0])
        raise _no_number(arrays, name, row, column, matrix[row, column])
    return Features(name=name, shape=small.shape, rows=lambda first, last: small[first:last])


def _sparse(arrays: Arrays, name: str) -> Features:
    data, indices, indptr, shape = arrays.sparse(name)
    _numbers(arrays, name, data.dtype)
    outside = np.flatnonzero((indices < 0) | (indices >= shape[1]))
    if len(outside) or shape[1] == 0:
        said = f"column {indices[outside[0]]} lies outside" if len(outside) else "has no column:"
        raise InputError(
            f"'{arrays.path}': '{name}' {said} its shape {list(shape)}", hint="save the matrix again", array=name
        )
    with np.errstate(over="ignore"):
        values = data.astype(np.float32)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        row = int(np.searchsorted(indptr, wrong[0], side="right")) - 1
        raise _no_number(arrays, name, row, int(indices[wrong[0]]), data[wrong[0]])

    def rows(first: int, last: int) -> NDArray[np.float32]:
        dense = np.zeros((last - first, shape[1]), dtype=np.float32)
        begin, end = int(indptr[first]), int(indptr[last])
        place = np.repeat(np.arange(last - first), np.diff(indptr[first : last + 1]))
        np.add.at(
            dense, (place, indices[begin:end]), values[begin:end]
        )  # entries given twice are summed, as scipy does
        return dense

    return Features(name=name, shape=shape, rows=rows)


def read_labels(arrays: Arrays, told: str | None) -> tuple[str, pa.Array]:
    """Labels of the nodes and the name of their array; a row of zeros and ones for each class becomes class numbers.

    Args:
        arrays: The file.
        told: Name of the array as ``data.label`` tells it.

    Raises:
        InputError: There is no such array, or it has a shape that labels do not have.
    """
    import pyarrow as pa

    name = told if told is not None else next((name for name in LABELS if name in arrays.names), None)
    if name is None or name not in arrays.names:
        raise InputError(
            f"'{arrays.path}' has no {f'array {told!r} (data.label)' if told else 'labels (' + ', '.join(LABELS) + ')'}: "
            f"it has {', '.join(sorted(arrays.names))}",
            hint="save one label for each node as 'labels', or name the array in data.label",
        )
    values = arrays.read(name)
    if values.ndim == PAIR and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == PAIR and values.dtype.kind in "biuf" and np.isin(values, (0, 1)).all():
        return name, _classes(values != 0)
    if values.ndim != 1:
        raise InputError(
            f"'{arrays.path}': array '{name}' has shape {list(values.shape)}: expected [N], or zeros and ones [N, classes]",
            hint="save one label for each node",
            array=name,
        )
    # By convention -1 marks a node without a label where classes count from 0.
    missing = (values == -1) & bool((values >= -1).all()) if values.dtype.kind == "i" else np.zeros(len(values), bool)
    found = values.astype(np.float64) if values.dtype.kind == "f" else values
    if values.dtype.kind == "S":
        found = np.array([value.decode() for value in values])
    return name, pa.array(found, mask=missing)


def _classes(hot: NDArray[np.bool_]) -> pa.Array:
    import pyarrow as pa

    counts = hot.sum(axis=1)
    if (counts <= 1).all():
        return pa.array(hot.argmax(axis=1), mask=counts == 0)
    ends = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(ends), pa.array(np.nonzero(hot)[1]))


def read_splits(arrays: Arrays, n: int) -> NDArray[np.str_] | None:
    """The official split of each node, ``rest`` outside of all masks; None without masks.

    Raises:
        InputError: A mask has another length, names a node that is not there, or shares a node with another.
    """
    found = {split: name for split, options in MASKS.items() if (name := arrays.find(options)) is not None}
    if not found:
        return None
    splits = np.full(n, "rest", dtype="U10")
    for split, name in found.items():
        nodes = _members(arrays, name, n)
        taken = nodes[splits[nodes] != "rest"]
        if len(taken):
            other = found[str(splits[taken[0]])]
            raise InputError(
                f"'{arrays.path}': node {taken[0]} is both in '{name}' and in '{other}' ({len(taken)} nodes are)",
                hint="a node belongs to one split: mend the masks",
                node=int(taken[0]),
            )
        splits[nodes] = split
    return splits


def _members(arrays: Arrays, name: str, n: int) -> NDArray[np.int64]:
    """Indices of the nodes in a mask of truths [N] or a list of indices."""
    mask = arrays.read(name)
    truths = mask.dtype == bool or (mask.shape == (n,) and n > PAIR and np.isin(mask, (0, 1)).all())
    if mask.ndim != 1 or (truths and len(mask) != n) or not (truths or np.issubdtype(mask.dtype, np.integer)):
        raise InputError(
            f"'{arrays.path}': mask '{name}' is {mask.dtype} of shape {list(mask.shape)}: expected bool [{n}], or indices of nodes",
            hint="save one truth value for each node",
            array=name,
        )
    if truths:
        return np.flatnonzero(mask)
    outside = np.flatnonzero((mask < 0) | (mask >= n))
    if len(outside):
        raise InputError(
            f"'{arrays.path}': mask '{name}' row {outside[0]} is {mask[outside[0]]}, which is no node (0 to {n - 1})",
            hint="indices count from 0",
            array=name,
            row=int(outside[0]),
        )
    return np.unique(mask.astype(np.int64))


def _numbers(arrays: Arrays, name: str, kind: np.dtype[Any]) -> None:
    if kind.kind not in "biuf":
        raise InputError(
            f"'{arrays.path}': array '{name}' has type {kind}: expected numbers", hint="save numbers", array=name
        )


def _no_number(arrays: Arrays, name: str, row: int, column: int, value: Any) -> InputError:
    return InputError(
        f"'{arrays.path}': array '{name}' row {row}, column {column} is {value}: expected a finite number that fits into 32 bits",
        hint="fill in what is missing before: a graph model spreads NaN to all neighbours",
        array=name,
        row=row,
        column=column,
    )
