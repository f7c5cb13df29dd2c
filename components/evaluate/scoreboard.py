"""From probabilities to estimates: metrics, slices and paired differences, all on the same resamples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics.bootstrap import Replicates, percentile, replicate
from kfloop.core.statistics.classification import accuracy, overall, predictions
from kfloop.core.statistics.estimate import Estimate, wilson

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.core.sections import EvaluateConfig

ORIGINS = ("base", "fresh")
EXAMPLES = 24


@dataclass(frozen=True, kw_only=True)
class Board:
    """The test rows, the slices they fall into, and how their statistics are resampled.

    Attributes:
        labels: True classes, int64 [N].
        slices: Name of each slice and its rows, bool [N].
        config: Resamples, level and seed.
    """

    labels: NDArray[np.int64]
    slices: dict[str, NDArray[np.bool_]]
    config: EvaluateConfig

    @property
    def slice_level(self) -> float:
        """Level of one slice's interval, so that all of them together hold the configured level (Bonferroni)."""
        return 1 - (1 - self.config.level) / max(1, len(self.slices))

    def resample(self, probabilities: NDArray[np.floating]) -> dict[str, Replicates]:
        """Replicates of a model's metrics (``accuracy``) and slices (``slice/class:0``); the same rows for every model."""
        statistics = overall(self.labels, probabilities)
        for name, rows in self.slices.items():
            statistics[f"slice/{name}"] = accuracy(self.labels, probabilities, rows)
        config = self.config
        return replicate(statistics, len(self.labels), resamples=config.bootstrap, seed=config.seed)

    def scores(self, replicates: dict[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of one model."""
        return self._shaped({name: self._estimate(name, item) for name, item in replicates.items()})

    def differences(self, challenger: dict[str, Replicates], other: dict[str, Replicates]) -> dict[str, Any]:
        """``overall`` and ``slices`` of challenger minus other, paired."""
        return self._shaped(
            {name: percentile(item - other[name], self._level(name)) for name, item in challenger.items()}
        )

    def _level(self, name: str) -> float:
        return self.slice_level if name.startswith("slice/") else self.config.level

    def _estimate(self, name: str, item: Replicates) -> Estimate:
        """Percentile interval; for a share of which every resample says the same, Wilson's, since none is that certain."""
        estimate = percentile(item, self._level(name))
        share = name == "accuracy" or name.startswith("slice/")
        if share and estimate.known and estimate.low == estimate.high:
            return wilson(round(item.point * item.n), item.n, estimate.level)
        return estimate

    def _shaped(self, estimates: dict[str, Estimate]) -> dict[str, Any]:
        prefix = "slice/"
        return {
            "overall": {name: item for name, item in estimates.items() if not name.startswith(prefix)},
            "slices": {
                name.removeprefix(prefix): {"accuracy": item}
                for name, item in estimates.items()
                if name.startswith(prefix)
            },
        }


def slices_of(labels: NDArray[np.int64], origin: NDArray[np.str_], classes: list[str]) -> dict[str, NDArray[np.bool_]]:
    """The slices that have rows: ``class:NAME`` and ``origin:base``, ``origin:fresh``."""
    slices = {f"class:{name}": labels == index for index, name in enumerate(classes)}
    slices |= {f"origin:{name}": origin == name for name in ORIGINS}
    return {name: rows for name, rows in slices.items() if rows.any()}


def misclassified(
    ids: NDArray[np.str_], labels: NDArray[np.int64], probabilities: NDArray[np.floating], classes: list[str]
) -> list[dict[str, Any]]:
    """Up to 24 wrong answers, the most confident first; a row without a usable answer has the prediction null."""
    predicted = predictions(probabilities)
    confidence = np.where(predicted >= 0, np.where(np.isfinite(probabilities), probabilities, 0).max(axis=1), np.nan)
    wrong = np.flatnonzero(predicted != labels)
    wrong = wrong[np.argsort(-np.nan_to_num(confidence[wrong], nan=math.inf), kind="stable")][:EXAMPLES]
    return [
        {
            "id": str(ids[row]),
            "label": classes[int(labels[row])],
            "predicted": classes[int(predicted[row])] if predicted[row] >= 0 else None,
            "confidence": float(confidence[row]),
        }
        for row in wrong
    ]
