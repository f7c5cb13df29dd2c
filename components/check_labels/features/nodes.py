"""Nodes of one graph: their own features and the means of those one and two edges away.

As in Wu et al., "Simplifying graph convolutional networks", ICML 2019: what propagation over edges adds, without training.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.features.vector import AXES, MOST_FITTED, read_vectors, vector_features

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float32]


def describe(version: DatasetVersion, splits: Sequence[str]) -> Floats:
    """Features of all nodes of some splits, in order, float32 [N, D]; neighbours are found in all splits."""
    everywhere = list(version.splits)
    names = np.concatenate([version.table(split, ["node"])["node"].to_numpy() for split in everywhere])
    sizes = [version.table(split, ["node"]).num_rows for split in everywhere]
    described = node_features(read_vectors(version, everywhere), names, version.beside("edges"))
    starts = dict(zip(everywhere, np.concatenate([[0], np.cumsum(sizes)]).tolist(), strict=False))
    rows = [np.arange(starts[split], starts[split] + sizes[everywhere.index(split)]) for split in splits]
    return described[np.concatenate(rows)] if rows else described[:0]


def node_features(vectors: Floats, names: NDArray[np.int64], edges: pa.Table | None) -> Floats:
    """Own features, means over neighbours, means over neighbours' neighbours; each of length one and at most 128 numbers.

    Args:
        vectors: Features of each node, float32 [N, D]. Counts stay as they are; features with negative values are standardised first.
        names: Number of each node, int64 [N].
        edges: Columns source and target, or null.
    """
    own = np.nan_to_num(vectors, nan=0.0, posinf=0.0, neginf=0.0)
    if (own < 0).any():
        own = vector_features(vectors)
    blocks = [_of_length_one(own)]
    if edges is not None and edges.num_rows:
        step = _mean_over_neighbours(names, edges)
        blocks += [step @ blocks[0]]
        blocks += [step @ blocks[1]]
    return np.concatenate([_folded(_of_length_one(block)) for block in blocks], axis=1)


def _of_length_one(rows: Floats) -> Floats:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9), dtype=np.float32)


def _folded(rows: Floats) -> Floats:
    """The main directions of the rows."""
    from sklearn.decomposition import TruncatedSVD

    if rows.shape[1] <= AXES or len(rows) <= AXES:
        return rows
    step = max(1, len(rows) // MOST_FITTED)
    return np.asarray(TruncatedSVD(AXES, random_state=0).fit(rows[::step]).transform(rows), dtype=np.float32)


def _mean_over_neighbours(names: NDArray[np.int64], edges: pa.Table) -> Any:
    """Sparse matrix [N, N] whose rows average a node with its neighbours, whatever the direction of the edges."""
    from scipy.sparse import csr_matrix, diags, identity

    order = np.argsort(names, kind="stable")
    ends = []
    for name in ("source", "target"):
        wanted = edges[name].to_numpy()
        place = np.minimum(np.searchsorted(names[order], wanted), len(names) - 1)
        ends.append((order[place], names[order[place]] == wanted))
    known = ends[0][1] & ends[1][1]  # an edge to a node that is not there leads nowhere
    source, target = ends[0][0][known], ends[1][0][known]
    count = len(names)
    links = csr_matrix((np.ones(len(source), dtype=np.float32), (source, target)), shape=(count, count))
    links = ((links + links.T) > 0).astype(np.float32) + identity(count, dtype=np.float32, format="csr")
    return diags(1.0 / np.asarray(links.sum(axis=1)).ravel()).astype(np.float32) @ links
