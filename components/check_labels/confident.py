"""Confident learning over blocks of rows: what cleanlab's default filter computes, without its copies of the whole matrix.

Northcutt, Jiang, Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021. The steps are those of
``cleanlab.filter.find_label_issues(filter_by="prune_by_noise_rate")`` and so are the flags; one difference: of rows with exactly equal margins
at the cut, the first ones are taken, where cleanlab takes whichever its unstable sort leaves in front.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Bools = NDArray[np.bool_]
    Probabilities = NDArray[np.floating]

BLOCK = 1 << 16  # rows looked at together
ELEMENTS = 1 << 24  # margins held at once
TOLERANCE = 1e-6  # as cleanlab: a probability this close to a threshold, or to that of the given label, reaches it


@dataclass(frozen=True, kw_only=True)
class ConfidentJoint:
    """Counts of rows by given and confidently guessed label.

    Attributes:
        thresholds: Mean probability of class k over the rows given k; 2 for a class without rows, float64 [K].
        counts: Rows given i that confidently look like j, int64 [K, K]; rows without a confident class are left out.
        calibrated: ``counts`` scaled to the number of rows given each label, whole numbers, int64 [K, K].
    """

    thresholds: NDArray[np.float64]
    counts: Ints
    calibrated: Ints


def blocks(n: int, size: int = BLOCK) -> Iterator[slice]:
    """Slices that cover ``n`` rows."""
    for start in range(0, n, size):
        yield slice(start, min(start + size, n))


def confident_joint(labels: Ints, probabilities: Probabilities, settled: Bools | None = None) -> ConfidentJoint:
    """The confident joint of given and guessed labels.

    Args:
        labels: Given labels, int64 [N].
        probabilities: Out-of-sample, [N, K], float32 or float64, in memory or memory-mapped.
        settled: Rows whose label is known to be right, bool [N]: they count as guessed right whatever the probabilities.
    """
    k = probabilities.shape[1]
    rows_of = np.bincount(labels, minlength=k)
    own = np.concatenate(
        [
            np.asarray(probabilities[part])[np.arange(part.stop - part.start), labels[part]]
            for part in blocks(len(labels))
        ]
        or [np.empty(0)]
    )
    sums = np.bincount(labels, weights=own, minlength=k)
    # A class without rows gets a threshold that no probability reaches.
    thresholds = np.where(rows_of > 0, np.maximum(sums / np.maximum(rows_of, 1), 2 * TOLERANCE), 2.0)
    counts = np.zeros(k * k, dtype=np.int64)
    for part in blocks(len(labels)):
        rows, guess = _confident_guesses(np.asarray(probabilities[part]), thresholds - TOLERANCE)
        if settled is not None:
            guess = np.where(settled[part][rows], labels[part][rows], guess)
        counts += np.bincount(labels[part][rows] * k + guess, minlength=k * k)
    counts = counts.reshape(k, k)
    return ConfidentJoint(thresholds=thresholds, counts=counts, calibrated=_calibrated(counts, rows_of))


def _confident_guesses(block: Probabilities, thresholds: NDArray[np.float64]) -> tuple[Ints, Ints]:
    """Rows of which some class reaches its threshold, and that class; where several do, the likeliest of all."""
    rows, columns = np.nonzero(block >= thresholds)
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    guess, many = columns[first], np.diff(first, append=len(rows)) > 1
    rows = rows[first]
    guess[many] = block[rows[many]].argmax(axis=1)
    return rows, guess


def _calibrated(counts: Ints, rows_of: Ints) -> Ints:
    """Counts scaled so that row i sums to the rows given label i."""
    joint = counts.copy(order="F")  # as cleanlab sums it: the last bit decides how halves are rounded
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    scaled = (joint.T / joint.sum(axis=1) * rows_of).T
    return np.stack([_whole(row) for row in scaled / (scaled.sum() or 1.0) * rows_of.sum()])


def _whole(values: NDArray[np.float64]) -> Ints:
    """Whole numbers with the same total: what rounding took or gave is settled where it was largest."""
    whole = values.round()
    missing = round(float(np.round(values.sum()) - whole.sum()))
    order = np.argsort(values - whole)
    changed = order[len(order) - missing :] if missing > 0 else order[: -missing or 0]
    whole[changed] += np.sign(missing)
    return whole.astype(np.int64)


def prune_by_noise_rate(labels: Ints, probabilities: Probabilities, settled: Bools | None = None) -> Bools:
    """Rows whose label is probably wrong: for each pair (i, j), as many rows given i as the joint says are j, those that look most like j.

    Args:
        labels: Given labels, int64 [N].
        probabilities: Out-of-sample, [N, K].
        settled: Rows whose label is known to be right, bool [N].

    Returns:
        bool [N]; never a settled row, nor a row whose given label is the likeliest.
    """
    removals = _removals(confident_joint(labels, probabilities, settled).calibrated)
    doubtful = np.empty(len(labels), dtype=np.bool_)
    for part in blocks(len(labels)):
        block = np.asarray(probabilities[part])
        own = block[np.arange(len(block)), labels[part]]
        doubtful[part] = block.max(axis=1) > own + block.dtype.type(TOLERANCE)
    if settled is not None:
        doubtful &= ~settled
    flagged = np.zeros(len(labels), dtype=np.bool_)
    order = np.argsort(labels, kind="stable")
    ends = np.searchsorted(labels[order], np.arange(probabilities.shape[1] + 1))
    for given, (start, end) in enumerate(pairwise(ends)):
        rows = order[start:end]
        if len(rows) > 1:
            _flag_class(given, rows, rows[doubtful[rows]], probabilities, removals[given], flagged)
    return flagged & doubtful


def _removals(calibrated: Ints) -> Ints:
    """Rows to flag of each pair (given, true), such that at least one row of each class stays."""
    diagonal = calibrated.diagonal()
    lift = np.maximum(diagonal, 1) - diagonal
    shares = np.maximum(np.count_nonzero(calibrated, axis=1) - 1, 1)
    removals = np.maximum(calibrated - (lift / shares)[:, None], 0).astype(np.int64)
    np.fill_diagonal(removals, 0)
    return removals


def _flag_class(
    given: int, rows: Ints, doubtful: Ints, probabilities: Probabilities, removals: Ints, flagged: Bools
) -> None:
    """Flag rows given one label.

    Only rows that look more like another class can be flagged in the end. Where at least as many of them prefer class j as are to be
    flagged for it, the choice is among them; else all rows of the class must be ranked.
    """
    wanted = np.flatnonzero(removals)
    step = max(1, ELEMENTS // probabilities.shape[1])
    margins = [_margins(given, doubtful[part], probabilities, wanted) for part in blocks(len(doubtful), step)]
    preferred = np.concatenate(margins, axis=1) if margins else np.empty((len(wanted), 0))
    left = []
    for column, margin in zip(wanted.tolist(), preferred, strict=True):
        if np.count_nonzero(margin > 0) >= removals[column]:
            flagged[doubtful[_largest(margin, int(removals[column]))]] = True
        else:
            left.append(column)
    at_once = max(1, ELEMENTS // len(rows))
    for first in range(0, len(left), at_once):
        columns = np.array(left[first : first + at_once])
        parts = [_margins(given, rows[part], probabilities, columns) for part in blocks(len(rows), step)]
        for column, margin in zip(columns, np.concatenate(parts, axis=1), strict=True):
            flagged[rows[_largest(margin, int(removals[column]))]] = True


def _margins(given: int, rows: Ints, probabilities: Probabilities, columns: Ints) -> Probabilities:
    """How much likelier each class is than the given one, [columns, rows]."""
    block = np.asarray(probabilities[rows])
    return np.ascontiguousarray((block[:, columns] - block[:, [given]]).T)


def _largest(values: NDArray[np.floating], count: int) -> Bools:
    """The ``count`` largest values; of equal ones the first."""
    if count >= len(values):
        return np.ones(len(values), dtype=np.bool_)
    cut = np.partition(values, len(values) - count)[len(values) - count]
    chosen = values > cut
    chosen[np.flatnonzero(values == cut)[: count - int(chosen.sum())]] = True
    return np.asarray(chosen)
