"""Out-of-sample predictions of numbers, for regression targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.issues import find_number_issues
from kfloop.components.check_labels.learners import calm
from kfloop.components.check_labels.probabilities import MOST_ROWS, SAMPLE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

TREES = 150
PENALTY = 1.0


def predict_numbers(
    features: NDArray[np.floating],
    targets: Floats,
    fold: Ints,
    *,
    order: Ints | None,
    seed: int,
    settled: Bools | None = None,
) -> Floats:
    """Each row's target as foreseen by models that never saw it: boosted trees averaged with ridge regression, in two rounds.

    The second round learns without the targets that the first found too far off, and alone counts: a wild target pulls a model of
    squares much further than a wrong class pulls a classifier.

    Args:
        features: [N, D].
        targets: float64 [N].
        fold: Fold of each row, int64 [N].
        order: All rows in a stable order; the first 100 000 are learned from when there are more than 200 000.
        seed: Seed of the trees.
        settled: Rows whose target is known to be right, bool [N]: never left out.
    """
    usable = np.ones(len(targets), dtype=np.bool_)
    if order is not None and len(targets) > MOST_ROWS:
        usable[:] = False
        usable[order[:SAMPLE]] = True
    size = float(np.abs(targets).max(initial=0.0)) or 1.0  # squares of huge numbers would overflow
    targets = targets / size
    first = _round(features, targets, fold, usable, seed)
    doubtful = find_number_issues(targets, first).flagged
    if settled is not None:
        doubtful &= ~settled
    return _round(features, targets, fold, usable & ~doubtful, seed) * size


def _round(features: NDArray[np.floating], targets: Floats, fold: Ints, usable: Bools, seed: int) -> Floats:
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    result = np.zeros(len(targets))
    for held_fold in np.unique(fold).tolist():
        fit, held = np.flatnonzero((fold != held_fold) & usable), np.flatnonzero(fold == held_fold)
        if not len(fit):  # all rows are one cluster
            result[held] = np.median(targets[held])
            continue
        trees = HistGradientBoostingRegressor(max_iter=TREES, early_stopping=False, random_state=seed)
        line = make_pipeline(StandardScaler(), Ridge(PENALTY))
        with calm(len(fit)):
            for model in (trees, line):
                result[held] += model.fit(features[fit], targets[fit]).predict(features[held]) / 2
    return result
