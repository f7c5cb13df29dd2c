"""The main figure of an objective, and what it needs to know of the data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.statistics import classification, forecasting, multilabel, ranking, regression
from kfloop.core.statistics.bootstrap import Statistic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kfloop.core.statistics.bootstrap import AnyStatistic
    from kfloop.core.versions import DatasetVersion

    Floats = NDArray[np.float64]


def main_statistic(objective: str, target: NDArray[Any], answer: NDArray[Any], std: Floats) -> AnyStatistic:
    """The main figure (``kfloop.core.statistics.metrics.primary``) of answers to rows, but for generation, where there is none of rows.

    Args:
        objective: What was learned.
        target: The truth, as ``Examples.target`` has it, all known.
        answer: One answer for each.
        std: Of a forecast, standard deviation of each channel in the training rows, [C].
    """
    if objective == "classification":
        return classification.accuracy(target, answer)
    if objective == "multilabel":
        found = multilabel.overall(target, answer)["micro_f1"]
        both = np.column_stack([part.sum(axis=1) for part in np.split(found.features, 2, axis=1)])
        # The same sums without a column for each label, of which there may be thousands.
        return Statistic(features=both, value=_f1, n=found.n)
    if objective == "regression":
        return regression.overall(target, answer)["rmse"]
    if objective == "forecasting":
        return forecasting.overall(target, answer, std)["mse"]
    return ranking.auroc(target == 1, answer)


def point(statistic: AnyStatistic) -> float:
    """The figure of the rows themselves; NaN where it is not defined."""
    if isinstance(statistic, Statistic):
        return float(statistic.value(statistic.features.sum(axis=0, keepdims=True))[0])
    return float(statistic.value(np.ones((1, statistic.size)))[0])


def forecast_channels(version: DatasetVersion, objective: str) -> list[str]:
    """Names of the channels of a forecast; none without one."""
    series = version.schema.get("series", {}) if version.modality == "series" else {}
    return [str(name) for name in series.get("channels", [])] if objective == "forecasting" else []


def spread(version: DatasetVersion, channels: Sequence[str]) -> Floats:
    """Standard deviation of each channel over the training rows, [C]; 1 for a channel that never changes."""
    if not channels:
        return np.empty(0)
    table = version.table("train", list(channels))
    found = np.array([np.nanstd(np.asarray(table[name].to_numpy(), dtype=np.float64)) for name in channels])
    return np.where(found > 0, found, 1.0)


def _f1(sums: Floats) -> Floats:
    return 2 * sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan)
