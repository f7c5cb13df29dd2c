"""The main figure of an objective over some of the test rows, as a statistic that is resampled with everything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.core.judging import main_statistic
from kfloop.core.statistics.bootstrap import CountStatistic, Statistic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kfloop.components.evaluate.measuring import Task
    from kfloop.core.statistics.bootstrap import AnyStatistic


def figure(task: Task, rows: NDArray[np.int64], answer: NDArray[Any]) -> AnyStatistic:
    """The main figure over some of the test rows, as a statistic of all of them.

    Args:
        task: The truth.
        rows: Which test rows.
        answer: Answers for these.

    Raises:
        ValueError: There are answers for another number of rows.
    """
    if len(answer) != len(rows):
        message = f"{len(answer)} answers for {len(rows)} rows"
        raise ValueError(message)
    return spread_out(main_statistic(task.objective, task.target[rows], answer, task.std), rows, len(task.target))


def spread_out(found: AnyStatistic, rows: NDArray[np.int64], n: int) -> AnyStatistic:
    """A statistic of ``rows`` as one of ``n`` rows, of which the others do not count."""
    if isinstance(found, Statistic):
        features = np.zeros((n, found.features.shape[1]))
        features[rows] = found.features
        return Statistic(features=features, value=found.value, n=found.n)
    kinds = np.zeros((len(found.kinds), n), dtype=np.bool_)
    kinds[:, rows] = found.kinds
    return CountStatistic(value=lambda counts: found.value(counts[:, rows]), kinds=kinds)


def unknown(task: Task, rows: NDArray[np.int64]) -> AnyStatistic:
    """A figure of some of the test rows that nobody could compute."""
    return Statistic(
        features=np.zeros((len(task.target), 1)), value=lambda sums: np.full(len(sums), np.nan), n=len(rows)
    )


def pooled(several: list[AnyStatistic]) -> AnyStatistic:
    """One figure over the answers of several rounds for the same rows; of ranks, which cannot be added, the mean."""
    first = several[0]
    if isinstance(first, Statistic):
        features = sum(
            (item.features for item in several if isinstance(item, Statistic)), np.zeros(first.features.shape)
        )
        return Statistic(features=features, value=first.value, n=first.n)
    return CountStatistic(
        value=lambda counts: np.mean([item.value(counts) for item in several], axis=0), kinds=first.kinds
    )
