"""What the quality of a champion is held against: its reference, and how large a fall is worth a retraining."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.quality.expected import CLASSES, LABELS, UNIT, Expected
from kfloop.core.quality.fitting import fit_expected

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STRATA = 5
MOST_LABELS = 50
Z = 1.0
"""Standard errors of the reference's own figure that are added to a drop."""
SHARES = {"estimated": 0.1, "realised": 0.1}
"""What each of the two may spend of the false alarms that the user allows; drift has the other .8 (`kfloop.core.drift.budget`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Gauge:
    """The reference in figures, and the bounds.

    Attributes:
        expected: Expected quality of an answer.
        labels: Names of classes or labels.
        quality: Quality of the reference: measured where its truth is known, else what the model's own probabilities say.
        measured: Rows whose truth is known; 0 when `quality` is not measured.
        quality_sd: Standard deviation of one row's quality.
        sums: Mean over the reference of each column of `columns`, in millionths.
        spread: Standard deviation of the expectation over the reference.
        rows: Reference rows.
        edges: Expectations, in millionths, that part the strata of confidence, [STRATA - 1].
        shares: Share of the reference in each stratum, the flagged ones last, [2 * STRATA].
        estimated_drop: Fall of the estimated quality that matters; None means that it is not bet on.
        realised_drop: Fall of the realised quality that matters; None likewise.
        false_alarms_per_year: What the user allows for all causes.
    """

    expected: Expected
    labels: tuple[str, ...]
    quality: float
    measured: int
    quality_sd: float
    sums: Array
    spread: float
    rows: int
    edges: NDArray[np.int64]
    shares: Array
    estimated_drop: float | None = 0.05
    realised_drop: float | None = 0.02
    false_alarms_per_year: float = 1.0

    @property
    def objective(self) -> str:
        """What was learned."""
        return self.expected.objective

    @property
    def quality_error(self) -> float:
        """Standard error of the reference's quality."""
        return self.quality_sd / float(np.sqrt(max(self.measured or self.rows, 1)))

    def strata(self, millionths: NDArray[np.int64], review: NDArray[np.bool_] | None) -> NDArray[np.int64]:
        """Stratum of each row: by expected quality, and whether it was flagged for review, [n]."""
        confidence = np.searchsorted(self.edges, millionths, side="right")
        return confidence if review is None else confidence + STRATA * review.astype(np.int64)

    def columns(self, answers: Array, embedding: Array) -> NDArray[np.int64]:
        """Whole numbers of each row whose sums give every estimate; see `columns`, [n, c]."""
        return columns(self.expected, answers, embedding)


def columns(expected: Expected, answers: Array, embedding: Array) -> NDArray[np.int64]:
    """Columns of each row: 1; expectation; its square (thousandths squared); its gradient [p]; for two classes what F1 needs; for labels each label's."""
    chance, slope = expected.parts(answers, embedding)
    mean, gradient = chance.mean(axis=1), slope.mean(axis=1)
    found = [np.ones((len(mean), 1)), _millionths(mean[:, None]), _square(mean, mean), _millionths(gradient)]
    if expected.objective == CLASSES and answers.shape[1] == 2:  # noqa: PLR2004 - the second class is the positive one
        flagged = answers[:, 1] > answers[:, 0]  # argmax names the first of equals
        positive = np.where(flagged, mean, 1 - mean)
        turn = np.where(flagged, 1.0, -1.0)[:, None] * gradient
        hits, either = positive * flagged, positive + flagged
        found += [_millionths(np.stack([hits, either], axis=1)), _square(hits, hits), _square(hits, either)]
        found += [_square(either, either), _millionths(turn * flagged[:, None]), _millionths(turn)]
    if expected.objective == LABELS:
        found += [_millionths(chance[:, :MOST_LABELS])]
    return np.asarray(np.concatenate(found, axis=1).astype(np.int64))


def open_gauge(
    objective: str,
    *,
    answers: Array,
    embedding: Array,
    truth: Array | None,
    labels: Sequence[str],
    estimated_drop: float | None = 0.05,
    realised_drop: float | None = 0.02,
    false_alarms_per_year: float = 1.0,
) -> Gauge | None:
    """Take the reference's measure.

    Args:
        objective: What was learned, one of `kfloop.core.quality.expected.OBJECTIVES`.
        answers: Answers to the reference, finite, [n, K], n at least 2.
        embedding: Their embeddings, finite, [n, D].
        truth: Class indices [n] (-1 or NaN unknown), labels [n, K] or numbers [n]; None when the package does not hold it.
        labels: Names of classes or labels.
        estimated_drop: Fall of the estimated quality worth a retraining; None: not bet on.
        realised_drop: Fall of the realised quality worth a retraining; None: not bet on.
        false_alarms_per_year: What the user allows for all causes.

    Returns:
        The gauge; None of numbers whose truth is not known: they come without a confidence.
    """
    known = None if truth is None else truth.astype(float)
    if known is not None and objective == CLASSES:
        known = np.where(known < 0, np.nan, known)
    expected = fit_expected(objective, answers, embedding, known)
    if expected is None:
        return None
    table = columns(expected, answers, embedding)
    f = table[:, 1]
    edges = np.quantile(f, np.arange(1, STRATA) / STRATA).astype(np.int64)
    told = np.zeros(0) if known is None else expected.realised(answers, known)
    told = told[~np.isnan(told)] if expected.rows else np.zeros(0)
    spread = float(np.std(f) / UNIT)
    mean = float(f.mean() / UNIT)
    sd = float(told.std()) if len(told) else float(np.sqrt(max(mean * (1 - mean), 1e-4)))
    shares = np.bincount(np.searchsorted(edges, f, side="right"), minlength=2 * STRATA) / len(f)
    return Gauge(
        expected=expected,
        labels=tuple(labels),
        quality=float(told.mean()) if len(told) else mean,
        measured=len(told),
        quality_sd=max(sd, 1e-3),
        sums=table.mean(axis=0),
        spread=spread,
        rows=len(f),
        edges=edges,
        shares=shares,
        estimated_drop=estimated_drop,
        realised_drop=realised_drop,
        false_alarms_per_year=false_alarms_per_year,
    )


def _millionths(values: Array) -> Array:
    return np.asarray(np.rint(values * UNIT))


def _square(one: Array, other: Array) -> Array:
    """Products in units of a thousandth squared, so that sums over 10^12 rows stay whole numbers of 64 bits."""
    return np.asarray((np.rint(one * 1000) * np.rint(other * 1000))[:, None])
