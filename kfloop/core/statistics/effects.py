"""How large a drift is, beside the evidence that there is one: with enough rows any drift is certain, few matter.

All functions take plain arrays, are deterministic, and answer NaN (never a guess) when there is too little to go by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.statistics.estimate import Estimate
from kfloop.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BLIND_SPOT = (
    "Estimated without labels from the model's own confidence: right under covariate shift as long as the probabilities "
    "stay calibrated, blind by design to a change of what the labels mean."
)
_FOLDS = 5
_RIDGE = 1.0
_NEWTON_STEPS = 25
_CLIP = 6.0


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One quantity in the reference and now.

    Attributes:
        name: What it is.
        reference: Its mean in the reference.
        current: Its mean in the current rows.
        shift_sd: Difference in standard deviations of the reference; NaN when the reference does not vary and the mean moved.
    """

    name: str
    reference: float
    current: float
    shift_sd: float


def feature_shifts(reference: Array, current: Array, names: Sequence[str]) -> list[Effect]:
    """Return the shift of every column, in standard deviations of the reference.

    Args:
        reference: Reference rows, [n, d].
        current: Current rows, [m, d].
        names: One name per column.

    Raises:
        InputError: The columns do not match.
    """
    if not reference.shape[1] == current.shape[1] == len(names):
        message = f"{reference.shape[1]} reference columns, {current.shape[1]} current ones, {len(names)} names: expected equal"
        raise InputError(message, hint="The request log was written by a model of another shape.")
    effects = []
    for column, name in enumerate(names):
        before, now = _mean(reference[:, column]), _mean(current[:, column])
        spread = float(np.std(reference[:, column])) if len(reference) else math.nan
        effects.append(Effect(name=name, reference=before, current=now, shift_sd=_ratio(now - before, spread)))
    return effects


def share_shifts(reference: Array, current: Array, labels: Sequence[str]) -> list[Effect]:
    """Return the shift of the share of each predicted class (argmax of [n, K] probabilities).

    `shift_sd` is in standard deviations of one prediction, sqrt(p (1 - p)) with p the reference share.

    Raises:
        InputError: The number of classes differs.
    """
    one_hot = [np.eye(rows.shape[1])[rows.argmax(axis=1)] for rows in (reference, current)]
    return feature_shifts(one_hot[0], one_hot[1], [f"share of '{label}'" for label in labels])


def c2st_auc(reference: Array, current: Array, *, level: float = 0.95, seed: int = 0) -> Estimate:
    """Return how well a classifier tells current rows from reference rows, as a held-out AUC.

    Classifier two-sample test (Lopez-Paz and Oquab, ICLR 2017) with ridge logistic regression, every row scored by a
    model that did not see it (5 folds). 0.5 means indistinguishable, 1 means disjoint. The AUC is computed within each
    fold and averaged, because scores of different fits are not comparable; below 0.5 is chance and stays as it is.
    The interval is that of Hanley and McNeil (Radiology 143, 1982).

    Args:
        reference: Reference rows, [n, d].
        current: Current rows, [m, d].
        level: Confidence level of the interval.
        seed: Seed of the folds.
    """
    n, m = len(reference), len(current)
    if min(n, m) < 2 * _FOLDS:
        return Estimate(value=math.nan, low=math.nan, high=math.nan, n=n + m, level=level)
    rng = np.random.default_rng(seed)
    x = np.concatenate([reference, current])
    y = np.concatenate([np.zeros(n), np.ones(m)])
    fold = np.concatenate([rng.permutation(n) % _FOLDS, rng.permutation(m) % _FOLDS])
    aucs = []
    for number in range(_FOLDS):
        held_out = fold == number
        score = _logistic_score(x[~held_out], y[~held_out], x[held_out])
        aucs.append(_auc(score[y[held_out] == 0], score[y[held_out] == 1]))
    value = float(np.mean(aucs))
    half = NormalDist().inv_cdf(0.5 + level / 2) * _auc_error(value, n, m)
    return Estimate(value=value, low=max(0.0, value - half), high=min(1.0, value + half), n=n + m, level=level)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else math.nan


def _ratio(difference: float, spread: float) -> float:
    if spread > 0:
        return difference / spread
    return 0.0 if difference == 0 else math.nan


def _logistic_score(x: Array, y: Array, new: Array) -> Array:
    """Fit ridge logistic regression with balanced classes by Newton's method and score new rows."""
    centre, scale = x.mean(axis=0), x.std(axis=0)
    scale = np.where(scale > 0, scale, 1.0)

    def design(rows: Array) -> Array:
        return np.column_stack([np.ones(len(rows)), np.clip((rows - centre) / scale, -_CLIP, _CLIP)])

    features = design(x)
    weight = np.where(y == 1, 0.5 / y.mean(), 0.5 / (1 - y.mean()))
    penalty = np.full(features.shape[1], _RIDGE)
    penalty[0] = 1e-6  # the intercept is free, but the system stays regular
    beta = np.zeros(features.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(features @ beta, -30, 30)))
        gradient = features.T @ (weight * (y - p)) - penalty * beta
        hessian = (features * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ features + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        beta = beta + step
        if np.abs(step).max() < 1e-6:  # noqa: PLR2004 - converged
            break
    return np.asarray(design(new) @ beta)


def _auc(negative: Array, positive: Array) -> float:
    """Area under the ROC curve by comparing all pairs through sorting; ties count one half."""
    ordered = np.sort(negative)
    below = np.searchsorted(ordered, positive, side="left")
    not_above = np.searchsorted(ordered, positive, side="right")
    return float((below + not_above).mean() / (2 * len(negative)))


def _auc_error(auc: float, n: int, m: int) -> float:
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (n * m)
    return math.sqrt(max(variance, 0.0))
