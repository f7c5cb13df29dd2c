"""From the false alarms a user will bear to the evidence that is needed, and in words what is promised.

Three promises, all for streams in which nothing drifts:

    per year      block k opens new bets with weight a d_k + p_k, where a is the number of false alarms a year, d_k the years between the last rows of
                  the two blocks before, and the p_k sum to .05 over all blocks there will ever be. threshold = 1. How fast rows come need not be known.
    per schedule  every block opens new bets with weight 1 (the e-SR procedure: Shin, Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532).
                  threshold = blocks of the schedule / false alarms in it.
    per life      the weights of all blocks there will ever be sum to 1 (a mixture over change points), so that the chance
                  of any false alarm, ever, is at most 1 / threshold (Ville's inequality). threshold = 1 / chance.

Why the first one holds: let M_k be the evidence after block k, the sum over the bets that are open of weight times wealth. A weight w_k is fixed before the rows
of block k are looked at, and a bet's wealth grows by a factor of mean at most 1 given the past, so that E[M_k | past] <= M_k-1 + w_k: the evidence less all
weights so far is a supermartingale. An alarm is raised at M >= 1, and all evidence is thrown away when it is acknowledged; what is thrown away is at least 1 for each
alarm. So the mean number of alarms up to any time is at most the mean of the sum of the weights, and the d_k sum to at most the time that passed: T years give at most
a T + .05 false alarms on average, at whatever rate rows come, also one that changes. A d_k that is cut off, or 0 because a clock was set back, only makes the sum
smaller; time that a clock which was set back runs through again counts again. With w_k = 1 the same argument gives the promise of a schedule.

The promises average over the reference as well: a reference that happens to be odd takes more than its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kfloop.errors import InputError

_PRIOR_SCALE = 20
YEAR_SECONDS = 365.25 * 86_400
FIRST_SHARE = 0.05
"""False alarms over the life of a champion beside those of its years: what the first blocks bet with, before any time has passed."""
_MOST_WEIGHT = 0.01  # of the threshold: a long silence must not let the next block alarm by itself
SHARES = {"drift": 0.8, "quality": 0.2}
"""What each family of streams may spend of the false alarms; its threshold is the whole one divided by its share."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much evidence declares drift.

    Attributes:
        kind: ``per_year``, ``per_schedule`` or ``per_life``.
        threshold: Evidence needed were there one family of streams.
        statement: What is promised, one sentence.
        a_year: False alarms a year, of ``per_year``.
    """

    kind: str
    threshold: float
    statement: str
    a_year: float = 0.0

    @classmethod
    def per_year(cls, false_alarms: float) -> Budget:
        """Bound the mean number of false alarms in calendar time, however fast rows come; rows need times.

        Args:
            false_alarms: Most false alarms a year on average, above 0 and at most 100.

        Raises:
            InputError: The number is out of range.
        """
        if not 0 < false_alarms <= 100:  # noqa: PLR2004 - two a week are no watch any more
            message = f"{false_alarms} false alarms a year, expected more than 0 and at most 100"
            raise InputError(message, hint="State how many you will bear, such as 1.")
        text = (
            f"at most {false_alarms:g} false alarms a year on average, and {FIRST_SHARE:g} more in the champion's life"
        )
        return cls(kind="per_year", threshold=1.0, statement=text, a_year=false_alarms)

    @classmethod
    def per_schedule(cls, false_alarms: float, *, blocks: float) -> Budget:
        """Bound the mean number of false alarms in a known number of blocks.

        Args:
            false_alarms: Most false alarms on average, above 0.
            blocks: Blocks of the schedule: rows / (batch * unit). More than said give more alarms in proportion.

        Raises:
            InputError: A number is not positive, or so many alarms are allowed that every other block might raise one.
        """
        if not (math.isfinite(false_alarms) and math.isfinite(blocks) and 0 < false_alarms <= blocks / 2):
            message = (
                f"{false_alarms} false alarms in {blocks} blocks, expected more than 0 and at most one in 2 blocks"
            )
            raise InputError(message, hint="State a smaller number, such as 1, or check more often.")
        text = f"at most {false_alarms:g} false alarms on average in {blocks:g} blocks"
        return cls(kind="per_schedule", threshold=blocks / false_alarms, statement=text)

    @classmethod
    def per_life(cls, chance: float) -> Budget:
        """Bound the chance of any false alarm in the life of a champion.

        Raises:
            InputError: The chance is not between 0 and 1.
        """
        if not 0 < chance < 1:
            message = f"the chance of a false alarm is {chance}, expected a number between 0 and 1"
            raise InputError(message, hint="0.05 is common.")
        text = f"a chance of at most {chance:g} of any false alarm, however long the champion is watched"
        return cls(kind="per_life", threshold=1 / chance, statement=text)

    def tightened(self, factor: float) -> Budget:
        """Need less evidence than is proven to suffice, because a rehearsal on the loop's own reference needed less; see `Rehearsal.factor`.

        Args:
            factor: Share of the evidence that is needed still, above 0 and at most 1.

        Raises:
            InputError: The factor is not in that range.
        """
        if not 0 < factor <= 1:
            message = f"the factor is {factor}, expected a number above 0 and at most 1"
            raise InputError(message, hint="Take the factor of a rehearsal.")
        text = f"{self.statement}, by simulation on the reference: {1 / factor:.3g} times less evidence than is proven to suffice"
        return replace(self, threshold=self.threshold * factor, statement=text)

    def log_weight(self, block: int, seconds: float = 0.0) -> float:
        """Logarithm of the weight with which block number `block`, from 0, opens its bets.

        Args:
            block: Its number.
            seconds: Time between the last rows of the two blocks before it; what is below 0 counts as 0.
        """
        if self.kind == "per_schedule":
            return 0.0
        k = block + 1
        prior = _PRIOR_SCALE / ((k + _PRIOR_SCALE - 1) * (k + _PRIOR_SCALE))
        if self.kind == "per_life":
            return math.log(prior)
        passed = min(self.a_year * max(seconds, 0.0) / YEAR_SECONDS, _MOST_WEIGHT)
        return math.log(passed + FIRST_SHARE * prior)

    def log_needed(self, family: str) -> float:
        """Logarithm of the evidence at which a family of streams, ``drift`` or ``quality``, raises its alarm."""
        return math.log(self.threshold / SHARES[family])
