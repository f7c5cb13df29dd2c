"""Arrays of a graph in an npz file, under the names that people give them."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.ingest.readers.graphs.edges import Edges
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

ADJACENCY = ("adjacency", "adj", "A")
EDGES = ("edge_index", "edges")
FEATURES = ("features", "x", "X", "attr", "feat", "node_features")
LABELS = ("labels", "label", "y", "Y")
WEIGHTS = ("edge_weight", "edge_weights", "weights")
MASKS = {
    "train": ("train_mask", "idx_train", "train_idx"),
    "validation": ("val_mask", "valid_mask", "validation_mask", "idx_val", "val_idx"),
    "test": ("test_mask", "idx_test", "test_idx"),
}
PARTS = ("data", "indices", "indptr", "shape")  # of a sparse matrix in rows (CSR)
PAIR = 2


def member_names(path: Path) -> frozenset[str]:
    """Names of the arrays in an npz file, from its directory alone; none when it is no npz. Never raises."""
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy"))
    except (OSError, zipfile.BadZipFile, ValueError):
        return frozenset()


def holds_graph(names: frozenset[str]) -> bool:
    """Whether arrays of these names are a graph: edges, and something about the nodes."""
    connected = bool(names & set(EDGES)) or any(_matrix(names, name) for name in ADJACENCY)
    described = bool(names & set(LABELS)) or any(_matrix(names, name) for name in FEATURES)
    return connected and described


class Arrays:
    """The arrays of one npz file, read when asked for.

    Args:
        path: The file.

    Raises:
        InputError: It is no npz file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names = member_names(path)
        if not self.names:
            raise InputError(f"'{path}' is not an npz file with arrays", hint="write it with numpy.savez")

    def find(self, options: Iterable[str]) -> str | None:
        """The first of the names that the file has, as an array or as the parts of a sparse matrix."""
        return next((name for name in options if _matrix(self.names, name)), None)

    def read(self, name: str) -> NDArray[Any]:
        """One array.

        Raises:
            InputError: It cannot be read, or holds Python objects.
        """
        try:
            with np.load(self.path, allow_pickle=False) as opened:
                return np.asarray(opened[name])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            objects = "pickle" in str(error) or "Object arrays" in str(error)
            raise InputError(
                f"'{self.path}': array '{name}' "
                + ("holds Python objects, which are not loaded" if objects else f"cannot be read: {error}"),
                hint=f"save plain arrays; a sparse matrix as {name}_data, {name}_indices, {name}_indptr, {name}_shape"
                if objects
                else "write the file again",
                array=name,
            ) from error

    def sparse(self, name: str) -> Any:
        """A matrix as ``scipy.sparse.csr_array``; indices outside its shape are kept as they are.

        Raises:
            InputError: Its parts do not fit together.
        """
        data, indices, indptr, shape = (self.read(f"{name}_{part}") for part in PARTS)
        fits = shape.shape == (PAIR,) and len(indptr) == int(shape[0]) + 1 and len(data) == len(indices)
        if not fits or indptr[0] != 0 or indptr[-1] != len(data) or bool((np.diff(indptr) < 0).any()):
            raise InputError(
                f"'{self.path}': the parts of '{name}' do not fit: shape {shape.tolist()}, indptr {len(indptr)}, "
                f"indices {len(indices)}, data {len(data)}",
                hint="save data, indices, indptr and shape of one scipy CSR matrix",
                array=name,
            )
        return data, indices.astype(np.int64), indptr.astype(np.int64), (int(shape[0]), int(shape[1]))

    def is_sparse(self, name: str) -> bool:
        """Whether a matrix is there in parts."""
        return name not in self.names


