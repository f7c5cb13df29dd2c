"""Which labels are probably wrong, given out-of-sample predictions: classes, sets of classes, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.components.check_labels.confident import blocks, prune_by_noise_rate
from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Bools = NDArray[np.bool_]
    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

SCALE_BINS = 10  # residuals are scaled within bins of the prediction: noise often grows with the size of the target
BIN_ROWS = 200
FALSE_SHARE = 0.05  # of flagged targets
MAD_TO_STD = 1.4826
FREEDOM = (2.0, 3.0, 4.0, 6.0, 10.0, 30.0, 1e6)


@dataclass(frozen=True, kw_only=True)
class NumberIssues:
    """Noisy targets of a regression.

    Attributes:
        flagged: Whether a target is probably wrong, bool [N].
        margin: 1 at a residual of zero, 0 at the smallest flagged one, at least -1, float64 [N].
        confidence: Chance of a residual at least this large, were the target right, float64 [N].
    """

    flagged: Bools
    margin: Floats
    confidence: Floats


def find_issues(labels: Ints, probabilities: NDArray[np.floating], settled: Bools | None = None) -> Bools:
    """Rows whose given class is probably wrong: confident learning, pruned by noise rate (Northcutt, Jiang, Chuang, JAIR 2021).

    The flags are those of cleanlab's default filter, found in blocks of rows: memory for a few megabytes beside the inputs, which may be
    float32 and memory-mapped.

    Args:
        labels: Given classes, int64 [N], 0 to K - 1.
        probabilities: Out-of-sample, [N, K].
        settled: Rows whose label a person has confirmed or corrected, bool [N]; they are never flagged.

    Returns:
        bool [N].

    Raises:
        InputError: Shapes do not fit, a label is out of range, or a probability is not a number.
    """
    labels = np.asarray(labels, dtype=np.int64)
    if probabilities.ndim != 2 or len(probabilities) != len(labels):  # noqa: PLR2004 - rows and columns
        raise InputError(
            f"probabilities have the shape {probabilities.shape}, expected ({len(labels)}, number of classes)"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= probabilities.shape[1]))
    if len(outside):
        row = int(outside[0])
        raise InputError(f"row {row} has the label {labels[row]}, expected 0 to {probabilities.shape[1] - 1}", row=row)
    for part in blocks(len(labels)):
        block = np.asarray(probabilities[part])
        if not np.isfinite(block.sum()):
            row = part.start + int((~np.isfinite(block.sum(axis=1))).argmax())
            raise InputError(f"row {row} has a probability that is not a number", hint="look at the model", row=row)
    if len(labels) == 0 or probabilities.shape[1] == 1:
        return np.zeros(len(labels), dtype=np.bool_)
    return prune_by_noise_rate(labels, probabilities, settled)


def normalized_margin(labels: Ints, probabilities: NDArray[np.floating]) -> Floats:
    """Probability of the given label minus the largest of the others, in [-1, 1]; low is doubtful, float64 [N]."""
    result = np.empty(len(labels))
    for part in blocks(len(labels)):
        block = np.array(probabilities[part], dtype=np.float64)
        rows = np.arange(len(block))
        own = block[rows, labels[part]]
        block[rows, labels[part]] = -np.inf
        result[part] = own - (block.max(axis=1) if block.shape[1] > 1 else 0.0)
    return result


def find_set_issues(given: Bools, probabilities: Floats, settled: Bools | None = None) -> Bools:
    """Which memberships of a multi-label task are probably wrong: each class against the rest by ``find_issues``.

    That is what ``cleanlab.multilabel_classification`` does; a row has an issue when any of its classes has.

    Args:
        given: Whether row n has class k, bool [N, K].
        probabilities: Out-of-sample chance of that, float64 [N, K].
        settled: Rows that are never flagged, bool [N].

    Returns:
        bool [N, K].
    """
    result = np.zeros(given.shape, dtype=np.bool_)
    for k in range(given.shape[1]):
        chance = probabilities[:, k]
        result[:, k] = find_issues(given[:, k].astype(np.int64), np.stack([1.0 - chance, chance], axis=1), settled)
    return result


def find_number_issues(targets: Floats, predictions: Floats) -> NumberIssues:
    """Targets that are too far from their out-of-sample predictions.

    Residuals are centred and scaled by median and median absolute deviation within bins of the prediction. Their tail is that of a Student
    distribution, whose freedom is taken from the ratio of the 90% to the 50% quantile of the absolute residuals (few wrong targets do
    not reach there); of the chances it gives, those that Benjamini & Hochberg (1995) reject at a false share of 5% are flagged.

    Args:
        targets: Given numbers, float64 [N].
        predictions: Out-of-sample, float64 [N].
    """
    from scipy.stats import t as student

    size = np.abs(_scaled(targets - predictions, predictions))
    quantile = np.quantile(size, [0.5, 0.9]) if len(size) else np.array([1.0, 1.0])
    ratio = float(quantile[1] / max(quantile[0], 1e-12))
    ratios = np.array([student.ppf(0.95, freedom) / student.ppf(0.75, freedom) for freedom in FREEDOM])
    freedom = FREEDOM[int(np.abs(ratios - ratio).argmin())]
    unit = max(float(quantile[0]) / float(student.ppf(0.75, freedom)), 1e-12)
    chance = np.asarray(2.0 * student.sf(size / unit, freedom))
    order = np.argsort(chance, kind="stable")
    passes = np.flatnonzero(chance[order] <= FALSE_SHARE * np.arange(1, len(chance) + 1) / max(len(chance), 1))
    flagged = np.zeros(len(chance), dtype=np.bool_)
    if len(passes):
        flagged[order[: passes[-1] + 1]] = True
    cut = (
        float(size[flagged].min())
        if flagged.any()
        else float(student.isf(FALSE_SHARE / max(2 * len(size), 2), freedom)) * unit
    )
    return NumberIssues(flagged=flagged, margin=np.clip(1.0 - size / max(cut, 1e-12), -1.0, 1.0), confidence=chance)


def _scaled(residuals: Floats, predictions: Floats) -> Floats:
    """Residuals in robust standard deviations of their bin."""
    bins = int(np.clip(len(residuals) // BIN_ROWS, 1, SCALE_BINS))
    result = np.empty(len(residuals))
    floor = 1e-9 * max(float(np.abs(residuals).max(initial=0.0)), 1e-300)
    for rows in np.array_split(np.argsort(predictions, kind="stable"), bins):
        centred = residuals[rows] - np.median(residuals[rows])
        result[rows] = centred / max(MAD_TO_STD * float(np.median(np.abs(centred))), floor)
    return result
