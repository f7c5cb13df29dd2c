"""Champion and challenger on the same live requests: is the challenger worse, may one look after every request?

Each question is about the mean of one number x a request, known to lie in [low, high], and a bound b that one will bear:

    worse       W_n = mean_j prod_i (1 + l_j (x_i - b)),  l_j = stake_j / (b - low)    bets that the mean is above b
    not worse   V_n = mean_j prod_i (1 + k_j (b - x_i)),  k_j = stake_j / (high - b)   bets that it is below b

with stakes between .05 and .95 side by side. They are below 1, so no factor is ever zero or negative.

What is guaranteed. While E[x_i | all requests before] <= b, W is a test supermartingale that starts at 1, so P(W_n >= 1/a for any n) <= a (Ville's
inequality; Ramdas, Gruenwald, Vovk, Shafer, "Game-theoretic statistics and safe anytime-valid inference", arXiv 2210.01948; bets on a
bounded mean as in Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 2024). One may look after every
request, and stop for any reason. T questions are each asked at alpha / T, so a challenger that is worse in none of them is withdrawn with
probability at most alpha, however the answers to them hang together (Bonferroni). The same for V at alpha: a challenger that is worse than b
is called not worse with probability at most alpha; where two such proofs are asked for, both must be there, so no correction is needed
(intersection-union test). Evidence counts from the moment it first reached its level, but for ``quality``: labels come in another order than
requests, so that there only all labels of a look together are a bet that was really made, and the evidence of that look counts. Nothing is assumed about independence beyond that conditional mean; a burst of requests of one kind, one client's
for instance, makes it untrue for that time, and the champion's share of such requests tells nothing. Labels that come later are used in any
order, because the products do not depend on it, as long as their coming does not depend on which of the two was right.

What is not: a challenger that is worse by less than the bound is not found, and one that a person promotes because the longest time is
over was not shown to be not worse.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

STAKES = np.array([0.05, 0.15, 0.4, 0.95])
"""Shares of the wealth that are staked side by side."""

LARGEST = 1e300  # evidence is always a JSON number
RANGES = {"errors": -1.0, "latency": 0.0, "disagreement": 0.0, "quality": -1.0}
"""Smallest value that a question's number can have; the largest is 1 for all of them."""
HIGH = 1.0
LATE = ("quality",)
"""Questions whose numbers come later than their requests, and in another order."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one question has found so far.

    Attributes:
        question: ``errors``, ``latency``, ``disagreement`` or ``quality``.
        n: Requests that could tell.
        mean: Their mean; None without any.
        bound: Worst mean that one will bear.
        worse: Largest evidence so far that the mean is above the bound; of ``LATE`` questions that of this look.
        worse_needed: Evidence at which that is shown.
        worse_at: Number of requests at which it was; None if it never was. It never goes back.
        fine: The same that the mean is below the bound.
        fine_needed: Evidence at which that is shown.
        fine_at: Number of requests at which it was.
    """

    question: str
    n: int
    mean: float | None
    bound: float
    worse: float
    worse_needed: float
    worse_at: int | None
    fine: float
    fine_needed: float
    fine_at: int | None


def findings(samples: Mapping[str, Array], bounds: Mapping[str, float], alpha: float) -> list[Finding]:
    """Ask every question.

    Args:
        samples: For each question one number a request, oldest first, [n].
        bounds: For each question that is asked, the worst mean one will bear.
        alpha: Largest chance of withdrawing a challenger that is worse in none of them.
    """
    return [question.advance(samples[name]).finding() for name, question in questions(bounds, alpha).items()]


def questions(bounds: Mapping[str, float], alpha: float) -> dict[str, Question]:
    """Every question before its first number."""
    return {
        name: Question(name=name, bound=bound, alpha=alpha, level=alpha / len(bounds)) for name, bound in bounds.items()
    }


