"""Small graphs: sizes, degrees, triangles, and how the features of nodes lie."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

DEGREES = 12  # the last counts all larger ones


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all graphs, in order, standardised, float64 [N, D]."""
    width = max(1, int(version.schema["node_features"]))
    result = []
    for split in splits:
        table = version.table(split, ["nodes", "edges"])
        for nodes, edges in zip(_lists(table["nodes"]), _lists(table["edges"]), strict=True):
            result.append(graph_features(nodes.reshape(-1, width), edges.reshape(-1, 2).astype(np.int64)))
    array = np.array(result) if result else np.empty((0, 1))
    spread = array.std(axis=0)
    return np.asarray((array - array.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def graph_features(nodes: NDArray[np.floating], edges: NDArray[np.int64]) -> Floats:
    """Features of one graph, float64 [D].

    Args:
        nodes: Features of each node, [n, F].
        edges: Source and target of each edge, int64 [m, 2]; those that lead outside are left out.
    """
    n = len(nodes)
    inside = ((edges >= 0) & (edges < n)).all(axis=1) if len(edges) else np.zeros(0, dtype=np.bool_)
    pairs = np.unique(np.sort(edges[inside], axis=1), axis=0) if inside.any() else np.empty((0, 2), dtype=np.int64)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    degree = np.bincount(pairs.ravel(), minlength=max(n, 1))
    histogram = np.bincount(np.minimum(degree, DEGREES), minlength=DEGREES + 1) / max(n, 1)
    density = 2.0 * len(pairs) / max(n * (n - 1), 1)
    sizes = [np.log1p(n), np.log1p(len(pairs)), density, float(degree.mean()), float(degree.std()), _closed(pairs, n)]
    known = nodes if n else np.zeros((1, nodes.shape[1]))
    alike = _likeness(known, pairs)
    return np.concatenate([sizes, histogram, known.mean(axis=0), known.std(axis=0), known.max(axis=0), alike]).astype(
        np.float64
    )


def _closed(pairs: NDArray[np.int64], n: int) -> float:
    """Triangles for each edge, by logarithm."""
    from scipy.sparse import csr_matrix

    if not len(pairs):
        return 0.0
    half = csr_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(n, n))
    links = half + half.T
    return float(np.log1p((links @ links).multiply(links).sum() / len(pairs)))


def _likeness(nodes: NDArray[np.floating], pairs: NDArray[np.int64]) -> Floats:
    """Mean difference of each feature along the edges."""
    if not len(pairs):
        return np.zeros(nodes.shape[1])
    return np.asarray(np.abs(nodes[pairs[:, 0]] - nodes[pairs[:, 1]]).mean(axis=0), dtype=np.float64)


def _lists(column: Any) -> list[NDArray[np.floating]]:
    values = column.combine_chunks()
    flat = values.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(values.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    return np.split(flat, ends[:-1]) if len(ends) else []
