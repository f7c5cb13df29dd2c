"""From the false alarms a user will bear to the evidence that is needed, and in words what is promised.

Two promises, both for streams in which nothing drifts:

    per year   every block opens new bets with weight 1 (the e-SR procedure: Shin, Ramdas, Rinaldo, "E-detectors", arXiv 2203.03532).
               The evidence after n blocks has mean at most n, so that n blocks give at most n / threshold false alarms on
               average, for every n. threshold = blocks a year / false alarms a year.
    per life   the weights of all blocks there will ever be sum to 1 (a mixture over change points), so that the chance
               of any false alarm, ever, is at most 1 / threshold (Ville's inequality). threshold = 1 / chance.

The first one averages over the reference as well: a reference that happens to be odd takes more than its share.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from kfloop.errors import InputError

_PRIOR_SCALE = 20
SHARES = {"drift": 0.8, "quality": 0.2}
"""What each family of streams may spend of the false alarms; its threshold is the whole one divided by its share."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much evidence declares drift.

    Attributes:
        kind: ``per_year`` or ``per_life``.
        threshold: Evidence needed were there one family of streams.
        statement: What is promised, one sentence.
    """

    kind: str
    threshold: float
    statement: str

    @classmethod
    def per_year(cls, false_alarms: float, *, blocks: float) -> Budget:
        """Bound the mean number of false alarms.

        Args:
            false_alarms: Most false alarms a year on average, above 0.
            blocks: Blocks a year: rows a year / (batch * unit); see `blocks_per_year`. More than said give more alarms in proportion.

        Raises:
            InputError: A number is not positive, or so many alarms are allowed that every other block might raise one.
        """
        if not (math.isfinite(false_alarms) and math.isfinite(blocks) and 0 < false_alarms <= blocks / 2):
            message = f"{false_alarms} false alarms a year in {blocks} blocks a year, expected more than 0 and at most one in 2 blocks"
            raise InputError(message, hint="State a smaller number, such as 1, or check more often.")
        text = f"at most {false_alarms:g} false alarms a year on average, at {blocks:g} blocks a year"
        return cls(kind="per_year", threshold=blocks / false_alarms, statement=text)

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

    def log_weight(self, block: int) -> float:
        """Logarithm of the weight with which block number `block`, from 0, opens its bets."""
        if self.kind == "per_year":
            return 0.0
        k = block + 1
        return math.log(_PRIOR_SCALE / ((k + _PRIOR_SCALE - 1) * (k + _PRIOR_SCALE)))

    def log_needed(self, family: str) -> float:
        """Logarithm of the evidence at which a family of streams, ``drift`` or ``quality``, raises its alarm."""
        return math.log(self.threshold / SHARES[family])


def blocks_per_year(checks: float, rows: float, *, batch: int, unit: int = 1) -> float:
    """Blocks a year.

    Args:
        checks: Checks a year, 8760 of hourly ones.
        rows: Rows a check.
        batch: Units a block.
        unit: Rows a unit.
    """
    return checks * rows / (batch * unit)
