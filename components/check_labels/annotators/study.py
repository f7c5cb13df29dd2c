"""What the votes of several annotators say: how far they agree, what they say together, who is right how often, what is in dispute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.check_labels.annotators.agreement import agreement_by_class, krippendorff_alpha
from kfloop.components.check_labels.annotators.consensus import Consensus, Votes, dawid_skene
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.errors import InputError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

COLUMNS = ("id", "annotator", "label")
DISPUTED = 500
SURE = 0.9  # a consensus below is in dispute where the votes differ


@dataclass(frozen=True, kw_only=True)
class AnnotatorReport:
    """Study of the votes of several annotators.

    Attributes:
        n_annotators: Annotators with at least one vote.
        n_votes: Votes counted: one for each item and annotator.
        n_items: Items with a vote.
        n_repeated: Votes replaced by a later one of the same annotator for the same item.
        n_unknown: Items with votes that the dataset does not hold.
        alpha: Krippendorff's alpha, nominal; unknown without an item of two votes or where only one class is said.
        agreement_by_class: For each class: ``label``, ``n`` (votes for it on items of two votes or more) and ``agreement``, the share
            of another vote on the same item saying it too.
        quality: For each annotator: ``annotator``, ``n`` and ``accuracy``, the share of their answers that agree with the truth under the
            consensus; unknown for who shares no item with another. Least accurate first.
        disputed: Items whose given label is not the consensus, surest first; then those on which the votes differ without a sure result. At
            most 500: ``id``, ``given``, ``consensus``, ``confidence``.
        ids: Items, in order.
        labels: Class names.
        consensus: Consensus of each item of ``ids``.
        votes: Number of votes of each item of ``ids``.
    """

    n_annotators: int
    n_votes: int
    n_items: int
    n_repeated: int
    n_unknown: int
    alpha: Estimate
    agreement_by_class: list[dict[str, Any]]
    quality: list[dict[str, Any]]
    disputed: list[dict[str, Any]]
    ids: list[str]
    labels: list[str]
    consensus: Consensus
    votes: np.ndarray

    def as_dict(self) -> dict[str, Any]:
        """The part for ``report.json``."""
        hidden = ("ids", "labels", "consensus", "votes")
        return {name: value for name, value in vars(self).items() if name not in hidden}

    def write(self, out: Path) -> None:
        """Write ``consensus.parquet`` (id, label, confidence, votes) into a folder."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(
            {
                "id": pa.array(self.ids, pa.string()),
                "label": pa.array([self.labels[index] for index in self.consensus.label], pa.string()),
                "confidence": pa.array(self.consensus.confidence, pa.float64()),
                "votes": pa.array(self.votes, pa.int64()),
            }
        )
        pq.write_table(table, out / "consensus.parquet")


def study_votes(
    votes: pa.Table, given: Mapping[str, str], labels: Sequence[str], *, level: float = 0.95, seed: int = 0
) -> AnnotatorReport:
    """Study votes: agreement, consensus, quality, disputes.

    Args:
        votes: Columns ``id``, ``annotator``, ``label`` (a class name), all string. Of several votes of one annotator for one item the last counts.
        given: Label in the dataset of each id.
        labels: Class names.
        level: Confidence level of intervals.
        seed: Seed of the bootstrap.

    Raises:
        InputError: A column is missing, a cell is empty, or a label is not one of ``labels``; names row and column.
    """
    items, people, answers = _columns(votes, labels)
    ids, item = np.unique(items, return_inverse=True)
    names, person = np.unique(people, return_inverse=True)
    kept = _last(item * max(len(names), 1) + person)
    kept = kept[np.argsort(item[kept], kind="stable")]
    table = Votes(
        item=item[kept].astype(np.int64),
        annotator=person[kept].astype(np.int64),
        label=answers[kept],
        n_items=len(ids),
        n_annotators=len(names),
        n_labels=len(labels),
    )
    consensus = dawid_skene(table)
    counts = table.counts()
    listed = [str(text) for text in ids]
    return AnnotatorReport(
        n_annotators=len(names),
        n_votes=len(kept),
        n_items=len(ids),
        n_repeated=len(items) - len(kept),
        n_unknown=sum(text not in given for text in listed),
        alpha=krippendorff_alpha(counts, level=level, seed=seed),
        agreement_by_class=agreement_by_class(counts, labels, level=level, seed=seed),
        quality=_quality(table, consensus, [str(name) for name in names], level),
        disputed=_disputed(listed, given, labels, consensus, counts),
        ids=listed,
        labels=list(labels),
        consensus=consensus,
        votes=counts.sum(axis=1).astype(np.int64),
    )


