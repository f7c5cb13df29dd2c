"""The expected quality of an answer, from the answer itself: what CBPE and direct loss estimation share.

The quality of an answer is a number in [0, 1]: whether the class is right, the share of labels that are right, or, of a predicted number,
1 - |error| / scale. One model gives its expectation:

    f = logistic(offset + features . coefficients)

For classes and labels the offset is the model's own log-odds of being right and the features are a piecewise linear curve in it: the stated
probabilities are believed until rows with a known truth say otherwise (confidence-based performance estimation, NannyML's CBPE, with Platt's
calibration made piecewise). For numbers there is no offset, and the features are the prediction, components of the embedding and their squares (direct
loss estimation). The covariance of the coefficients is what the finite reference leaves open; every interval carries it by the delta method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

CLASSES, LABELS, NUMBERS = "classification", "multilabel", "regression"
OBJECTIVES = (CLASSES, LABELS, NUMBERS)
UNIT = 1_000_000
"""Expectations are whole millionths: sums of them are exact, so that no sum depends on how rows came in parts."""
SURE = 1e-6
CLIP = 6.0
THRESHOLD = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Expected:
    """A fitted expectation; see `kfloop.core.quality.fitting.fit_expected`.

    Attributes:
        objective: One of `OBJECTIVES`.
        centre: Mean of each raw feature in the reference, [r].
        scale: Standard deviation of each, never 0, [r].
        axes: For numbers, rows of the embedding's principal axes divided by their spread, [c, D]; else empty.
        origin: For numbers, the mean embedding, [D].
        knots: For classes and labels, places at which the curve bends, in standard deviations.
        coefficients: [p].
        covariance: Of the coefficients, [p, p]; zeros when no truth was known.
        rows: Reference rows with a known truth behind it; 0 means that the stated probabilities are taken as they are.
        error_scale: For numbers, the absolute error at which quality is 0.
    """

    objective: str
    centre: Array
    scale: Array
    axes: Array
    origin: Array
    knots: Array
    coefficients: Array
    covariance: Array
    rows: int
    error_scale: float = 1.0

    def decisions(self, answers: Array, embedding: Array) -> tuple[Array, Array]:
        """Offsets [n, k] and features [n, k, p] of the k decisions of each row (labels; else one).

        Args:
            answers: Probabilities [n, K], or predicted numbers [n, 1].
            embedding: [n, D]; used for numbers alone.
        """
        if self.objective == NUMBERS:
            parts = [answers[:, :1], components(embedding, self.origin, self.axes)]
            raw = np.clip((np.concatenate(parts, axis=1) - self.centre) / self.scale, -CLIP, CLIP)
            features = np.concatenate([np.ones((len(raw), 1)), raw, raw**2 - 1], axis=1)
            return np.zeros((len(raw), 1)), features[:, None, :]
        stated = log_odds(answers, self.objective)
        place = np.clip((stated - self.centre) / self.scale, -CLIP, CLIP)
        bent = [np.maximum(place - knot, 0.0) for knot in self.knots]
        return stated, np.stack([np.ones_like(place), place, *bent], axis=-1)

    def parts(self, answers: Array, embedding: Array) -> tuple[Array, Array]:
        """The chance [n, k] that each decision is right (for numbers, the quality), and its gradient in the coefficients, [n, k, p]."""
        offset, features = self.decisions(answers, embedding)
        chance = logistic(offset + (features * self.coefficients).sum(axis=-1))
        return chance, (chance * (1 - chance))[..., None] * features

    def millionths(self, answers: Array, embedding: Array) -> NDArray[np.int64]:
        """The expected quality of each row in millionths, [n]."""
        return whole(self.parts(answers, embedding)[0].mean(axis=1))

    def realised(self, answers: Array, truth: Array) -> Array:
        """The quality of answers whose truth is known, in [0, 1], [n].

        Args:
            answers: [n, K].
            truth: Class indices [n], labels as 0 and 1 [n, K], or numbers [n]; NaN is unknown and stays so.
        """
        return outcome(self.objective, answers, truth, self.error_scale)


def outcome(objective: str, answers: Array, truth: Array, error_scale: float) -> Array:
    """Quality of each answer, see `Expected.realised`."""
    unknown = np.isnan(truth.reshape(len(truth), -1)).any(axis=1)
    if objective == CLASSES:
        found = (answers.argmax(axis=1) == truth).astype(float)
    elif objective == LABELS:
        found = ((answers >= THRESHOLD) == (truth >= THRESHOLD)).mean(axis=1)
    else:
        found = 1 - np.minimum(np.abs(answers[:, 0] - truth) / error_scale, 1.0)
    return np.where(unknown, np.nan, found)


def log_odds(answers: Array, objective: str) -> Array:
    """The model's own log-odds that each of its decisions is right, [n, k]."""
    top = answers.max(axis=1, keepdims=True) if objective == CLASSES else np.maximum(answers, 1 - answers)
    sure = np.clip(top, SURE, 1 - SURE)
    return np.asarray(np.log(sure / (1 - sure)))


def components(embedding: Array, origin: Array, axes: Array) -> Array:
    """Coordinates along each axis, [n, c]; one product at a time, as sums of a matrix product depend on how many rows there are."""
    if not len(axes):
        return np.zeros((len(embedding), 0))
    moved = embedding - origin
    return np.stack([(moved * axis).sum(axis=1) for axis in axes], axis=1)


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -30, 30))))


def whole(values: Array) -> NDArray[np.int64]:
    """Values in whole millionths."""
    return np.asarray(np.rint(values * UNIT), dtype=np.int64)
