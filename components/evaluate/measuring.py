"""What is measured of an answer, by objective: the figures over all test rows, and of each slice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.scoreboard import SLICE
from kfloop.core.statistics import classification, forecasting, multilabel, ranking, regression

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.core.encoding import Examples
    from kfloop.core.statistics.bootstrap import AnyStatistic
    from kfloop.core.versions import DatasetVersion

    Statistics = dict[str, AnyStatistic]

ORIGINS = ("base", "fresh")
# Figures that are also given for the rows of each origin.
_BY_ORIGIN = {
    "classification": ("accuracy",),
    "multilabel": ("micro_f1",),
    "regression": ("rmse", "r2"),
    "forecasting": ("mse", "mae"),
    "anomaly": ("auroc",),
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """The truth about the test rows, and what is needed to hold answers against it.

    Attributes:
        objective: What was learned.
        target: The truth, as ``Examples.target`` has it.
        origin: Where each row comes from, str [N].
        labels: Class names.
        channels: Channels of a forecast.
        std: Standard deviation of each channel in the training rows, [C]; empty without a forecast.
        block: Neighbouring rows that depend on each other, because their windows overlap.
        groups: Group of each row (``data.group``), 0..G-1, [N]; null where rows have none. Windows of a series are told apart by time.
    """

    objective: str
    target: NDArray[Any]
    origin: NDArray[np.str_]
    labels: list[str]
    channels: list[str]
    std: NDArray[np.float64]
    block: int
    groups: NDArray[np.int64] | None = None


def task_of(version: DatasetVersion, objective: str, test: Examples) -> Task:
    """The task of the test rows."""
    series = version.schema.get("series", {}) if version.modality == "series" else {}
    channels = [str(name) for name in series.get("channels", [])] if objective == "forecasting" else []
    block = 1
    if series:
        # A forecast's errors depend on each other over the horizon; what is said about a window, over the whole window.
        dependent = int(series["horizon"] if objective == "forecasting" else series["context"])
        block = forecasting.block_length(dependent, int(series["stride"]))
    return Task(
        objective=objective,
        target=test.target,
        origin=test.origin,
        labels=list(version.labels),
        channels=channels,
        std=_spread(version, channels),
        block=block,
        groups=groups_of(version, test.ids),
    )


def groups_of(version: DatasetVersion, ids: NDArray[np.str_]) -> NDArray[np.int64] | None:
    """The group of each of these test rows, as a number; null where rows have none."""
    if version.modality == "series" or "group" not in version.table("test").column_names:
        return None
    table = version.table("test", ["id", "group"])
    group = dict(zip(table["id"].to_pylist(), table["group"].to_pylist(), strict=True))
    return np.unique([str(group[name]) for name in ids.tolist()], return_inverse=True)[1]


def statistics_of(task: Task, answer: NDArray[Any]) -> Statistics:
    """Every figure of a model's answer, and of its slices as ``slice/NAME/METRIC``.

    Args:
        task: The truth.
        answer: The model's answer for each row, as its signature says.
    """
    whole, parts = _MEASURES[task.objective](task, answer)
    for origin in ORIGINS:
        rows = task.origin == origin
        if rows.any():
            parts[f"origin:{origin}"] = {name: whole[name].among(rows) for name in _BY_ORIGIN[task.objective]}
    flat = {f"{SLICE}{where}/{name}": item for where, found in parts.items() for name, item in found.items()}
    return whole | flat


def n_slices(statistics: Mapping[str, AnyStatistic]) -> int:
    """Number of slices in ``statistics``."""
    return len({name.rsplit("/", 1)[0] for name in statistics if name.startswith(SLICE)})


def _classes(task: Task, answer: NDArray[Any]) -> tuple[Statistics, dict[str, Statistics]]:
    whole = classification.overall(task.target, answer)
    rows = {name: task.target == place for place, name in enumerate(task.labels)}
    parts = {f"class:{name}": {"accuracy": whole["accuracy"].among(here)} for name, here in rows.items() if here.any()}
    return whole, parts


def _sets(task: Task, answer: NDArray[Any]) -> tuple[Statistics, dict[str, Statistics]]:
    found = zip(task.labels, multilabel.f1_by_label(task.target, answer), strict=True)
    parts: dict[str, Statistics] = {f"class:{name}": {"f1": item} for name, item in found if item.n}
    return dict(multilabel.overall(task.target, answer)), parts


def _numbers(task: Task, answer: NDArray[Any]) -> tuple[Statistics, dict[str, Statistics]]:
    return dict(regression.overall(task.target, answer)), {}


def _forecasts(task: Task, answer: NDArray[Any]) -> tuple[Statistics, dict[str, Statistics]]:
    found = forecasting.by_channel(task.target, answer, task.std, task.channels)
    parts: dict[str, Statistics] = {f"channel:{name}": dict(item) for name, item in found.items()}
    return dict(forecasting.overall(task.target, answer, task.std)), parts


def _anomalies(task: Task, answer: NDArray[Any]) -> tuple[Statistics, dict[str, Statistics]]:
    return dict(ranking.overall(task.target == 1, answer)), {}


_MEASURES = {
    "classification": _classes,
    "multilabel": _sets,
    "regression": _numbers,
    "forecasting": _forecasts,
    "anomaly": _anomalies,
}


def _spread(version: DatasetVersion, channels: list[str]) -> NDArray[np.float64]:
    """Standard deviation of each channel over the training rows; 1 for a channel that never changes."""
    table = version.table("train", channels)
    found = np.array([np.nanstd(np.asarray(table[name].to_numpy(), dtype=np.float64)) for name in channels])
    return np.where(found > 0, found, 1.0) if channels else np.empty(0)
