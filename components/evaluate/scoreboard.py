"""From answers to estimates: metrics, slices and paired differences, all on the same resamples.

Shares of independent rows get score intervals, which always have a width (``interval``). For anything else no interval has a width of 0 unless
nothing could make it wider. When every resample says the same, the bootstrap has seen no variation, which is not the same as there
being none: a ranking of ten rows without a fault is not one that errs never.

* A figure between 0 and 1 (F1, an area under a curve, a share of rows in groups) gets Wilson's interval; a difference of two gets what no
  disagreement on n rows still allows, Wilson's upper end for 0 of n. That takes each row as right or wrong as a whole.
* An error without a largest value has no such formula: its interval is unknown. A difference of exactly 0 stays 0, because numbers with
  fractions that agree on every row come from the same model.

No interval leaves the values that are possible, which an extrapolated tail could.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.bootstrap import (
    FEWEST_BLOCKS,
    FEWEST_GROUPS,
    AnyStatistic,
    Replicates,
    replicate,
)
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.statistics.intervals import interval
from kfloop.core.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.sections import EvaluateConfig

SLICE = "slice/"  # slice/NAME/METRIC
ROUNDING = 1e-12  # an interval narrower than this has no width


@dataclass(frozen=True, kw_only=True)
class Board:
    """How the statistics of one comparison are resampled.

    Attributes:
        objective: What was learned.
        n: Number of test rows.
        n_slices: Number of slices.
        config: Resamples, level and seed.
        block: Neighbouring rows that depend on each other.
        groups: Group of each row, whose rows depend on each other, 0..G-1, [n]; null where there are none.
        families: Number of slices of the kinds that are corrected by themselves, such as ``column``; they are not among ``n_slices``.
    """

    objective: str
    n: int
    n_slices: int
    config: EvaluateConfig
    block: int = 1
    groups: NDArray[np.int64] | None = None
    families: Mapping[str, int] = field(default_factory=dict)

    @property
    def resampling(self) -> dict[str, Any]:
        """By what rows were drawn, how many of these there are, and how many an interval needs."""
        if self.groups is not None:
            return {"by": "group", "units": len(np.unique(self.groups)), "fewest": FEWEST_GROUPS}
        if self.block > 1:
            return {"by": "block", "units": self.n // self.block, "fewest": FEWEST_BLOCKS}
        return {"by": "row", "units": self.n, "fewest": 1}

    @property
    def slice_level(self) -> float:
        """Level of one slice's interval, so that all of them together hold the configured level (Bonferroni)."""
        return 1 - (1 - self.config.level) / max(1, self.n_slices)

    def resample(self, statistics: Mapping[str, AnyStatistic]) -> dict[str, Replicates]:
        """Replicates of a model's metrics (``accuracy``) and slices (``slice/class:0/accuracy``); the same rows for every model."""
        config = self.config
        return replicate(
            statistics, self.n, resamples=config.bootstrap, seed=config.seed, block=self.block, groups=self.groups
        )

    def scores(self, replicates: Mapping[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of one model."""
        return shaped({name: self._estimate(name, item) for name, item in replicates.items()})

    def differences(self, challenger: Mapping[str, Replicates], other: Mapping[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of challenger minus other, paired; ``relative`` has errors as shares of the other's."""
        both = [name for name in challenger if name in other]
        minus = {name: self._difference(name, challenger[name], other[name]) for name in both}
        relative = {
            name: self._difference(name, challenger[name], other[name], relative=True)
            for name in both
            if METRICS[self.objective][_metric(name)].better == "lower"
        }
        return shaped(minus) | {"relative": shaped(relative)}

    def _level(self, name: str) -> float:
        if not name.startswith(SLICE):
            return self.config.level
        family = self.families.get(name.removeprefix(SLICE).partition(":")[0])
        return self.slice_level if family is None else 1 - (1 - self.config.level) / max(1, family)

    def _estimate(self, name: str, item: Replicates) -> Estimate:
        """The interval, or what takes its place when it has no width."""
        found = interval(item, self._level(name))
        if not _certain(found):
            metric = METRICS[self.objective][_metric(name)]
            return _within(found, metric.low, metric.high)
        if not self._is_share(name):
            return _unknown(found)
        free = self._free(item.n)
        bounds = wilson(round(item.point * free), free, found.level)
        return replace(found, low=bounds.low, high=bounds.high)

    def _difference(self, name: str, ours: Replicates, theirs: Replicates, *, relative: bool = False) -> Estimate:
        """The same of challenger minus other, or of that as a share of the other's value."""
        found = interval(ours.relative_to(theirs) if relative else ours - theirs, self._level(name))
        is_share = self._is_share(name)
        if not _certain(found):
            return _within(found, -1.0, 1.0) if is_share and not relative else found
        if not is_share:
            return found if found.value == 0 else _unknown(found)
        half = wilson(0, self._free(found.n), found.level).high / (abs(theirs.point) if relative else 1.0)
        return replace(found, low=found.value - half, high=found.value + half)

    def _is_share(self, name: str) -> bool:
        """Whether a figure lies between 0 and 1."""
        metric = METRICS[self.objective][_metric(name)]
        return (metric.low, metric.high) == (0.0, 1.0)

    def _free(self, n: int) -> int:
        """Number of independent rows among ``n``."""
        return max(1, n * int(self.resampling["units"]) // self.n)


def shaped(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """``overall`` and ``slices`` from flat names."""
    slices: dict[str, dict[str, Estimate]] = {}
    for name, item in estimates.items():
        if name.startswith(SLICE):
            where, metric = name.removeprefix(SLICE).rsplit("/", 1)
            slices.setdefault(where, {})[metric] = item
    return {
        "overall": {name: item for name, item in estimates.items() if not name.startswith(SLICE)},
        "slices": slices,
    }


def _metric(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _certain(found: Estimate) -> bool:
    """Whether every resample says the same."""
    return found.known and found.high - found.low <= ROUNDING * max(1.0, abs(found.value))


def _within(found: Estimate, low: float, high: float) -> Estimate:
    """The interval without values that are not possible; an unknown end stays unknown."""
    return replace(found, low=max(found.low, low), high=min(found.high, high))


def _unknown(found: Estimate) -> Estimate:
    return replace(found, low=math.nan, high=math.nan)
