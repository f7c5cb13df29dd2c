"""What several annotators say together: a label and its probability for each item, and how each annotator errs.

The model is Dawid and Skene's: every item has one true class, and an annotator says ``l`` where the truth is ``t`` with a probability of
their own. Few annotators answer often enough for a whole matrix, so each is drawn towards what is known better: the annotator's
accuracy with the errors that everybody makes, and that accuracy towards everybody's. A vote is weighed by what the annotator did elsewhere, never by
itself: who votes twice would otherwise prove themselves right.

Source: A. P. Dawid, A. M. Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", Applied Statistics 28, 1979.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

ITERATIONS = 500
TOLERANCE = 1e-5  # largest change of a posterior at which EM has arrived
PULL = 4.0  # answers that the common pattern counts for, in each row of an annotator's matrix
PULL_ACCURACY = 10.0  # answers that everybody's accuracy counts for in an annotator's
FIRST_RIGHT, FIRST_WRONG = 4.0, 1.0  # answers that speak for people before any is seen: right in 4 of 5
LARGEST_CELLS = 50_000_000  # beyond, annotators have an accuracy but no matrix of their own


@dataclass(frozen=True, kw_only=True)
class Votes:
    """Votes as numbers; sorted by item.

    Attributes:
        item: Index of the item, int64 [V], ascending.
        annotator: Index of the annotator, int64 [V].
        label: Index of the answer, int64 [V].
        n_items: Number of items; each has at least one vote.
        n_annotators: Number of annotators.
        n_labels: Number of classes K.
    """

    item: Ints
    annotator: Ints
    label: Ints
    n_items: int
    n_annotators: int
    n_labels: int

    def counts(self) -> Floats:
        """How often each class was said of each item, [items, K]."""
        flat = np.bincount(self.item * self.n_labels + self.label, minlength=self.n_items * self.n_labels)
        return flat.reshape(self.n_items, self.n_labels).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """What the votes say together.

    Attributes:
        label: Most probable class of each item, int64 [items].
        confidence: Its probability, [items].
        posterior: Probability of each class, [items, K].
        accuracy: Share of right answers of each annotator under the model, [annotators].
        iterations: Rounds of EM; 0 where there was nothing to do.
        converged: Whether the last round changed nothing that matters.
    """

    label: Ints
    confidence: Floats
    posterior: Floats
    accuracy: Floats
    iterations: int
    converged: bool


def dawid_skene(votes: Votes, *, iterations: int = ITERATIONS) -> Consensus:
    """Consensus by EM from the majority.

    Args:
        votes: All votes.
        iterations: Largest number of rounds.
    """
    if votes.n_items == 0:
        empty = np.empty(0, np.float64)
        return Consensus(
            label=np.empty(0, np.int64),
            confidence=empty,
            posterior=empty.reshape(0, votes.n_labels),
            accuracy=np.full(votes.n_annotators, np.nan),
            iterations=0,
            converged=True,
        )
    counts = votes.counts()
    posterior = counts / counts.sum(axis=1, keepdims=True)
    accuracy = np.full(votes.n_annotators, np.nan)
    done, change = 0, np.inf
    while done < iterations and change > TOLERANCE:
        fresh, accuracy = _round(votes, posterior)
        change = float(np.abs(fresh - posterior).max())
        posterior = fresh
        done += 1
    label = posterior.argmax(axis=1).astype(np.int64)
    return Consensus(
        label=label,
        confidence=posterior.max(axis=1),
        posterior=posterior,
        accuracy=accuracy,
        iterations=done,
        converged=change <= TOLERANCE,
    )


def _round(votes: Votes, posterior: Floats) -> tuple[Floats, Floats]:
    """One round of EM: matrices from posteriors, then posteriors from matrices; each vote by matrices without it."""
    k = votes.n_labels
    prior = posterior.sum(axis=0) + 1.0
    right = posterior[votes.item, votes.label]
    given = np.bincount(votes.annotator, minlength=votes.n_annotators).astype(np.float64)
    hits = np.bincount(votes.annotator, weights=right, minlength=votes.n_annotators)
    usual = (hits.sum() + FIRST_RIGHT) / (given.sum() + FIRST_RIGHT + FIRST_WRONG)
    accuracy = (hits + PULL_ACCURACY * usual) / (given + PULL_ACCURACY)
    said = np.array(
        [np.bincount(votes.label, weights=posterior[votes.item, truth], minlength=k) for truth in range(k)],
        dtype=np.float64,
    )
    errors = _errors(said)
    by_class = (np.diag(said) + FIRST_RIGHT * usual) / (said.sum(axis=1) + FIRST_RIGHT)
    others = (hits[votes.annotator] - right + PULL_ACCURACY * usual) / (given[votes.annotator] - 1 + PULL_ACCURACY)
    edge = _logit(others) - _logit(usual)
    own = votes.n_annotators * k * k <= LARGEST_CELLS
    logs = np.empty((len(votes.item), k))
    for truth in range(k):
        weights = posterior[votes.item, truth]
        expected = 1 / (1 + np.exp(-_logit(by_class[truth]) - edge))
        base = np.where(votes.label == truth, expected, (1 - expected) * errors[truth, votes.label])
        if own:
            cell = votes.annotator * k + votes.label
            answers = np.bincount(cell, weights=weights, minlength=votes.n_annotators * k)
            total = np.bincount(votes.annotator, weights=weights, minlength=votes.n_annotators)
            base = (answers[cell] - weights + PULL * base) / (total[votes.annotator] - weights + PULL)
        logs[:, truth] = np.log(base)
    starts = np.flatnonzero(np.r_[True, np.diff(votes.item) > 0])
    joint = np.add.reduceat(logs, starts, axis=0) + np.log(prior / prior.sum())
    joint -= joint.max(axis=1, keepdims=True)
    fresh = np.exp(joint)
    return fresh / fresh.sum(axis=1, keepdims=True), accuracy


def _errors(said: Floats) -> Floats:
    """Which wrong answer is given for each truth, over everybody, [K, K] with zeros on the diagonal and rows of 1."""
    wrong = said + 1.0 / max(len(said) - 1, 1)  # nothing is impossible
    np.fill_diagonal(wrong, 0.0)
    return np.asarray(wrong / np.maximum(wrong.sum(axis=1, keepdims=True), np.finfo(float).tiny))


def _logit(share: Any) -> Any:
    return np.log(share) - np.log1p(-share)
