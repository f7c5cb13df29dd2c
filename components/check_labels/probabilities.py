"""Out-of-sample probabilities by cross-fitting, in two rounds: the second learns without the rows that the first found doubtful.

Wrong labels teach a model to defend them, most of all when they are wrong in the same way. So the rows whose labels the first round
flags are left out of what the second learns from, all rows are judged again, and the two rounds are averaged: the first knows nothing of the
flags, the second little of the wrong labels. A row is always judged by models that were fitted without it, its group and its exact
copies; that some rows were left out does depend, weakly, on models that saw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.confident import blocks
from kfloop.components.check_labels.issues import find_issues

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.check_labels.learners import Learner

    Bools = NDArray[np.bool_]
    Ints = NDArray[np.int64]

MOST_ROWS = 200_000  # beyond, models are fitted on a sample
SAMPLE = 100_000
FEWEST_FOLDS = 2
HELD_AT_ONCE = 1 << 16


@dataclass(frozen=True, kw_only=True)
class CrossFit:
    """Judgement of each row by models that did not see it.

    Attributes:
        probabilities: float32 or float64 [N, K], rows sum to one.
        checked: Rows whose given class was among what their model learned, bool [N]; nothing can be said of the others.
    """

    probabilities: NDArray[np.floating]
    checked: Bools


def cross_fit(
    learner: Learner,
    labels: Ints,
    classes: int,
    fold: Ints,
    *,
    order: Ints | None = None,
    settled: Bools | None = None,
) -> CrossFit:
    """Two rounds of cross-fitting.

    Args:
        learner: What learns and judges.
        labels: Given classes, int64 [N].
        classes: Number of classes K.
        fold: Fold of each row, int64 [N].
        order: All rows in a stable order, of which the first 100 000 are learned from when there are more than 200 000; null means all.
        settled: Rows whose label is known to be right, bool [N]: never left out.
    """
    sampled = np.ones(len(labels), dtype=np.bool_)
    if order is not None and len(labels) > MOST_ROWS:
        sampled[:] = False
        sampled[order[:SAMPLE]] = True
    first, checked = _round(learner, labels, classes, fold, sampled, clean=False)
    doubtful = np.zeros(len(labels), dtype=np.bool_)
    doubtful[checked] = find_issues(labels[checked], first[checked], None if settled is None else settled[checked])
    second, _ = _round(learner, labels, classes, fold, _without(sampled, doubtful, labels, fold), clean=True)
    for part in blocks(len(labels)):
        first[part] = (first[part] + second[part]) / 2
    return CrossFit(probabilities=first, checked=checked)


def _round(
    learner: Learner, labels: Ints, classes: int, fold: Ints, usable: Bools, *, clean: bool
) -> tuple[NDArray[np.floating], Bools]:
    """Probabilities of every row, and whether its class was learned."""
    result = np.zeros((len(labels), classes), dtype=np.float32 if len(labels) > MOST_ROWS else np.float64)
    checked = np.zeros(len(labels), dtype=np.bool_)
    for held_fold in np.unique(fold).tolist():
        fit, held = np.flatnonzero((fold != held_fold) & usable), np.flatnonzero(fold == held_fold)
        if not len(fit):  # all rows are one cluster: nothing can be said
            continue
        result[held] = learner(fit, held, clean=clean)
        checked[held] = np.isin(labels[held], np.unique(labels[fit]))
    return result, checked


def _without(usable: Bools, doubtful: Bools, labels: Ints, fold: Ints) -> Bools:
    """Usable rows without doubtful ones, except where a class would have none left for some fold."""
    kept = usable & ~doubtful
    kinds, folds = int(labels.max(initial=0)) + 1, int(fold.max(initial=0)) + 1
    counts = np.bincount(labels[kept] * folds + fold[kept], minlength=kinds * folds).reshape(kinds, folds)
    bare = (counts.sum(axis=1, keepdims=True) - counts).min(axis=1) == 0
    return np.asarray(kept | (usable & bare[labels]))


def folds_for(rows: int, wanted: int) -> int:
    """Number of folds: as many as wanted, or as there are rows.

    A class with fewer rows than folds is held out in fewer of them; its other rows are always there to learn from.
    """
    return max(FEWEST_FOLDS, min(wanted, rows))
