"""How many labels are wrong, of which class, and what they should be: estimates from the confident joint, with intervals."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.components.check_labels.confident import ConfidentJoint

MOST_CLASSES = 100  # a larger matrix is no help to a reader
FULL_UP_TO = 12  # classes up to which pairs that never occur are stated too
UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)


def overall_noise(joint: ConfidentJoint, doubted: int) -> Estimate:
    """Estimated share of wrong labels, at most the share that the models would have otherwise.

    The confident joint, calibrated to the number of rows of each given label, states how many labels are wrong; the Wilson interval around
    that share treats them as draws. It covers sampling, not a model that cannot tell two classes apart: coverage is approximate.
    The joint counts confident rows only: of models that are unsure of right labels it would state several times the noise. A label
    that the models themselves find likeliest is no wrong one, so the rows they disagree with are the most there can be.

    Args:
        joint: Given and guessed labels.
        doubted: Rows of which another class than the given one is the likeliest.
    """
    n = int(joint.calibrated.sum())
    return wilson(min(n - int(joint.calibrated.trace()), doubted), n)


def class_noise(joint: ConfidentJoint, doubted: NDArray[np.int64]) -> list[Estimate]:
    """Estimated share of wrong labels among the rows given each label: of those with a confident guess, or of all, whichever is less.

    Args:
        joint: Given and guessed labels.
        doubted: Rows given each label of which another class is the likeliest, int64 [K].
    """
    result = []
    for index, (confident, rows) in enumerate(zip(joint.counts, joint.calibrated.sum(axis=1).tolist(), strict=True)):
        sure = wilson(int(confident.sum() - confident[index]), int(confident.sum()))
        bound = wilson(int(doubted[index]), rows)
        result.append(bound if bound.value < sure.value else sure)
    return result


def noise_matrix(joint: ConfidentJoint, names: Sequence[str]) -> dict[str, Any] | None:
    """Share of true label j among the rows given label i, each with its Wilson interval; null beyond 100 classes.

    Rows without a confident guess are left out. Beyond 12 classes, pairs that never occur are null.
    """
    counts = joint.counts
    if len(names) > MOST_CLASSES:
        return None
    totals = counts.sum(axis=1)
    sparse = len(names) > FULL_UP_TO
    return {
        "labels": list(names),
        "given_true": [
            [None if total == 0 or (sparse and not count) else wilson(int(count), int(total)) for count in row]
            for row, total in zip(counts, totals, strict=True)
        ],
    }


def imbalance(rows_of: NDArray[np.int64], names: Sequence[str]) -> dict[str, Any] | None:
    """Largest and smallest class, their ratio, and the entropy of the shares, 1 when all classes are equal; null without classes.

    Args:
        rows_of: Rows of each class, int64 [K].
        names: Class names.
    """
    if not len(names) or not rows_of.sum():
        return None
    large, small = int(rows_of.argmax()), int(rows_of.argmin())
    shares = rows_of[rows_of > 0] / rows_of.sum()
    entropy = float(-(shares * np.log(shares)).sum() / math.log(len(names))) if len(names) > 1 else 1.0
    return {
        "largest": {"label": names[large], "n": int(rows_of[large])},
        "smallest": {"label": names[small], "n": int(rows_of[small])},
        "ratio": float(rows_of[large] / rows_of[small]) if rows_of[small] else None,
        "entropy": entropy,
    }
