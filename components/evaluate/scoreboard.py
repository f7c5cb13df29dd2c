"""From answers to estimates: metrics, slices and paired differences, all on the same resamples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kfloop.core.statistics.bootstrap import AnyStatistic, Replicates, percentile, replicate
from kfloop.core.statistics.estimate import Estimate, wilson
from kfloop.core.statistics.metrics import METRICS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kfloop.core.sections import EvaluateConfig

SLICE = "slice/"  # slice/NAME/METRIC
SHARES = {  # metrics that are the share of rows of which something holds
    "classification": ("accuracy",),
    "generation": ("train_on_samples", "train_on_real", "coverage", "copies"),
}


@dataclass(frozen=True, kw_only=True)
class Board:
    """How the statistics of one comparison are resampled.

    Attributes:
        objective: What was learned.
        n: Number of test rows.
        n_slices: Number of slices.
        config: Resamples, level and seed.
        block: Neighbouring rows that depend on each other.
    """

    objective: str
    n: int
    n_slices: int
    config: EvaluateConfig
    block: int = 1

    @property
    def slice_level(self) -> float:
        """Level of one slice's interval, so that all of them together hold the configured level (Bonferroni)."""
        return 1 - (1 - self.config.level) / max(1, self.n_slices)

    def resample(self, statistics: Mapping[str, AnyStatistic]) -> dict[str, Replicates]:
        """Replicates of a model's metrics (``accuracy``) and slices (``slice/class:0/accuracy``); the same rows for every model."""
        config = self.config
        return replicate(statistics, self.n, resamples=config.bootstrap, seed=config.seed, block=self.block)

    def scores(self, replicates: Mapping[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of one model."""
        return shaped({name: self._estimate(name, item) for name, item in replicates.items()})

    def differences(self, challenger: Mapping[str, Replicates], other: Mapping[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of challenger minus other, paired; ``relative`` has errors as shares of the other's."""
        both = [name for name in challenger if name in other]
        minus = {name: percentile(challenger[name] - other[name], self._level(name)) for name in both}
        relative = {
            name: percentile(challenger[name].relative_to(other[name]), self._level(name))
            for name in both
            if METRICS[self.objective][_metric(name)].better == "lower"
        }
        return shaped(minus) | {"relative": shaped(relative)}

    def _level(self, name: str) -> float:
        return self.slice_level if name.startswith(SLICE) else self.config.level

    def _estimate(self, name: str, item: Replicates) -> Estimate:
        """Percentile interval; for a share of which every resample says the same, Wilson's, since none is that certain."""
        estimate = percentile(item, self._level(name))
        if _metric(name) in SHARES.get(self.objective, ()) and estimate.known and estimate.low == estimate.high:
            free = max(1, item.n // self.block)
            bounds = wilson(round(item.point * free), free, estimate.level)
            return Estimate(value=item.point, low=bounds.low, high=bounds.high, n=item.n, level=estimate.level)
        return estimate


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
