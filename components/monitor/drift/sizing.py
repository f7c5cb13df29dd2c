"""How much the latest rows differ from the reference: does the drift matter, and what moved?"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from kfloop.components.monitor.drift.parts import grown_parts
from kfloop.components.monitor.drift.reference import seasons_of
from kfloop.components.monitor.drift.table import CLASSES, usable_rows
from kfloop.core.drift.columns import NUMERIC
from kfloop.core.statistics.effects import Effect, c2st_auc, share_shifts
from kfloop.core.statistics.estimate import Estimate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kfloop.components.monitor.drift.fitting import Watched
    from kfloop.components.monitor.drift.reference import Reference
    from kfloop.components.monitor.log.traffic import Traffic
    from kfloop.core.drifted import Part

    Array = NDArray[np.float64]

UNKNOWN = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
LATEST, MOST_LATEST = 200, 4000
"""Rows that are sized: enough to be stable, few enough not to dilute a recent change."""
_ROWS_PER_FEATURE = 4
_SEASON_ROWS = 30


@dataclass(frozen=True, kw_only=True, eq=False)
class Sizes:
    """Effect sizes of the latest rows.

    Attributes:
        auc: How well a classifier tells the latest rows from the reference.
        effects: Shift of every quantity, the largest first.
        columns: Largest shift of each column of the request, in standard deviations.
        parts: The parts of a table that grew most.
    """

    auc: Estimate = UNKNOWN
    effects: tuple[Effect, ...] = ()
    columns: dict[str, float] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @property
    def moved(self) -> tuple[str, ...]:
        """What moved most, the largest first; what moved by less than a tenth of a standard deviation did not."""
        return tuple(effect.name for effect in self.effects if not abs(effect.shift_sd) < 0.1)[:8]  # noqa: PLR2004 - NaN counts as moved


def rows_sized(watched: Watched, size: int, least: int) -> int:
    """How many of the latest rows to size.

    Args:
        watched: The watch.
        size: Units of its coming block.
        least: Least number of rows to judge.
    """
    return min(max(LATEST, least, 4 * size * watched.watch.settings.unit), MOST_LATEST)


def measure(
    watched: Watched, reference: Reference, latest: Traffic | None, described: Sequence[Mapping[str, Any]] = ()
) -> Sizes:
    """Measure the latest rows against the reference.

    Args:
        watched: The watch.
        reference: The whole reference.
        latest: The latest rows of the champion, the oldest first; None where there are none.
        described: Columns of a table, as its encoder describes them; empty where requests are no tables.
    """
    objective, labels = watched.table.objective, watched.table.labels
    classes = objective == CLASSES
    expected = reference.answers[usable_rows(reference.embedding, reference.answers, objective)]
    if latest is None:
        return Sizes()
    embedding = latest.embedding if watched.table.embedding is not None else latest.embedding[:, :0]
    latest = latest.take(usable_rows(embedding, latest.answers, objective))
    if not len(latest):
        return Sizes()
    columns = watched.table.columns(latest.inputs, latest.embedding, latest.answers)
    seasons = seasons_of(latest.ts_ns / 1e9, watched.season)
    then, now = _values(watched, watched.columns), _values(watched, columns)
    before, enough = watched.columns, True
    if seasons is not None and watched.seasons is not None:
        same = np.isin(watched.seasons, seasons)  # an afternoon is compared with afternoons
        enough = int(same.sum()) >= _SEASON_ROWS
        then = (then[0][same], then[1][same]) if enough else then
        before = {name: cells[same] for name, cells in before.items()} if enough else before
    effects = _effects(watched, then, now)
    if classes:
        confidence = Effect(
            name="confidence",
            reference=float(expected.max(axis=1).mean()),
            current=float(latest.answers.max(axis=1).mean()),
            shift_sd=_ratio(
                float(latest.answers.max(axis=1).mean() - expected.max(axis=1).mean()),
                float(expected.max(axis=1).std()),
            ),
        )
        effects += [confidence, *share_shifts(expected, latest.answers, list(labels))]
    effects.sort(key=lambda effect: -abs(effect.shift_sd) if math.isfinite(effect.shift_sd) else -math.inf)
    return Sizes(
        auc=c2st_auc(*(_told_apart(values, len(now[0])) for values, _ in (then, now))) if enough else UNKNOWN,
        effects=tuple(effects),
        columns=_by_column(watched, effects),
        parts=grown_parts([one for one in described if one["name"] in watched.table.inputs], before, columns),
    )


def _values(watched: Watched, table: dict[str, NDArray[Any]]) -> tuple[Array, Array]:
    """Standardised values, NaN where a cell is missing, [n, values], and which cells are, [n, columns]."""
    columns = watched.watch.columns
    rows, width = columns.encode(table).astype(float), len(columns.owners)
    missing = rows[:, width : width + len(columns.items)]
    return np.where(missing[:, columns.owners] == 0, rows[:, :width], np.nan), missing


def _told_apart(values: Array, rows: int) -> Array:
    """What the classifier is given: values and, where there are rows enough, their squares; 0 where a cell is missing."""
    values = np.nan_to_num(values)
    return np.concatenate([values, values**2], axis=1) if values.shape[1] * _ROWS_PER_FEATURE <= rows else values


def _effects(watched: Watched, then: tuple[Array, Array], now: tuple[Array, Array]) -> list[Effect]:
    """Shift of every value in units people know, and of the share of missing cells where that moved."""
    columns = watched.watch.columns
    found = []
    with np.errstate(invalid="ignore"):
        spread = np.array([_spread(part) for part in then[0].T])
        means = [np.array([_mean(part) for part in held[0].T]) for held in (then, now)]
    for place, (name, owner) in enumerate(zip(columns.value_names, columns.owners, strict=True)):
        item = columns.items[owner]
        scale, centre = item.spread, item.centre
        if item.kind != NUMERIC:
            share = item.shares[place - int(np.searchsorted(columns.owners, owner))]
            scale, centre = max((share * (1 - share)) ** 0.5, 1e-3), share
        before, after = (float(part[place]) for part in means)
        found.append(
            Effect(
                name=name,
                reference=centre + scale * before,
                current=centre + scale * after,
                shift_sd=_ratio(after - before, float(spread[place])),
            )
        )
    for place, item in enumerate(columns.items):
        before, after = float(then[1][:, place].mean()), float(now[1][:, place].mean())
        if before != after:
            deviation = max(before * (1 - before), 1 / len(then[1])) ** 0.5
            found.append(
                Effect(
                    name=f"{item.name}: missing", reference=before, current=after, shift_sd=(after - before) / deviation
                )
            )
    return found


def _by_column(watched: Watched, effects: list[Effect]) -> dict[str, float]:
    owners = dict(zip(watched.watch.columns.value_names, watched.watch.columns.owners.tolist(), strict=True))
    largest: dict[str, float] = {}
    for effect in effects:
        name = watched.watch.columns.items[owners[effect.name]].name if effect.name in owners else ""
        if name in watched.table.inputs:
            largest[name] = max(largest.get(name, 0.0), abs(effect.shift_sd))
    return largest


def _mean(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _spread(values: Array) -> float:
    known = values[np.isfinite(values)]
    return float(known.std()) if len(known) else math.nan


def _ratio(difference: float, spread: float) -> float:
    if spread > 0:
        return difference / spread
    return 0.0 if difference == 0 else math.nan
