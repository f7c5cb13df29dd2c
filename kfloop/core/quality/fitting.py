"""From the reference to an expectation: a penalised logistic fit, with what it leaves open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.quality.expected import CLASSES, NUMBERS, Expected, components, log_odds, logistic, outcome

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

FEWEST = 30
"""Rows with a known truth below which stated probabilities are taken as they are; numbers have no expectation then."""
QUALITY_SPAN = 4.0
"""A predicted number is worth nothing from this many times the reference's mean absolute error on."""
MOST_AXES = 8
ROWS_PER_AXIS = 20
FOLDS = 5
PENALTIES = (1.0, 10.0, 100.0, 1000.0)
NEWTON_STEPS = 50
HALVINGS = 12
TOLERANCE = 1e-12


def fit_expected(objective: str, answers: Array, embedding: Array, truth: Array | None) -> Expected | None:
    """Learn the expected quality of an answer.

    Args:
        objective: One of `kfloop.core.quality.expected.OBJECTIVES`.
        answers: Answers to the reference, finite, [n, K].
        embedding: Embeddings, finite, [n, D].
        truth: Class indices [n], labels [n, K] or numbers [n], NaN where unknown; None when the reference has none.

    Returns:
        The expectation; None of predicted numbers whose truth is not known: they come without a confidence.
    """
    known = np.zeros(len(answers), bool) if truth is None else ~np.isnan(truth.reshape(len(truth), -1)).any(axis=1)
    enough = int(known.sum()) >= FEWEST
    if objective == NUMBERS:
        return _numbers(answers[known], embedding[known], truth[known]) if enough and truth is not None else None
    stated = log_odds(answers, objective)
    spread = float(stated.std()) or 1.0
    places = (stated - stated.mean()) / spread
    knots = np.unique(np.quantile(places, (1 / 3, 2 / 3)))
    size = 2 + len(knots)
    plain = Expected(
        objective=objective,
        centre=np.array([stated.mean()]),
        scale=np.array([spread]),
        axes=np.zeros((0, 0)),
        origin=np.zeros(0),
        knots=knots,
        coefficients=np.zeros(size),
        covariance=np.zeros((size, size)),
        rows=0,
    )
    if not enough or truth is None:
        return plain
    right = outcome(objective, answers[known], truth[known], 1.0)[:, None]
    if objective != CLASSES:
        right = ((answers[known] >= 0.5) == (truth[known] >= 0.5)).astype(float)  # noqa: PLR2004 - a decision
    offset, features = plain.decisions(answers[known], embedding[known])
    coefficients, covariance = _fit(offset, features, right, np.ones(size), bernoulli=objective == CLASSES)
    return Expected(
        **{**plain.__dict__, "coefficients": coefficients, "covariance": covariance, "rows": int(known.sum())}
    )


def _numbers(answers: Array, embedding: Array, truth: Array) -> Expected:
    """Direct loss estimation; the penalty is chosen by cross-fitting."""
    error = float(np.abs(answers[:, 0] - truth).mean())
    scale = QUALITY_SPAN * error or 1.0
    origin = embedding.mean(axis=0)
    _, values, axes = np.linalg.svd(embedding - origin, full_matrices=False)
    spread = values / np.sqrt(len(embedding))
    most = min(MOST_AXES, len(answers) // ROWS_PER_AXIS)
    kept = [i for i in range(min(most, len(axes))) if spread[i] > 1e-3 * max(float(spread[0]), 1e-12)]
    axes = axes[kept] / spread[kept][:, None] if kept else np.zeros((0, embedding.shape[1]))
    raw = np.concatenate([answers[:, :1], components(embedding, origin, axes)], axis=1)
    size = 1 + 2 * raw.shape[1]
    draft = Expected(
        objective=NUMBERS,
        centre=raw.mean(axis=0),
        scale=np.where(raw.std(axis=0) > 0, raw.std(axis=0), 1.0),
        axes=axes,
        origin=origin,
        knots=np.zeros(0),
        coefficients=np.zeros(size),
        covariance=np.zeros((size, size)),
        rows=len(answers),
        error_scale=scale,
    )
    quality = draft.realised(answers, truth)[:, None]
    offset, features = draft.decisions(answers, embedding)
    fold = np.arange(len(answers)) % FOLDS
    losses = [_held_out(offset, features, quality, fold, penalty) for penalty in PENALTIES]
    chosen = _penalties(size, PENALTIES[int(np.argmin(losses))])
    coefficients, covariance = _fit(offset, features, quality, chosen, bernoulli=False)
    return Expected(**{**draft.__dict__, "coefficients": coefficients, "covariance": covariance})


def _held_out(offset: Array, features: Array, quality: Array, fold: NDArray[np.int64], penalty: float) -> float:
    """Mean squared error on rows that the fit did not see."""
    total = 0.0
    for number in range(FOLDS):
        held = fold == number
        found, _ = _fit(
            offset[~held], features[~held], quality[~held], _penalties(features.shape[-1], penalty), bernoulli=False
        )
        total += float(((logistic(offset[held] + features[held] @ found) - quality[held]) ** 2).sum())
    return total / len(quality)


def _penalties(size: int, penalty: float) -> Array:
    """The mean is hardly penalised: without shift the expectation has the reference's own mean."""
    return np.array([0.01, *[penalty] * (size - 1)])


def _fit(offset: Array, features: Array, right: Array, penalty: Array, *, bernoulli: bool) -> tuple[Array, Array]:
    """Penalised logistic fit by Newton's method.

    Returns:
        Coefficients [p], and their covariance [p, p]: the inverse of the penalised information where outcomes are 0 or 1 and independent, else
        White's sandwich with whole rows as its units (labels of one row hang together; numbers vary less than coins).
    """
    share = 1.0 / right.shape[1]

    def loss(beta: Array) -> float:
        odds = offset + features @ beta
        return float(share * (np.logaddexp(0, odds) - right * odds).sum() + 0.5 * (penalty * beta**2).sum())

    beta = np.zeros(features.shape[-1])
    best = loss(beta)
    information = np.diag(penalty)
    for _ in range(NEWTON_STEPS):
        chance = logistic(offset + features @ beta)
        scores = share * ((right - chance)[..., None] * features).sum(axis=1)
        weight = share * np.maximum(chance * (1 - chance), 1e-9)
        information = np.einsum("nk,nkp,nkq->pq", weight, features, features) + np.diag(penalty)
        step = np.linalg.solve(information, scores.sum(axis=0) - penalty * beta)
        # Stated certainties of 1 make whole steps overshoot: half as far, until the loss falls.
        tries = ((loss(beta + step / 2**half), half) for half in range(HALVINGS))
        now, half = next((found for found in tries if found[0] < best), (best, 0))
        if not now < best - TOLERANCE * max(1.0, abs(best)):
            break
        beta, best = beta + step / 2**half, now
    inverse = np.asarray(np.linalg.inv(information), np.float64)
    if bernoulli:
        return np.asarray(beta), inverse
    chance = logistic(offset + features @ beta)
    scores = share * ((right - chance)[..., None] * features).sum(axis=1)
    return np.asarray(beta), np.asarray(inverse @ (scores.T @ scores) @ inverse)
