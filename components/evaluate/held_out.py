"""The challenger on validation rows: from them weak segments and a temperature are learned, so that the test rows can judge both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.classification import predictions
from kfloop.core.statistics.multilabel import THRESHOLD
from kfloop.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.evaluate.opening import Contestant
    from kfloop.core.encoding import Examples
    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]

MOST_ROWS = 3000  # more would add seconds and no knowledge


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Validation rows and the challenger's answers to them.

    Attributes:
        rows: Encoded rows with their truth, at most 3000, evenly spread.
        answer: One answer for each.
    """

    rows: Examples
    answer: NDArray[Any]


def held_out(version: DatasetVersion, challenger: Contestant) -> HeldOut | None:
    """The challenger's answers to validation rows whose truth is known; null where there are none that can be read."""
    model, objective = challenger.model, challenger.model.signature.objective
    try:
        rows = model.encoder.examples(version, "validation", objective, normal=challenger.normal)
    except InputError:  # such as too short a series: the test rows can be judged all the same
        return None
    known = np.arange(len(rows)) if rows.target.dtype.kind == "f" else np.flatnonzero(rows.target >= 0)
    if len(known) > MOST_ROWS:
        known = known[(np.arange(MOST_ROWS) * len(known)) // MOST_ROWS]
    if not len(known):
        return None
    rows = rows.take(known)
    return HeldOut(rows=rows, answer=model.score(rows)[model.signature.answer])


def row_errors(objective: str, target: NDArray[Any], answer: NDArray[Any], std: Floats) -> Floats:
    """How wrong each answer is, float64 [N]; NaN where it is no answer.

    Wrong or not for classes, the share of wrong decisions for several labels, the absolute error for numbers and forecasts (in standard
    deviations ``std`` of each channel), and for anomalies the share of the rows on whose wrong side it stands, by score.
    """
    if objective == "classification":
        return (predictions(answer) != target).astype(np.float64)
    if objective == "multilabel":
        return np.asarray(((answer >= THRESHOLD) != (target >= THRESHOLD)).mean(axis=1))
    if objective == "anomaly":
        if not np.isfinite(answer).all():
            return np.full(len(answer), np.nan)
        from scipy.stats import rankdata

        share = (rankdata(answer) - 1) / max(1, len(answer) - 1)
        return np.where(target == 1, 1 - share, share)
    errors = np.abs(answer.astype(np.float64) - target)
    return errors if objective == "regression" else (errors / std).mean(axis=(1, 2))
