"""Does the watch keep its promise on this reference? A short simulation in a world where nothing drifts.

In every run the loop's own reference is the population: a reference of the same size and the traffic are drawn from it with replacement, unit by
unit (rows of a unit stay together), the traffic season by season. A year is too long to simulate, and its promise too seldom broken to see; but it rests
on the mean of the evidence, which is at most the sum of the weights at every threshold, so it is looked at where a broken one would show: at a
chance of one in five, in blocks of weight 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.drift.budget import Budget
from kfloop.core.drift.fitting import fit_watch
from kfloop.core.drift.settings import Settings, checked_seasons
from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.drift.columns import Table

ALLOWED = 0.2


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """What the simulation found.

    Attributes:
        runs: Simulated lives.
        blocks: Blocks of each.
        allowed: Share of them that may alarm.
        alarms: Those that did.
        share: Their share, with its 95 % Wilson interval.
        highest: The largest evidence of drift in each run, natural logarithms, rising.
    """

    runs: int
    blocks: int
    allowed: float
    alarms: int
    share: Estimate
    highest: tuple[float, ...]

    @property
    def kept(self) -> bool:
        """Whether the simulation is in keeping with the promise; False only where it is clearly broken."""
        return self.share.low <= self.allowed

    @property
    def factor(self) -> float:
        """Share of the proven evidence of drift that these runs needed, for `Budget.tightened`; 1 where they are too few to tell.

        With 95 % confidence the k-th smallest of the highest evidences is above the quantile that one run in five exceeds. The same factor is taken at
        higher thresholds, where the chance of reaching evidence x falls like 1 / x: an observation, not a theorem, and true of independent rows only.
        """
        from scipy.stats import binom

        rank = int(binom.ppf(0.95, self.runs, 1 - self.allowed)) + 1
        if rank > self.runs:
            return 1.0
        needed = Budget.per_schedule(self.allowed, blocks=self.blocks).log_needed("drift")
        return float(min(1.0, np.exp(self.highest[rank - 1] - needed)))

    @property
    def statement(self) -> str:
        """One sentence for the report."""
        found = f"{self.alarms} of {self.runs} simulated schedules of {self.blocks} blocks without drift alarmed"
        return f"{found}, {self.allowed:.0%} may" + (
            "" if self.kept else ": the promise does not hold on this reference"
        )


def rehearse(
    table: Table,
    *,
    kinds: Mapping[str, str],
    seasons: Any = None,
    settings: Settings | None = None,
    runs: int = 20,
    blocks: int = 100,
    seed: int = 0,
) -> Rehearsal:
    """Simulate.

    Args:
        table: The reference, as for `fit_watch`.
        kinds: Columns to watch.
        seasons: Season of each row.
        settings: How to bet.
        runs: Simulated lives.
        blocks: Blocks of each.
        seed: Of the draws.

    Raises:
        InputError: As `fit_watch`.
    """
    settings = settings or Settings()
    held = {name: np.asarray(table[name]) for name in kinds}
    n = len(next(iter(held.values()), ()))
    marks = checked_seasons(seasons, n, settings.n_seasons)
    count = n // settings.unit
    by_season = [np.flatnonzero(marks[:: settings.unit][:count] == season) for season in range(settings.n_seasons)]
    present = [units for units in by_season if len(units)]
    budget = Budget.per_schedule(ALLOWED, blocks=blocks)
    highest, alarms = [], 0
    for run in range(runs):
        rng = np.random.default_rng([seed, run])
        known = _rows(rng.integers(0, count, count), settings.unit)
        watch = fit_watch(_taken(held, known), budget, kinds=kinds, seasons=marks[known], settings=settings)
        state, top = watch.start(), -np.inf
        for block in range(blocks):
            units = present[block % len(present)]
            rows = _rows(units[rng.integers(0, len(units), settings.batch)], settings.unit)
            state = watch.advance(state, _taken(held, rows), marks[rows])
            top = max(top, state.log_drift)
        highest.append(top)
        alarms += state.drift_row is not None or state.quality_row is not None
    return Rehearsal(
        runs=runs,
        blocks=blocks,
        allowed=ALLOWED,
        alarms=alarms,
        share=wilson(alarms, runs),
        highest=tuple(sorted(highest)),
    )


def _rows(units: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    return np.asarray((units[:, None] * size + np.arange(size)).ravel())


def _taken(table: Mapping[str, NDArray[Any]], rows: NDArray[np.intp]) -> dict[str, NDArray[Any]]:
    return {name: cells[rows] for name, cells in table.items()}