def log_wealth(x: Array, bound: float, low: float, high: float) -> Array:
    """Logarithm of the wealth after each number of bets that the mean is above ``bound``, along the last axis.

    Args:
        x: Numbers in [low, high], [..., n].
        bound: Mean that is bet against, inside of that.
        low: Smallest possible number.
        high: Largest possible number; bets that the mean is below the bound are those on -x.
    """
    if not low < bound < high:
        message = f"the bound {bound} does not lie between {low} and {high}"
        raise ValueError(message)
    total: Array | None = None
    for stake in STAKES:
        won = np.cumsum(np.log1p(stake / (bound - low) * (x - bound)), axis=-1)
        total = won if total is None else np.logaddexp(total, won)
    return np.asarray(total) - np.log(len(STAKES))


def first_at(logs: Array, level: float) -> int | None:
    """Number of bets after which the evidence first reached 1 / level; None if it never did."""
    reached = np.flatnonzero(logs >= -np.log(level))
    return int(reached[0]) + 1 if len(reached) else None


@dataclass(frozen=True, kw_only=True)
class Side:
    """The bets in one direction so far.

    Attributes:
        logs: Logarithm of the wealth of each stake.
        last: Logarithm of their mean.
        highest: The largest it ever was; 0 before the first bet.
        first: Number of bets after which it first reached its level; None if it never did.
    """

    logs: tuple[float, ...] = (0.0,) * len(STAKES)
    last: float = 0.0
    highest: float = 0.0
    first: int | None = None

    def advance(self, x: Array, bound: float, low: float, level: float, before: int) -> Side:
        """Bet on more numbers that the mean is above ``bound``; ``before`` bets were made."""
        won = np.stack(
            [
                start + np.cumsum(np.log1p(stake / (bound - low) * (x - bound)))
                for start, stake in zip(self.logs, STAKES, strict=True)
            ]
        )
        logs = np.logaddexp.reduce(won, axis=0) - np.log(len(STAKES))
        reached = first_at(logs, level)
        return Side(
            logs=tuple(map(float, won[:, -1])),
            last=float(logs[-1]),
            highest=max(self.highest, float(logs.max())),
            first=self.first if self.first is not None or reached is None else before + reached,
        )


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question and the bets on it so far: numbers may come in parts, and the parts come to the same as the whole.

    Attributes:
        name: ``errors``, ``latency``, ``disagreement`` or ``quality``.
        bound: Worst mean that one will bear.
        alpha: Level of the proof that it is not worse.
        level: Level of the proof that it is.
        n: Numbers so far.
        total: Their sum.
        worse: Bets that the mean is above the bound.
        fine: Bets that it is below.
    """

    name: str
    bound: float
    alpha: float
    level: float
    n: int = 0
    total: float = 0.0
    worse: Side = Side()
    fine: Side = Side()

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Question:
        """What ``dataclasses.asdict`` and JSON made of one."""
        sides = {name: Side(**(raw[name] | {"logs": tuple(raw[name]["logs"])})) for name in ("worse", "fine")}
        return cls(**({**raw} | sides))

    def advance(self, x: Array) -> Question:
        """Bet on more numbers, oldest first, [m]."""
        low = RANGES[self.name]
        if not low < self.bound < HIGH:
            message = f"the bound {self.bound} does not lie between {low} and {HIGH}"
            raise ValueError(message)
        if not len(x):
            return self
        return replace(
            self,
            n=self.n + len(x),
            total=self.total + float(x.sum()),
            worse=self.worse.advance(x, self.bound, low, self.level, self.n),
            fine=self.fine.advance(-x, -self.bound, -HIGH, self.alpha, self.n),
        )

    def finding(self) -> Finding:
        """What is known now."""
        late = self.name in LATE

        def reached(side: Side, level: float) -> int | None:
            """Of late numbers only all of a look together are a bet that was really made."""
            if not late:
                return side.first
            return self.n if self.n and side.last >= -np.log(level) else None

        return Finding(
            question=self.name,
            n=self.n,
            mean=self.total / self.n if self.n else None,
            bound=self.bound,
            worse=_largest(self.worse.last if late else self.worse.highest),
            worse_needed=1 / self.level,
            worse_at=reached(self.worse, self.level),
            fine=_largest(self.fine.last if late else self.fine.highest),
            fine_needed=1 / self.alpha,
            fine_at=reached(self.fine, self.alpha),
        )


def _largest(log: float) -> float:
    """Evidence as a number; at least 1, what it was before the first bet."""
    return float(min(np.exp(min(max(0.0, log), 690.0)), LARGEST))