def _columns(votes: pa.Table, labels: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, annotators and label indices of all votes."""
    for name in COLUMNS:
        if name not in votes.column_names:
            raise InputError(
                f"votes have no column '{name}'; they have {', '.join(votes.column_names) or 'none'}",
                hint=f"votes need the columns {', '.join(COLUMNS)}",
                column=name,
            )
    index = {label: place for place, label in enumerate(labels)}
    cells = {name: votes[name].to_pylist() for name in COLUMNS}
    for name, column in cells.items():
        empty = next((row for row, cell in enumerate(column) if cell is None or cell == ""), None)
        if empty is not None:
            raise InputError(
                f"votes, row {empty}, column '{name}' is empty; expected a text",
                hint="fill the cell, or remove the row",
                row=empty,
                column=name,
            )
    wrong = next((row for row, label in enumerate(cells["label"]) if str(label) not in index), None)
    if wrong is not None:
        label = str(cells["label"][wrong])
        raise InputError(
            f"votes, row {wrong}, column 'label': '{label}' is not a class of this dataset",
            hint=nearest(label, labels),
            row=wrong,
            column="label",
        )
    texts = [np.array([str(cell) for cell in cells[name]], dtype=str) for name in COLUMNS[:2]]
    return texts[0], texts[1], np.array([index[str(label)] for label in cells["label"]], dtype=np.int64)


def _last(keys: np.ndarray) -> np.ndarray:
    """Position of the last occurrence of each key, in order of position."""
    _, place = np.unique(keys[::-1], return_index=True)
    return np.sort(len(keys) - 1 - place)


def _quality(votes: Votes, consensus: Consensus, names: Sequence[str], level: float) -> list[dict[str, Any]]:
    """Accuracy of each annotator on items that others voted on too: the expected share of right answers under the posterior."""
    shared = np.bincount(votes.item, minlength=votes.n_items)[votes.item] > 1
    right = np.where(shared, consensus.posterior[votes.item, votes.label], 0.0) if len(votes.item) else np.empty(0)
    given = np.bincount(votes.annotator, minlength=votes.n_annotators)
    judged = np.bincount(votes.annotator, weights=shared, minlength=votes.n_annotators)
    hits = np.bincount(votes.annotator, weights=right, minlength=votes.n_annotators)
    rows = [
        {"annotator": name, "n": int(given[place]), "accuracy": wilson(round(hits[place]), round(judged[place]), level)}
        for place, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: (not row["accuracy"].known, row["accuracy"].value, row["annotator"]))


def _disputed(
    ids: Sequence[str], given: Mapping[str, str], labels: Sequence[str], consensus: Consensus, counts: np.ndarray
) -> list[dict[str, Any]]:
    rows = []
    split = (counts > 0).sum(axis=1) > 1
    for place, text in enumerate(ids):
        said, old = labels[consensus.label[place]], given.get(text)
        differs = old is not None and old != said
        confidence = float(consensus.confidence[place])
        if differs or (split[place] and confidence < SURE):
            row = {"id": text, "given": old, "consensus": said, "confidence": confidence}
            rows.append((not differs, -confidence if differs else confidence, text, row))
    return [row for *_, row in sorted(rows, key=lambda entry: entry[:3])[:DISPUTED]]
