"""Fixed questions, asked from the first block on: did this rise, did it fall?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.drift.block import Block, fixed_counts
from kfloop.core.drift.features import Features, Units
from kfloop.core.drift.levels import SCORES, SHARES, counted, counted_shares, gains, moments
from kfloop.core.drift.payment import (
    KNOT_WEIGHTS,
    RATE_STAKES,
    STAKES,
    growth,
    knot_shares,
    log_mean,
    settle,
    stakes,
)
from kfloop.core.drift.state import BOOKS, Books

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

TILTS = (0.7, 3.0)
"""Tangent points, in standard errors of the paying half: the first wastes least, the second stays quiet with an odd reference."""
_GROWTH = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Fixed:
    """One question per feature and side, rose and fell, and one per share.

    Attributes:
        names: [f].
        groups: ``mean``, ``spread`` or ``quality`` of each, [f].
        centre: Mean score in the learning half, [f].
        variance: Its variance there, [f].
        stake: [f, j].
        share: What one paying unit stakes at each knot, [f, k].
        paying: Units of the paying half.
        values: What the paying half takes at each knot, [f, k].
        tolerance: Shift of the score that is borne, [f].
    """

    names: tuple[str, ...]
    groups: NDArray[np.str_]
    centre: Array
    variance: Array
    stake: Array
    share: Array
    paying: int
    values: Array
    tolerance: Array

    def books(self) -> Books:
        """The books before the first block."""
        shape = (BOOKS, *self.stake.shape, len(TILTS))
        return Books(
            log_wealth=np.full(shape, -np.inf),
            held=np.zeros(shape),
            paying=np.full(BOOKS, float(self.paying)),
            values=np.stack([self.values] * BOOKS),
            units=0.0,
            taken=np.zeros(self.values.shape),
        )

    @cached_property
    def _growth(self) -> Array:
        """What a unit of each level adds to the logarithm of a bet at each stake, and of what pays at each knot, [f, levels, j + k]."""
        sides = (len(self.names) - int((self.groups == "quality").sum())) // 2
        up = gains(SCORES, self.centre[:sides])
        found = np.concatenate([up, -up, gains(SHARES, self.centre[2 * sides :])])
        return growth(found, np.concatenate([self.stake, -self.share], axis=1))

    def grown(self, counts: Array) -> tuple[Array, Array]:
        """Sums over units of log(1 + stake * gain), [f, j], and of log(1 - share * gain), [f, k].

        Args:
            counts: `kfloop.core.drift.block.fixed_counts` of the units.
        """
        sides = len(self.names) - len(counts)
        every = np.concatenate([counts[:sides], counts])
        total = np.matmul(every[:, None, :], self._growth)[:, 0, :]
        return total[:, : self.stake.shape[1]], total[:, self.stake.shape[1] :]

    def advance(self, books: Books, block: Block, weight: float, discount: float) -> Books:
        """Open bets, and bet one block.

        Args:
            books: Before it.
            block: The block.
            weight: Logarithm of the weight of the bets that open now, shared by the first and the last book.
            discount: Half of the sum over seasons of units squared over the season's learning units.
        """
        if self.paying + books.units >= _GROWTH * books.paying[-1]:
            books = self._founded(books)
        opening = np.array([weight - np.log(2), -np.inf, weight - np.log(2)])[:, None, None, None]
        total = np.logaddexp(books.log_wealth, opening)
        kept = np.exp(books.log_wealth - np.where(np.isfinite(total), total, 0.0))
        n = block.units
        held = books.held * kept + n
        won, taken = self.grown(block.fixed)
        won = won - discount * self.stake**2 * self.variance[:, None]
        cost = n * (self._tilt(books) + self.tolerance[:, None])
        total = total + won[:, :, None] - self.stake[:, :, None] * cost[:, :, None, :]
        most = (self.share[:, -1] * books.paying[:, None])[:, :, None, None]
        lost = self.stake[:, :, None] * held > most  # the reference cannot pay these any more: begin anew
        return replace(
            books,
            log_wealth=np.where(lost, -np.inf, total),
            held=np.where(lost, 0.0, held),
            units=books.units + n,
            taken=books.taken + taken - discount * self.share**2 * self.variance[:, None],
        )

    def evidence(self, books: Books) -> Array:
        """Logarithm of each stream's evidence, all books together, [f]."""
        a = self.stake[:, :, None] * books.held
        flat = (BOOKS * len(self.stake), -1)
        knots = (self.share * books.paying[:, None, None]).reshape(flat)
        owed = settle(a.reshape(flat), knots, books.values.reshape(flat)).reshape(a.shape)
        worth = (books.log_wealth + a * self._tilt(books)[:, :, None, :] + owed).max(axis=3)
        return np.asarray(np.logaddexp.reduce(log_mean(worth, axis=2), axis=0))

    def _tilt(self, books: Books) -> Array:
        """The tangent points m0 - c, [books, f, tilts]."""
        error = np.sqrt(np.maximum(self.variance, 1e-8) / books.paying[:, None])
        return np.asarray(error[:, :, None] * np.array(TILTS))

    def _founded(self, books: Books) -> Books:
        """Close the last book for new bets, and begin one that is paid from the paying half and all rows so far."""

        def moved(old: Array, new: Array | float) -> Array:
            return np.stack([old[0], old[2], np.broadcast_to(np.asarray(new, dtype=float), old[2].shape)])

        return replace(
            books,
            log_wealth=moved(books.log_wealth, -np.inf),
            held=moved(books.held, 0.0),
            paying=moved(books.paying, self.paying + books.units),
            values=moved(books.values, self.values + books.taken),
        )


def fit_fixed(features: Features, learn: Units, pay: Units, tolerance: float) -> Fixed:
    """Measure the fixed streams on both halves.

    Args:
        features: The fitted features.
        learn: Learning half.
        pay: Paying half.
        tolerance: Shift that is borne, in standard deviations; shares have none.
    """
    centre, variance = moments(counted(learn.marginal, learn.there), SCORES)
    # Of rounded scores, as they are bet on: rounding may make a small shift of many equal values larger.
    borne = moments(counted(learn.marginal + np.float32(tolerance), learn.there), SCORES)[0] - centre
    rates, rate_variance = moments(counted_shares(learn.shares), SHARES)
    names = features.columns.value_names
    spread = tuple(f"spread of {n}" for n, is_number in zip(names, features.columns.numeric, strict=True) if is_number)
    base = (*names, *spread)
    groups = ["mean"] * len(names) + ["spread"] * len(spread)
    centres = np.concatenate([centre, 1 - centre, rates])
    stake = np.concatenate([stakes(STAKES, centres[: 2 * len(base)]), stakes(RATE_STAKES, rates)])
    deviations = np.concatenate([variance, variance, rate_variance])
    draft = Fixed(
        names=(*(f"{n} up" for n in base), *(f"{n} down" for n in base), *features.columns.share_names),
        groups=np.array([*groups, *groups, *["quality"] * len(rates)]),
        centre=centres,
        variance=deviations,
        stake=stake,
        share=knot_shares(centres),
        paying=pay.shares.shape[1],
        values=np.zeros(0),
        tolerance=np.concatenate([borne, borne, np.zeros(len(rates))]),
    )
    return replace(draft, values=draft.grown(fixed_counts(pay))[1] + np.log(KNOT_WEIGHTS))