def read_edges(arrays: Arrays) -> tuple[Edges, str, int | None]:
    """Edges of the graph, the name of their array, and the number of nodes where the array tells.

    Raises:
        InputError: Neither adjacency nor edges, an adjacency that is not square, a wrong shape, or node ids that are not whole numbers.
    """
    name = arrays.find(EDGES)
    if name is not None:
        return _listed(arrays, name), name, None
    name = arrays.find(ADJACENCY)
    if name is None:
        raise InputError(
            f"'{arrays.path}' has neither {' nor '.join((*EDGES, *ADJACENCY))}: it has {', '.join(sorted(arrays.names))}",
            hint="save edges as an int64 array of shape [M, 2], or a square adjacency",
        )
    if arrays.is_sparse(name):
        data, indices, indptr, shape = arrays.sparse(name)
        _square(arrays, name, shape)
        source = np.repeat(np.arange(shape[0], dtype=np.int64), np.diff(indptr))
        used = data != 0
        return _weighted(arrays, name, source[used], indices[used], data[used]), name, shape[0]
    matrix = arrays.read(name)
    _square(arrays, name, matrix.shape)
    source, target = np.nonzero(matrix)
    return _weighted(arrays, name, source, target, matrix[source, target]), name, len(matrix)


def _listed(arrays: Arrays, name: str) -> Edges:
    pairs = arrays.read(name)
    if pairs.ndim != PAIR or PAIR not in pairs.shape:
        raise InputError(
            f"'{arrays.path}': array '{name}' has shape {list(pairs.shape)}: expected {'[2, M]' if name == EDGES[0] else '[M, 2]'}",
            hint="a row for each edge: index of its source, index of its target",
            array=name,
        )
    # The name decides for a square: edge_index is [2, M], edges is [M, 2].
    flat = pairs.shape[0] == PAIR and (name == EDGES[0] or pairs.shape[1] != PAIR)
    source, target = pairs if flat else pairs.T
    if not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(
            f"'{arrays.path}': array '{name}' has node ids of type {pairs.dtype}, the first edge is "
            f"{source[:1].tolist()} to {target[:1].tolist()}: expected whole numbers",
            hint=f"save {name}.astype(numpy.int64)",
            array=name,
        )
    weight = arrays.find(WEIGHTS)
    weights = arrays.read(weight) if weight else None
    if weights is not None and weights.shape != source.shape:
        raise InputError(
            f"'{arrays.path}': '{weight}' has shape {list(weights.shape)}, '{name}' {len(source)} edges",
            hint="give one weight for each edge",
            array=weight,
        )
    return Edges(
        source=source.astype(np.int64),
        target=target.astype(np.int64),
        weight=None if weights is None else _finite(arrays, str(weight), weights),
    )


def _weighted(
    arrays: Arrays, name: str, source: NDArray[np.int64], target: NDArray[np.int64], values: NDArray[Any]
) -> Edges:
    """Edges of an adjacency; entries other than 1 are weights."""
    weights = _finite(arrays, name, values)
    plain = bool((weights == 1).all())
    return Edges(source=source.astype(np.int64), target=target.astype(np.int64), weight=None if plain else weights)


def _finite(arrays: Arrays, name: str, values: NDArray[Any]) -> NDArray[np.float32]:
    if values.dtype.kind not in "biuf":
        raise InputError(
            f"'{arrays.path}': array '{name}' has type {values.dtype}: expected numbers",
            hint="save numbers",
            array=name,
        )
    wrong = np.flatnonzero(~np.isfinite(values.astype(np.float64)))
    if len(wrong):
        raise InputError(
            f"'{arrays.path}': array '{name}': weight of edge {wrong[0]} is {values[wrong[0]]}: expected a number",
            hint="remove such edges, or give them a weight",
            array=name,
            row=int(wrong[0]),
        )
    return values.astype(np.float32)


def _square(arrays: Arrays, name: str, shape: tuple[int, ...]) -> None:
    if len(shape) != PAIR or shape[0] != shape[1]:
        raise InputError(
            f"'{arrays.path}': '{name}' has shape {list(shape)}: an adjacency is square, a row and a column for each node",
            hint="save an [N, N] adjacency, or the edges as 'edges' of shape [M, 2]",
            array=name,
        )


def _matrix(names: frozenset[str], name: str) -> bool:
    return name in names or all(f"{name}_{part}" in names for part in PARTS)
