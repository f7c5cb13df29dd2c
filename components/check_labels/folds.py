"""Folds in which a row is never judged by a model that saw its group or an exact copy of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Ints = NDArray[np.int64]


def clusters(n: int, *keys: Ints | None) -> Ints:
    """Rows that belong together because they share a value of any key, directly or through others.

    Args:
        n: Number of rows.
        *keys: Codes int64 [n] for each reason to belong together (group, content), below 0 where there is none; null is left out.

    Returns:
        Number of the cluster of each row, int64 [n].
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, nodes, offset = [], [], n
    for key in keys:
        if key is not None:
            known = np.flatnonzero(key >= 0)
            rows.append(known)
            nodes.append(key[known] + offset)
            offset += int(key.max(initial=-1)) + 1
    if not rows:
        return np.arange(n)
    ends = np.concatenate(rows), np.concatenate(nodes)
    graph = coo_matrix((np.ones(len(ends[0]), dtype=np.int8), ends), shape=(offset, offset))
    return np.asarray(connected_components(graph, directed=False)[1][:n], dtype=np.int64)


def fold_of_rows(strata: Ints, cluster: Ints, *, folds: int, seed: int) -> Ints:
    """Folds that keep clusters whole and spread each stratum as evenly as that allows.

    Clusters of several rows go first, the largest before the others, each to the fold that has fewest rows of its main
    stratum; single rows then fill up what is missing. The cost grows with the number of rows.

    Args:
        strata: Class of each row, int64 [N].
        cluster: Cluster of each row, int64 [N].
        folds: Number of folds.
        seed: Seed of the order.

    Returns:
        Fold of each row, int64 [N].
    """
    generator = np.random.default_rng(seed)
    n, kinds = len(strata), int(strata.max(initial=0)) + 1
    filled = np.zeros((folds, kinds), dtype=np.int64)
    result = np.full(n, -1, dtype=np.int64)
    _, cluster, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    order = np.argsort(cluster, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)])
    several = np.flatnonzero(sizes > 1)
    several = several[np.lexsort((generator.random(len(several)), -sizes[several]))]
    for index in several.tolist():
        rows = order[starts[index] : starts[index + 1]]
        counts = np.bincount(strata[rows], minlength=kinds)
        load = filled[:, counts.argmax()] + filled.sum(axis=1) / (n + 1)
        fold = int(np.argmin(load))
        filled[fold] += counts
        result[rows] = fold
    single = generator.permutation(np.flatnonzero(result < 0))
    for kind, rows in _by_stratum(strata, single):
        result[rows] = _levelled(filled[:, kind], len(rows), generator)
    return result


def _by_stratum(strata: Ints, rows: Ints) -> list[tuple[int, Ints]]:
    rows = rows[np.argsort(strata[rows], kind="stable")]
    kinds, starts = np.unique(strata[rows], return_index=True)
    return list(zip(kinds.tolist(), np.split(rows, starts[1:]), strict=True)) if len(rows) else []


def _levelled(filled: Ints, count: int, generator: np.random.Generator) -> Ints:
    """The folds of ``count`` rows such that all folds end up as level as they can, int64 [count] in no particular order."""
    folds = len(filled)
    total = int(filled.sum()) + count
    wanted = np.full(folds, total // folds)
    wanted[generator.permutation(folds)[: total % folds]] += 1
    missing = np.maximum(wanted - filled, 0)
    while (over := int(missing.sum()) - count) > 0:  # a fold that is too full already leaves less for the others
        fullest = np.argsort(-missing, kind="stable")[: min(over, int((missing > 0).sum()))]
        missing[fullest] -= 1
    return np.repeat(np.arange(folds), missing)
