"""Bets on directions that are learned from past blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from kfloop.core.drift.levels import SCORES, counted, gains, moments
from kfloop.core.drift.payment import KNOTS, STAKES, knot_shares, log_growth, log_mean, paid, settle, stakes
from kfloop.core.drift.state import Bets, joined, last_bets, no_bets

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Single = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Learned:
    """Directions learned from the past in one group of features, each frozen when its bet opens.

    Attributes:
        learn: Features of the learning half, [p, n].
        pay: Features of the paying half, [p, N].
        learned_from: Which units of the learning half were observed, [1, n]; None means all. Units with a missing cell neither win nor lose in traffic, so that they must
            not count here either: what they would score is not what the others score on average.
        paid_by: The same of the paying half, [1, N].
        tolerance: Shift along the direction that is borne, in standard deviations.
        lifetime: Blocks after which a bet is closed and its wealth given up.
    """

    learn: Single
    pay: Single
    learned_from: NDArray[np.bool_] | None = None
    paid_by: NDArray[np.bool_] | None = None
    tolerance: float
    lifetime: int

    def empty(self) -> Bets:
        """No bets yet."""
        return no_bets(len(self.learn), len(STAKES), len(KNOTS))

    def opened(self, bets: Bets, past: Array, units: float, sparse: bool, weight: float, block: int) -> Bets:
        """Open one bet on where the past lies from the reference; none where it does not lie anywhere.

        Args:
            bets: Open bets.
            past: Mean features of past blocks, [p].
            units: Number of units behind that mean.
            sparse: Whether coordinates that chance explains are left out.
            weight: Logarithm of the weight.
            block: The coming block.
        """
        direction = _shrunken(past, 1 / units + 1 / self.learn.shape[1]) if sparse else past
        raw = direction.astype(np.float32) @ self.learn
        observed = raw if self.learned_from is None else raw[self.learned_from[0]]
        scale = float(observed.std(dtype=float)) if len(observed) else 0.0
        if not scale > 1e-9 * (1 + float(np.abs(direction).max(initial=0.0))):
            return bets
        observed = observed / np.float32(scale)
        centre, variance = moments(counted(observed[None, :]), SCORES)
        share = knot_shares(centre)
        paying = counted(((direction / scale).astype(np.float32) @ self.pay)[None, :], self.paid_by)
        fresh = Bets(
            directions=direction[None, :],
            scales=np.array([scale]),
            centres=centre,
            spreads=np.sqrt(variance),
            # Of rounded scores, as they are bet on: rounding may make a small shift of many equal values larger.
            tolerances=moments(counted(observed[None, :] + np.float32(self.tolerance)), SCORES)[0] - centre,
            knots=share * self.pay.shape[1],
            values=paid(paying, gains(SCORES, centre), share),
            stakes=stakes(STAKES, centre),
            won=np.zeros((1, len(STAKES))),
            units=np.zeros(1),
            discounts=np.zeros(1),
            weights=np.array([weight]),
            opened=np.array([float(block)]),
        )
        kept = int((bets.opened > block - self.lifetime).sum())
        return joined(last_bets(bets, kept), fresh)

    @staticmethod
    def directions(bets: Bets) -> Single:
        """The directions that are bet on, along which features of the learning half have unit variance, [B, p]."""
        return np.asarray(bets.directions / bets.scales[:, None], dtype=np.float32)

    @staticmethod
    def played(bets: Bets, counts: Array, units: int, discount: float) -> Bets:
        """Bet one block of so many units, which had these levels along each direction, [B, levels]."""
        if not len(bets.units):
            return bets
        won = log_growth(counts, gains(SCORES, bets.centres), bets.stakes)
        return replace(bets, won=bets.won + won, units=bets.units + units, discounts=bets.discounts + discount)

    @staticmethod
    def evidence(bets: Bets) -> Array:
        """Logarithm of each bet's evidence, its weight included, [B]."""
        if not len(bets.units):
            return np.zeros(0)
        a = bets.stakes * bets.units[:, None]
        seasonal = bets.discounts[:, None] * bets.stakes**2 * bets.spreads[:, None] ** 2
        worth = bets.won - a * bets.tolerances[:, None] - seasonal + settle(a, bets.knots, bets.values)
        return bets.weights + log_mean(worth, axis=1)


def _shrunken(past: Array, noise: float) -> Array:
    """The past with each coordinate shrunken by the share of it that chance explains; unchanged where chance explains all."""
    kept = past * np.maximum(0.0, 1.0 - 2.0 * noise / np.maximum(past**2, 1e-300))
    return kept if np.any(kept) else past
