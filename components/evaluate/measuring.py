"""What is measured of an answer, by objective: the figures over all test rows, and of each slice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.evaluate.scoreboard import SLICE
from kfloop.components.evaluate.slices.fairness import Grouping, group_statistics
from kfloop.components.evaluate.slices.slicing import Slice
from kfloop.core.judging import forecast_channels, spread
from kfloop.core.statistics import classification, forecasting, multilabel, ranking, regression
from kfloop.core.statistics.bootstrap import AnyStatistic, CountStatistic, Statistic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kfloop.components.evaluate.new_rows import NewRows
    from kfloop.core.encoding import Examples
    from kfloop.core.versions import DatasetVersion

    Statistics = dict[str, AnyStatistic]

ORIGINS = ("base", "fresh")
NEW = "origin:new"  # fresh rows that the champion's dataset version did not hold
_ORIGIN_TEXTS = {"base": "rows the loop began with", "fresh": "freshly labelled rows"}
# Slices of these kinds are families of their own: more of them do not widen the intervals of classes, channels and origins.
FAMILIES = ("column", "group", "segment", "corruption", "drifted", "old")
# Figures that are also given for the rows of each origin, column and segment.
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
        slices: Slices by column, weak segments, and the slices of the cause.
        groupings: Groups that are to be treated alike.
        new: Fresh rows that the champion's dataset version did not hold; null without a champion.
    """

    objective: str
    target: NDArray[Any]
    origin: NDArray[np.str_]
    labels: list[str]
    channels: list[str]
    std: NDArray[np.float64]
    block: int
    groups: NDArray[np.int64] | None = None
    slices: tuple[Slice, ...] = ()
    groupings: tuple[Grouping, ...] = ()
    new: NewRows | None = None


def task_of(version: DatasetVersion, objective: str, test: Examples) -> Task:
    """The task of the test rows."""
    series = version.schema.get("series", {}) if version.modality == "series" else {}
    channels = forecast_channels(version, objective)
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
        std=spread(version, channels),
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
    some = [(f"origin:{origin}", task.origin == origin) for origin in ORIGINS]
    some += [(NEW, task.new.rows)] if task.new is not None else []
    some += [(part.name, part.rows) for part in task.slices]
    for name, rows in some:
        if rows.any():
            parts[name] = {figure: _among(task, answer, whole[figure], rows) for figure in _BY_ORIGIN[task.objective]}
    for grouping in task.groupings:
        parts |= group_statistics(task.objective, task.target, answer, whole, grouping)
    flat = {f"{SLICE}{where}/{name}": item for where, found in parts.items() for name, item in found.items()}
    return whole | flat


def n_slices(statistics: Mapping[str, AnyStatistic]) -> tuple[int, dict[str, int]]:
    """Number of slices by class, channel and origin in ``statistics``, and of those of each other family."""
    counts = Counter(_kind(name) for name in _slice_names(statistics))
    families = {kind: counts.pop(kind) for kind in FAMILIES if kind in counts}
    return counts.total(), families


def slice_facts(task: Task, statistics: Mapping[str, AnyStatistic]) -> dict[str, dict[str, Any]]:
    """Kind, number of rows and words of each slice in ``statistics``."""
    told = {part.name: (part.n, part.text) for part in task.slices}
    for grouping in task.groupings:
        told |= {part.name: (part.n, part.text) for part in grouping.parts}
        told[grouping.name] = (sum(part.n for part in grouping.compared), grouping.text)
    told |= {f"origin:{origin}": (int((task.origin == origin).sum()), _ORIGIN_TEXTS[origin]) for origin in ORIGINS}
    if task.new is not None:
        told[NEW] = (int(task.new.rows.sum()), task.new.text)
    for place, label in enumerate(task.labels):
        rows = task.target == place if task.objective == "classification" else None
        if task.objective == "multilabel":
            rows = task.target[:, place] >= multilabel.THRESHOLD
        if rows is not None:
            told[f"class:{label}"] = (int(rows.sum()), f"class {label}")
    told |= {f"channel:{name}": (len(task.target), f"channel {name}") for name in task.channels}
    found = {}
    for name in _slice_names(statistics):
        n, text = told.get(name, (0, name.partition(":")[2]))
        found[name] = {"kind": _kind(name), "n": n, "text": text}
    return found


def _slice_names(statistics: Mapping[str, AnyStatistic]) -> list[str]:
    flat = (name.removeprefix(SLICE).rsplit("/", 1)[0] for name in statistics if name.startswith(SLICE))
    return list(dict.fromkeys(flat))


def _kind(name: str) -> str:
    return name.partition(":")[0]


def _among(task: Task, answer: NDArray[Any], item: AnyStatistic, rows: NDArray[np.bool_]) -> AnyStatistic:
    """A figure of some rows; an area under a curve is ranked anew among them, which is faster than to rank all rows for each slice."""
    if isinstance(item, Statistic):
        return item.among(rows)
    own = ranking.auroc(task.target[rows] == 1, answer[rows])
    return CountStatistic(value=lambda counts: own.value(counts[:, rows]), kinds=item.kinds & rows)


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
