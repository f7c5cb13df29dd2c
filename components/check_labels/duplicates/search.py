"""Which rows of a dataset version repeat each other, which of them carry different labels, and which leak from training into testing.

Rows of equal content are exact duplicates and form a cluster. One member of each cluster, its first row, is compared with those of the
others by what near means for its modality. A cluster links its members to its first one only, so that a thousand equal rows are 999 pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.duplicates.arrays import near_rows, near_vectors
from kfloop.components.check_labels.duplicates.audio import near_audio
from kfloop.components.check_labels.duplicates.coincidences import MANY, expected_coincidences
from kfloop.components.check_labels.duplicates.images import Pictures, near_pictures
from kfloop.components.check_labels.duplicates.rows import LightRows, read_light_rows, readable
from kfloop.components.check_labels.duplicates.texts import near_texts
from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.versions import DatasetVersion

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]
    Flags = NDArray[np.bool_]

LISTED = 500
MOST_COMPARED = 2_000_000  # rows of different content; beyond, only equal ones are looked for
COMPARED = ("image", "text", "audio", "table", "vector")
TRAIN = "train"
JUDGED = ("validation", "test")
SPLIT_APART = ("train", *JUDGED)


@dataclass(frozen=True, kw_only=True)
class DuplicateReport:
    """Duplicates of one dataset version. Rows are in the order of ``version.splits``.

    Attributes:
        exact: Pairs of equal content; a cluster of m rows counts m - 1.
        near: Pairs that are near but not equal; two clusters count once.
        conflicting: Pairs whose labels differ.
        leaking: Pairs that lie in two of train, validation and test.
        pairs: At most 500: ``a``, ``b``, ``kind`` (exact or near), ``distance``, ``split_a``, ``split_b``, ``label_a``, ``label_b``,
            ``conflict``, ``leak``. Conflicts first, then leaks.
        leakage: Share of validation and test rows that have a duplicate, or a row of their group, in train.
        conflict: Whether a row has a duplicate of another label, bool [N].
        coincidences: Rows that equal a row by chance. Above a hundredth duplicates are no evidence: there are no conflicts and leaks then,
            and the leakage is unknown.
        compared: Rows of different content that were compared for near duplicates; 0 where the modality has none, or there are more than
            two million.
    """

    exact: int
    near: int
    conflicting: int
    leaking: int
    pairs: list[dict[str, Any]]
    leakage: Estimate
    conflict: Flags
    coincidences: float
    compared: int

    def as_dict(self) -> dict[str, Any]:
        """The part ``duplicates`` of ``report.json``."""
        names = ("exact", "near", "conflicting", "leaking", "coincidences", "compared", "pairs")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, kw_only=True)
class DuplicatePairs:
    """Pairs of duplicates. Rows are in the order of ``version.splits``.

    Attributes:
        rows: Both rows, int64 [P, 2], the earlier first; exact pairs before near ones.
        near: Whether the pair is near rather than exact, bool [P].
        distance: What the modality measures, 0 for exact pairs, [P].
        first: First row of each cluster of equal content, int64 [clusters].
        cluster: Cluster of each row, int64 [N].
        left: For each near pair its first cluster.
        right: And its second.
    """

    rows: Ints
    near: Flags
    distance: Floats
    first: Ints
    cluster: Ints
    left: Ints
    right: Ints


def find_duplicates(
    version: DatasetVersion, near_distance: int | None = None, *, level: float = 0.95
) -> DuplicateReport:
    """Find exact and near duplicates over all splits.

    Args:
        version: Dataset version.
        near_distance: Photos only: largest number of the 256 bits of the perceptual hash in which near duplicates may differ;
            null: 40. Whether photos of any distance have near pixels is looked at besides.
        level: Confidence level of the leakage.
    """
    rows = read_light_rows(version)
    pairs = duplicate_pairs(version, near_distance, rows.content)
    coincidences = expected_coincidences(version)
    telling = coincidences <= MANY
    conflict = telling & _differ(rows.label[pairs.rows[:, 0]], rows.label[pairs.rows[:, 1]], rows.tolerance)
    splits = rows.split[pairs.rows]
    leak = telling & (splits[:, 0] != splits[:, 1]) & np.isin(splits, SPLIT_APART).all(axis=1)
    order = np.lexsort((pairs.rows[:, 1], pairs.rows[:, 0], pairs.distance, pairs.near, ~leak, ~conflict))[:LISTED]
    return DuplicateReport(
        exact=int((~pairs.near).sum()),
        near=int(pairs.near.sum()),
        conflicting=int(conflict.sum()),
        leaking=int(leak.sum()),
        pairs=_listed(version, rows, pairs, order, conflict, leak),
        leakage=_leakage(rows, pairs, level, grouped=version.modality != "series") if telling else wilson(0, 0, level),
        conflict=_conflicts(rows, pairs) & telling,
        coincidences=coincidences,
        compared=len(pairs.first) if version.modality in COMPARED and len(pairs.first) <= MOST_COMPARED else 0,
    )


def duplicate_pairs(version: DatasetVersion, near_distance: int | None, content: Ints | None = None) -> DuplicatePairs:
    """All pairs behind a report.

    Args:
        version: Dataset version.
        near_distance: As for :func:`find_duplicates`.
        content: Column ``content`` of all rows, where it has been read.
    """
    content = read_light_rows(version).content if content is None else content
    first, cluster = _clusters(content, repeats=version.modality != "series")
    left, right, distance = _near(version, first, near_distance)
    again = np.flatnonzero(first[cluster] != np.arange(len(cluster)))
    pairs = np.concatenate(
        [np.column_stack([first[cluster[again]], again]), np.column_stack([first[left], first[right]])]
    )
    return DuplicatePairs(
        rows=np.sort(pairs, axis=1).astype(np.int64),
        near=np.arange(len(pairs)) >= len(again),
        distance=np.concatenate([np.zeros(len(again)), distance]),
        first=first,
        cluster=cluster,
        left=left,
        right=right,
    )


def _differ(first: Floats, second: Floats, tolerance: float) -> Flags:
    """Whether two labels differ; an unknown one differs from none."""
    return np.asarray(np.abs(first - second) > tolerance)


def _clusters(content: Ints, *, repeats: bool) -> tuple[Ints, Ints]:
    """First row of each cluster of equal content, in order; and the cluster of each row."""
    n = len(content)
    if not repeats:
        return np.arange(n), np.arange(n)
    return np.unique(content, return_index=True)[1].astype(np.int64), content


def _near(version: DatasetVersion, first: Ints, near_distance: int | None) -> tuple[Ints, Ints, Floats]:
    """Near pairs among the first rows of clusters: positions in ``first`` (left < right), and their distance."""
    import pyarrow as pa

    def whole(names: list[str]) -> pa.Table:
        return pa.concat_tables([version.table(split, names) for split in version.splits])

    modality = version.modality if 1 < len(first) <= MOST_COMPARED else ""
    near: tuple[Ints, Ints, Floats] = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    if modality == "image":
        have = version.table(version.splits[0]).column_names
        facts = whole([name for name in ("phash", "width", "height") if name in have])
        near = near_pictures(Pictures(whole(["image"])["image"], version.image_shape), first, facts, near_distance)
    elif modality == "text":
        near = near_texts(whole(version.inputs)[version.inputs[0]].take(first).to_pylist())
    elif modality == "audio":
        near = near_audio(whole(["audio"])["audio"], first, int(version.schema["sample_rate"]))
    elif modality == "table":
        near = near_rows(whole(version.inputs).take(first))
    elif modality == "vector":
        near = near_vectors(whole(["vector"])["vector"], first)
    return near


def _conflicts(rows: LightRows, pairs: DuplicatePairs) -> Flags:
    """Whether a row's own cluster, or one near it, holds a label that differs from the row's."""
    known = np.isfinite(rows.label)
    low, high = np.full(len(pairs.first), np.inf), np.full(len(pairs.first), -np.inf)
    np.minimum.at(low, pairs.cluster[known], rows.label[known])
    np.maximum.at(high, pairs.cluster[known], rows.label[known])
    around_low, around_high = low.copy(), high.copy()
    for here, there in ((pairs.left, pairs.right), (pairs.right, pairs.left)):
        np.minimum.at(around_low, here, low[there])
        np.maximum.at(around_high, here, high[there])
    above = rows.label - around_low[pairs.cluster] > rows.tolerance
    below = around_high[pairs.cluster] - rows.label > rows.tolerance
    return np.asarray(known & (above | below))


def _leakage(rows: LightRows, pairs: DuplicatePairs, level: float, *, grouped: bool) -> Estimate:
    """Share of validation and test rows with a duplicate, or a row of their group, in train."""
    train = rows.split == TRAIN
    trained = np.zeros(len(pairs.first), dtype=bool)
    trained[pairs.cluster[train]] = True
    around = trained.copy()
    np.logical_or.at(around, pairs.left, trained[pairs.right])
    np.logical_or.at(around, pairs.right, trained[pairs.left])
    leaks = around[pairs.cluster]
    if grouped:
        leaks |= (rows.group >= 0) & np.isin(rows.group, rows.group[train])
    judged = np.isin(rows.split, JUDGED)
    return wilson(int(leaks[judged].sum()), int(judged.sum()), level)


def _listed(
    version: DatasetVersion, rows: LightRows, pairs: DuplicatePairs, order: Ints, conflict: Flags, leak: Flags
) -> list[dict[str, Any]]:
    """The pairs at ``order`` as the report states them."""
    ids, labels = readable(version, np.unique(pairs.rows[order]))
    listed = []
    for place in order:
        a, b = (int(row) for row in pairs.rows[place])
        listed.append(
            {
                "a": ids[a],
                "b": ids[b],
                "kind": "near" if pairs.near[place] else "exact",
                "distance": round(float(pairs.distance[place]), 4),
                "split_a": str(rows.split[a]),
                "split_b": str(rows.split[b]),
                "label_a": labels[a],
                "label_b": labels[b],
                "conflict": bool(conflict[place]),
                "leak": bool(leak[place]),
            }
        )
    return listed
